"""The report's tables, as text cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.combine import classification
from kit.combine.classification import ClassReport
from kit.combine.parts import Part
from kit.combine.reliability import Bin
from kit.metrics import Array
from kit.show.diagnosis import Scored, worst
from kit.show.verdict import number, percent, span

KINDS = {
    "model": "one model",
    "pool": "blend",
    "default": "submitted",
    "baseline": "baseline",
    "limit": "best possible",
}
SETS = {"oof": "Out of fold", "holdout": "Held out"}
FEW = 3  # classes up to which each has a column of its own in a table of units
MOST = 500  # rows of a list that could be as long as the data
WIDE = 30  # models of a matrix


@dataclass(frozen=True)
class Table:
    """A table: the first cell of a row names it.

    words: the columns that hold words and not numbers.
    strong: the rows that stand out.
    shares: how deeply each cell after the first is shaded, 0 to 1.
    """

    caption: str
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: frozenset[int] = frozenset()
    strong: frozenset[int] = frozenset()
    shares: tuple[tuple[float, ...], ...] = ()
    left_out: int = 0


def scores(content: Mapping[str, Any], part: str) -> Table:
    """All rows of a set of ``metrics.json``."""
    found = [row for row in content["rows"] if row["set"] == part]
    nested = {True: "yes", False: "no", None: ""}
    rows = [
        (
            row["name"],
            KINDS.get(row["kind"], row["kind"]),
            number(row["score"]),
            span(row),
            number(row["auc"], 3),
            nested[row["nested"]],
        )
        for row in found
    ]
    strong = frozenset(n for n, row in enumerate(found) if row["kind"] == "default")
    head = ("what", "kind", "score", "95 % interval", "AUC", "nested")
    return Table(SETS.get(part, part), head, rows, frozenset({1, 5}), strong)


def bins(name: str, found: Sequence[Bin], whose: str = "") -> Table:
    """A reliability diagram in numbers."""
    rows = [
        (
            str(n),
            str(b.units),
            number(b.predicted, 3),
            number(b.observed, 3),
            f"{number(b.low, 3)} to {number(b.high, 3)}",
        )
        for n, b in enumerate(found, 1)
    ]
    head = ("bin", "units", "predicted", "observed", "95 % interval")
    return Table(f"Reliability of P({name}){whose}", head, rows)


def confusion(
    counts: NDArray[np.int64], classes: Sequence[str], caption: str = "True and most probable class"
) -> Table:
    """True against most probable class; of more than a few classes the columns have bare names."""
    totals = counts.sum(axis=1)
    shares = counts / np.maximum(totals, 1)[:, None]
    rows = [
        (name, *map(str, counts[n].tolist()), str(totals[n]), percent(shares[n, n]))
        for n, name in enumerate(classes)
    ]
    named = [f"predicted {name}" if len(classes) <= FEW else name for name in classes]
    head = ("true class", *named, "units", "correct")
    return Table(caption, head, rows, shares=tuple(tuple(row) for row in shares.tolist()))


def correlations(names: Sequence[str], found: Array) -> Table:
    """How alike the errors of the models are: numbered columns are the models in the order of the rows."""
    kept = range(min(len(names), WIDE))
    rows = [(f"{n + 1} {names[n]}", *("" if n == m else signed(found[n, m]) for m in kept)) for n in kept]
    shares = tuple(tuple(0.0 if n == m else shade(found[n, m]) for m in kept) for n in kept)
    head = ("model", *(str(m + 1) for m in kept))
    caption = "Correlation of the models' errors"
    return Table(caption, head, rows, shares=shares, left_out=len(names) - len(rows))


def signed(value: float) -> str:
    """A correlation; nothing where it is not defined."""
    return f"{value:.2f}" if np.isfinite(value) else ""


def shade(value: float) -> float:
    """How deeply a correlation is shaded: those below 0 are not."""
    return float(np.clip(np.nan_to_num(value), 0, 1))


def parts(caption: str, what: str, found: Sequence[Part], classes: Sequence[str]) -> Table:
    """Units, classes and score of each fold or site; the largest, where there are very many."""
    kept = sorted(found, key=lambda part: -sum(part.counts))[:MOST] if len(found) > MOST else found
    rows = []
    for part in kept:
        counts = tuple(map(str, part.counts))
        score = (number(part.score), span({"low": part.low, "high": part.high}))
        units = (part.name or "(not known)", str(sum(part.counts)))
        # Many counts would push the score out of sight.
        rows.append((*units, *counts, *score) if len(classes) <= FEW else (*units, *score, *counts))
    score_head = ("score", "95 % interval")
    heads = (*classes, *score_head) if len(classes) <= FEW else (*score_head, *classes)
    return Table(caption, (what, "units", *heads), rows, left_out=len(found) - len(kept))


def mistakes(scored: Scored, classes: Sequence[str], unit: str, site: str) -> Table:
    """The units that the default got most wrong; of many classes only the true and the likeliest one."""
    sited, rows = bool((scored.frame["site"] != "").any()), []
    for n in worst(scored):
        about, label = scored.frame.iloc[n], int(scored.labels[n])
        loss = number(float(scored.losses[n]), 3)
        where = (about["site"] or "(not known)",) if sited else ()
        rows.append((str(about.name), classes[label], *_said(scored, n, classes), loss, *where))
    columns = [f"p({name})" for name in classes]
    if len(classes) > FEW:
        columns = ["likeliest class", "its probability", "that of the label"]
    head = (unit, "label", *columns, "−ln p", *((site or "site",) if sited else ()))
    words = {1} | ({2} if len(classes) > FEW else set()) | ({len(head) - 1} if sited else set())
    return Table("The units that were most wrong", head, rows, frozenset(words))


def _said(scored: Scored, n: int, classes: Sequence[str]) -> tuple[str, ...]:
    """What was said of a unit: every probability, or of many the largest and that of its label."""
    values = [float(p) for p in scored.probabilities[n]]
    if len(classes) <= FEW:
        return tuple(number(p, 3) for p in values)
    top = int(np.argmax(values))
    return classes[top], number(values[top], 3), number(values[int(scored.labels[n])], 3)


def statuses(images: pd.DataFrame) -> Table:
    """Images by split and status."""
    counts = pd.crosstab(images["split"], images["status"])
    tiles = images["tiles"].astype(int).groupby(images["split"]).sum()
    by_split = zip(counts.index, counts.to_numpy().tolist(), strict=True)
    rows = [(str(split), *map(str, row), str(sum(row)), str(tiles[split])) for split, row in by_split]
    return Table("Images by status", ("split", *map(str, counts), "images", "tiles"), rows)


def failed(images: pd.DataFrame) -> Table | None:
    """Every image that gave no tiles, with its reason; ``None`` if there is none."""
    mine = images[images["status"] != "ok"]
    rows = [
        tuple(map(str, row)) for row in mine[["image_id", "split", "status", "reason"]].head(MOST).to_numpy()
    ]
    if not rows:
        return None
    head = ("image", "split", "status", "reason")
    words = frozenset({1, 2, 3})
    return Table("Images without tiles", head, rows, words, left_out=len(mine) - len(rows))


def classes(rows: Sequence[ClassReport]) -> Table:
    """Precision, recall and F1 of every class with their intervals, and its units."""
    cells = [classification.class_cells(asdict(row)) for row in rows]
    return Table("Every class on its own", classification.CLASS, cells)


def tuning(best: Mapping[str, Mapping[str, Any]]) -> Table:
    """The settings that tuning chose for every backbone and fold."""
    chosen = [
        (name, fold, best[name][fold])
        for name in best
        for fold in sorted(best[name], key=lambda fold: (len(fold), fold))
    ]
    names = list(dict.fromkeys(key for *_, found in chosen for key in found["settings"]))
    rows = [
        (
            name,
            fold,
            *(brief(found["settings"].get(key)) for key in names),
            brief(found.get("trial")),
            brief(found.get("trials")),
            number(found.get("inner_loss")),
            number(found.get("inner_loss_untuned")),
        )
        for name, fold, found in chosen
    ]
    head = ("backbone", "fold", *names, "trial", "trials", "inner loss", "untuned")
    return Table("Settings by backbone and fold", head, rows)


def stages(state: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> Table:
    """Time and memory of the stages."""
    found = [(name, state[name]) for name in names]
    rows = [(name, duration(record["seconds"]), f"{record['peak_mib']:,}") for name, record in found]
    total = sum(record["seconds"] for _, record in found)
    rows.append(("all", duration(total), f"{max((r['peak_mib'] for _, r in found), default=0):,}"))
    head = ("stage", "time", "peak memory (MiB)")
    return Table("Time and memory by stage", head, rows, strong=frozenset({len(found)}))


def pairs(caption: str, head: tuple[str, str], content: Mapping[str, object]) -> Table:
    """A name and a value a row."""
    rows = [(str(name), str(value)) for name, value in content.items()]
    return Table(caption, head, rows, frozenset({1}))


def brief(value: object) -> str:
    """A setting for reading.

    >>> brief(0.0012345), brief("mean"), brief(None)
    ('0.00123', 'mean', '')
    """
    if value is None:
        return ""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(4.25), duration(83), duration(7260)
    ('4.2 s', '1 min 23 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
