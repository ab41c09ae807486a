"""The baseline: outlines and sizes on a small picture."""

from __future__ import annotations

import cv2
import numpy as np

from tests.bench.seed_sections import sections


def test_equal_outlines_are_one_clot_and_others_are_not() -> None:
    overview = np.full((512, 512, 3), 250, np.uint8)
    for centre in ((120, 100), (120, 300)):
        cv2.ellipse(overview, centre, (80, 40), 0, 0, 360, (200, 60, 120), -1)
    cv2.circle(overview, (380, 250), 30, (200, 60, 120), -1)
    found = sections(overview)
    assert len(found.clot) == 3
    first, circle, second = (
        found.clot[found.labels[y, x] - 1] for x, y in ((120, 100), (380, 250), (120, 300))
    )
    assert first == second != circle
    assert found.labels.shape == (512, 512) and found.labels.dtype == np.int32


def test_it_goes_by_outline_alone_whatever_is_inside() -> None:
    overview = np.full((512, 512, 3), 250, np.uint8)
    cv2.ellipse(overview, (120, 100), (80, 40), 0, 0, 360, (200, 60, 120), -1)
    cv2.ellipse(overview, (120, 300), (80, 40), 0, 0, 360, (90, 90, 200), -1)
    assert sections(overview).clot.tolist() == [0, 0]


def test_an_empty_slide_has_no_sections() -> None:
    found = sections(np.full((300, 200, 3), 245, np.uint8))
    assert found.clot.shape == (0,) and not found.labels.any()
