"""The table of scores: every number of metrics.json, and no verdict that noise could have made."""

from __future__ import annotations

from typing import Any

import pytest

from kit.combine.table import render


def row(name: str, kind: str, **changes: Any) -> dict[str, Any]:
    plain = {"name": name, "kind": kind, "set": "oof", "score": 0.64, "low": 0.6, "high": 0.7, "auc": 0.71}
    return {**plain, "nested": None, **changes}


def content(gain: float = 0.0, se: float = 0.01, **changes: Any) -> dict[str, Any]:
    gains = [{"first": "calibrated blend", "second": "constant", "set": "oof", "gain": gain, "se": se}]
    rows = [row("net", "model"), row("calibrated blend", "default", nested=True)]
    plain = {"metric": "log loss", "units": 632, "rows": rows, "gains": gains, "absent": [], "uncovered": 0}
    return {**plain, **changes}


@pytest.mark.parametrize(
    ("gain", "se", "said"),
    [
        (0.05, 0.01, "beats the constant by 0.0500 +- 0.0100: 5.0 standard errors"),
        (0.0201, 0.01, "by 0.0201 +- 0.0100: 2.0 standard errors"),
        (0.0199, 0.01, "is not distinguishable from the constant (+0.0199 +- 0.0100)"),
        (0.001, 0.01, "is not distinguishable from the constant"),
        (-0.001, 0.01, "is not distinguishable from the constant"),
        (-0.4046, 0.0507, "LOSES TO the constant by 0.4046 +- 0.0507: 8.0 standard errors"),
        (0.0, 0.0, "scores the same as the constant (+- 0.0000)"),
        (4e-5, 1e-9, "scores the same as the constant (+- 0.0000)"),
        (0.1, 1e-10, "beats the constant by 0.1000 +- 0.0000"),
    ],
)
def test_a_gain_below_two_standard_errors_is_not_distinguishable(gain: float, se: float, said: str) -> None:
    text = render(content(gain, se))
    assert said in text and "0000.0 standard errors" not in text
    assert ("not distinguishable" in text) == (5e-5 < abs(gain) < 2 * se)
    assert not (se < 5e-5 and "standard errors" in text)


def test_every_row_is_shown_with_its_interval_and_the_default_is_marked() -> None:
    lines = render(content()).splitlines()
    assert lines[0] == "log loss on 632 units (lower is better)"
    net, default = (next(line for line in lines if name in line) for name in ("net", "calibrated blend"))
    assert net.split() == ["oof", "net", "0.6400", "0.6000", "-", "0.7000", "0.710"]
    assert "calibrated blend *" in default and default.endswith("yes")
    assert sum("*" in line for line in lines) == 1


def test_columns_line_up() -> None:
    lines = render(
        content(rows=[row("a name that is long", "model"), row("x", "pool", nested=False)])
    ).splitlines()
    places = {line.index("0.6400") for line in lines if "0.6400" in line}
    assert len(places) == 1 and lines[2].index("score") in places


def test_what_is_not_known_is_left_blank() -> None:
    text = render(content(rows=[row("x", "model", low=None, high=None, auc=None)]))
    line = next(line for line in text.splitlines() if " x " in line)
    assert line.split() == ["oof", "x", "0.6400"] and "None" not in text


def test_sets_are_ruled_off_from_each_other() -> None:
    rows = [row("a", "model"), row("b", "default"), row("b", "default", set="holdout")]
    lines = render(content(rows=rows)).splitlines()
    rules = [n for n, line in enumerate(lines) if line.startswith("---")]
    assert [lines[n + 1].split()[0] for n in rules] == ["oof", "holdout"]


def test_the_distance_to_the_limit_is_told_as_such() -> None:
    gains = [{"first": "limit", "second": "calibrated blend", "set": "oof", "gain": 0.08, "se": 0.02}]
    text = render(content(gains=gains))
    assert "the calibrated blend is 0.0800 +- 0.0200 above the limit" in text and "beats" not in text


def test_what_is_absent_is_said_with_its_reason() -> None:
    text = render(content(absent=[{"name": "metadata only", "reason": "no metadata was given"}], uncovered=7))
    assert "no row 'metadata only': no metadata was given" in text
    assert (
        "7 labelled units are not scored: not covered by all models" in text
        and "not scored" not in render(content())
    )


def test_rivals_of_one_verdict_share_a_sentence_and_equal_ones_have_no_size() -> None:
    sizes = {"a": (0.05, 0.01), "b": (-0.05, 0.01), "c": (0.01, 0.01), "d": (1e-6, 1e-9)}
    gains = [{"first": "ridge pool", "second": n, "gain": g, "se": s} for n, (g, s) in sizes.items()]
    text = render(content(gains=gains))
    for said in (
        "the ridge pool beats a (0.0500 +- 0.0100 higher)",
        "the ridge pool LOSES TO b (0.0500 +- 0.0100 lower)",
        "the ridge pool is not distinguishable from c (0.0100 +- 0.0100 higher)",
        "the ridge pool scores the same as d",
    ):
        assert said + "\n" in text + "\n"


def test_a_blend_that_loses_to_the_constant_is_said_with_what_to_type() -> None:
    for gain, said in ((-0.05, 1), (0.05, 0), (-0.01, 0)):
        gains = [{"first": "ridge pool", "second": "constant", "gain": gain, "se": 0.01}]
        text = render(content(gains=gains, simplest="platt"))
        assert text.count("submit that instead: --set combine.method='platt'") == said
        assert "instead" not in render(content(gains=gains, simplest="ridge pool"))


def test_what_was_chosen_is_said_and_choose_has_no_article() -> None:
    gains = [{"first": "choose", "second": "constant", "gain": 0.05, "se": 0.01}]
    text = render(content(gains=gains, chosen="logit mean", simplest="platt"))
    assert "choose took logit mean" in text and "\nchoose beats the constant by" in text
    assert "the simplest within one standard error of the best is platt" in text
    assert (
        "the choose" not in text and "took" not in render(content()) and "simplest" not in render(content())
    )


def test_the_second_submission_is_told_with_its_noise_where_there_is_one() -> None:
    pair = {"name": "greedy", "default": "choose", "gain": -0.002, "se": 0.003, "noise": 0.0041,
            "better": 0.34, "worth": 0.001, "units": 280, "stand_in": False}  # fmt: skip
    text = render(content(submissions=pair))
    assert "safe is choose; bold is greedy" in text and "on 280 test units beats" in text
    assert "noise there 0.0041" in text
    text = render(content(submissions=pair | {"stand_in": True}))
    assert "on a test set of 280 units, as many as are scored, beats" in text
    assert "two submissions" not in render(content(submissions=None))
