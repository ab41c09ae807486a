"""Coverage maps, and boxes on a frame."""

from __future__ import annotations

import numpy as np

from kit.show.explore.box_plots import CELLS, Mark, coverage, frame, heat


def test_a_cell_counts_the_share_of_boxes_that_reach_into_it() -> None:
    boxes = np.array([[0, 0, 0.5, 1], [0.25, 0.25, 0.75, 0.75], [0, 0, 0.01, 0.01]])
    covered = coverage(boxes)
    assert covered.shape == (CELLS, CELLS)
    middle, half = CELLS // 2, CELLS // 4
    assert covered[0, 0] == 2 / 3 and covered[middle, half] == 2 / 3
    assert covered[middle, middle] == 1 / 3 and covered[0, CELLS - 1] == 0
    assert covered[CELLS - 1, 0] == 1 / 3  # rows go down
    assert coverage(np.array([[0, 0, 0.51, 1]]))[0].sum() == middle + 1  # which 0.51 reaches into


def test_a_box_beyond_its_image_covers_what_of_it_is_inside() -> None:
    assert coverage(np.array([[-0.5, 0.9, 2.0, 1.5]]))[-1].tolist() == [1.0] * CELLS


def test_a_map_is_brightest_where_most_boxes_are() -> None:
    shares = np.zeros((CELLS, CELLS))
    shares[3, 4] = 0.01
    found = heat(shares)
    bright = np.argwhere(found.astype(int).sum(axis=2) == found.astype(int).sum(axis=2).max())
    assert {tuple(place // 3) for place in bright.tolist() for place in [np.array(place)]} == {(3, 4)}


def test_a_frame_has_the_shape_of_its_image_and_says_what_a_box_is() -> None:
    mark = Mark(np.array([0.1, 0.1, 0.4, 0.2]), 'A <b>"', "R1")
    svg = frame("f", "boxes", (100, 200), [mark], "data:image/png;base64,AAAA")
    assert '<image href="data:image/png;base64,AAAA" width="260" height="520"/>' in svg
    assert "<title>1: A &lt;b&gt;&quot;, R1</title>" in svg and "<b>" not in svg
