"""How large the images are: width, height, megapixels, bytes, and which one is the largest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from kit.boxes import SIZES
from kit.files import split_archive
from kit.show.explore import drawn, summary
from kit.show.explore.content import Block, Chart, Charts, Data, Fact, Section, Words
from kit.show.explore.dimensions import LOST, NEAR, SOURCES
from kit.show.explore.summary import Summary, finite, plain, shown
from kit.show.tables import Table, pairs
from kit.show.verdict import count

UNITS = {"width": "px", "height": "px", "megapixels": "Mpx"}
WHAT = {"width": "Width", "height": "Height", "megapixels": "Area"}


def section(data: Data) -> Section:
    """Sizes in words, numbers and charts; where none is known, what to type."""
    weighed = weights(data)
    if data.sizes.empty:
        told, heavy = unknown(data), _bytes_facts(weighed)
        facts: dict[str, Fact] = {"known": 0, "of": len(data.raw), **heavy}
        return Section("sizes", "Sizes", (Words(told), *_bytes_words(weighed)), facts)
    sizes = measured(data)
    found = {name: summary.summary(sizes[name]) for name in UNITS}
    largest = str(sizes["megapixels"].idxmax())
    facts = {
        "known": len(sizes),
        "of": len(data.raw),
        "approximate": bool(data.sizes.attrs.get(NEAR, False)),
        "gigapixels": float(sizes["megapixels"].sum() / 1e3),
        "largest": {"image_id": largest, **{name: plain(sizes.loc[largest, name]) for name in UNITS}},
        **{name: one.facts() for name, one in found.items()},
        **_bytes_facts(weighed),
    }
    blocks: list[Block] = [Words(_where_from(data)), Words(_widely(found["width"], found["height"]))]
    blocks += [summary.table(f"Sizes of {count(len(sizes), 'image')}, px and Mpx", "what", found)]
    if len(sizes.drop_duplicates(list(SIZES))) > 1:
        blocks += [_histograms(sizes), _compared(data, sizes)]
        blocks += [_largest(data, sizes.loc[[largest]].iloc[0], largest)]
    blocks += [Words(_budget(sizes)), *_bytes_words(weighed)]
    files = {"summary": summary.frame("column", found), "images": _table(sizes)}
    return Section("sizes", "Sizes", tuple(blocks), facts, files)


def measured(data: Data) -> pd.DataFrame:
    """width, height, megapixels and label of each image whose size is known, by image_id."""
    found = data.sizes[list(SIZES)].astype(float)
    labels = data.tables.train["label"].reindex(found.index)
    return found.assign(megapixels=found["width"] * found["height"] / 1e6, label=labels)


def unknown(data: Data) -> str:
    """Why no size is known, and what would make it known."""
    lost = data.sizes.attrs.get(LOST, ())
    looked = f"no image is at hand ({_listed(lost) or 'there is none'})"
    if not data.images:
        looked = "headers of images were not read (--images 0)"
    return (
        f"The sizes of the images are not known: no table has them, and {looked}."
        " Give a table of them with --sizes FILE (columns image_id, width, height), or give --data the folder"
        " with the images."
    )


def _listed(found: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{n:,} {what}" for what, n in found)


def _where_from(data: Data) -> str:
    sources = ", ".join(f"{n:,} from {what}" for what, n in data.sizes.attrs.get(SOURCES, ()))
    text = f"The sizes of {len(data.sizes):,} of {count(len(data.raw), 'image')} are known"
    lost = data.sizes.attrs.get(LOST, ())
    near = " The file calls them approximate." if data.sizes.attrs.get(NEAR) else ""
    rest = f"; {_listed(lost)}" if lost else ""
    return f"{text}{sources and ': ' + sources}{rest}.{near}"


def _widely(width: Summary, height: Summary) -> str:
    """What the quartiles say, in a sentence."""
    if width.min == width.max and height.min == height.max:
        return f"All are {shown(width.min)} px wide and {shown(height.min)} px high."
    return (
        f"Half of them are {shown(width.q1)} to {shown(width.q3)} px wide (median {shown(width.median)}) and"
        f" {shown(height.q1)} to {shown(height.q3)} px high (median {shown(height.median)});"
        f" {count(width.outliers, 'width')} and {count(height.outliers, 'height')} are outliers, more than"
        f" {summary.WHISKER:g} interquartile ranges beyond a quartile."
    )


def _histograms(sizes: pd.DataFrame) -> Charts:
    found = []
    for name, unit in UNITS.items():
        values = finite(sizes[name])
        label = f"{WHAT[name]} of {count(len(values), 'image')}: counts, with a density curve"
        svg = drawn.histogram(f"sizes-{name}", label, values, unit)
        found.append(Chart(f"{WHAT[name]} in {unit}, {count(len(values), 'image')}", svg))
    return Charts(tuple(found))


def _compared(data: Data, sizes: pd.DataFrame) -> Charts:
    """Width against height by label, and box plots."""
    classes = [name for name in data.run.competition.classes if (sizes["label"] == name).any()]
    n = count(len(sizes), "image")
    drawn_of = f"{drawn.DOTS:,} of {n}, drawn at random" if len(sizes) > drawn.DOTS else n
    cloud = drawn.scatter(
        "sizes-cloud", f"Width against height by label, {drawn_of}", sizes, classes, data.run.seed
    )
    groups = {name: finite(sizes[name]) for name in SIZES}
    svg = drawn.boxplots("sizes-boxes", f"Box plots of width and height of {n}", groups, "px")
    by_class = {name: finite(sizes.loc[sizes["label"] == name, "megapixels"]) for name in classes}
    areas = drawn.boxplots("sizes-areas", f"Box plots of the area by label, {n}", by_class, "Mpx")
    return Charts(
        (
            Chart(f"Width against height in px, {drawn_of}", cloud),
            Chart(f"Quartiles and outliers in px, {n}", svg),
            Chart(f"Area by label in Mpx, {n}", areas),
        )
    )


def _largest(data: Data, size: pd.Series[float], name: str) -> Table:
    """Everything that is known of the largest image."""
    mine = data.raw[data.raw[data.run.competition.image] == name].iloc[0]
    content = {str(key): str(value) for key, value in mine.items()}
    content |= {f"{key} ({unit})": shown(float(size[key])) for key, unit in UNITS.items()}
    return pairs("The largest image", ("column", "value"), content)


def _budget(sizes: pd.DataFrame) -> str:
    pixels = float(sizes["megapixels"].sum()) * 1e6
    return (
        f"Together they are {scaled(pixels, 'px')}: {scaled(3 * pixels, 'B')} when decoded, at three bytes a"
        " pixel. What reading them takes in time and memory here is told by: kit tile --plan."
    )


# --- bytes ----------------------------------------------------------------------------------------------


def weights(data: Data) -> pd.Series[float]:
    """Bytes of the file of each training image by image_id; none of images that are not there or in a zip."""
    found = {}
    for name, path in data.tables.train["path"].items():
        archive, member = split_archive(Path(path))
        if not member:
            try:
                found[str(name)] = float(archive.stat().st_size)
            except OSError:
                continue
    return pd.Series(found, dtype=float)


def _bytes_facts(weighed: pd.Series[float]) -> dict[str, Fact]:
    if weighed.empty:
        return {"files": 0}
    return {
        "files": len(weighed),
        "bytes": summary.summary(weighed).facts(),
        "gigabytes": float(weighed.sum() / 1e9),
    }


def _bytes_words(weighed: pd.Series[float]) -> list[Words]:
    if weighed.empty:
        return []
    low, median, high = (scaled(float(size), "B") for size in np.quantile(weighed, (0, 0.5, 1)))
    total = f"The files of {count(len(weighed), 'image')} are here: {scaled(float(weighed.sum()), 'B')}"
    return [Words(f"{total}, {low} to {high} each (median {median}).")]


def scaled(value: float, unit: str) -> str:
    """A large number with the prefix of its unit.

    >>> scaled(682_724_654_752, "px"), scaled(3100, "B"), scaled(12, "B")
    ('682.7\xa0Gpx', '3.1\xa0kB', '12\xa0B')
    """
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor:
            return f"{value / factor:,.1f}\u00a0{prefix}{unit}"
    return f"{value:,.0f}\u00a0{unit}"


def _table(sizes: pd.DataFrame) -> pd.DataFrame:
    return sizes.drop(columns="label").reset_index(names="image_id")
