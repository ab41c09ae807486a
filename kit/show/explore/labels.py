"""How the classes are spread: over images and units, over sites, and over every column of few values."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from kit.show.explore import drawn
from kit.show.explore.content import Block, Chart, Charts, Data, Fact, Section, Words
from kit.show.explore.kinds import FEW, columns, ordered
from kit.show.explore.summary import plain
from kit.show.tables import Table
from kit.show.verdict import count, percent

EVEN = 1.5  # how many times as many units the commonest class may have where they are called even


def section(data: Data) -> Section:
    """Counts and shares of the classes, and how far they are from even."""
    train, task = data.tables.train, data.run.competition
    images = counted(train["label"], task.classes)
    units = counted(train.drop_duplicates("unit_id")["label"], task.classes)
    facts: dict[str, Fact] = {
        "images": dict(_texts(images)),
        "units": dict(_texts(units)),
        "shares": {str(name): float(n / max(1, images.sum())) for name, n in images.items()},
        "unit_shares": {str(name): float(n / max(1, units.sum())) for name, n in units.items()},
        "ratio": _ratio(images),
    }
    several = len(train) != train["unit_id"].nunique()
    svg = drawn.bars("labels-images", _said(images, "image"), _texts(images), "", "images")
    charts = [Chart(f"Images by class, {count(len(train), 'image')}", svg)]
    if several:
        svg = drawn.bars("labels-units", _said(units, "unit"), _texts(units), "", "units")
        charts.append(Chart(f"Units ({task.unit}) by class, {count(int(units.sum()), 'unit')}", svg))
    blocks = (Words(balance(images, "image")), _table(images, units, several), Charts(tuple(charts)))
    table = pd.DataFrame({"label": images.index, "images": images.to_numpy(), "units": units.to_numpy()})
    return Section("labels", "Labels", blocks, facts, {"counts": table})


def counted(labels: pd.Series[str], classes: Sequence[str]) -> pd.Series[int]:
    """How often each declared class is there, in the order of the declaration."""
    return labels.value_counts().reindex(list(classes), fill_value=0).astype(int)


def _texts(counts: pd.Series[int]) -> dict[str, int]:
    return {str(name): int(n) for name, n in counts.items()}


def _ratio(counts: pd.Series[int]) -> float | None:
    """How many times as often as the rarest class the commonest is there; none where one is absent."""
    return float(counts.max() / counts.min()) if counts.min() else None


def balance(counts: pd.Series[int], what: str) -> str:
    """How far the classes are from even, in a sentence."""
    total, absent = int(counts.sum()), [str(name) for name, n in counts.items() if not n]
    if absent:
        verb = "has" if len(absent) == 1 else "have"
        return f"{', '.join(absent)} of the {len(counts)} declared classes {verb} no {what}."
    if counts.nunique() == 1:
        return f"The {len(counts)} classes are even: {count(int(counts.iloc[0]), what)} each."
    most, least, ratio = counts.idxmax(), counts.idxmin(), counts.max() / counts.min()
    shares = f"{most} has {percent(counts.max() / total, 1)} and {least} {percent(counts.min() / total, 1)}"
    if ratio <= EVEN:
        return f"The {len(counts)} classes are about even: of {count(total, what)}, {shares}."
    return (
        f"The classes are uneven: of {count(total, what)}, {shares}: {ratio:.1f} to one."
        f" Whoever always says {most} is right {percent(counts.max() / total, 1)} of the time:"
        " judge by a log loss, not by accuracy."
    )


def _said(counts: pd.Series[int], what: str) -> str:
    return f"{what.capitalize()}s by class: " + ", ".join(f"{name} {n:,}" for name, n in counts.items())


def _table(images: pd.Series[int], units: pd.Series[int], several: bool) -> Table:
    def cells(name: str) -> tuple[str, ...]:
        found = [f"{images[name]:,}", percent(images[name] / max(1, images.sum()), 2)]
        found += [f"{units[name]:,}", percent(units[name] / max(1, units.sum()), 2)] if several else []
        return (name, *found)

    head = ("class", "images", "share", *(("units", "share of units") if several else ()))
    return Table("Images of each class", head, [cells(str(name)) for name in images.index])


# --- units ----------------------------------------------------------------------------------------------


def units_section(data: Data) -> Section | None:
    """Units and groups, and how many images each has; ``None`` where every image is its own."""
    train, task = data.tables.train, data.run.competition
    if task.unit == task.image and (task.group or task.unit) == task.image:
        return None
    sizes = {name: train[key].value_counts() for name, key in (("unit", "unit_id"), ("group", "group_id"))}
    spread = {name: found.value_counts().sort_index() for name, found in sizes.items()}
    alike = bool((train["unit_id"] == train["group_id"]).all())
    facts: dict[str, Fact] = {
        "units": len(sizes["unit"]),
        "groups": len(sizes["group"]),
        "images_per_unit": {str(k): int(n) for k, n in spread["unit"].items()},
        "images_per_group": {str(k): int(n) for k, n in spread["group"].items()},
        "most": int(sizes["unit"].max()) if len(train) else 0,
        "two_labels": _several(train, "label"),
        "two_sites": _several(train, "site"),
        "sites": int((train["site"].replace("", pd.NA)).nunique()),
    }
    name, key = ("unit", task.unit) if task.unit != task.image else ("group", task.group)
    blocks = [Words(_people(facts, task.unit, task.group, alike))]
    charts = [_spread(spread[name], name, key)]
    table = pd.DataFrame({"images": spread[name].index, f"{name}s": spread[name].to_numpy()})
    return Section("units", "Units and groups", (*blocks, *charts), facts, {"images": table})


def _several(train: pd.DataFrame, column: str) -> int:
    """Units with more than one value of a column; an empty cell is no value."""
    known = train[train[column] != ""]
    return int((known.groupby("unit_id")[column].nunique() > 1).sum())


def _people(facts: dict[str, Fact], unit: str, group: str, alike: bool) -> str:
    text = f"The submission scores units ({unit}): there are {facts['units']:,}."
    if not alike:
        text += f" Folds keep each of {facts['groups']:,} groups ({group}) together."
    if facts["sites"]:
        text += f" They come from {facts['sites']:,} sites."
    text += f" {_none(facts['two_labels'], 'two labels')}"
    return f"{text} {_none(facts['two_sites'], 'two sites')}" if facts["sites"] else text


def _none(n: Fact, what: str) -> str:
    return f"{n:,} units have {what}." if n else f"No unit has {what}."


def _spread(found: pd.Series[int], name: str, key: str) -> Charts:
    n, images = int(found.sum()), int((found * found.index).sum())
    counts = {str(k): int(v) for k, v in found.items()}
    if len(counts) > FEW:
        values = found.index.repeat(found.to_numpy()).to_numpy(dtype=float)
        svg = drawn.boxplots("units-images", f"Images of {count(n, name)}", {key: values}, "images")
    else:
        svg = drawn.bars("units-images", f"Images of a {name}: {counts}", counts, "images", f"{name}s")
    return Charts(
        (Chart(f"Images of a {name} ({key}), {count(n, name)} with {count(images, 'image')}", svg),)
    )


# --- crosstabs ------------------------------------------------------------------------------------------


def crosstabs_section(data: Data) -> Section | None:
    """Classes by site and by every column of few values; ``None`` where there is no such column."""
    task, kinds = data.run.competition, columns(data.raw, data.run.competition)
    found = {
        name: crosstab(data, name)
        for name, one in kinds.items()
        if name != task.label and one.kind in ("nominal", "discrete number") and 2 <= one.distinct <= FEW
    }
    sites = kinds[task.site].distinct if task.site in kinds else 0
    if not found and sites <= FEW:
        return None
    blocks: list[Block] = []
    if sites > FEW:
        blocks.append(Words(f"{task.site} has {sites:,} values: too many for a table here, which has {FEW}."))
    for k, (name, table) in enumerate(found.items()):
        blocks += [Words(_extremes(name, table)), shares_table(name, table), _both(k, name, table)]
    facts: dict[str, Fact] = {
        "counts": {name: _cells(table) for name, table in found.items()},
        "shares": {name: _cells(table.div(table.sum(axis=1), axis=0)) for name, table in found.items()},
    }
    files = {f"{n}-{_safe(name)}": _file(name, table) for n, (name, table) in enumerate(found.items(), 1)}
    return Section("crosstabs", "Labels by site and other columns", tuple(blocks), facts, files)


def crosstab(data: Data, column: str) -> pd.DataFrame:
    """Images of each value of a column (rows) and class (columns of the declaration that are there)."""
    task = data.run.competition
    values, labels = data.raw[column].astype(str), data.raw[task.label]
    there = [name for name in task.classes if (labels == name).any()]
    found = pd.crosstab(values, labels).reindex(index=ordered(values), columns=there, fill_value=0)
    return found.rename_axis(index=column, columns=None)


def _file(name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table as it is written; a column may be called as a class is."""
    return table.reset_index(names=f"value of {name}" if name in table else name)


def _cells(table: pd.DataFrame) -> dict[str, Fact]:
    rows = table.to_dict("index")
    return {str(value): {str(name): plain(n) for name, n in row.items()} for value, row in rows.items()}


def shares_table(name: str, table: pd.DataFrame) -> Table:
    """Counts and shares of the classes for each value, and for all together."""
    whole = pd.concat([table, table.sum().to_frame("all").T])
    rows, shaded = [], []
    for value, row in whole.iterrows():
        parts = (row / max(1, row.sum())).tolist()
        cells = [f"{n:,}" for n in row.tolist()]
        rows.append(
            (str(value) or "(empty)", *cells, f"{row.sum():,}", *(percent(part, 1) for part in parts))
        )
        shaded.append((*[0.0] * (len(cells) + 1), *parts))
    head = (name, *table.columns, "images", *(f"share of {k}" for k in table.columns))
    return Table(f"Labels by {name}", head, rows, strong=frozenset({len(rows) - 1}), shares=tuple(shaded))


def _both(k: int, name: str, table: pd.DataFrame) -> Charts:
    n = count(int(table.to_numpy().sum()), "image")
    shown = table.rename(index={"": "(empty)"})
    counts = drawn.stacked(f"crosstabs-{k}-counts", f"Labels by {name}, counts of {n}", shown, "images")
    shares = drawn.stacked(
        f"crosstabs-{k}-shares", f"Labels by {name}, shares of {n}", shown, "images", shares=True
    )
    return Charts(
        (Chart(f"Labels by {name}, {n}", counts), Chart(f"Shares of the labels by {name}, {n}", shares))
    )


def _extremes(name: str, table: pd.DataFrame) -> str:
    """Between what the share of the last class lies, among values with enough images to say so."""
    last, totals = table.columns[-1], table.sum(axis=1)
    shares = (table[last] / totals)[totals >= 10]
    if len(shares) < 2:
        return f"No two values of {name} have ten images or more: shares say little."
    ends = [
        f"{percent(float(shares[value]), 1)} ({value or 'empty'}: {int(table[last][value]):,} of"
        f" {int(totals[value]):,})"
        for value in (str(shares.idxmin()), str(shares.idxmax()))
    ]
    return f"Among values of {name} with ten images or more, the share of {last} is {' to '.join(ends)}."


def _safe(name: str) -> str:
    """A column's name in the name of a file."""
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in name)
