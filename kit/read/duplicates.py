"""Images that are there twice: equal files, equal pixels, and near-equal pictures; `kit duplicates`.

Near-equal is judged on grey thumbnails. A small one (16 x 16) is compared with every other, as one product
of matrices in blocks: of n images that is n squared / 2 correlations of 256 numbers each, a few seconds for
20,000 images and exact, where hashes of pictures (aHash, pHash) miss pairs or need a radius. The pairs whose
small thumbnails correlate by `CLOSE` or more are compared at 64 x 64, where `NEAR` counts. Among 17,092
single cells of 64 pixels, saving one anew as a JPEG of quality 50 leaves a correlation of .979 or more, and
halving its size .954, while of the 146 million pairs of different files two reach .9, and one .95. A change
of brightness or contrast changes no correlation; a turned, mirrored or shifted copy is not found.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.competition import Competition
from kit.errors import ImageError, SettingError
from kit.files import write_table
from kit.parallel import run_all
from kit.read.picture import original, read_bytes
from kit.read.reader import Reader, opener
from kit.state import Run

SMALL, LARGE = 16, 64  # pixels of a thumbnail, each side
CLOSE, NEAR = 0.95, 0.95  # least correlation of small and of large thumbnails
BLOCK = 1024  # rows of a block of correlations
MOST = 2_000_000  # pairs looked at in large
FLAT = 1e-6  # standard deviation of grey levels below which there is nothing to compare
Floats = NDArray[np.float32]
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Look:
    """What is kept of an image: digests of its bytes and pixels, and a grey thumbnail (LARGE, LARGE)."""

    file: str
    pixels: str
    grey: NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """Two images that are equal or nearly so; kind: bytes, pixels or near."""

    first: str
    second: str
    kind: str
    correlation: float


def run(run: Run, options: argparse.Namespace) -> tuple[str, int]:
    """Look at every image of the tables; clusters, pairs, conflicts and skipped files as CSV.

    ``clusters.csv`` (image_id, cluster) is what ``--duplicates`` takes. The others lie beside it.

    Raises:
        SettingError: the images are slides, or the threshold is no correlation.
    """
    if not 0 < options.least <= 1:
        raise SettingError(f"--least is {options.least:g}", "it takes a correlation: above 0, at most 1")
    images = everything(run)
    looks = look_at(run.competition, images["path"], run.workers)
    pairs = find(looks, options.least if options.near else None)
    clusters = joined(pairs)
    target = options.out or run.folder("duplicates") / "clusters.csv"
    found = {
        target: clusters,
        target.with_name("pairs.csv"): pd.DataFrame(
            pairs, columns=["first", "second", "kind", "correlation"]
        ),
        target.with_name("conflicts.csv"): conflicting(clusters, images),
    }
    attrs = run.competition.load(run.data).train.attrs
    if "skipped" in attrs:
        rows = list(attrs["skipped"])
        found[target.with_name("skipped.csv")] = pd.DataFrame(rows, columns=["file", "reason"])
    for path, table in found.items():
        write_table(path, table)
    return said(images, looks, pairs, found, target) + _rules(attrs), 0


def _rules(attrs: Mapping[Hashable, Any]) -> str:
    """How many files of class folders each rule takes for an image; see `kit.class_folders.read`."""
    counts = [f"{rule} takes {count}" for rule, count in attrs.get("accepted", ())]
    return f"\nfiles taken for images by each rule: {', '.join(counts)}" if counts else ""


def everything(run: Run) -> pd.DataFrame:
    """All images of the tables by image_id: path, and label ("" where there is none)."""
    tables = [table for table in (run.tables.train, run.tables.test, run.tables.extra) if table is not None]
    images = pd.concat([table.reindex(columns=["path", "label"]) for table in tables])
    return images[~images.index.duplicated()].fillna("").sort_index()


def look_at(task: Competition, paths: pd.Series[str], workers: int) -> dict[str, Look]:
    """Read every image once; one that cannot be read is said and left out.

    Raises:
        SettingError: the images are cut into tiles: sections that repeat are found when they are.
    """
    read = partial(_look, task)
    looks = run_all(read, list(paths), workers, "looking")
    failed = [name for name, look in zip(paths.index, looks, strict=True) if look is None]
    if failed:
        log.warning("%d images cannot be read and are left out, the first is %s", len(failed), failed[0])
    return {str(name): look for name, look in zip(paths.index, looks, strict=True) if look is not None}


def _look(task: Competition, path: str) -> Look | None:
    try:
        data = read_bytes(Path(path))
        with opener(task.reader)(Path(path), task.tiles) as image:
            _refuse_slides(task, image)
            # As the file has it: steps may make all pictures alike, or one picture two.
            pixels = original(image)
    except (ImageError, OSError):
        return None
    grey = cv2.resize(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), (LARGE, LARGE), interpolation=cv2.INTER_AREA)
    shape = repr(pixels.shape).encode()
    return Look(
        sha256(data).hexdigest(), sha256(shape + pixels.tobytes()).hexdigest(), np.asarray(grey, np.uint8)
    )


def _refuse_slides(task: Competition, image: Reader) -> None:
    if image.tileable:
        raise SettingError(
            f"the images of {task.name} are slides", "their repeated sections are found by `kit tile`"
        )


# --- pairs ----------------------------------------------------------------------------------------------


def find(looks: dict[str, Look], least: float | None = None) -> list[Pair]:
    """Equal images, each beside the first of its equals, and near-equal pairs where ``least`` is given."""
    found: dict[tuple[str, str], Pair] = {}
    for kind in ("bytes", "pixels"):
        first: dict[str, str] = {}
        for name, look in looks.items():
            digest = look.file if kind == "bytes" else look.pixels
            same = first.setdefault(digest, name)
            if same != name:
                found.setdefault((same, name), Pair(same, name, kind, 1.0))
    for pair in near(looks, least) if least is not None else ():
        found.setdefault((pair.first, pair.second), pair)
    return sorted(found.values(), key=lambda pair: (pair.first, pair.second))


def near(looks: dict[str, Look], least: float = NEAR) -> list[Pair]:
    """Pairs whose thumbnails correlate by ``least`` or more; of equal ones, only the first is compared.

    Raises:
        SettingError: so many pairs are close that a threshold says nothing of these images.
    """
    names = list({look.pixels: name for name, look in reversed(looks.items())}.values())[::-1]
    grey = np.stack([looks[name].grey for name in names]) if names else np.zeros((0, LARGE, LARGE), np.uint8)
    step = LARGE // SMALL
    small = standardised(grey.reshape(-1, SMALL, step, SMALL, step).mean(axis=(2, 4)))
    a, b = _close(small)
    pairs = []
    for start in range(0, len(a), BLOCK):  # large ones are numbers of four bytes a block at a time
        one, two = a[start : start + BLOCK], b[start : start + BLOCK]
        values = np.einsum("ij,ij->i", standardised(grey[one]), standardised(grey[two]))
        for n in np.flatnonzero(values >= least):
            pairs.append(Pair(names[one[n]], names[two[n]], "near", round(float(values[n]), 4)))
    return pairs


def standardised(pictures: NDArray[np.generic]) -> Floats:
    """Pictures ``(n, h, w)`` as rows of mean 0 and length 1, whose products are correlations; flat ones 0."""
    rows = pictures.reshape(len(pictures), -1).astype(np.float32)
    rows = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    flat = length <= FLAT * np.sqrt(rows.shape[1])
    return np.asarray(np.where(flat, 0, rows / np.where(flat, 1, length)), np.float32)


def _close(rows: Floats) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of both pictures of every pair that correlates by `CLOSE` or more, block by block."""
    first, second, count = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)], 0
    for start in range(0, len(rows), BLOCK):
        mine = rows[start : start + BLOCK]
        a, b = np.nonzero(mine @ rows[start:].T >= CLOSE)
        later = a < b
        count += int(later.sum())
        if count > MOST:
            raise SettingError(
                f"more than {MOST} pairs of these images look alike at {SMALL} pixels",
                "leave out --near: they are too alike to be told from copies of each other",
            )
        first.append(a[later] + start)
        second.append(b[later] + start)
    return np.concatenate(first), np.concatenate(second)


# --- clusters -------------------------------------------------------------------------------------------


def joined(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Pairs that share an image are one cluster, called as its first image: image_id, cluster."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while (above := parent.setdefault(name, name)) != name:
            parent[name] = parent[above]
            name = above
        return name

    for pair in pairs:
        a, b = sorted((root(pair.first), root(pair.second)))
        parent[b] = a
    rows = [(name, root(name)) for name in sorted(parent)]
    return pd.DataFrame(rows, columns=["image_id", "cluster"], dtype=object).sort_values(
        ["cluster", "image_id"], ignore_index=True
    )


def conflicting(clusters: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The labelled images of clusters that have several labels: cluster, image_id, label."""
    table = clusters.assign(label=images["label"].reindex(clusters["image_id"]).to_numpy())
    table = table[table["label"] != ""]
    several = table.groupby("cluster")["label"].transform("nunique") > 1
    return table.loc[several, ["cluster", "image_id", "label"]].reset_index(drop=True)


def said(
    images: pd.DataFrame,
    looks: dict[str, Look],
    pairs: Sequence[Pair],
    found: dict[Path, pd.DataFrame],
    target: Path,
) -> str:
    """What the console prints."""
    clusters, conflicts = found[target], found[target.with_name("conflicts.csv")]
    kinds = {kind: sum(pair.kind == kind for pair in pairs) for kind in ("bytes", "pixels", "near")}
    equal = f"{kinds['bytes']} pairs of equal files, {kinds['pixels']} of equal pixels alone"
    lines = [
        f"{len(looks)} of {len(images)} images looked at: {equal}, {kinds['near']} near",
        f"{clusters['cluster'].nunique()} clusters of {len(clusters)} images; to keep them together:"
        f" --duplicates {target}",
    ]
    for cluster, rows in list(conflicts.groupby("cluster"))[:10]:
        labels = ", ".join(f"{row.image_id} is {row.label}" for row in rows.itertuples())
        lines.append(f"labels contradict each other in {cluster}: {labels}")
    skipped = found.get(target.with_name("skipped.csv"))
    if skipped is not None:
        lines.append(f"{len(skipped)} files were skipped: {target.with_name('skipped.csv')}")
    return "\n".join(lines)
