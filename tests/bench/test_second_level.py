"""Problems are laid out as the kit lays them out; the posterior has no regret; rows say what was measured."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.bench import problems, second_level, worlds
from tests.bench.harness import Row
from tests.bench.problems import Problem
from tests.bench.scoring import SHIFTED, Answer, Case, means, table
from tests.bench.second_level import Plan, gather

TINY = Plan(("A3",), draws=2, splits=1, classic=(), many=0, real=False, peers=False)


def simulated(draws: int = 2) -> list[Problem]:
    """Draws of the smallest world."""
    return [problems.world("A3", seed) for seed in range(draws)]


def answered(given: list[Problem], **predict: Callable[[Problem], np.ndarray]) -> Case:
    """A case that systems of this name answer so, in half a second a problem."""
    answers = {
        name.replace("_", " "): [Answer(of(problem), 0.5, 0.25) for problem in given]
        for name, of in predict.items()
    }
    return Case(given, answers, dict.fromkeys(answers, 100.0))


def posterior(problem: Problem) -> np.ndarray:
    assert problem.posterior is not None
    return problem.posterior


def even(problem: Problem) -> np.ndarray:
    """What says nothing."""
    classes = problem.probabilities.shape[2]
    return np.full((len(problem.labels), classes), 1 / classes)


def numbers(rows: list[Row], unit: str) -> dict[str, float]:
    return {row.system: row.value for row in rows if row.unit == unit}


@pytest.mark.parametrize(
    "problem", [problems.world("C8", 1), problems.many_units(2000, 4)], ids=lambda problem: problem.case
)
def test_a_problem_is_a_table_of_probabilities_with_even_outer_folds(problem: Problem) -> None:
    n, _, classes = problem.probabilities.shape
    assert len(problem.labels) == len(problem.outer) == n
    for values in (problem.probabilities, posterior(problem)):
        assert (values > 0).all()
        np.testing.assert_allclose(values.sum(axis=-1), 1, atol=1e-12)
    cells = np.zeros((problem.outer.max() + 1, classes), dtype=int)
    np.add.at(cells, (problem.outer, problem.labels), 1)
    assert (np.ptp(cells, axis=0) <= 1).all() and np.ptp(cells.sum(axis=1)) <= 1


def test_the_outer_folds_know_labels_and_seed_alone() -> None:
    labels = worlds.draw("A3", 0).labels
    fold = problems.deal(labels, 10, 0)
    np.testing.assert_array_equal(fold, problems.deal(labels, 10, 0))
    assert (fold != problems.deal(labels, 10, 1)).mean() > 0.8


def test_the_units_of_a_world_know_how_many_slides_stand_behind_them() -> None:
    drawn, problem = worlds.draw("A3", 0), problems.world("A3", 0)
    odds = np.log(problem.probabilities[:, :, 1] / problem.probabilities[:, :, 0])
    slides = np.bincount(drawn.patient)
    total = np.zeros((len(slides), 3))
    np.add.at(total, drawn.patient, drawn.logits)
    mean = total / slides[:, None]
    alone = slides == 1
    np.testing.assert_allclose(odds[alone], mean[alone], atol=1e-9)
    average = mean.mean(axis=0)
    pairs = average + 2 / 1.44 * (mean - average)[slides == 2]
    np.testing.assert_allclose(odds[slides == 2], pairs, atol=1e-9)


@pytest.mark.parametrize("problem", [problems.world("A8", 3), problems.many_units(20_000)], ids=str)
def test_no_model_is_as_good_as_the_posterior_nor_is_it_sharper_or_blunter(problem: Problem) -> None:
    best = problem.metric.score(problem.labels, posterior(problem))
    shifted = problem.probabilities / np.bincount(problem.labels)
    scores = [problem.metric.score(problem.labels, model) for model in np.moveaxis(shifted, 1, 0)]
    assert best < min(scores) < np.log(2)
    for power in (0.7, 1.4):
        assert best < problem.metric.score(problem.labels, posterior(problem) ** power)


def test_the_posterior_has_no_regret_and_its_lead_is_the_regret_of_the_other() -> None:
    case = answered(simulated(), kit=posterior, other=even)
    rows = case.rows()
    regret, gain = numbers(rows, "regret (nats)"), numbers(rows, "kit minus it")
    assert regret["kit"] == regret["limit"] == 0 < regret["other"]
    assert gain == {"other": -regret["other"]}
    score = numbers(rows, "weighted log loss (nats)")
    assert score["limit"] == score["kit"] and score["other"] == pytest.approx(np.log(2))
    errors = numbers(rows, "se of regret (nats)")
    assert errors["other"] == pytest.approx(np.std(case.limits(), ddof=1) / np.sqrt(2))
    assert errors["kit"] == 0 < errors["other"] == numbers(rows, "se of kit minus it")["other"]


def test_the_mean_over_worlds_is_paired_draw_by_draw() -> None:
    first = simulated(3)
    mirrored = [dataclasses.replace(problem, case="again") for problem in first]
    both = [answered(part, kit=posterior, other=even) for part in (first, mirrored)]
    alone, mean = both[0].rows(), means(both)
    assert {row.case for row in mean} == {"mean A3 again"}
    for unit in ("regret (nats)", "se of regret (nats)", "kit minus it", "weighted log loss (nats)"):
        assert numbers(mean, unit) == pytest.approx(numbers(alone, unit))


def test_real_models_are_compared_with_the_shifted_mean_unit_by_unit() -> None:
    given = [dataclasses.replace(problem, posterior=None) for problem in [problems.world("A8", 0)] * 2]
    known = posterior(problems.world("A8", 0))
    rows = answered(given, kit=lambda _: known, **{SHIFTED: even}).rows()
    score, gain = numbers(rows, "weighted log loss (nats)"), numbers(rows, "it minus shifted mean")
    assert gain == {"kit": pytest.approx(score["kit"] - np.log(2))}
    losses = -np.log(known[np.arange(632), given[0].labels])
    parts = [losses[given[0].labels == k] for k in (0, 1)]
    expected = np.sqrt(sum(part.var(ddof=1) / len(part) for part in parts)) / 2
    assert numbers(rows, "se of weighted log loss (nats)")["kit"] == pytest.approx(expected, rel=0.1)
    assert numbers(rows, "sd over splits") == {"kit": 0, SHIFTED: 0}
    assert "limit" not in score


def test_the_table_has_a_line_a_system_with_its_errors_and_costs() -> None:
    head, *lines = table(answered(simulated(), kit=posterior, other=even).rows()).splitlines()
    assert [line.split()[0] for line in lines] == ["kit", "other", "limit"]
    assert "regret (nats)" in head and "0.0000 +- 0.0000" in lines[0] and lines[1].split()[-1] == "100"


def test_absent_data_leave_a_case_out_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(problems, "REAL", tmp_path)
    found = gather(dataclasses.replace(TINY, real=True))
    assert [problem.case for problem in found] == ["A3", "A3"]
    said = capsys.readouterr().err
    assert f"without STRIP AI: {tmp_path}" in said and f"without VinBigData: {tmp_path}" in said


def test_a_run_writes_the_agreed_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(second_level, "QUICK", TINY)
    monkeypatch.setattr(sys, "argv", ["second_level", "--quick", "--json", str(tmp_path / "rows.json")])
    second_level.main()
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["machine"]
    names = {"case", "system", "wall_s", "cpu_s", "peak_mib", "value", "unit"}
    assert all(set(row) == names and isinstance(row["value"], float) for row in content["rows"])
    mine = [row for row in content["rows"] if row["case"] == "A3"]
    assert {row["system"] for row in mine} == {"kit", SHIFTED, "kit: mean logit + Platt", "limit"}
    kit = {row["unit"]: row for row in mine if row["system"] == "kit"}
    assert 0 < kit["regret (nats)"]["value"] < 0.05 and kit["regret (nats)"]["wall_s"] > 0
    assert content["rows"][-1]["case"] == "632 x 20, nested and final fit"
    assert "at most 5 s and 4096 MiB" in capsys.readouterr().out
