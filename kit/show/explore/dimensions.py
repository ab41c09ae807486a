"""Width and height of the training images, from wherever they are known without decoding one."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.boxes import SIZES
from kit.combine import baselines
from kit.errors import DataError, ImageError, SettingError
from kit.files import numbers, read_strings
from kit.parallel import run_all
from kit.read.headers import Size, size_of
from kit.read.reader import ImageMissing
from kit.state import Run

# What files call them; the second pair is said to be near the truth, not exact.
PAIRS = (("width", "height"), ("width_approx", "height_approx"), ("dim1", "dim0"))
APPROXIMATE = PAIRS[1]
SOURCES, LOST, NEAR = "sources", "lost", "approximate"  # attributes of the table
log = logging.getLogger("kit")


def known(
    run: Run,
    raw: pd.DataFrame,
    findings: pd.DataFrame | None,
    files: Sequence[Path],
    look: bool = True,
) -> pd.DataFrame:
    """The sizes of training images.

    Each image has the first that is known of: ``--sizes`` files in their order, what stage `tile` has read,
    columns of the training table, the table of findings, and the header of the image itself.

    Args:
        raw: the training table as shipped.
        look: whether headers may be read.

    Returns:
        width and height in px by image_id, sorted, only of images whose size is known. ``attrs``: sources,
        pairs of where they are from and how many; lost, pairs of a reason and how many images have no size
        for it; approximate, whether a file says that its sizes are.

    Raises:
        SettingError: a file of sizes is not there.
        DataError: one lacks a column, or has a cell that is no size.
    """
    task, images = run.competition, pd.Index(raw[run.competition.image].astype(str), name="image_id")
    given = [(path.name, given_sizes(path, task.image)) for path in files]
    for path, (_, table) in zip(files, given, strict=True):
        if not table.index.isin(images).any():
            log.warning("--sizes %s: none of its images is a training image", path)
    near = any(table.attrs[NEAR] and table.index.isin(images).any() for _, table in given)
    tables = [*given, *_at_hand(run, raw, findings)]
    found = _empty()
    sources: list[tuple[str, int]] = []
    for name, table in tables:
        found = _added(found, table, images, name, sources)
    lost: list[tuple[str, int]] = []
    if look and len(found) < len(images):
        headers, lost = _headers(run, images.difference(found.index))
        found = _added(found, headers, images, "headers of the images", sources)
    found = found.sort_index()
    found.attrs = {SOURCES: tuple(sources), LOST: tuple(lost), NEAR: near}
    return found


def _empty() -> pd.DataFrame:
    return pd.DataFrame(columns=list(SIZES), index=pd.Index([], name="image_id", dtype=object), dtype=float)


def _added(
    found: pd.DataFrame, table: pd.DataFrame, images: pd.Index, name: str, sources: list[tuple[str, int]]
) -> pd.DataFrame:
    """What is known, with the sizes of this table for images that had none."""
    new = table[_are_sizes(table) & table.index.isin(images) & ~table.index.isin(found.index)]
    if new.empty:
        return found
    sources.append((name, len(new)))
    return pd.concat([found, new[list(SIZES)]]) if len(found) else new[list(SIZES)]


def _are_sizes(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Which rows hold a size: two finite numbers above 0."""
    values = table[list(SIZES)].to_numpy(dtype=np.float64)
    return np.asarray((np.isfinite(values) & (values > 0)).all(axis=1))


def given_sizes(path: Path, image: str) -> pd.DataFrame:
    """The sizes in a file of them by image_id.

    Args:
        image: what the competition calls image_id.

    Raises:
        SettingError: it is not there.
        DataError: it lacks a column; a cell is no size; an image has two sizes.
    """
    if not path.is_file():
        raise SettingError(f"--sizes: {path} is not a file", "check the path")
    table = read_strings(path)
    pair = next((pair for pair in PAIRS if set(pair) <= set(table)), None)
    ids = next((name for name in ("image_id", image) if name in table), None)
    if pair is None or ids is None:
        raise DataError(
            f"{path} is no table of sizes: it has {', '.join(map(str, table.columns))}",
            "name its columns image_id, width and height",
        )
    found = numbers(table[list(pair)]).set_axis(list(SIZES), axis=1)
    wrong = ~_are_sizes(found)
    if wrong.any():
        n = int(wrong.argmax())
        cells = " x ".join(table[list(pair)].iloc[n])
        raise DataError(f"{path} line {n + 2}: '{cells}' is no size in pixels", "correct or remove the row")
    found = found.set_axis(pd.Index(table[ids], name="image_id"))
    found = found[~found.reset_index().duplicated().to_numpy()]
    if (twice := found.index.duplicated()).any():
        name = found.index[twice][0]
        raise DataError(f"{path}: image_id '{name}' has two sizes", "an image has one size")
    found.attrs = {NEAR: pair == APPROXIMATE}
    return found


def _at_hand(run: Run, raw: pd.DataFrame, findings: pd.DataFrame | None) -> list[tuple[str, pd.DataFrame]]:
    """Tables that may hold sizes, in the order in which they are believed."""
    found = []
    tiled = run.folder("tile") / "images.csv"
    if tiled.is_file():
        found.append(("stage tile", numbers(baselines.images(tiled)[list(SIZES)])))
    if set(SIZES) <= set(raw):
        found.append(("the training table", numbers(raw.set_index(run.competition.image)[list(SIZES)])))
    if findings is not None and set(SIZES) <= set(findings):
        found.append(("the table of findings", findings.groupby("image_id")[list(SIZES)].first()))
    return found


def _headers(run: Run, images: pd.Index) -> tuple[pd.DataFrame, list[tuple[str, int]]]:
    """What the headers of these images say, and why those that say nothing do not."""
    paths = [Path(path) for path in run.tables.train.loc[images, "path"]]
    told = run_all(partial(_header, run), paths, run.workers, "headers")
    table = pd.DataFrame(
        [size if isinstance(size, tuple) else (np.nan, np.nan) for size in told],
        columns=list(SIZES),
        index=images,
        dtype=float,
    )
    reasons = pd.Series([size for size in told if isinstance(size, str)], dtype=object)
    return table, [(str(name), int(n)) for name, n in reasons.value_counts().items()]


def _header(run: Run, path: Path) -> Size | str:
    """The size of one image, or why it has none."""
    try:
        return size_of(run.competition.reader, path, run.competition.tiles)
    except ImageMissing:
        return "not there"
    except ImageError:
        return "cannot be read"
