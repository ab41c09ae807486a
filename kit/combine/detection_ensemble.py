"""Several detection submissions made one, image by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from kit.boxes import CORNERS
from kit.combine.detections import COLUMNS, DOT, IMAGE
from kit.combine.fusion import fuse, nms
from kit.errors import DataError, SettingError
from kit.progress import Bar

How = Literal["wbf", "nms"]
QUICK = 2000  # images that need no progress bar


def fused(
    tables: Mapping[str, pd.DataFrame],
    nothing: int,
    votes: Sequence[float] = (),
    how: How = "wbf",
    threshold: float = 0.5,
) -> pd.DataFrame:
    """Boxes of several submissions as one, images in the order of the first.

    Args:
        tables: image_id, class_id, score and corners of each box, by the submission's name.
        nothing: the class of an image without a finding, whose box stays as it is.
        votes: what each submission counts, in their order; empty: all the same.
        how: `wbf`: weighted boxes fusion, where a submission without a box counts as a confidence of 0;
            `nms`: the surest of boxes that overlap, confidences times vote / greatest vote.
        threshold: the intersection over union above which two boxes are one.

    Raises:
        DataError: the submissions are not of the same images.
        SettingError: another number of votes than of submissions, or a vote not above 0.
    """
    weights = np.array(votes if len(votes) else np.ones(len(tables)), dtype=np.float64)
    if len(weights) != len(tables) or not (np.isfinite(weights) & (weights > 0)).all():
        raise SettingError(
            f"{len(tables)} submissions have the votes {', '.join(f'{w:g}' for w in weights)}",
            "give one number above 0 for each submission, in their order",
        )
    images = _same_images(tables)
    all_boxes = pd.concat([table.assign(source=n) for n, table in enumerate(tables.values())])
    place = images.get_indexer(pd.Index(all_boxes[IMAGE]))
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place, minlength=len(images)))[:-1]
    values = all_boxes[[*CORNERS, "score", "class_id", "source"]].to_numpy(dtype=np.float64)[order]
    parts = []
    for rows in Bar(np.split(values, ends), desc="fusing", unit="image", disable=len(images) < QUICK):
        boxes, scores = rows[:, :4], rows[:, 4]
        labels, source = rows[:, 5].astype(np.int64), rows[:, 6].astype(np.int64)
        if how == "wbf":
            boxes, scores, labels = fuse(boxes, scores, labels, source, weights, threshold)
        else:
            scores = scores * weights[source] / weights.max()
            kept = nms(boxes, scores, labels, threshold)
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        parts.append(np.column_stack([labels, scores, boxes]))
    found = pd.DataFrame(np.concatenate(parts), columns=list(COLUMNS[1:]))
    found.insert(0, IMAGE, np.repeat(images.to_numpy(), [len(part) for part in parts]))
    found["class_id"] = found["class_id"].astype(np.int64)
    found.loc[found["class_id"] == nothing, list(CORNERS)] = DOT  # a mean of equal boxes has a rounding
    return found


def _same_images(tables: Mapping[str, pd.DataFrame]) -> pd.Index:
    """The images of the first submission, when the others have the same."""
    (first, table), *others = tables.items()
    images: pd.Index = pd.Index(table[IMAGE].unique())
    for name, other in others:
        theirs = pd.Index(other[IMAGE].unique())
        if len(wrong := images.symmetric_difference(theirs)):
            owner, lacking = (first, name) if wrong[0] in images else (name, first)
            raise DataError(
                f"image '{wrong[0]}' is in {owner} and not in {lacking} ({len(wrong)} such images)",
                "fuse submissions of the same images",
            )
    return images
