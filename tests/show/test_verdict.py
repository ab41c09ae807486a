"""The verdict follows from the numbers, whichever way they fall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.competition import Competition, Tables
from kit.metrics import LogLoss
from kit.show.verdict import judge, metadata_sentence
from kit.state import External, Run


def numbers(gain: float = 0.05, se: float = 0.01, **more: Any) -> dict[str, Any]:
    """A hand-written ``metrics.json``."""
    row = {"set": "oof", "kind": "default", "name": "calibrated blend", "nested": True,
           "score": 0.6431, "low": 0.61, "high": 0.67, "auc": 0.7}  # fmt: skip
    gained = {"first": "calibrated blend", "second": "constant", "set": "oof",
              "gain": gain, "se": se}  # fmt: skip
    return {"metric": "log loss", "units": 60, "rows": [row], "gains": [gained], "absent": [],
            "uncovered": 0} | more  # fmt: skip


def verdict(content: dict[str, Any], held_out: int = 0) -> tuple[str, str]:
    task = Competition("toy", ("A", "B"), LogLoss(), lambda data: Tables(pd.DataFrame()))
    run = Run(task, "toy", Path("data"), Path("work"), external=External({"net": Path("net.csv")}))
    found = judge(run, content, held_out)
    return found.headline, " ".join(found.sentences).replace("\u00a0", " ")


def test_the_verdict_says_by_how_many_standard_errors_a_constant_is_beaten() -> None:
    headline, text = verdict(numbers(gain=0.05, se=0.02))
    assert headline == "Better than a constant"
    assert "beats a constant" in text
    assert "0.0500 ± 0.0200: 2.5 standard errors" in text


@pytest.mark.parametrize("gain", [0.0199, 0.0, -0.0199])
def test_the_verdict_says_not_distinguishable_under_two_standard_errors(gain: float) -> None:
    headline, text = verdict(numbers(gain=gain, se=0.01))
    assert headline == "Not distinguishable from a constant"
    assert "beats" not in text


def test_the_verdict_says_worse_when_a_constant_would_do_better() -> None:
    headline, text = verdict(numbers(gain=-0.05, se=0.01))
    assert headline == "Worse than a constant"
    assert "is worse than a constant" in text


def test_a_gain_without_any_spread_does_not_stop_the_page() -> None:
    assert verdict(numbers(gain=0.0, se=0.0))[0].startswith("Not distinguishable")
    assert verdict(numbers(gain=0.1, se=0.0))[0] == "Better than a constant"


def test_the_verdict_measures_the_way_to_a_known_limit() -> None:
    content = numbers(gain=0.06, se=0.01)
    content["rows"].append({"set": "oof", "kind": "limit", "name": "limit", "score": 0.6231})
    content["gains"].append({"first": "limit", "second": "calibrated blend", "set": "oof",
                             "gain": 0.02, "se": 0.005})  # fmt: skip
    text = verdict(content)[1]
    assert "best possible score on these units is 0.6231" in text
    assert "0.0200 ± 0.0050 above that" in text
    assert "75 % of the way" in text


def test_an_unknown_limit_comes_with_its_reason() -> None:
    absent = [{"name": "limit", "reason": "known only for made data"}]
    assert "is not known: known only for made data." in verdict(numbers(absent=absent))[1]


@pytest.mark.parametrize(("low", "says"), [(0.60, "contains"), (0.65, "does not contain")])
def test_the_held_out_score_is_a_check_with_its_interval(low: float, says: str) -> None:
    content = numbers()
    held = content["rows"][0] | {"set": "holdout", "score": 0.68, "low": low, "high": 0.75}
    content["rows"].append(held)
    text = verdict(content, held_out=40)[1]
    assert "On 40 held-out units, which nothing was fitted on, it scores 0.6800 (95 %" in text
    assert f"That interval {says} the out-of-fold score" in text
    assert "too narrow" not in text
    assert "too narrow" in verdict(content, held_out=8)[1]


def test_predictions_made_elsewhere_are_said_to_be_so() -> None:
    assert "net were made elsewhere" in verdict(numbers())[1]


def test_units_that_no_blend_covers_are_counted() -> None:
    assert "1 labelled unit outside the held-out set is not scored" in verdict(numbers(uncovered=1))[1]
    assert "3 labelled units" in verdict(numbers(uncovered=3))[1]
    assert "not scored" not in verdict(numbers(uncovered=0))[1]


def test_metadata_is_compared_with_the_blend() -> None:
    content = numbers()
    assert metadata_sentence(content) == ""
    content["rows"].append({"set": "oof", "kind": "baseline", "name": "metadata only", "score": 0.7431})
    assert "Metadata alone scores 0.7431" in metadata_sentence(content)
    assert "is 0.1000 below" in metadata_sentence(content)


def test_the_second_submission_is_proposed_with_its_chance() -> None:
    pair = {"name": "greedy + platt", "default": "ridge pool", "gain": -0.002, "se": 0.003, "noise": 0.004,
            "better": 0.34, "worth": 0.001, "units": 280}  # fmt: skip
    _, text = verdict(numbers(submissions=pair))
    assert "greedy + platt, which scores 0.0020 ± 0.0030 higher out of fold" in text
    assert "34 % chance to beat it on 280 test units, where the noise of that difference is 0.0040" in text
    _, text = verdict(numbers(submissions=pair | {"stand_in": True}))
    assert "on a test set of 280 units, as many as are scored, where" in text
    assert "bold" not in verdict(numbers(submissions=None))[1]
