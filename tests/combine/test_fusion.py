"""Boxes of several sources become one set, whatever the order of their rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kit.boxes import iou
from kit.combine.fusion import fuse, nms
from kit.errors import DataError, SettingError

A, B = [10.0, 10.0, 30.0, 30.0], [12.0, 10.0, 32.0, 30.0]  # overlap by .82
FAR = [100.0, 100.0, 150.0, 120.0]


def crowd(seed: int, count: int = 25) -> dict[str, Any]:
    """Boxes of three sources and three labels; some scores are equal, some 0."""
    draw = np.random.default_rng(seed)
    corner = draw.random((count, 2)) * 50
    return {
        "boxes": np.c_[corner, corner + 5 + 40 * draw.random((count, 2))],
        "scores": np.round(draw.random(count), 1),
        "labels": draw.integers(0, 3, count),
        "source": draw.integers(0, 3, count),
    }


def fused(boxes: Any, scores: Any, source: Any, weights: Any = (1, 1), **others: Any) -> tuple[Any, ...]:
    labels = others.pop("labels", [0] * len(boxes))
    return fuse(boxes, scores, labels, source, weights, **others)


def test_two_boxes_that_overlap_become_their_mean_weighted_by_score_and_weight() -> None:
    boxes, scores, labels = fused([A, B], [0.9, 0.3], [0, 1], (1, 2))
    np.testing.assert_allclose(boxes, [(0.9 * np.array(A) + 0.6 * np.array(B)) / 1.5])
    np.testing.assert_allclose(scores, [(0.9 + 2 * 0.3) / 3])
    assert labels.tolist() == [0]


def test_a_source_without_the_box_votes_against_it() -> None:
    assert fused([A], [0.9], [0], (1, 1, 2))[1].tolist() == pytest.approx([0.9 / 4])


def test_boxes_that_repeat_within_a_source_do_not_count_as_agreement() -> None:
    once = fused([A], [1.0], [0], (2, 1))[1]
    assert fused([A, A, B], [1.0, 1.0, 0.8], [0, 0, 0], (2, 1))[1].tolist() == once.tolist() == [2 / 3]


def test_no_fused_score_is_above_the_greatest() -> None:
    for seed in range(30):
        case = crowd(seed)
        scores = fuse(**case, weights=np.array([0.3, 2.0, 7.0]))[1]
        assert scores.min() >= 0 and scores.max() <= case["scores"].max()
        assert (np.diff(scores) <= 0).all()


def test_labels_and_distant_boxes_stay_apart_and_pixels_are_not_clipped() -> None:
    boxes, _, labels = fused([A, A, FAR], [0.9, 0.8, 0.7], [0, 1, 0], labels=[0, 1, 0])
    np.testing.assert_allclose(boxes, [A, A, FAR], rtol=1e-15)
    assert labels.tolist() == [0, 1, 0]


def test_a_threshold_decides_what_is_one_box() -> None:
    overlap = float(iou([A], [B])[0, 0])
    assert len(fused([A, B], [0.9, 0.9], [0, 1], threshold=overlap - 1e-9)[0]) == 1
    assert len(fused([A, B], [0.9, 0.9], [0, 1], threshold=overlap)[0]) == 2


def test_a_score_of_nothing_still_has_a_place() -> None:
    boxes, scores, _ = fused([A], [0.0], [0])
    np.testing.assert_allclose(boxes, [A])
    assert scores.tolist() == [0.0]


def test_fusion_does_not_depend_on_the_order_of_the_rows() -> None:
    for seed in range(40):
        case, weights = crowd(seed), np.array([1.0, 2.0, 0.5])
        turn = np.random.default_rng(seed).permutation(len(case["labels"]))
        turned = {name: values[turn] for name, values in case.items()}
        for one, other in zip(fuse(**case, weights=weights), fuse(**turned, weights=weights), strict=True):
            np.testing.assert_array_equal(one, other)


def test_fusion_of_nothing_is_nothing() -> None:
    boxes, scores, labels = fused([], [], [], labels=[])
    assert boxes.shape == (0, 4) and scores.shape == labels.shape == (0,)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": [[30.0, 10.0, 10.0, 30.0]]}, "box 0, 30 10 10 30, is upside down"),
        ({"boxes": [[1.0, 1.0, np.nan, 2.0]]}, "upside down"),
        ({"scores": [1.2]}, "box 0 has the score 1.2"),
        ({"scores": [np.nan]}, "score nan"),
        ({"source": [2]}, "sources 2 to 2, and 2 weights"),
    ],
)
def test_a_box_that_cannot_be_fused_is_an_error(change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        fused(**({"boxes": [A], "scores": [0.5], "source": [0]} | change))


def test_weights_that_mean_nothing_are_refused() -> None:
    with pytest.raises(SettingError, match="weights"):
        fused([A], [0.5], [0], (1, 0))


def test_suppression_keeps_the_best_of_what_overlaps_within_a_label() -> None:
    assert nms([B, A, FAR, A], [0.5, 0.9, 0.1, 0.7], [0, 0, 0, 1]).tolist() == [1, 3, 2]
    assert nms([B, A], [0.5, 0.9], [0, 0], 0.9).tolist() == [1, 0]
    assert nms(np.zeros((0, 4)), np.zeros(0), np.zeros(0, int)).tolist() == []


def test_what_is_kept_does_not_overlap_and_all_else_overlaps_something_better() -> None:
    for seed in range(30):
        case = crowd(seed)
        boxes, scores, labels = (case[name] for name in ("boxes", "scores", "labels"))
        kept = nms(boxes, scores, labels, 0.4)
        rivals = (
            (iou(boxes, boxes) > 0.4) & (labels[:, None] == labels[None]) & ~np.eye(len(labels), dtype=bool)
        )
        assert not rivals[np.ix_(kept, kept)].any() and (np.diff(scores[kept]) <= 0).all()
        for row in set(range(len(labels))) - set(kept.tolist()):
            assert scores[kept][rivals[row, kept]].max() >= scores[row]
        turn = np.random.default_rng(seed).permutation(len(labels))
        np.testing.assert_array_equal(turn[nms(boxes[turn], scores[turn], labels[turn], 0.4)], kept)


def test_what_is_handed_over_is_not_changed() -> None:
    case = crowd(3)
    before = {name: values.copy() for name, values in case.items()}
    fuse(**case, weights=np.ones(3))
    nms(case["boxes"], case["scores"], case["labels"])
    for name, values in before.items():
        np.testing.assert_array_equal(values, case[name])
