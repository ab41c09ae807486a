"""The training table at a glance: first rows, kinds of columns, empty cells, numbers, frequent values."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from kit.show.explore import drawn, summary
from kit.show.explore.content import Block, Chart, Charts, Data, Fact, Section, Words
from kit.show.explore.kinds import RULES, Column, columns, looks_like, missing
from kit.show.explore.summary import finite
from kit.show.tables import Table
from kit.show.verdict import count, percent

HEAD = 5  # rows that are shown
TOP = 10  # most frequent values of a column
LONG = 60  # characters of a cell on the page
MANY = 12  # columns whose box plots are drawn


def section(data: Data) -> Section:
    """First rows, kinds of variables, missing cells, equal rows, ids that look like numbers."""
    raw, found = data.raw, columns(data.raw, data.run.competition)
    kinds = pd.Series([one.kind for one in found.values()], dtype=object).value_counts().to_dict()
    ids = {name: looks_like(raw[name]) for name, one in found.items() if one.kind == "identifier"}
    equal = int(raw.astype(str).duplicated().sum())
    facts: dict[str, Fact] = {
        "rows": len(raw),
        "columns": len(found),
        "images_of_all_tables": _everything(data),
        "missing": sum(one.missing for one in found.values()),
        "equal_rows": equal,
        "kinds": {str(kind): int(n) for kind, n in kinds.items()},
        "numbers_only": sum(_all_numbers(raw[name], one) for name, one in found.items()),
        "column": {name: _facts(one) for name, one in found.items()},
        "ids": {name: dict(one) for name, one in ids.items()},
    }
    blocks: list[Block] = [Words(_overview(data, found, equal)), first_rows(raw), variables(raw, found)]
    blocks += [Words(f"The kinds, by rule. {'; '.join(RULES)}.")]
    blocks += [Words(text) for text in map(_spoilt, ids, ids.values()) if text]
    files = {"columns": pd.DataFrame([{"column": name, **_facts(one)} for name, one in found.items()])}
    return Section("table", "The training table", tuple(blocks), facts, files)


def _facts(one: Column) -> dict[str, Fact]:
    return {"kind": one.kind, "why": one.why, "missing": one.missing, "distinct": one.distinct}


def _all_numbers(cells: pd.Series[str], one: Column) -> bool:
    """Whether a program that guesses types would read it as numbers."""
    return bool(one.numbers[~missing(cells)].notna().all()) and one.missing < len(cells)


def _everything(data: Data) -> int:
    tables = (data.tables.train, data.tables.test, data.tables.extra)
    return sum(len(table) for table in tables if table is not None)


def _overview(data: Data, found: Mapping[str, Column], equal: int) -> str:
    rows, lost = len(data.raw), sum(one.missing for one in found.values())
    others = [
        f"{len(table):,} of the {name} table"
        for name, table in (("test", data.tables.test), ("other", data.tables.extra))
        if table is not None
    ]
    beside = f" Beside it there are {' and '.join(others)}." if others else ""
    empty = f"{count(lost, 'cell')} of {rows * len(found):,} are empty" if lost else "No cell is empty"
    same = f"{count(equal, 'row')} repeat another one" if equal else "no row is there twice"
    size = f"{count(rows, 'row')} and {count(len(found), 'column')}"
    return f"The training table has {size}. {empty}, and {same}.{beside}"


def first_rows(raw: pd.DataFrame) -> Table:
    """The table's head, as shipped."""
    rows = [tuple(cut(str(cell)) for cell in row) for row in raw.head(HEAD).to_numpy(dtype=object)]
    names = tuple(map(str, raw.columns))
    return Table(f"The first {count(len(rows), 'row')}", names, rows, frozenset(range(1, len(names))))


def variables(raw: pd.DataFrame, found: Mapping[str, Column]) -> Table:
    """One row a column: its kind and why, and how many values and empty cells."""
    rows = [
        (
            name,
            one.kind,
            one.why,
            f"{one.distinct:,}",
            f"{one.missing:,}",
            percent(one.missing / max(1, len(raw)), 1),
        )
        for name, one in found.items()
    ]
    head = ("column", "kind", "because", "different values", "empty", "share empty")
    return Table("The columns and their kinds", head, rows, frozenset({1, 2}))


def _spoilt(name: str, found: Mapping[str, int]) -> str:
    """A warning of ids that a program would take for numbers."""
    digits, zeros, floats = (found[key] for key in ("digits", "zeros", "floats"))
    if not digits + floats:
        return ""
    parts = [f"{digits:,} of them are all digits"] if digits else []
    parts += [f"{zeros:,} of these begin with 0"] if zeros else []
    parts += [f"{floats:,} look like numbers such as 2e3749"] if floats else []
    told = f"Ids that look like numbers in {name}: {', '.join(parts)}."
    return f"{told} Read it as text, or they change or collide."


# --- numbers --------------------------------------------------------------------------------------------


def numbers_section(data: Data) -> Section | None:
    """Quartiles, spread and outliers of every column of numbers; ``None`` where there is none."""
    numeric = {name: one for name, one in columns(data.raw, data.run.competition).items() if one.numeric}
    if not numeric:
        return None
    found = {name: summary.summary(one.numbers) for name, one in numeric.items()}
    n = count(len(data.raw), "image")
    plots = []
    for k, (name, one) in enumerate(list(numeric.items())[:MANY]):
        label = f"Box plot of {name} of {count(found[name].count, 'image')}"
        svg = drawn.boxplots(f"numbers-{k}", label, {name: finite(one.numbers)}, name)
        plots.append(Chart(f"{name}, {count(found[name].count, 'image')}", svg))
    blocks = (
        Words(_outliers(found)),
        summary.table(f"Columns of numbers, {n}", "column", found),
        Charts(tuple(plots)),
    )
    facts: dict[str, Fact] = {name: one.facts() for name, one in found.items()}
    return Section(
        "numbers", "Columns of numbers", blocks, facts, {"summary": summary.frame("column", found)}
    )


def _outliers(found: Mapping[str, summary.Summary]) -> str:
    told = [
        f"{one.outliers:,} of {one.count:,} in {name} ({percent(one.outlier_share, 2)})"
        for name, one in found.items()
        if one.count
    ]
    flat = [name for name, one in found.items() if one.iqr == 0 and one.outliers]
    also = f" In {', '.join(flat)} the quartiles are equal, so that every other value counts as one."
    start = f"Outliers lie more than {summary.WHISKER:g} interquartile ranges (IQR) beyond a quartile"
    return f"{start}: {'; '.join(told)}.{also if flat else ''}"


# --- frequencies ----------------------------------------------------------------------------------------


def frequencies_section(data: Data) -> Section:
    """The most frequent values of every column, and of the sizes where they are known; whole as CSV."""
    cells = {str(name): data.raw[name].astype(str) for name in data.raw}
    if not data.sizes.empty:
        sizes = data.sizes.astype(int).astype(str)
        texts = {
            "width": sizes["width"],
            "height": sizes["height"],
            "width x height": sizes["width"] + " x " + sizes["height"],
        }
        cells |= {name: text for name, text in texts.items() if name not in cells}
    counts = {name: frequencies(values) for name, values in cells.items()}
    blocks = tuple(_top(name, found, len(cells[name])) for name, found in counts.items())
    facts: dict[str, Fact] = {
        name: [[str(value), int(n)] for value, n in found.head(TOP).items()] for name, found in counts.items()
    }
    whole = [
        pd.DataFrame({"column": name, "value": f.index, "count": f.to_numpy()}) for name, f in counts.items()
    ]
    text = Words(f"Of each column the {TOP} most frequent values; equal counts in the order of the values.")
    files = {"values": pd.concat(whole)}
    return Section("frequencies", "Frequent values", (text, *blocks), facts, files)


def frequencies(values: pd.Series[str]) -> pd.Series[int]:
    """How often each value is there, the most frequent first, then by name."""
    counts = values.value_counts()
    return counts.sort_index().sort_values(ascending=False, kind="stable")


def _top(name: str, found: pd.Series[int], rows: int) -> Table:
    cells = [
        (cut(str(value)) or "(empty)", f"{n:,}", percent(n / max(1, rows), 2))
        for value, n in found.head(TOP).items()
    ]
    caption = f"{name}: {count(len(found), 'different value')} in {count(rows, 'row')}"
    return Table(caption, ("value", "count", "share"), cells, left_out=len(found) - len(cells))


def cut(text: str) -> str:
    """A cell for the page."""
    return text if len(text) <= LONG else text[: LONG - 1] + "…"
