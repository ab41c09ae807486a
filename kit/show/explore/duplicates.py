"""What is there twice: rows, ids in two tables, files, and images of one size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pandas as pd

from kit.boxes import SIZES
from kit.files import split_archive
from kit.parallel import run_all
from kit.read.reader import fingerprint
from kit.show.explore.content import Block, Data, Fact, Section, Words
from kit.show.explore.dimensions import NEAR
from kit.show.explore.sizes import weights
from kit.show.tables import Table
from kit.show.verdict import count

MOST = 30  # rows of a list on the page
NAMED = 5  # images that a sentence names
SHARED = ("unit_id", "group_id", "site")  # besides image_id, under the kit's names


@dataclass(frozen=True)
class Part:
    """What one kind of repetition adds to the section; see `Section`."""

    blocks: tuple[Block, ...]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    files: Mapping[str, pd.DataFrame] = field(default_factory=dict)


def section(data: Data) -> Section:
    """Every kind of repetition that can be seen without decoding an image."""
    parts = [_rows(data.raw)]
    for name, table in (("test", data.tables.test), ("other", data.tables.extra)):
        if table is not None:
            parts.append(_shared(name, data, table))
    parts += [_files(data), _sizes(data)]
    blocks = tuple(block for part in parts for block in part.blocks)
    facts = {name: fact for part in parts for name, fact in part.facts.items()}
    files = {name: table for part in parts for name, table in part.files.items()}
    return Section("duplicates", "What is there twice", blocks, facts, files)


def _rows(raw: pd.DataFrame) -> Part:
    rows = int(raw.astype(str).duplicated().sum())
    text = f"No two of the {count(len(raw), 'row')} of the training table are equal in every column."
    if rows:
        text = (
            f"{count(rows, 'row')} of the training table's {len(raw):,} repeat another one in every column."
        )
    return Part((Words(text),), {"rows": rows})


# --- other tables ---------------------------------------------------------------------------------------


def _shared(name: str, data: Data, other: pd.DataFrame) -> Part:
    found = shared(data.tables.train, other)
    told = Words(_shared_said(name, len(other), found))
    files = {f"{name}-images": pd.DataFrame({"image_id": found["images"]})} if found["images"] else {}
    return Part((told,), {name: {key: len(ids) for key, ids in found.items()}}, files)


def shared(train: pd.DataFrame, other: pd.DataFrame) -> dict[str, list[str]]:
    """What another table shares with the training table.

    Args:
        train, other: by image_id, under the kit's names.

    Returns:
        images: ids in both. rows: those whose columns, as far as both have them, are equal too.
        units: ids of units in both. siblings: images of the other table that are not in the training table,
        but whose unit is.
    """
    images = other.index.intersection(train.index).sort_values()
    columns = [name for name in SHARED if (other[name] != "").any()]
    same = (other.loc[images, columns] == train.loc[images, columns]).all(axis=1)
    units = sorted(set(other["unit_id"]) & set(train["unit_id"]))
    siblings = other.index[other["unit_id"].isin(units) & ~other.index.isin(images)].sort_values()
    found: dict[str, list[str]] = {"units": units}
    for name, ids in (("images", images), ("rows", images[same.to_numpy()]), ("siblings", siblings)):
        found[name] = [str(one) for one in ids]
    return found


def _shared_said(name: str, of: int, found: Mapping[str, list[str]]) -> str:
    """What that means for a score."""
    images, rows, units, siblings = (found[key] for key in ("images", "rows", "units", "siblings"))
    start = f"Of the {count(of, 'row')} of the {name} table"
    if not units:
        return f"{start} none has an image or a unit of the training table."
    told = []
    if images:
        listed = ", ".join(images[:NAMED]) + (", …" if len(images) > NAMED else "")
        told.append(f"{len(images):,} are training images too ({listed}), {len(rows):,} of them equal rows")
    if siblings:
        told.append(f"{len(siblings):,} are other images of units that are in training")
    known = "A score on the first says nothing: their labels are known."
    return f"{start}, {' and '.join(told)}. {known if images else 'Keep them apart when you validate.'}"


# --- files ----------------------------------------------------------------------------------------------


def _files(data: Data) -> Part:
    """Equal files, from class folders that were read whole, or by size and both ends."""
    whole = "accepted" in data.raw.attrs and "cluster" in data.raw
    if not whole and not data.images:
        return Part((Words("Whether files are equal was not looked at (--images 0)."),))
    if not whole and weights(data).empty:
        return Part((Words("Whether files are equal is not known: none is at hand outside of a zip."),))
    found = _clusters(data) if whole else equal_files(data)
    found["label"] = data.tables.train["label"].reindex(found["image_id"]).to_numpy()
    several = found.groupby("cluster")["label"].transform("nunique") > 1
    conflicts = int(found.loc[several, "cluster"].nunique())
    facts: dict[str, Fact] = {
        "groups": int(found["cluster"].nunique()),
        "images": len(found),
        "by_label": {str(k): int(n) for k, n in found.groupby("label")["cluster"].nunique().items()},
        "conflicts": conflicts,
        "conflicting": sorted(found.loc[several, "image_id"]),
    }
    told = Words(_files_said(found, conflicts, whole))
    if found.empty:
        return Part((told,), {"files": facts})
    return Part((told, _clusters_table(found)), {"files": facts}, {"files": found})


def _clusters(data: Data) -> pd.DataFrame:
    """cluster, image_id of the groups of equal files that the class folders' reader found."""
    found = data.raw[["cluster", data.run.competition.image]].set_axis(["cluster", "image_id"], axis=1)
    found = found[found["cluster"].duplicated(keep=False)]
    return found.sort_values(["cluster", "image_id"], ignore_index=True)


def equal_files(data: Data) -> pd.DataFrame:
    """cluster, image_id of files of one size whose both ends are equal; a cluster is its first image."""
    sizes = weights(data)
    twins = sizes[sizes.duplicated(keep=False)].index.sort_values()
    look = partial(fingerprint, data.run.competition.reader)
    paths = [split_archive(Path(path))[0] for path in data.tables.train.loc[twins, "path"]]
    prints = pd.Series(run_all(look, paths, data.run.workers, "equal files"), twins, dtype=object)
    same = prints[prints.duplicated(keep=False) & ~prints.str.startswith("unreadable")]
    first = {text: str(name) for name, text in same[::-1].items()}
    rows = [(first[text], str(name)) for name, text in same.items()]
    found = pd.DataFrame(rows, columns=["cluster", "image_id"], dtype=object)
    return found.sort_values(["cluster", "image_id"], ignore_index=True)


def _files_said(found: pd.DataFrame, conflicts: int, whole: bool) -> str:
    how = "every byte" if whole else "size and both ends; kit duplicates compares them whole"
    groups, images = count(int(found["cluster"].nunique()), "group"), count(len(found), "image")
    text = f"No two files are equal (by {how})."
    if len(found):
        text = (
            f"{groups} of equal files (by {how}), {images}: folds must keep each group together, else a model"
            " is scored on what it has learned by heart."
        )
    if not conflicts:
        return text
    several = count(conflicts, "group")
    return f"{text} In {several} equal files have different labels: at least one of them is wrong."


def _clusters_table(found: pd.DataFrame) -> Table:
    rows = []
    for name, mine in list(found.groupby("cluster"))[:MOST]:
        labels = " and ".join(sorted(set(mine["label"])))
        rows.append((str(name), f"{len(mine):,}", ", ".join(mine["image_id"]), labels))
    strong = frozenset(n for n, row in enumerate(rows) if " and " in row[3])
    left = int(found["cluster"].nunique()) - len(rows)
    head = ("first", "images", "all of them", "label")
    caption = "Equal files; those with several labels stand out"
    return Table(caption, head, rows, frozenset({2, 3}), strong, left_out=left)


# --- sizes ----------------------------------------------------------------------------------------------


def _sizes(data: Data) -> Part:
    """Sizes that several images have: a device and its field of view, or the same slide twice."""
    if data.sizes.empty:
        return Part(())
    sizes = data.sizes[list(SIZES)].astype(int)
    counts = sizes.groupby(list(SIZES)).size().reset_index(name="images")
    counts = counts.sort_values(["images", *SIZES], ascending=[False, True, True], ignore_index=True)
    again = counts[counts["images"] > 1]
    total = int(again["images"].sum())
    facts: Fact = {"repeated": len(again), "images": total, "distinct": len(counts)}
    if len(counts) == 1 < len(sizes):
        return Part((Words(f"All {len(sizes):,} images have the same size."),), {"sizes": facts})
    near = " (as far as approximate sizes tell)" if data.sizes.attrs.get(NEAR) else ""
    text = f"No two of {count(len(sizes), 'image')} have the same size{near}."
    if again.empty:
        return Part((Words(text),), {"sizes": facts})
    text = f"{count(total, 'image')} of {len(sizes):,} share one of {count(len(again), 'size')}{near}."
    cells = again.head(MOST).to_numpy().tolist()
    rows = [(f"{width:,} x {height:,}", f"{n:,}") for width, height, n in cells]
    caption = "Sizes that several images have"
    listed = Table(caption, ("size (px)", "images"), rows, left_out=len(again) - len(rows))
    return Part((Words(text), listed), {"sizes": facts}, {"sizes": again})
