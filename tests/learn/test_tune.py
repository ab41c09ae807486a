"""Tuning: it looks at inner folds only, goes on after a kill, and is not fooled by noise."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from kit import processes, state
from kit.errors import SettingError, StageError
from kit.files import read_strings
from kit.learn import confirm, models, scoring, space, study, tune
from kit.learn.dataset import labelled
from kit.learn.storage import drop_torn_line, journal_path, masked, open_storage
from kit.state import Run
from tests.learn.fits import model_of
from tests.learn.searches import quick, searched, trials_of, tuned, with_tuning

Make = Callable[..., Run]
NAME = "test_efficientnet-frozen"


class Killed(BaseException):
    """A kill, as a test can make one."""


@pytest.fixture(scope="module")
def straight(
    photo_run: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[bytes, ...], list[Any]]:
    """What six trials a fold give without a stop, and the settings that were asked for."""
    with pytest.MonkeyPatch.context() as patch:
        asked = quick(patch)
        return tuned(photo_run(tmp_path_factory.mktemp("straight"), trials=6)), asked


def test_folds_that_leave_no_inner_split_keep_the_settings(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = make_run(trials=2), quick(monkeypatch)
    images = labelled(run)
    two = images[images["fold"].isin(["0", "1"])]
    assert scoring.inner_folds(run, two, "0") == []
    # Without folds 0 and 1 there is nothing of class b: only fold 2 may be judged inside.
    lone = images[(images["role"] == "fold") & ((images["label"] == "a") | images["fold"].isin(["0", "1"]))]
    assert scoring.inner_folds(run, lone, "0") == ["2"]
    model = model_of(run)
    assert tune.search_of(run, model, two, "0") is None
    plain = space.defaults(model)
    assert tune.choose(model, [], None) == {"settings": plain, "trial": None, "trials": 0} and not asked


@pytest.mark.parametrize("after", [0, 1, 6])
def test_a_search_killed_while_a_trial_is_fitted_ends_as_if_it_had_not_been(
    after: int, make_run: Make, straight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial is left running."""
    run = make_run(trials=6)
    quick(monkeypatch)
    with monkeypatch.context() as patch:
        whole, count = scoring.unit_losses, iter(range(99))

        def killed(*arguments: Any) -> Any:
            if next(count) == after:
                raise Killed
            return whole(*arguments)

        patch.setattr(scoring, "unit_losses", killed)
        leave_behind(patch)
        with pytest.raises(Killed):
            tune.run(run)
    assert left_running(run) == 1
    assert tuned(run) == straight[0]


def leave_behind(patch: pytest.MonkeyPatch) -> None:
    """Let one that is killed give nothing back."""
    whole = study._fail

    def fail(*arguments: Any) -> None:
        if not isinstance(sys.exc_info()[1], Killed):
            whole(*arguments)

    patch.setattr(study, "_fail", fail)


def left_running(run: Run) -> int:
    storage = open_storage(run)
    studies = [optuna.load_study(study_name=s.study_name, storage=storage) for s in storage.get_all_studies()]
    return sum(len(study.get_trials(states=(TrialState.RUNNING,))) for study in studies)


def test_a_search_killed_over_and_over_ends_as_if_it_had_not_been(
    make_run: Make, straight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    run = make_run(trials=6)
    whole = scoring.unit_losses
    for after in (0, 0, 1, 2, 3, 5):
        with monkeypatch.context() as patch:
            count = iter(range(99))

            def killed(*arguments: Any, count: Any = count, after: int = after) -> Any:
                if next(count) == after:
                    raise Killed
                return whole(*arguments)

            patch.setattr(scoring, "unit_losses", killed)
            leave_behind(patch)
            with pytest.raises(Killed):
                tune.run(run)
    assert tuned(run) == straight[0]


@pytest.mark.parametrize("torn", ['{"op_code": 5, "worker_i', "\x00\x00"])
def test_a_line_that_a_kill_tore_is_cut_off(
    torn: str, make_run: Make, straight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    run = make_run(trials=6)
    with monkeypatch.context() as patch:
        whole, count = scoring.unit_losses, iter(range(99))
        patch.setattr(scoring, "unit_losses", lambda *a: whole(*a) if next(count) < 4 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune.run(run)
    with journal_path(run).open("a") as stream:
        stream.write(torn)
    assert tuned(run) == straight[0]
    assert all(json.loads(line) for line in journal_path(run).read_text().splitlines())


def test_a_line_that_another_process_tore_is_cut_off_before_the_next(make_run: Make) -> None:
    run = make_run()
    storage = open_storage(run)
    optuna.create_study(storage=storage, study_name="first")
    with journal_path(run).open("a") as stream:
        stream.write('{"op_code": 5, "wor')
    optuna.create_study(storage=storage, study_name="second")
    assert {found.study_name for found in open_storage(run).get_all_studies()} == {"first", "second"}


def test_a_whole_journal_is_left_as_it_is(tmp_path: Path) -> None:
    drop_torn_line(tmp_path / "none")
    for text in ("", "a\nb\n"):
        (tmp_path / "whole").write_text(text)
        drop_torn_line(tmp_path / "whole")
        assert (tmp_path / "whole").read_text() == text
    for text, left in (("only a part", ""), ("a\nb", "a\n")):
        (tmp_path / "torn").write_text(text)
        drop_torn_line(tmp_path / "torn")
        assert (tmp_path / "torn").read_text() == left


def test_a_repeated_search_is_read_from_its_study_unless_it_is_forced(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = make_run(trials=3), quick(monkeypatch)
    first, times = tuned(run), len(asked)
    assert tuned(run) == first and len(asked) == times
    tune.forget(run)
    assert tuned(run) == first and len(asked) == 2 * times
    alive = processes.Process("00000000", 7, 1)
    monkeypatch.setattr(study, "forget", lambda *_: [alive])
    with pytest.raises(StageError, match="process 7 is at work on it"):
        tune.forget(run)


def test_a_study_knows_nothing_of_other_models_hours_seeds_and_logs(make_run: Make) -> None:
    """So that a longer list of models, or more time, costs no trial again."""
    first = "test_efficientnet:frozen"

    def name(*specs: str, **options: Any) -> str:
        run = make_run(*(specs or (first,)), **{"trials": 2, **options})
        return tune.study_name(run, models.of_run(run)[0], "1")

    run = make_run(trials=2)
    same = name()
    assert same == name(first, "test_efficientnet:scratch") == name(hours=3.0) == name(seeds=2)
    assert same == name(logs=()) == tune.study_name(with_tuning(run, finetune=True), model_of(run), "1")
    others = [
        name(trials=3),
        name(drop=0.3),
        name(seed=1),
        name(f"{first}; drop=0.2"),
        name(f"{first}; lr=1e-3..1e-1"),
        name(f"{first}:24"),
        tune.study_name(dataclasses.replace(run, threads=2), model_of(run), "1"),
        tune.study_name(with_tuning(run, inner=1), model_of(run), "1"),
        tune.study_name(run, model_of(run), "2"),
    ]
    assert len({same, *others}) == 1 + len(others)


def test_a_further_model_costs_no_trial_of_the_first_again(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = quick(monkeypatch)
    plain = {"prune": False, "confirm": 0}
    tuned(with_tuning(make_run(trials=2), **plain))
    assert len(asked) == 3 * 2 * 2
    longer = make_run("test_efficientnet:frozen", "test_efficientnet:frozen:24", trials=2, hours=9.0)
    tuned(with_tuning(longer, **plain))
    assert len(asked) == 2 * 3 * 2 * 2


def test_trial_zero_is_the_settings_as_given(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = with_tuning(make_run(trials=4, lr=0.02, drop=0.3), prune=False), quick(monkeypatch)
    tuned(run)
    first = space.defaults(model_of(run))
    assert first["lr"] == 0.02 and next(s for name, s in asked if name.startswith("tune 1")) == first
    different = {json.dumps(settings) for _, settings in searched(asked)}
    assert len(different) == 3 * 3 + 1


def test_a_setting_that_the_search_would_not_draw_is_tried_as_given(
    make_bags: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bag of 3 tiles, no ridge, and much dropout are a user's right."""
    run, asked = make_bags(count=4, trials=3, bag=3, ridge=0.0, drop=0.9), quick(monkeypatch)
    tuned(run)
    assert asked[0][1] == space.defaults(model_of(run, weight_decay=0.0, drop=0.9))
    assert {s["weight_decay"] for _, s in asked} == {0.0} and {s["bag"] for _, s in asked} <= {2, 3, 4}


def fresh(gain: float) -> confirm.Fresh:
    """A winner that gained so much on fresh splits."""
    return confirm.Fresh(0.5 - gain, 0.5, gain, 0.1, 20)


def test_a_trial_replaces_the_settings_only_when_it_is_better_by_more_than_one_error(make_run: Make) -> None:
    model = model_of(make_run())
    noise = np.random.default_rng(0).normal(0, 0.1, 100)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 10
    start = np.full(100, 0.5)
    for gain, trial in ((0.9 * error, 0), (1.1 * error, 1), (-error, 0)):
        chosen = tune.choose(model, trials_of([start, start - noise - gain]), None)
        assert chosen["trial"] == trial
        assert chosen["settings"]["lr"] == (0.1 if trial else 0.0) and chosen["trials"] == 2
        assert chosen["standard_error"] == pytest.approx(error if gain > 0 else 0)
        assert chosen["inner_loss_untuned"] == pytest.approx(0.5)
    # The error is that of the difference: what all trials share does not count.
    shared = np.random.default_rng(1).exponential(5, 100)
    assert tune.choose(model, trials_of([shared, shared - 0.01 - 0.001 * noise]), None)["trial"] == 1


def test_a_winner_that_loses_on_fresh_splits_is_not_taken(make_run: Make) -> None:
    model, trials = model_of(make_run()), trials_of([[0.5, 0.6, 0.55], [0.1, 0.2, 0.15]])
    for gain, trial in ((0.01, 1), (0.0, 1), (-0.01, 0)):
        chosen = tune.choose(model, trials, fresh(gain))
        assert (chosen["trial"], chosen["fresh_loss_untuned"]) == (trial, 0.5)
        assert chosen["fresh_loss"] == (0.5 - gain if trial else 0.5)


def test_a_trial_that_was_given_up_never_wins(make_run: Make) -> None:
    trials = trials_of([[0.5, 0.6, 0.5], [0.1, 0.1, 0.1], [0.3, 0.4, 0.3]], pruned=(1,))
    chosen = tune.choose(model_of(make_run()), trials, None)
    assert (chosen["trial"], chosen["trials"], chosen["pruned"]) == (2, 3, 1)


def test_gains_that_are_noise_mostly_keep_the_settings(make_run: Make) -> None:
    model, draw = model_of(make_run()), np.random.default_rng(0)
    several = [[draw.exponential(0.5, 40) for _ in range(2)] for _ in range(40)]
    kept = [tune.choose(model, trials_of(losses), None)["trial"] == 0 for losses in several]
    assert 0.7 < np.mean(kept) < 0.98


def test_of_equal_trials_the_first_is_taken(make_run: Make) -> None:
    better = [0.1, 0.2, 0.1]
    chosen = tune.choose(model_of(make_run()), trials_of([[0.5, 0.6, 0.5], better, better]), None)
    assert chosen["trial"] == 1


def test_fine_tuning_is_searched_only_when_asked_for(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = quick(monkeypatch)
    run = make_run("test_efficientnet:scratch", "test_efficientnet:finetune:24", trials=3)
    best = json.loads(tuned(run)[0])
    assert asked == [] and len(read_strings(run.folder("tune") / "trials.csv")) == 0
    assert tune.show(run).count("none, settings as given") == 2
    for spec, name in (("scratch", "scratch"), ("finetune:24", "finetune-24")):
        for fold in ("0", "1", "2"):
            plain = space.defaults(model_of(run, f"test_efficientnet:{spec}"))
            assert best[f"test_efficientnet-{name}"][fold] == {"settings": plain, "trial": None, "trials": 0}
    tuned(with_tuning(run, trials=2, finetune=True, prune=False))
    assert len(searched(asked)) == 2 * 3 * 2 * 2


def test_no_trials_keep_the_settings(make_run: Make) -> None:
    run = make_run(trials=0)
    best = json.loads(tuned(run)[0])[NAME]["0"]
    assert best == {"settings": space.defaults(model_of(run)), "trial": None, "trials": 0}
    assert not journal_path(run).exists()


def test_every_trial_is_listed_with_its_settings(make_run: Make) -> None:
    run = make_run(trials=2, epochs=2)
    tuned(run)
    table = read_strings(run.folder("tune") / "trials.csv")
    assert list(table["trial"]) == ["0", "1"] * 3 and list(table["fold"]) == list("001122")
    assert (table["loss"].astype(float) > 0).all() and (table["lr"].astype(float) > 0).all()
    assert set(table["state"][table["trial"] == "0"]) == {"complete"} and set(table["folds"]) <= {"1", "2"}


# --- before anything is computed ------------------------------------------------------------------


def test_a_database_holds_the_same_study_and_is_no_part_of_the_key(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    run = make_run(trials=2)
    stored = with_tuning(run, storage=f"sqlite:///{tmp_path / 'study.db'}")
    other = dataclasses.replace(stored, work=tmp_path / "other")
    shutil.copytree(run.folder("tile"), other.folder("tile"))
    assert other.key("tune") == run.key("tune")
    assert tuned(other) == tuned(run)
    assert (tmp_path / "study.db").is_file() and not journal_path(other).exists()


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg://me:secret@127.0.0.1:1/db", "cannot be used"),
        ("postgresql+psycopg://127.0.0.1:1/db?user=me&password=secret", "cannot be used"),
        ("mysql+absent://me:secret@host/db", "cannot be"),
        ("mysql://me:secret@host/db", "no driver"),
        ("secret", "cannot be"),
        ("sqlite:////nowhere/at/all.db", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_used_says_what_to_do_and_keeps_the_password(
    url: str, says: str, make_run: Make
) -> None:
    run = with_tuning(make_run(trials=1), storage=url)
    with pytest.raises(SettingError, match=says) as caught:
        tune.check(run)
    told = f"{caught.value.message} {caught.value.hint}"
    assert "tune.storage" in told and caught.value.hint
    assert url == "secret" or "secret" not in told


def test_passwords_are_masked_wherever_they_stand() -> None:
    for text in (
        "x://u:p%40ss@h/d",
        "x://h/d?password=p%40ss&a=b",
        "got x://u:p%40ss@h/d and x://v:p%40ss@h",
    ):
        assert "p%40ss" not in masked(text) and "***" in masked(text)
    assert masked("postgresql+psycopg://me@host:5432/db") == "postgresql+psycopg://me@host:5432/db"


def test_settings_that_training_would_refuse_are_refused_before_the_search(make_run: Make) -> None:
    with pytest.raises(SettingError, match="turned"):
        state.execute(make_run(trials=1, turned=("9",)), "tune")


def test_two_folds_are_too_few_to_tune_with(make_run: Make) -> None:
    run = make_run(trials=1)
    table = read_strings(run.folds)
    assert tune.check(run) is None
    two = run.work / "two.csv"
    table.assign(fold=table["fold"].replace("2", "1")).to_csv(two, index=False)
    given = dataclasses.replace(run, fold_table=two, folds_given=True)
    with pytest.raises(SettingError, match="with 2 folds") as caught:
        tune.check(given)
    assert "tune.trials=0" in caught.value.hint
    assert tune.check(with_tuning(given, trials=0)) is None
