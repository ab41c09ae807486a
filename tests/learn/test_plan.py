"""What fits into a number of hours, and that it is decided once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kit.competition import SecondLevel
from kit.errors import SettingError, StageError
from kit.learn import embed, models, plan, projection
from kit.learn.dataset import labelled
from kit.learn.models import Model
from kit.learn.plan import Cost
from kit.state import Run

HOUR = 3600.0
NAMES = ("a", "b", "c")
COST = {"a": HOUR, "b": 4 * HOUR, "c": HOUR / 2}  # of one fit


def asked(model: Model) -> Cost:
    return Cost(COST[model.name])


@pytest.fixture
def bounded(photo_run: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """``bounded(hours, seeds)``: three models, of which one takes eight times as long as another."""

    def make(hours: float, seeds: int = 2) -> Run:
        backbones = [f"{name} = test_efficientnet:scratch" for name in NAMES]
        return photo_run(tmp_path, *backbones, hours=hours, seeds=seeds)

    return make


def jobs(run: Run) -> list[plan.Job]:
    return [(model, fold) for model in models.of_run(run) for fold in ("0", "1")]


def names(found: list[plan.Job]) -> list[str]:
    return [model.purpose for model, fold in found if fold == "0"]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (1000, ["a", "b", "c", "a seed 1", "b seed 1", "c seed 1"]),
        (22, ["a", "b", "c", "a seed 1", "b seed 1", "c seed 1"]),  # exactly all
        (14, ["a", "b", "c", "a seed 1", "c seed 1"]),
        (11, ["a", "b", "c"]),
        (10.9, ["a", "b"]),
        (6, ["a", "c", "a seed 1", "c seed 1"]),  # what is too long makes room for what is not
        (2, ["a"]),
        (1, ["c"]),
        (0.001, ["c"]),  # one model in any case: the quickest
    ],
)
def test_first_seeds_come_first_and_each_is_kept_if_it_fits(
    bounded: Callable[..., Run], hours: float, expected: list[str]
) -> None:
    run = bounded(hours)
    found = plan.affordable(run, jobs(run), asked)
    assert names(found) == expected
    assert len(found) == 2 * len(expected)  # all folds of what is kept
    assert [model.purpose for model in plan.kept(run)] == expected


def test_what_was_decided_holds_although_the_clock_says_something_else_later(
    bounded: Callable[..., Run],
) -> None:
    run = bounded(11)
    first = plan.affordable(run, jobs(run), asked)
    written, digest = plan.path(run).read_bytes(), plan.inputs(run)

    def never(model: Model) -> Cost:
        raise AssertionError("it was measured again")

    assert plan.affordable(run, jobs(run), never) == first
    assert plan.path(run).read_bytes() == written and plan.inputs(run) == digest is not None


def test_a_plan_that_keeps_the_same_is_the_same_whatever_the_clock_said(bounded: Callable[..., Run]) -> None:
    found = []
    for factor in (1.0, 0.99, 0.4):
        run = bounded(11)
        plan.path(run).unlink(missing_ok=True)
        plan.affordable(run, jobs(run), lambda model, by=factor: Cost(by * COST[model.name]))
        found.append(plan.inputs(run))
    assert found[0] == found[1] != found[2], "the last one keeps more"


def test_what_models_share_is_paid_once_by_the_first_that_is_kept(bounded: Callable[..., Run]) -> None:
    run = bounded(5)
    cost = {
        "a": Cost(4 * HOUR, {"x": HOUR}),  # two folds: too long
        "b": Cost(HOUR, {"x": HOUR, "y": HOUR}),
        "c": Cost(HOUR / 4, {"x": HOUR}),
    }
    rows = plan.planned(jobs(run), lambda model: cost[model.name], 5)
    assert [(row.kept, row.once / HOUR) for row in rows] == [(0, 0), (1, 2), (2, 0)]
    assert [row.hours(row.kept) for row in rows] == [0, 4, 1]
    assert "--set train.hours=23 " in plan.left_out(rows)
    rows = plan.planned(jobs(run), lambda model: cost[model.name], 4.4)
    assert [row.kept for row in rows] == [0, 1, 0] and plan.left_out(rows).startswith("a, b (seeds 2")


def test_a_model_that_is_to_be_blended_is_not_left_out_in_silence(bounded: Callable[..., Run]) -> None:
    run = bounded(6)
    task = replace(run.competition, second_level=SecondLevel(models=("a", "b")))
    blend = replace(run, competition=task)
    with pytest.raises(SettingError, match=r"combine\.models names 'b', .* train\.hours=6") as caught:
        plan.affordable(blend, jobs(blend), asked)
    assert "train.hours=22 " in caught.value.hint and not plan.path(blend).exists()
    plan.affordable(run, jobs(run), asked)
    with pytest.raises(SettingError, match="names 'b'"):
        plan.affordable(blend, jobs(blend), asked)


def test_embeddings_are_projected_once_and_a_head_is_not_free(
    photo_run: Callable[..., Run], tmp_path: Path
) -> None:
    run = photo_run(tmp_path, "a = test_efficientnet:frozen", "b = test_efficientnet:frozen; pool=attention")
    images = labelled(run)
    learned = images[(images["role"] == "fold") & (images["fold"] != "0")]
    first, second = (projection.cost(run, model, learned) for model in models.of_run(run))
    assert list(first.shared) == list(second.shared) and len(first.shared) == 1
    assert 0 < first.fit < 20 and min(first.shared.values()) > 0
    longer = projection.cost(run, models.of_run(run)[0].having({"epochs": 2000}), learned)
    assert longer.fit > 20 * first.fit
    embed.stored(run, models.of_run(run)[0])
    assert projection.cost(run, models.of_run(run)[1], learned).shared == {}


def test_another_training_is_planned_anew(bounded: Callable[..., Run]) -> None:
    run = bounded(11)
    plan.affordable(run, jobs(run), asked)
    other = replace(run, seed=run.seed + 1)
    with pytest.raises(StageError, match="does not say which models fit"):
        plan.kept(other)
    assert names(plan.affordable(other, jobs(other), lambda model: Cost(1.0))) == names(jobs(other))


def test_without_a_bound_nothing_is_measured_written_or_left_out(bounded: Callable[..., Run]) -> None:
    run = bounded(0)

    def never(model: Model) -> Cost:
        raise AssertionError("it was measured")

    assert plan.affordable(run, jobs(run), never) == jobs(run)
    assert plan.kept(run) == models.of_run(run) and plan.inputs(run) is None
    assert not plan.path(run).exists()


def test_every_model_is_measured_once_whatever_its_seeds_and_folds(bounded: Callable[..., Run]) -> None:
    run, seen = bounded(22, seeds=3), []

    def seconds(model: Model) -> Cost:
        seen.append(model.purpose)
        return Cost(1.0)

    plan.affordable(run, jobs(run), seconds)
    assert seen == ["a", "b", "c"]


def test_what_is_left_out_is_said_loudly_with_what_to_type(
    bounded: Callable[..., Run], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="kit")
    run = bounded(10.9)
    plan.affordable(run, jobs(run), asked)
    (loud,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert loud.startswith("LEFT OUT: a (seeds 2 to 2), b (seeds 2 to 2), c: ")
    assert "--set train.hours=22 " in loud
    table = "\n".join(record.getMessage() for record in caplog.records)
    assert "projected time of training: 10.0 h of train.hours=10.9" in table
    assert "b      1 of 2  4.0 h    8.0 h" in table
    found = bounded(22)
    assert names(plan.affordable(found, jobs(found), asked)) == names(jobs(found))


def test_the_time_of_a_step_is_the_median_after_the_first() -> None:
    ticks = iter([0.0, 9.0, 10.0, 15.0, 17.0])
    assert plan.per_step(itertools.count(), lambda: next(ticks)) == 2.0
    ticks = iter([0.0, 9.0])
    assert plan.per_step([1], lambda: next(ticks)) == 9.0
    assert plan.per_step([], lambda: 0.0) == 0.0
