"""The scores with their intervals, and how much lower than each other row the default scores, paired."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from threadpoolctl import threadpool_limits

from kit import metrics
from kit.combine.aggregate import plain_mean
from kit.combine.scores import Scores
from kit.metrics import Array
from kit.show import score_plots, tables, verdict
from kit.show.results import Results
from kit.show.tables import Table
from kit.show.verdict import number, percent

MEAN = "mean of models"


def section(results: Results) -> dict[str, Any]:
    """The table and the chart of each set, and those of the differences."""
    content = results.content
    sets = [part for part in tables.SETS if any(row["set"] == part for row in content["rows"])]
    found = gains(results)
    higher = [gain.name for gain in found if verdict.errors_of(asdict(gain)) <= -verdict.ENOUGH]
    return {
        "tables": [tables.scores(content, part) for part in sets],
        "charts": [_interval_chart(content, part) for part in sets],
        "metadata": verdict.metadata_sentence(content),
        "absent": content["absent"],
        "gains": gain_table(found) if found else None,
        "gains_chart": gain_chart(found, content["units"]) if len(found) > 1 else "",
        "lower": [gain.name for gain in found if verdict.errors_of(asdict(gain)) >= verdict.ENOUGH],
        "higher": higher,
        "beaten": beaten_sentences([name for name in higher if name != "limit"]),
    }


def beaten_sentences(names: list[str]) -> list[str]:
    """What the verdict says of rows that clearly score lower than what is submitted."""
    if not names:
        return []
    verb = "scores" if len(names) == 1 else "score"
    return [
        f"{', '.join(names)} {verb} lower than what is submitted, by two standard errors or more:"
        " see the differences under Scores."
    ]


def _interval_chart(content: Mapping[str, Any], part: str) -> dict[str, str]:
    rows = [row for row in content["rows"] if row["set"] == part]
    at = {row["name"]: row["score"] for row in rows if row["kind"] in ("baseline", "limit")}
    dots = [
        score_plots.Dot(row["name"], row["score"], row["low"], row["high"], row["kind"] == "default")
        for row in rows
        if row["name"] not in ("constant", "limit")
    ]
    best = min(dots, key=lambda dot: dot.score)
    label = (
        f"{tables.SETS[part]}: scores of {len(dots)} predictors with 95 % intervals; the lowest"
        f" is {best.name} with {best.score:.4f}; a constant scores {at['constant']:.4f}"
    )
    svg = score_plots.intervals(f"scores-{part}", label, dots, at["constant"], at.get("limit"))
    return {"title": tables.SETS[part], "svg": svg}


@dataclass(frozen=True)
class Gain:
    """How much lower the default scores than another row, on the same units and resamples.

    better: the share of the resamples in which it is lower.
    """

    name: str
    kind: str
    gain: float
    se: float
    low: float
    high: float
    better: float


def gains(results: Results) -> list[Gain]:
    """The default against every row it was compared with, and against each model as it came.

    `combine` has written those of the pools, the constant and the limit; those of the models follow from
    their probabilities.
    """
    rows = [row for row in results.content["rows"] if row["set"] == "oof" and row["kind"] != "default"]
    written = {name: gain for gain in results.content["gains"] for name in (gain["first"], gain["second"])}
    compared = _of_models(results, [row["name"] for row in rows if row["name"] not in written])
    found = []
    for row in rows:
        gain = written.get(row["name"]) or compared.get(row["name"])
        if gain is not None:
            found.append(_gain(row, gain))
    return found


def _gain(row: Mapping[str, Any], gain: Mapping[str, Any]) -> Gain:
    """A difference as the default's: that of the limit was written the other way round."""
    values = [gain[name] for name in ("gain", "se", "low", "high", "better")]
    if gain.get("first") == row["name"]:
        values = [-values[0], values[1], -values[3], -values[2], 1 - values[4]]
    return Gain(row["name"], row["kind"], *values)


def _of_models(results: Results, names: list[str]) -> dict[str, dict[str, Any]]:
    """The default's gain over models as they came, with the resamples that `combine` takes."""
    run, scored, level = results.run, results.scored, results.problem.level
    units, values = scored.frame.index, dict[str, Array]()
    for name in names:
        if name in level.oof:
            values[name] = level.oof[name].on(units).plain.to_numpy()
        elif name == MEAN:
            values[name] = plain_mean({one: level.oof[one] for one in level.blended}, units)
    with threadpool_limits(1):  # sums depend on the number of threads
        draws = Scores(run, "oof", scored.frame).bootstrap
        metric, mine = run.competition.metric, scored.probabilities
        return {
            name: asdict(metrics.compare(metric, scored.labels, mine, other, draws))
            for name, other in values.items()
        }


def gain_table(found: list[Gain]) -> Table:
    """A row a difference; those that are told apart stand out."""
    rows = [
        (
            gain.name,
            tables.KINDS.get(gain.kind, gain.kind),
            signed(gain.gain),
            number(gain.se),
            f"{signed(gain.low)} to {signed(gain.high)}",
            signed(verdict.errors_of(asdict(gain)), 1),
            percent(gain.better),
        )
        for gain in found
    ]
    head = (
        "against",
        "kind",
        "gain",
        "standard error",
        "95 % interval",
        "in standard errors",
        "is better in",
    )
    return Table("How much lower the submitted blend scores", head, rows, frozenset({1}))


def gain_chart(found: list[Gain], units: int) -> str:
    """The differences with their intervals, one under another.

    That from the constant, of which the verdict tells, would leave no room for the others.
    """
    dots = [
        score_plots.Dot(gain.name, gain.gain, gain.low, gain.high, gain.low > 0)
        for gain in found
        if gain.name != "constant"
    ]
    clear = sum(dot.strong for dot in dots)
    label = (
        f"How much lower the submitted blend scores than {len(dots)} others, on the same {units} units, with"
        f" 95 % intervals; of {clear} the interval is above 0"
    )
    return score_plots.differences("gains", label, dots)


def signed(value: float, digits: int = 4) -> str:
    """A number with its sign.

    >>> signed(0.25, 2), signed(-0.25, 2), signed(float("inf"), 1)
    ('+0.25', '−0.25', '+inf')
    """
    return f"{value:+.{digits}f}".replace("-", "−")
