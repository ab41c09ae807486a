"""The metric agrees with hand-computed cases and with naive loops, whatever the order of the rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kit.boxes import CORNERS
from kit.combine.detection_metric import Curves, curves, resampled, truths_of

Box = tuple[float, float, float, float]
NAN = float("nan")
ONE: Box = (0, 0, 10, 10)
OTHER: Box = (50, 50, 60, 60)


def truth(*rows: tuple[str, int, Box]) -> pd.DataFrame:
    return pd.DataFrame([(i, k, *b) for i, k, b in rows], columns=["image_id", "class_id", *CORNERS])


def detections(*rows: tuple[str, int, float, Box]) -> pd.DataFrame:
    columns = ["image_id", "class_id", "score", *CORNERS]
    return pd.DataFrame([(i, k, s, *b) for i, k, s, b in rows], columns=columns)


def mean(found: pd.DataFrame, truths: pd.DataFrame, grader: str = "voc") -> float:
    images = sorted({*found["image_id"], *truths["image_id"]})
    return float(curves(found, truths, images, grader).mean()[0])  # type: ignore[arg-type]


# --- by hand ----------------------------------------------------------------------------------------


def test_a_finding_that_is_found_first_scores_one_whatever_false_boxes_follow() -> None:
    found = detections(("a", 0, 0.9, ONE), ("a", 0, 0.8, OTHER), ("b", 0, 0.7, ONE))
    assert mean(found, truth(("a", 0, ONE))) == 1.0


def test_the_area_under_a_known_curve() -> None:
    # Right, wrong, right, and a third truth that nobody finds: 1/3 at precision 1, 1/3 at 2/3.
    found = detections(("a", 0, 0.9, ONE), ("a", 0, 0.8, (90, 0, 99, 9)), ("b", 0, 0.7, OTHER))
    truths = truth(("a", 0, ONE), ("b", 0, OTHER), ("c", 0, ONE))
    assert mean(found, truths) == pytest.approx(1 / 3 + 2 / 9)


def test_precision_is_made_monotone_from_the_right() -> None:
    # Wrong, right, right: precision 1/2 then 2/3, and 2/3 counts for both.
    found = detections(("a", 0, 0.9, OTHER), ("a", 0, 0.8, ONE), ("b", 0, 0.7, ONE))
    assert mean(found, truth(("a", 0, ONE), ("b", 0, ONE))) == pytest.approx(2 / 3)


def test_a_truth_is_found_once_and_a_second_box_on_it_is_false() -> None:
    found = detections(("a", 0, 0.9, ONE), ("a", 0, 0.8, ONE), ("b", 0, 0.7, ONE))
    assert mean(found, truth(("a", 0, ONE), ("b", 0, ONE))) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


@pytest.mark.parametrize(("right", "score"), [(10.0, 1.0), (4.1, 1.0), (4.0, 0.0), (3.9, 0.0)])
def test_an_overlap_has_to_be_above_four_tenths(right: float, score: float) -> None:
    assert mean(detections(("a", 0, 0.9, (0, 0, right, 10))), truth(("a", 0, ONE))) == score


def test_a_box_counts_for_the_truth_that_it_overlaps_most_even_if_that_is_taken() -> None:
    near: Box = (1, 0, 11, 10)
    found = detections(("a", 0, 0.9, ONE), ("a", 0, 0.8, (0, 0, 10, 9.9)))
    assert mean(found, truth(("a", 0, ONE), ("a", 0, near))) == 0.5


def test_another_class_or_another_image_is_no_match() -> None:
    truths = truth(("a", 0, ONE), ("b", 1, ONE))
    assert mean(detections(("a", 1, 0.9, ONE), ("b", 0, 0.9, ONE)), truths) == 0.0


def test_classes_are_averaged_and_one_without_a_truth_is_left_out() -> None:
    found = detections(("a", 0, 0.9, ONE), ("a", 7, 0.9, ONE))
    result = curves(found, truth(("a", 0, ONE), ("a", 3, ONE)), ["a"])
    assert result.classes == (0, 3)
    assert result.by_class()[:, 0].tolist() == [1.0, 0.0]
    assert result.mean().tolist() == [0.5]


def test_without_a_detection_the_score_is_zero_and_without_a_truth_there_is_none() -> None:
    assert mean(detections(), truth(("a", 0, ONE))) == 0.0
    assert np.isnan(mean(detections(("a", 0, 0.5, ONE)), truth()))


def test_images_that_are_not_asked_for_do_not_count() -> None:
    found = detections(("a", 0, 0.9, ONE), ("b", 0, 1.0, OTHER))
    assert curves(found, truth(("a", 0, ONE), ("b", 0, ONE)), ["a"]).mean().tolist() == [1.0]


def test_equal_confidences_are_one_point_of_the_curve() -> None:
    # In file order the right one would be first (1.0) or last (0.5).
    found = detections(("a", 0, 0.9, ONE), ("a", 0, 0.9, OTHER))
    for order in ([0, 1], [1, 0]):
        assert mean(found.iloc[order], truth(("a", 0, ONE))) == 0.5


# --- what is to be found ----------------------------------------------------------------------------


def findings() -> pd.DataFrame:
    """Two readers of two images; both see nothing on the second."""
    columns = ["image_id", "finding", "class_id", "reader", *CORNERS]
    none = (NAN,) * 4
    rows = [
        ("a", "ILD", 5, "R1", *ONE),
        ("a", "ILD", 5, "R2", 1, 0, 10, 10),
        ("a", "Mass", 8, "R3", *ONE),
        ("a", "Mass", 8, "R2", *ONE),
        ("b", "No finding", 14, "R1", *none),
        ("b", "No finding", 14, "R2", *none),
    ]
    return pd.DataFrame(rows, columns=columns)


def test_every_readers_box_is_a_truth_equal_ones_once_and_nothing_is_one_pixel() -> None:
    told = truths_of(findings(), ["a", "b"])
    assert told["class_id"].tolist() == [5, 5, 8, 14]
    assert told[list(CORNERS)].iloc[3].tolist() == [0, 0, 1, 1]
    assert mean(detections(("b", 14, 1.0, (0, 0, 1, 1))), told[told["class_id"] == 14]) == 1.0
    assert len(truths_of(findings(), ["b"])) == 1


def test_mle_bench_has_the_first_box_of_a_class_and_image() -> None:
    told = truths_of(findings(), ["a", "b"], "mle-bench")
    assert told[["class_id", "x_min"]].to_numpy().tolist() == [[5, 0], [8, 0], [14, 0]]


# --- against naive loops ----------------------------------------------------------------------------


def world(
    seed: int, ties: bool = False, single: bool = False
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Crowded boxes on a few images, so that every rule is met."""
    draw = np.random.default_rng(seed)
    images = [f"{n}" for n in range(int(draw.integers(2, 12)))]

    def boxes(count: int) -> pd.DataFrame:
        low = draw.integers(0, 30, (count, 2)).astype(float)
        table = pd.DataFrame(np.hstack([low, low + draw.integers(5, 40, low.shape)]), columns=list(CORNERS))
        table.insert(0, "image_id", draw.choice(images, count))
        table.insert(1, "class_id", draw.integers(0, 3, count))
        return table

    truths = boxes(3 * len(images)).drop_duplicates()
    if single:
        truths = truths.drop_duplicates(["image_id", "class_id"])
    found = boxes(int(draw.integers(1, 300)))
    scores = draw.integers(1, 6, len(found)) / 10 if ties else draw.permutation(len(found)) / 1000
    return found.assign(score=scores), truths, images


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    shared = max(sides[0], 0) * max(sides[1], 0)
    return float(shared / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - shared))


def naive(found: pd.DataFrame, truths: pd.DataFrame) -> float:
    """PASCAL VOC by one loop over detections a class."""
    scores = []
    for kind, mine in truths.groupby("class_id"):
        boxes = mine[list(CORNERS)].to_numpy()
        taken, right = set(), []
        for row in found[found["class_id"] == kind].sort_values("score", ascending=False).itertuples():
            box = np.array([row.x_min, row.y_min, row.x_max, row.y_max])
            here = [n for n, name in enumerate(mine["image_id"]) if name == row.image_id]
            best = max(here, key=lambda n: iou(boxes[n], box), default=-1)
            hit = best >= 0 and iou(boxes[best], box) > 0.4 and best not in taken
            taken |= {best} if hit else set()
            right.append(hit)
        hits = np.cumsum(right)
        precision = hits / np.arange(1, len(right) + 1)
        scores.append(sum(precision[n:].max() for n in np.flatnonzero(right)) / len(mine))
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(12))
def test_the_score_is_that_of_naive_loops(seed: int) -> None:
    found, truths, images = world(seed)
    assert curves(found, truths, images).mean()[0] == pytest.approx(naive(found, truths), abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_neither_the_order_of_rows_nor_the_scale_of_confidences_matters(ties: bool) -> None:
    found, truths, images = world(3, ties)
    score = curves(found, truths, images).mean()[0]
    draw = np.random.default_rng(1)
    for _ in range(5):
        mixed, told = found.sample(frac=1, random_state=draw), truths.sample(frac=1, random_state=draw)
        mixed = mixed.assign(score=mixed["score"] ** 3 * 0.5)
        assert curves(mixed, told, images[::-1]).mean()[0] == pytest.approx(score, abs=1e-12)


def coco(found: pd.DataFrame, truths: pd.DataFrame) -> float:
    """The rule of mle-bench's grader as its libraries go about it: ids from 0 on, and 0 for no match."""
    truths = truths.sort_values(["image_id", "class_id"], ignore_index=True)
    scores = []
    for kind, mine in truths.groupby("class_id"):
        told: list[tuple[float, bool]] = []
        for image in sorted(truths["image_id"].unique()):
            some = found[(found["class_id"] == kind) & (found["image_id"] == image)]
            some = some.sort_values("score", ascending=False, kind="stable").iloc[:100]
            taken: dict[int, int] = {}
            for d in some.index:
                best, match = 0.4, None
                for t in mine.index[mine["image_id"] == image]:
                    a, b = (
                        frame.loc[n, list(CORNERS)].to_numpy(float) for frame, n in ((found, d), (mine, t))
                    )
                    overlap = iou(np.r_[a[:2], a[:2] + a[2:]], np.r_[b[:2], b[:2] + b[2:]])
                    if not taken.get(t, 0) > 0 and overlap >= best:
                        best, match = overlap, t
                if match is not None:
                    taken[match] = d
                told.append((some.loc[d, "score"], bool(match)))
        right = [hit for _, hit in sorted(told, key=lambda pair: -pair[0])]
        hits = np.cumsum(right)
        precision = hits / np.arange(1, len(right) + 1)
        at = [np.flatnonzero(hits / len(mine) >= recall) for recall in np.linspace(0, 1, 101)]
        scores.append(np.mean([precision[n[0] :].max() if len(n) else 0 for n in at]))
    return float(np.mean(scores))


@pytest.mark.parametrize("seed", range(8))
def test_the_other_rule_is_that_of_naive_loops(seed: int) -> None:
    found, truths, images = world(seed, ties=seed % 2 == 1, single=True)
    images = [name for name in images if name in set(truths["image_id"])]
    found = found[found["image_id"].isin(images)].reset_index(drop=True)
    assert curves(found, truths, images, "mle-bench").mean()[0] == pytest.approx(
        coco(found, truths), abs=1e-12
    )


def test_mle_bench_never_matches_truth_zero_and_lets_the_first_box_leave_its_truth_free() -> None:
    truths = truth(("a", 0, ONE), ("b", 0, ONE))
    both = detections(("b", 0, 0.9, ONE), ("b", 0, 0.8, ONE), ("a", 0, 0.7, ONE))
    # Of two truths 'a' is numbered 0 and never found; the second box on 'b' is right too, by the fault.
    assert mean(both, truths, "mle-bench") == pytest.approx(1.0)
    assert mean(both.iloc[[2, 1, 0]], truths, "mle-bench") == pytest.approx(51 / 101)
    assert mean(both, truths) == pytest.approx(1 / 2 + 1 / 2 * 2 / 3)


def test_mle_bench_looks_at_a_hundred_boxes_of_a_class_and_image() -> None:
    truths = truth(("a", 9, OTHER), ("b", 0, ONE))
    false = [("b", 0, 1 - n / 1000, OTHER) for n in range(100)]
    last = ("b", 0, 0.5, ONE)
    assert mean(detections(*false, last), truths, "mle-bench") == 0.0
    assert mean(detections(*false[1:], last), truths, "mle-bench") == pytest.approx(1 / 100 / 2)
    assert mean(detections(*false, last), truths) == pytest.approx(1 / 101 / 2)


# --- resamples --------------------------------------------------------------------------------------


def test_a_weight_of_two_is_an_image_that_is_there_twice() -> None:
    found, truths, images = world(5)
    twice = images[:2]

    def doubled(table: pd.DataFrame) -> pd.DataFrame:
        some = table[table["image_id"].isin(twice)]
        return pd.concat([table, some.assign(image_id=some["image_id"] + "x")], ignore_index=True)

    weights = np.array([[1.0 + (name in twice)] for name in sorted(images)])
    many = curves(doubled(found), doubled(truths), [*images, *(f"{name}x" for name in twice)])
    assert curves(found, truths, images).mean(weights)[0] == pytest.approx(many.mean()[0])


def test_resamples_are_paired_and_those_of_a_submission_beside_itself_differ_by_nothing() -> None:
    found, truths, images = world(7)
    one, groups = curves(found, truths, images), np.array(sorted(images), dtype=object)
    worse = curves(found.assign(score=0.5), truths, images)
    drawn = resampled([one, one, worse], groups, 60, seed=0)
    assert drawn.shape == (3, 60)
    assert (drawn[0] == drawn[1]).all()
    assert (drawn[0] != drawn[2]).any()
    assert resampled([one], groups, 60, seed=0)[0].tolist() == drawn[0].tolist()
    assert resampled([one], groups, 60, seed=1)[0].tolist() != drawn[0].tolist()


def test_a_resample_without_a_class_leaves_it_out() -> None:
    made = curves(detections(("a", 0, 0.9, ONE)), truth(("a", 0, ONE), ("b", 1, ONE)), ["a", "b"])
    assert isinstance(made, Curves)
    weights = np.array([[1.0, 2.0, 0.0], [1.0, 0.0, 2.0]])
    assert made.mean(weights).tolist() == [0.5, 1.0, 0.0]
