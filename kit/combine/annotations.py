"""``python -m kit annotations``: who drew what on the training images, and what gives it away.

Everything is counted from the tables; no stage reads what it writes into ``WORK/<name>/annotations/``:

classification.csv   target,img_path: the number of the class, and where the picture is; sorted by image
boxes.csv            every row of the annotations, its box in shares of the original width and height
soft_labels.csv      the share of an image's readers who name each finding
votes.csv            whether --votes readers or more do: 0 or 1
consensus.csv        one box for what several readers drew; see kit.combine.consensus
agreement.csv        see kit.combine.agreement
meta.csv             size and readers of each image, for --meta
annotations.json     the counts and the shortcuts that are printed

A well-known notebook on VinBigData's annotations is mistaken in some things, which are counted here: that
the three busiest readers made 40 to 50 % of them (60.7 % of the rows, and 95.5 % of the boxes), that there
are 10 others (14), and that 7 of these never found anything (6; the seventh drew three boxes).
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import boxes
from kit.boxes import SIZES, TEXTS, has_box, nothing_class
from kit.combine.agreement import agreement, labels_by
from kit.combine.annotations_text import render
from kit.combine.consensus import consensus_boxes, mixed, panels, soft_labels, voted
from kit.combine.giveaways import giveaways, metadata, too_few
from kit.command import Said
from kit.data_commands import PICTURES
from kit.errors import SettingError
from kit.files import write_json, write_table
from kit.state import Run

BUSIEST = 3  # readers whose share of the work is told


def run(run: Run, options: argparse.Namespace) -> Said:
    """Count, write the tables, and say what they hold.

    Raises:
        SettingError: the competition has no annotations, or --paths has another name in it.
        DataError: the table of findings breaks a rule.
    """
    task = run.competition
    table = boxes.found(task, run.data)
    folder: Path = options.out or run.folder("annotations")
    resamples = task.second_level.resamples
    content = counts(run, table) | {"labels": labels_by(table)}
    agreed = agreement(table, resamples, run.seed)
    write_table(folder / "classification.csv", classification(run, options.paths))
    write_table(folder / "boxes.csv", _normalised(table))
    write_table(folder / "soft_labels.csv", soft_labels(table).reset_index())
    write_table(folder / "votes.csv", voted(table, options.votes).reset_index())
    together = consensus_boxes(table, options.iou, options.votes, options.consensus)
    write_table(folder / "consensus.csv", together)
    write_table(folder / "agreement.csv", agreed.reset_index())
    write_table(folder / "meta.csv", _whole(metadata(table)).reset_index())
    reason = too_few(run, table)
    shortcuts = [] if reason else [asdict(shortcut) for shortcut in giveaways(run, table)]
    write_json(folder / "annotations.json", content | {"shortcuts": _finite(shortcuts)})
    said = render(content, agreed, shortcuts, task.metric.name)
    if reason:
        said += f"what gives the label away is not scored: {reason}"
    if not has_sizes(table):
        said += "\nsizes of images are not known: no boxes in shares, and no size as a shortcut"
    return f"{said}\nwritten: {folder}", 0


def has_sizes(table: pd.DataFrame) -> bool:
    """Whether the original size of every image is known."""
    return set(SIZES) <= set(table) and bool(table[list(SIZES)].notna().all(axis=None))


def counts(run: Run, table: pd.DataFrame) -> dict[str, Any]:
    """What there is of everything: rows, images, readers, boxes, classes, and words of nothing an image.

    Returns:
        Plain numbers. ``readers``: rows, images and boxes of each; ``busiest``: those with most rows, and
        their share of rows and boxes; ``words``: images by how many readers found nothing on them.
    """
    drawn = has_box(table)
    by_reader = table.assign(box=drawn).groupby("reader")
    readers = pd.DataFrame(
        {"rows": by_reader.size(), "images": by_reader["image_id"].nunique(), "boxes": by_reader["box"].sum()}
    )
    readers = readers.sort_index().sort_values("rows", ascending=False, kind="stable")
    busiest = list(readers.index[:BUSIEST])
    words = np.bincount((~drawn).groupby(table["image_id"]).sum())
    panel = panels(table)
    return {
        "rows": len(table),
        "images": len(panel),
        "panel": [int(panel.min()), int(panel.max())],
        "boxes": int(drawn.sum()),
        "findings": int(table.loc[drawn, "class_id"].nunique()),
        "nothing": nothing_class(table),
        "words": {many: images for many, images in enumerate(words.tolist()) if images},
        "mixed": len(mixed(table)),
        "classes": {name: int((run.tables.train["label"] == name).sum()) for name in run.competition.classes},
        "readers": {str(name): {k: int(v) for k, v in row.items()} for name, row in readers.iterrows()},
        "busiest": {
            "readers": busiest,
            "rows": float(readers.loc[busiest, "rows"].sum() / len(table)),
            "boxes": float(readers.loc[busiest, "boxes"].sum() / max(1, drawn.sum())),
        },
    }


def classification(run: Run, paths: str = PICTURES) -> pd.DataFrame:
    """target (the number of the class) and img_path of each training image, sorted by image_id.

    Raises:
        SettingError: ``paths`` names something else than name, image_id and path.
    """
    train, name = run.tables.train, run.competition.name
    try:
        places = [paths.format(name=name, image_id=image, path=path) for image, path in train["path"].items()]
    except (KeyError, IndexError, ValueError) as error:
        known = "it knows {name}, {image_id} and {path}"
        raise SettingError(f"--paths {paths} cannot be filled in: {error}", known) from error
    target = pd.Categorical(train["label"], list(run.competition.classes)).codes.astype(int)
    return pd.DataFrame({"target": target, "img_path": places})


def _normalised(table: pd.DataFrame) -> pd.DataFrame:
    sizes = [name for name in SIZES if name in table]
    joined = _whole(table[[*TEXTS, *sizes]]).join(boxes.normalised(table))
    return joined.sort_values("image_id", kind="stable")


def _whole(table: pd.DataFrame) -> pd.DataFrame:
    """Sizes are whole numbers, but where some are not known they are held as others."""
    return table.astype({name: "Int64" for name in SIZES if name in table})


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Numbers that JSON can hold: none is what could not be computed."""
    return [{k: None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()} for row in rows]
