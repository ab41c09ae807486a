"""What a classifier of whole images knows, put to use in a detection submission: the two-class filter.

'Nothing found' is a class of the score like another, and boxes on images without a finding are most of a
detector's false ones. Three ways (the first three places of VinBigData 2021 took the first two together):

- ``append``: every image says ``nothing`` with the probability that there is nothing;
- ``multiply``: that, and the confidences of boxes are multiplied by the probability that there is something;
- ``threshold``: below ``low`` nothing but 'nothing' is said, between the two it is appended, above ``high``
  the detector is left alone. The thresholds are those of the notebook that made it known; its copies append
  the probability of a finding as the confidence that there is none, and this is mended here.

In all of them an image says 'nothing' once: a second such box can only be wrong, so the detector's own goes.
An image without a probability (one that could not be read, say) stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from kit.boxes import CORNERS, has_box
from kit.combine.detection_metric import Grader, curves
from kit.combine.detections import COLUMNS, DOT, IMAGE
from kit.combine.predictions import Source, read_external
from kit.data_commands import HIGH, LOW
from kit.errors import DataError, SettingError
from kit.metrics import Array

Variant = Literal["none", "append", "multiply", "threshold"]


@dataclass(frozen=True)
class Filter:
    """A variant; ``low`` and ``high`` are probabilities of a finding, for `threshold` alone."""

    variant: Variant = "append"
    low: float = LOW
    high: float = HIGH

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            message = f"the thresholds of the filter are {self.low:g} and {self.high:g}"
            raise SettingError(message, "give 0 <= low <= high <= 1")


# Simplest first: of equal ones, the first is taken.
CANDIDATES = (Filter("none"), Filter("append"), Filter("multiply"), Filter("threshold"))


def filtered(found: pd.DataFrame, abnormal: pd.Series[float], plan: Filter, nothing: int) -> pd.DataFrame:
    """Detections after the filter, images in the order in which they came.

    Args:
        found: image_id, class_id, score and corners of each box.
        abnormal: the probability of a finding, by image_id; boxes of other images stay as they are.
        nothing: the class of an image without a finding.

    Raises:
        DataError: fewer than half of the images have a probability.
    """
    order = pd.Index(found[IMAGE].unique())
    uncovered(order, abnormal)
    if plan.variant == "none":
        return found
    images = order[order.isin(abnormal.index)]
    covered = found[IMAGE].isin(images)
    kept, found = found[~covered], found[covered]
    p = abnormal.loc[images]
    of_box = p.loc[found[IMAGE]].to_numpy()
    own = (found["class_id"] == nothing).to_numpy()
    boxes, alone = found[~own], np.zeros(len(images), dtype=bool)
    said = np.ones(len(images), dtype=bool)
    confidence: Array = np.asarray(1 - p.to_numpy(dtype=np.float64))
    if plan.variant == "multiply":
        boxes = boxes.assign(score=boxes["score"] * of_box[~own])
    elif plan.variant == "threshold":
        sure, alone = p.to_numpy() >= plan.high, p.to_numpy() < plan.low
        boxes = found[(~own & (of_box >= plan.low)) | (of_box >= plan.high)]
        said, confidence = ~sure, np.where(alone, 1.0, confidence)
    added = _nothing(images[said], confidence[said], nothing)
    all_boxes = pd.concat([kept, boxes, added], ignore_index=True)
    place = order.get_indexer(pd.Index(all_boxes[IMAGE]))
    return all_boxes.iloc[np.argsort(place, kind="stable")].reset_index(drop=True)


def uncovered(images: pd.Index, abnormal: pd.Series[float]) -> list[str]:
    """The images without a probability, sorted.

    Raises:
        DataError: more than half of them, which looks like a file of other images.
    """
    missing = sorted(images[~images.isin(abnormal.index)])
    if 2 * len(missing) > len(images):
        raise DataError(
            f"no probability of {len(missing)} of {len(images)} images is there, first '{missing[0]}'",
            "give the files of the images of the submission: oof.csv and holdout.csv for training images,"
            " test.csv for those of the test",
        )
    return missing


def _nothing(images: pd.Index, confidence: Array, nothing: int) -> pd.DataFrame:
    """One box a row that says that there is nothing."""
    columns = {IMAGE: images.to_numpy(), "class_id": nothing, "score": confidence}
    return pd.DataFrame(columns | dict(zip(CORNERS, DOT, strict=True)), columns=list(COLUMNS))


# --- which variant ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """The variant that scores best, and what choosing is worth.

    plan: chosen on all images.
    picks: chosen without the images of each fold, by fold.
    nested: every image after the filter that was chosen without its fold.
    """

    plan: Filter
    picks: Mapping[int, Filter]
    nested: pd.DataFrame


def choose(
    found: pd.DataFrame,
    abnormal: pd.Series[float],
    truths: pd.DataFrame,
    folds: pd.Series[int],
    nothing: int,
    candidates: Sequence[Filter] = CANDIDATES,
    grader: Grader = "voc",
) -> Choice:
    """Choose the variant by mean average precision; its own score is nested by folds.

    Args:
        truths: what is to be found; see :func:`kit.combine.detection_metric.truths_of`.
        folds: the fold of every image, by image_id.

    Raises:
        DataError: an image has no fold, or fewer than half have a probability.
    """
    images = sorted(found[IMAGE].unique())
    of_image = folds.reindex(images)
    if of_image.isna().any():
        raise DataError(f"image '{of_image.index[of_image.isna()][0]}' has no fold", "score labelled images")
    names = sorted(of_image.unique())
    others = (of_image.to_numpy()[:, None] != np.array(names)[None, :]).astype(np.float64)
    weights = np.hstack([others, np.ones((len(images), 1))])
    tables = [filtered(found, abnormal, plan, nothing) for plan in candidates]
    scores = np.stack([curves(table, truths, images, grader).mean(weights) for table in tables])
    best = np.nan_to_num(scores, nan=-1).argmax(axis=0)
    parts = [
        tables[k][tables[k][IMAGE].map(of_image) == name] for name, k in zip(names, best[:-1], strict=True)
    ]
    picks = {int(name): candidates[k] for name, k in zip(names, best[:-1], strict=True)}
    return Choice(candidates[best[-1]], picks, pd.concat(parts, ignore_index=True))


# --- the probabilities ------------------------------------------------------------------------------


def normal_class(boxes: pd.DataFrame, labels: pd.Series[str], classes: Sequence[str]) -> int:
    """Which of two classes says that there is nothing: that of the images without a box.

    Args:
        boxes: a checked table of findings.
        labels: the class of each training image, by image_id.

    Raises:
        DataError: the task has not two classes, or images without a box are of both.
    """
    empty = set(boxes[IMAGE]) - set(boxes.loc[has_box(boxes), IMAGE])
    told = sorted(set(labels[labels.index.isin(empty)]))
    if len(classes) != 2 or len(told) != 1:
        raise DataError(
            f"the classes are {', '.join(classes)}; images without a finding are {', '.join(told) or '?'}",
            "the filter takes probabilities of two classes, one of them 'nothing found'",
        )
    return list(classes).index(told[0])


def probabilities(paths: Sequence[Path], source: Source, normal: int) -> pd.Series[float]:
    """The probability of a finding of each image of ``source`` that files cover, by image_id.

    Args:
        paths: ours, or any files that ``--oof`` takes; ``FILE:COLUMN`` too.
        normal: which class says that there is nothing.

    Raises:
        DataError: a file cannot be read as probabilities of these images, or two are of the same one.
    """
    p = pd.concat([1 - read_external(path, source).plain[source.classes[normal]] for path in paths])
    if p.index.has_duplicates:
        message = f"{' and '.join(map(str, paths))} both have '{p.index[p.index.duplicated()][0]}'"
        raise DataError(message, "give files of different images, such as oof.csv and holdout.csv")
    covered = source.units[source.units.isin(p.index)]
    return pd.Series(p.loc[covered].to_numpy(), covered.index)
