"""A data folder as a rerun on Kaggle finds it: the public test swapped for a hidden one.

The hidden images are the held-out ones first: they are labelled, and predicted by the models of all folds, so
that they can be compared with the run and scored. Then come those of the public test, which can be compared,
and then those that the models were trained on, which only fill up. On top of them are three oddities.
"""

from __future__ import annotations

import json
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import seeds
from kit.competition import Competition
from kit.errors import DataError
from kit.files import read_strings, split_archive, write_table
from kit.state import Run

HELD_OUT, TEST, TRAINED = "held-out", "test", "training"
BROKEN, BLANK, UNSEEN = "broken", "no tissue", "new site"
KINDS = (HELD_OUT, TEST, TRAINED, BROKEN, BLANK, UNSEEN)
KEPT = 0.4  # of the bytes of the broken image
BLANK_SIDE = 1024  # pixels
SLIDES = (".tif", ".tiff")  # in which a blank slide can be written


@dataclass(frozen=True)
class Unit:
    """One unit to be: where its images are taken from.

    name: its id in the hidden test; source: the id that the run knows it by.
    images: id in the hidden test -> id that the run knows.
    """

    name: str
    kind: str
    source: str
    images: Mapping[str, str]


@dataclass(frozen=True)
class Hidden:
    """A hidden test, and what is known of it.

    folder: what stands for the competition's data.
    units: in the order of the sample, indexed by unit_id: kind, images, megapixels, label (empty: not known),
        prior (no image can be used), and the run's own p_<class> (NaN: not known).
    prior: what a unit without a usable image gets.
    said: what is left out, and why.
    """

    folder: Path
    units: pd.DataFrame
    prior: tuple[float, ...]
    said: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shipped:
    """The competition's own tables, all cells as text.

    train, test: indexed by image id, in the columns of their files. sample: None where there is none.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    sample: pd.DataFrame | None
    places: Mapping[str, Path] = field(default_factory=dict)  # of the tables in the data folder


def make(run: Run, out: Path, images: int) -> Hidden:
    """Write the folder of a hidden test; what was there before is deleted.

    Args:
        images: how many, without the oddities. When it asks for more than there are, they come again
            under new ids.

    Raises:
        DataError: the competition has no test table, or its tables are not those that can be swapped.
    """
    shipped = read_shipped(run)
    pool = list(_pool(run))
    if not pool:
        raise DataError(f"not one image of {run.data} is there", "is --data the folder as it was shipped?")
    # Where no unit has so few images, the smallest comes whole.
    units = choose(pool, images) or [min(pool, key=lambda unit: len(unit.images))]
    odd, said = _oddities(run, units)
    count = sum(len(unit.images) for unit in units)
    if count != images:
        said.append(f"{count} images, not {images}: no other unit fits without being cut")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    everything = [*units, *odd]
    _write_images(run, shipped, out, everything)
    order = seeds.rng(run.seed, "hidden", "units").permutation(len(everything))
    everything = [everything[n] for n in order]
    _write_tables(run, shipped, out, everything)
    second = json.loads((run.folder("combine") / "second_level.json").read_text())
    prior = tuple(map(float, second["scored_prior"]))
    return Hidden(out, _known(run, everything, prior), prior, tuple(said))


def read_shipped(run: Run) -> Shipped:
    """The tables as they lie in the data folder.

    Raises:
        DataError: they cannot be swapped; says why.
    """
    task = run.competition
    raw = task.load(run.data)
    if raw.test is None:
        raise DataError(
            f"{task.name} has no test table: nothing is hidden there, so there is nothing to rehearse",
            "its submission is the held-out set, which `submit` has written",
        )
    places, frames = dict[str, Path](), dict[str, pd.DataFrame]()
    for name, table in (("train", raw.train), ("test", raw.test), ("sample", raw.sample)):
        if table is None:
            continue
        path = Path(str(table.attrs.get("source", "")))
        if not path.is_file():
            raise DataError(
                f"`load` of {task.name} does not say which file its {name} table is",
                "read it with kit.tables.read_table",
            )
        frames[name], places[name] = read_strings(path), path.relative_to(run.data)
    for name in ("train", "test"):
        if missing := [column for column in (task.image, task.unit) if column not in frames[name]]:
            raise DataError(
                f"{run.data / places[name]} has no column {missing[0]}: `load` makes it, so rows of the"
                " file cannot be swapped",
                "a competition is rehearsed by the tables as they are shipped",
            )
    train, test = (frames[name].set_index(task.image, drop=False) for name in ("train", "test"))
    return Shipped(train, test, frames.get("sample"), places)


def _pool(run: Run) -> Iterator[Unit]:
    """All units whose images are there, in the order in which they are taken."""
    assert run.tables.test is not None
    folds = read_strings(run.folds).set_index("image_id")
    train = run.tables.train
    role = folds["role"].reindex(train.index).fillna("")
    parts = (
        (HELD_OUT, train[role == "holdout"]),
        (TEST, run.tables.test),
        (TRAINED, train[role == "fold"]),
    )
    for kind, table in parts:
        there = table["path"].map(lambda path: split_archive(Path(path))[0].is_file())
        whole = there.groupby(table["unit_id"]).all()
        names = sorted(whole.index[whole])
        for n in seeds.rng(run.seed, "hidden", kind).permutation(len(names)):
            mine = table.index[table["unit_id"] == names[n]]
            yield Unit(names[n], kind, names[n], {name: name for name in mine})


def choose(pool: list[Unit], images: int) -> list[Unit]:
    """Whole units from the top until there are so many images; then again, under new ids."""
    found, left, again = list[Unit](), images, 1
    used = {image for unit in pool for image in unit.images} | {unit.name for unit in pool}
    while any(len(unit.images) <= left for unit in pool) and left > 0:
        for unit in pool:
            new = unit if again == 1 else renamed(unit, f"r{again}", used)
            taken = {other.name for other in found}
            if len(unit.images) <= left and new.name not in taken:
                found.append(new)
                left -= len(unit.images)
        again += 1
    return found


def renamed(unit: Unit, suffix: str, used: Iterable[str] = ()) -> Unit:
    """A unit under another id, and its images with it; an image that is named by its unit stays so.

    >>> renamed(Unit("a", "test", "a", {"a_0": "a_0"}), "r2").images
    {'ar2_0': 'a_0'}
    """
    taken = set(used)
    while f"{unit.name}{suffix}" in taken:
        suffix += "r"
    name = f"{unit.name}{suffix}"
    images = {
        f"{name}{image.removeprefix(unit.name)}"
        if image.startswith(unit.name)
        else f"{image}{suffix}": source
        for image, source in unit.images.items()
    }
    return replace(unit, name=name, images=images)


def _oddities(run: Run, units: list[Unit]) -> tuple[list[Unit], list[str]]:
    """A broken image, one without tissue and one of a site that was never seen; and what cannot be had."""
    task = run.competition
    few = min(units, key=lambda unit: len(unit.images))
    first = dict([next(iter(few.images.items()))])
    said = []
    odd = [renamed(replace(few, kind=BROKEN, images=first), "b")]
    kind = Path(_source(run, next(iter(first.values())))).suffix.lower()
    if kind not in writable(task.reader):
        said.append(f"no image without tissue: a blank {kind} cannot be written")
    else:
        odd.append(renamed(replace(few, kind=BLANK, images=first), "w"))
        if task.reader != "slide":
            said.append("all of a photograph counts as tissue: the white one gets a prediction")
    if task.site:
        odd.append(renamed(replace(few, kind=UNSEEN), "s"))
    else:
        said.append("no image of a new site: the tables have no site")
    return odd, said


def _source(run: Run, image: str) -> str:
    """The path of an image, by the id that the run knows."""
    tables = run.tables
    table = tables.train if tables.test is None or image not in tables.test.index else tables.test
    return str(table.loc[image, "path"])


def _write_images(run: Run, shipped: Shipped, out: Path, units: list[Unit]) -> None:
    for unit in units:
        for image, source in unit.images.items():
            place = _place(run.competition, _row(run, shipped, unit, image, source))
            path = Path(_source(run, source))
            target = out / place
            target.parent.mkdir(parents=True, exist_ok=True)
            if unit.kind == BROKEN:
                content = _bytes(path)
                target.write_bytes(content[: int(len(content) * KEPT)])
            elif unit.kind == BLANK:
                write_blank(target, run.competition.reader)
            else:
                _lay(path, target)


def _place(task: Competition, row: Mapping[str, str]) -> str:
    """Where an image lies in the data folder; one that was in a zip lies in a folder of its name."""
    return task.files.format(**{**row, "split": "test", "image_id": row[task.image]})


def _bytes(path: Path) -> bytes:
    archive, member = split_archive(path)
    if not member:
        return path.read_bytes()
    with zipfile.ZipFile(archive) as content:
        return content.read(member)


def _lay(path: Path, target: Path) -> None:
    """Put an image there without copying where that can be: by a hard link, else a symbolic one."""
    if split_archive(path)[1]:
        target.write_bytes(_bytes(path))
        return
    _link(path, target)
    beside = path.with_suffix("")
    if path.suffix.lower() == ".mrxs" and beside.is_dir():  # its pixels
        for file in (file for file in beside.rglob("*") if file.is_file()):
            _link(file, target.with_suffix("") / file.relative_to(beside))


def _link(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path.resolve(), target)
    except OSError:  # another file system, or one without links
        target.symlink_to(path.resolve())


def writable(reader: str) -> set[str]:
    """The endings of images that `write_blank` can make."""
    if reader == "slide":
        return set(SLIDES)
    from PIL import Image

    return {ending for ending, name in Image.registered_extensions().items() if name in Image.SAVE}


def write_blank(path: Path, reader: str) -> None:
    """An image that shows nothing: a tiled TIFF for slides, else a white picture of the name's type."""
    pixels = np.full((BLANK_SIDE, BLANK_SIDE, 3), 255, np.uint8)
    if reader == "slide":
        import tifffile

        options: dict[str, Any] = {"compression": "adobe_deflate", "predictor": 2, "tile": (128, 128)}
        tifffile.imwrite(path, pixels, photometric="rgb", software=False, metadata=None, **options)
        return
    from PIL import Image

    Image.fromarray(pixels).save(path)


def _row(run: Run, shipped: Shipped, unit: Unit, image: str, source: str) -> dict[str, str]:
    """A row of the hidden test, in the columns of the shipped one."""
    task = run.competition
    table = shipped.test if source in shipped.test.index and unit.kind != HELD_OUT else shipped.train
    old = table.loc[source]
    row = {str(name): str(old.get(name, "")) for name in shipped.test.columns}
    row[task.unit] = unit.name
    row[task.image] = image
    if unit.kind == UNSEEN:
        row[task.site] = new_site(run.tables.train["site"])
    return row


def new_site(sites: Iterable[str]) -> str:
    """A site that is none of these, and looks like them.

    >>> new_site(["1", "11", "2"]), new_site(["Basel", "Bern"])
    ('12', 'new-site')
    """
    known = {site for site in sites if site}
    if known and all(site.isdecimal() for site in known):
        return str(max(map(int, known)) + 1)
    name = "new-site"
    while name in known:
        name += "-x"
    return name


def _write_tables(run: Run, shipped: Shipped, out: Path, units: list[Unit]) -> None:
    """All tables as shipped, but the test and its sample."""
    tables = {path.relative_to(run.data) for path in run.data.glob("*.csv")} | set(shipped.places.values())
    for place in sorted(tables):
        (out / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(run.data / place, out / place)
    rows = [_row(run, shipped, unit, *pair) for unit in units for pair in unit.images.items()]
    order = seeds.rng(run.seed, "hidden", "images").permutation(len(rows))
    columns = list(shipped.test.columns)
    write_table(out / shipped.places["test"], pd.DataFrame([rows[n] for n in order], columns=columns))
    if shipped.sample is not None:
        like = dict(shipped.sample.iloc[0])
        sample = pd.DataFrame([like | {run.competition.unit: unit.name} for unit in units])
        write_table(out / shipped.places["sample"], sample[list(shipped.sample.columns)])


def _known(run: Run, units: list[Unit], prior: Sequence[float]) -> pd.DataFrame:
    """What the run says of each unit: see :class:`Hidden`."""
    columns = [f"p_{name}" for name in run.competition.classes]
    folder = run.folder("combine")
    told = {
        kind: _rows(read_strings(folder / f"{name}.csv"), columns)
        for kind, name in ((HELD_OUT, "holdout"), (TEST, "test"))
    }
    images = known_images(run)
    labels = run.tables.train.groupby("unit_id")["label"].first()
    rows = []
    for unit in units:
        mine = images.loc[list(unit.images.values())]
        odd = unit.kind in (BROKEN, BLANK)
        usable = (unit.kind == BLANK and run.competition.reader != "slide") if odd else bool(mine["ok"].any())
        # Which tiles are kept may be drawn by the image's id, so one of a new id is another image.
        own = told.get(unit.kind, {}) if unit.name == unit.source else {}
        values = own.get(unit.source, [np.nan] * len(columns)) if usable else prior
        about = {
            "unit_id": unit.name,
            "kind": unit.kind,
            "images": len(mine),
            "megapixels": 0.0 if odd else float(mine["megapixels"].sum()),
            "label": labels[unit.source] if own and unit.kind == HELD_OUT else "",
            "prior": not usable,
        }
        rows.append(about | dict(zip(columns, values, strict=True)))
    return pd.DataFrame(rows).set_index("unit_id")


def _rows(table: pd.DataFrame, columns: list[str]) -> dict[str, list[float]]:
    """The numbers of each unit."""
    return dict(zip(table["unit_id"], table[columns].astype(float).to_numpy().tolist(), strict=True))


def known_images(run: Run) -> pd.DataFrame:
    """What `tile` found of every image by its id: split, megapixels, tiles, and whether it is ok."""
    table = read_strings(run.folder("tile") / "images.csv")
    # An image of the public test may be one of training as well: it is the same image.
    table = table.drop_duplicates("image_id").set_index("image_id")
    area = table["width"].astype(float) * table["height"].astype(float) / 1e6
    tiles = table["tiles"].astype(int)
    return pd.DataFrame(
        {"split": table["split"], "megapixels": area, "tiles": tiles, "ok": table["status"] == "ok"}
    )
