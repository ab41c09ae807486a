"""What gives the label away before anything is trained: models that never look at what is pictured.

Each is the logistic regression, or the table of shares, that `kit evaluate` and `kit annotations` use, from
one thing that is known of an image besides what it shows; nested, so that no fit has seen its own units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit import metrics
from kit.boxes import SIZES
from kit.combine import baselines, giveaways
from kit.combine.inner import inner_folds
from kit.combine.method import class_shares
from kit.metrics import Array
from kit.show.explore.content import Block, Chart, Charts, Data, Fact, Section, Words
from kit.show.explore.kinds import columns
from kit.show.explore.sizes import weights
from kit.show.explore.summary import plain
from kit.show.score_plots import Dot, intervals
from kit.show.tables import Table
from kit.show.verdict import count, number, percent

REPEATED = 0.5  # share of the images whose exact size another one has, from which it is a category
SIZE, EXACT, READERS = "width and height", "exact size", "who read it"
BYTES, IMAGES, TISSUE = "bytes of the file", "images of the unit", "tissue share"
COLOURS = "colours and tissue"
LOOK, ALL = "size, tissue and background", "everything together"
Labels = NDArray[np.int64]
Row = dict[str, float]  # score, auc and gain over the constant, and of each the interval


@dataclass(frozen=True)
class Units:
    """The labelled units that shortcuts are scored on, sorted by unit_id, and their outer folds.

    images: the unit of each image by image_id. metric, resamples: of the competition.
    """

    data: Data
    frame: pd.DataFrame
    images: pd.Series[str]

    @classmethod
    def of(cls, data: Data) -> Units:
        """All labelled units."""
        train = data.tables.train
        frame = train.drop_duplicates("unit_id").set_index("unit_id").sort_index()
        return cls(data, frame[["group_id", "site", "label"]], train["unit_id"])

    @cached_property
    def labels(self) -> Labels:
        """The class number of each unit."""
        return pd.Categorical(self.frame["label"], list(self.data.run.competition.classes)).codes.astype(
            np.int64
        )

    @cached_property
    def groups(self) -> NDArray[np.object_]:
        """The group of each unit."""
        return self.frame["group_id"].to_numpy(dtype=object)

    @cached_property
    def outer(self) -> Labels:
        """The fold of each unit; folds that spread sites too would flatter a model of sites."""
        run = self.data.run
        return inner_folds(self.labels, self.groups, run.competition.second_level.folds, run.seed)

    @cached_property
    def bootstrap(self) -> metrics.Bootstrap:
        """Resamples of whole groups."""
        return metrics.Bootstrap(
            self.groups, self.data.run.competition.second_level.resamples, self.data.run.seed
        )

    @cached_property
    def constant(self) -> Array:
        """The same probabilities for every unit: the class shares that the metric scores ``(units, K)``."""
        task = self.data.run.competition
        prior = task.metric.scored_prior(class_shares(self.labels, len(task.classes)))
        return np.tile(prior, (len(self.frame), 1))

    def few(self) -> str:
        """Why nothing can be scored nested; empty where it can."""
        groups = self.frame.groupby("label")["group_id"].nunique()
        counts = groups.reindex(list(self.data.run.competition.classes), fill_value=0)
        few = counts[counts < giveaways.FEWEST]
        if few.empty:
            return ""
        return (
            f"class {few.index[0]} has {count(int(few.iloc[0]), 'group')}, and {giveaways.FEWEST} are needed"
        )


def section(data: Data) -> Section:
    """The nested score of every shortcut, beside the constant that knows nothing."""
    units = Units.of(data)
    if reason := units.few():
        text = f"What gives the label away cannot be scored: {reason}."
        return Section("shortcuts", "What gives the label away", (Words(text),), {"reason": reason})
    task = data.run.competition
    given, absent = candidates(units)
    rows = {name: scored(units, probabilities) for name, probabilities in given.items()}
    constant = task.metric.score(units.labels, units.constant)
    facts: dict[str, Fact] = {
        "units": len(units.frame),
        "metric": task.metric.name,
        "constant": constant,
        "scores": {name: {key: plain(value) for key, value in row.items()} for name, row in rows.items()},
        "absent": dict(absent),
    }
    blocks: list[Block] = [
        Words(_told(rows, constant, task.metric.name)),
        _table(rows, constant, task.metric.name),
        *_notes(units, rows),
    ]
    if rows:
        blocks.append(_chart(rows, constant, units, task.metric.name))
    blocks += (
        [Words(f"Not scored: {'; '.join(f'{name} ({why})' for name, why in absent.items())}.")]
        if absent
        else []
    )
    files = (
        {"scores": pd.DataFrame([{"shortcut": name, **row} for name, row in rows.items()])} if rows else {}
    )
    return Section("shortcuts", "What gives the label away", tuple(blocks), facts, files)


def scored(units: Units, probabilities: Array) -> Row:
    """Score and AUC of probabilities ``(units, K)`` with their 95 % intervals; NaN where there is none.

    The gain is how much lower they score than the constant, resampled together. The AUC of a perfect order
    has no interval: there is no spread to tell it by.
    """
    metric, labels, draws = units.data.run.competition.metric, units.labels, units.bootstrap
    low, high = metrics.interval(metric, labels, probabilities, draws)
    gain = metrics.compare(metric, labels, probabilities, units.constant, draws)
    areas = (math.nan, math.nan)
    if probabilities.shape[1] == 2:
        areas = giveaways.area_interval(labels, probabilities[:, 1], units.groups)
    areas = areas if areas[0] < areas[1] else (math.nan, math.nan)
    row = {"score": metric.score(labels, probabilities), "low": low, "high": high}
    row |= {"auc": metrics.area_under_curve(labels, probabilities), "auc_low": areas[0], "auc_high": areas[1]}
    return row | {"gain": gain.gain, "gain_low": gain.low, "gain_high": gain.high}


def better(rows: Mapping[str, Row]) -> list[str]:
    """The shortcuts that score lower than the constant, beyond noise."""
    return [name for name, row in rows.items() if row["gain_low"] > 0]


# --- what is known of a unit ----------------------------------------------------------------------------


def candidates(units: Units) -> tuple[dict[str, Array], dict[str, str]]:
    """Nested probabilities ``(units, K)`` of each shortcut by name; and those that are not there, and why."""
    tables, absent = known(units)
    matrices = {name: matrix_of(units, table) for name, table in tables.items()}
    absent |= {name: matrix for name, matrix in matrices.items() if isinstance(matrix, str)}
    usable = {name: matrix for name, matrix in matrices.items() if not isinstance(matrix, str)}
    if len(usable) > 1:
        together = pd.concat([tables[name] for name in usable], axis=1)
        matrix = matrix_of(units, together.loc[:, ~together.columns.duplicated()])
        usable |= {} if isinstance(matrix, str) else {ALL: matrix}
    exact = _exact(units)
    given: dict[str, Array] = {} if exact is None else {EXACT: exact}
    for name, matrix in usable.items():
        metric, ridge = units.data.run.competition.metric, baselines.ridge_of(name)
        given[name] = baselines.nested(matrix, units.labels, units.outer, metric, ridge)
    return given, absent


def matrix_of(units: Units, table: pd.DataFrame) -> Array | str:
    """Features ``(units, F)`` of metadata by unit_id; or why there are none."""
    if (~units.frame.index.isin(table.dropna(how="all").index)).mean() > baselines.MOST_MISSING:
        return f"known of fewer than {percent(1 - baselines.MOST_MISSING)} of the units"
    mine = table.reindex(units.frame.index)
    if not (mine.nunique(dropna=False) > 1).any():
        return "the same for all units"
    if not baselines.learned(mine):
        return f"more than {baselines.MOST_VALUES} different words"
    return np.asarray(baselines.features(mine, None).to_numpy(dtype=np.float64))


def known(units: Units) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """What is known of each unit without its pictures, by unit_id: one table a shortcut."""
    data, absent = units.data, {}
    found = _columns(units)
    if units.images.value_counts().nunique() > 1:
        found[IMAGES] = units.images.value_counts().rename(IMAGES).to_frame()
    for name, table, why in (
        (SIZE, data.sizes[list(SIZES)], "sizes are not known"),
        (BYTES, weights(data).rename(BYTES).to_frame(), "no files are at hand outside of a zip"),
    ):
        if table.empty:
            absent[name] = why
        else:
            found[name] = baselines.by_unit(table, units.images, count=False)
    if data.findings is not None:
        found[READERS] = baselines.by_unit(readers(data.findings), units.images, count=False)
    seen = _seen(units)
    if not seen:
        asked = data.run.asked or data.run.name
        absent[COLOURS] = f"type: python -m kit tile {asked}"
    return found | seen, absent


def _columns(units: Units) -> dict[str, pd.DataFrame]:
    """Every column of the training table that is no identifier and not the label."""
    data, task = units.data, units.data.run.competition
    by_image = data.raw.set_index(task.image)
    found = {}
    for name, one in columns(data.raw, task).items():
        if name != task.label and one.kind not in ("identifier", "empty") and one.distinct > 1:
            values = one.numbers.set_axis(by_image.index) if one.numeric else by_image[name]
            found[name] = baselines.by_unit(_as_category(values, one.numeric), units.images, count=False)
    return found


def _as_category(values: pd.Series[Any], numeric: bool) -> pd.DataFrame:
    """A column for the regression; a number that only names something must not be taken for one."""
    return values.to_frame() if numeric else ("is " + values.astype(str)).to_frame()


def readers(findings: pd.DataFrame) -> pd.DataFrame:
    """Whether each reader read an image: 0 or 1, by image_id."""
    return giveaways.metadata(findings).drop(columns=[*SIZES, "size"], errors="ignore")


def _seen(units: Units) -> dict[str, pd.DataFrame]:
    """What stage `tile` has measured, if it has run: nothing of it is what the tissue shows."""
    images = units.data.run.folder("tile") / "images.csv"
    if not images.is_file():
        return {}
    tiled = baselines.tile_metadata(images)
    tables = {TISSUE: tiled[["tissue"]], LOOK: tiled}
    tables |= baselines.shortcut_features(images) | baselines.looks(images.with_name("appearance.csv"))
    return {name: baselines.by_unit(table, units.images, count=False) for name, table in tables.items()}


def _exact(units: Units) -> Array | None:
    """Class shares by exact size, where sizes are categories; ``None`` where they hardly repeat."""
    sizes = units.data.sizes[list(SIZES)]
    first = units.images[~units.images.duplicated()]
    if not first.index.isin(sizes.index).all():
        return None
    text = sizes.loc[first.index].astype(int).astype(str).agg("x".join, axis=1).set_axis(first.to_numpy())
    if text.duplicated(keep=False).mean() < REPEATED or text.nunique() < 2:
        return None
    text, metric = text.loc[units.frame.index], units.data.run.competition.metric
    return giveaways.size_shares(text, units.labels, units.outer, metric)


# --- how it is told -------------------------------------------------------------------------------------


def _told(rows: Mapping[str, Row], constant: float, metric: str) -> str:
    """What a model of the pictures has to beat."""
    nothing = f"a constant ({number(constant)})"
    if not rows:
        return (
            "Nothing that is known here of the images besides the picture could tell their labels:"
            f" {nothing} is what there is to beat."
        )
    looked = {LOOK, *baselines.SHORTCUTS, *baselines.COLOURS} & set(rows)
    what = "one thing besides the picture" + (", or a few numbers of its colours" if looked else "")
    how = f"Each row knows {what}; {metric}, nested, lower is better."
    beaten = better(rows)
    best = min(beaten or rows, key=lambda name: rows[name]["score"])
    score, area = number(rows[best]["score"]), number(_none(rows[best]["auc"]), 3)
    if not beaten:
        return f"{how} None is distinguishable from {nothing}: the best is {best} with {score}."
    return (
        f"{how} {len(beaten):,} of {len(rows):,} beat {nothing}: the best is {best} with {score}, AUC {area}."
        " A model of the pictures that scores no better may have learned no more."
    )


def _notes(units: Units, rows: Mapping[str, Row]) -> list[Words]:
    """What has to be known to read the table."""
    notes = []
    if len(units.data.run.competition.classes) > 2:
        notes.append("AUC is the mean over the classes of one against the rest.")
    if ALL in rows and EXACT in rows:
        notes.append(
            f"Besides the {EXACT}, which is a table of shares, {ALL} is one regression of all others."
        )
    if any(row["auc"] < 0.5 for row in rows.values()):
        notes.append(
            "An AUC below 0.5 is what nested models have that found nothing: what a fold has more of, the"
            " rest has less of. Its interval does not know of that."
        )
    return [Words(" ".join(notes))] if notes else []


def _table(rows: Mapping[str, Row], constant: float, metric: str) -> Table:
    cells = [
        (name, number(row["score"]), _span(row["low"], row["high"], 4), number(_none(row["auc"]), 3),
         _span(row["auc_low"], row["auc_high"], 3))
        for name, row in rows.items()
    ]  # fmt: skip
    strong = frozenset(n for n, name in enumerate(rows) if name in better(rows))
    cells.append(("a constant", number(constant), "", number(0.5, 3), ""))
    head = ("what is known", metric, "95 % interval", "AUC", "95 % interval")
    return Table("The label from each of these alone, nested", head, cells, strong=strong)


def _none(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _span(low: float, high: float, digits: int) -> str:
    return "" if math.isnan(low) else f"{number(low, digits)} to {number(high, digits)}"


def _chart(rows: Mapping[str, Row], constant: float, units: Units, metric: str) -> Charts:
    beaten = better(rows)
    dots = [
        Dot(name, row["score"], _none(row["low"]), _none(row["high"]), name in beaten)
        for name, row in rows.items()
    ]
    n = count(len(units.frame), "unit")
    caption = f"{metric.capitalize()} with 95 % intervals, {n}"
    return Charts((Chart(caption, intervals("shortcuts-scores", caption, dots, constant, None)),))
