"""What several readers of one image say together: votes, soft labels, and one box for each finding.

Tables of findings are those of :func:`kit.boxes.check`. Nothing depends on the order of their rows.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from kit.boxes import CORNERS, has_box, iou, nothing_class
from kit.combine.fusion import Whole, fuse, nms
from kit.errors import SettingError
from kit.metrics import Array
from kit.progress import Bar

Method = Literal["fuse", "nms"]
COLUMNS = ("image_id", "finding", "class_id", "readers", "panel", "share", *CORNERS)


def panels(table: pd.DataFrame) -> pd.Series[int]:
    """How many readers saw each image, by image_id, sorted."""
    return table.groupby("image_id")["reader"].nunique().rename("panel")


def votes(table: pd.DataFrame) -> pd.DataFrame:
    """How many readers name each finding, however often: one row an image, one column a finding.

    Images are sorted; findings are in the order of their class numbers. That there is nothing is a finding
    like the others, in its own column.
    """
    names = table.drop_duplicates("class_id").sort_values("class_id")["finding"]
    said = table.drop_duplicates(["image_id", "finding", "reader"])
    counts = said.groupby(["image_id", "finding"]).size().unstack(fill_value=0)
    return counts.reindex(columns=list(names)).rename_axis(columns=None).astype(np.int64)


def voted(table: pd.DataFrame, least: int) -> pd.DataFrame:
    """Whether at least so many readers name a finding: 0 or 1 an image and finding.

    Raises:
        SettingError: less than one reader.
    """
    if least < 1:
        raise SettingError(f"a vote of at least {least} readers", "ask for 1, 2, ...")
    return (votes(table) >= least).astype(np.int64)


def soft_labels(table: pd.DataFrame) -> pd.DataFrame:
    """The share of an image's readers who name each finding: one row an image, one column a finding."""
    return votes(table).div(panels(table), axis=0)


def mixed(table: pd.DataFrame) -> list[str]:
    """The images of which some readers say that there is nothing, and others that there is something."""
    something = has_box(table).groupby(table["image_id"])
    both = something.any() & ~something.all()
    return sorted(both.index[both])


def consensus_boxes(
    table: pd.DataFrame,
    threshold: float = 0.4,
    least: int = 1,
    method: Method = "fuse",
) -> pd.DataFrame:
    """One box for what several readers drew, image by image and finding by finding.

    Args:
        threshold: two boxes of a finding are one from which intersection over union on.
        least: how many readers a box must have.
        method: ``fuse``: weighted boxes fusion, each reader a source of weight 1, so that the score is the
            share of readers. ``nms``: of the boxes that overlap, the drawn box which most readers support.

    Returns:
        image_id, finding, class_id, readers (how many), panel (of how many), share, and the corners, sorted
        by image, then best first. An image on which no box has so many readers has one row of nothing, if
        the table has a word for it: without corners, and with the readers who said so.
    """
    panel = panels(table)
    names = table.drop_duplicates("class_id").set_index("class_id")["finding"]
    found = _drawn(table[has_box(table)], panel, threshold, method)
    found["readers"] = (found["share"] * found["image_id"].map(panel)).round().astype(np.int64)
    found = found[found["readers"] >= least]
    found = pd.concat([found, _nothing(table, set(found["image_id"]))])
    found[["class_id", "readers"]] = found[["class_id", "readers"]].astype(np.int64)
    found["finding"], found["panel"] = found["class_id"].map(names), found["image_id"].map(panel)
    return found.sort_values("image_id", kind="stable", ignore_index=True)[list(COLUMNS)]


def _drawn(table: pd.DataFrame, panel: pd.Series[int], threshold: float, method: Method) -> pd.DataFrame:
    """The boxes of all images on which something was drawn, image by image, best first."""
    names, image = np.unique(table["image_id"].to_numpy(dtype=str), return_inverse=True)
    reader = np.unique(table["reader"].to_numpy(dtype=str), return_inverse=True)[1]
    boxes, labels = table[list(CORNERS)].to_numpy(dtype=np.float64), table["class_id"].to_numpy()
    readers = panel.reindex(names).tolist()
    rows = np.split(np.argsort(image, kind="stable"), np.cumsum(np.bincount(image))[:-1])
    shown = Bar(zip(rows, readers, strict=False), "consensus", len(names), leave=False, mininterval=0.5)
    parts = [_of_image(boxes[at], labels[at], reader[at], many, threshold, method) for at, many in shown]
    kept = np.repeat(np.arange(len(names)), np.array([len(shares) for _, shares, _ in parts], dtype=np.int64))
    corners, share, label = (np.concatenate(found) for found in zip((boxes[:0], [], []), *parts, strict=True))
    found = pd.DataFrame(corners, columns=list(CORNERS))
    return found.assign(share=share, class_id=label, image_id=names.astype(object)[kept])


def _of_image(
    boxes: Array, labels: Whole, reader: Whole, panel: int, threshold: float, method: Method
) -> tuple[Array, Array, Whole]:
    """Boxes, shares of readers and labels of one image, best first."""
    if method == "fuse":
        source = np.unique(reader, return_inverse=True)[1]  # those who drew nothing are the rest of the panel
        return fuse(boxes, np.ones(len(boxes)), labels, source, np.ones(panel), threshold)
    if method == "nms":
        shares = _support(boxes, labels, reader, threshold) / panel
        kept = nms(boxes, shares, labels, threshold)
        return boxes[kept], shares[kept], labels[kept]
    raise SettingError(f"there is no consensus '{method}'", "known: fuse, nms")


def _support(boxes: Array, labels: Whole, reader: Whole, threshold: float) -> Array:
    """How many readers drew a box of the same finding that overlaps each box, its own included ``(n,)``."""
    alike = (iou(boxes, boxes) > threshold) & (labels[:, None] == labels[None, :])
    return np.asarray([len(np.unique(reader[row])) for row in alike], dtype=np.float64)


def _nothing(table: pd.DataFrame, taken: set[str]) -> pd.DataFrame:
    """One row without a box for each image that has none left."""
    name = nothing_class(table)
    said = votes(table)[name] if name else pd.Series(dtype=np.int64)
    said = said[~said.index.isin(taken)]
    share = said / panels(table).reindex(said.index)
    number = table.loc[table["finding"] == name, "class_id"].max()
    rows = {"image_id": said.index, "share": share.to_numpy(), "class_id": number, "readers": said.to_numpy()}
    return pd.DataFrame(rows).reindex(columns=[*CORNERS, *rows])
