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
import pandas as pd
import pytest
from optuna.trial import TrialState

from kit import processes, state
from kit.errors import SettingError, StageError
from kit.files import read_strings
from kit.learn import confirm, scoring, space, study, tune
from kit.learn.dataset import labelled
from kit.learn.loop import Diverged
from kit.learn.scoring import Split
from kit.learn.storage import drop_torn_line, journal_path, masked, open_storage
from kit.state import Run
from tests.learn.fits import model_of

Make = Callable[..., Run]
NAME = "test_efficientnet-frozen"


class Killed(BaseException):
    """A kill, as a test can make one."""


def tuned(run: Run) -> tuple[bytes, ...]:
    """What the stage writes: best.json, trials.csv and confirm.csv."""
    return tuple(path.read_bytes() for path in tune.run(run))


def with_tuning(run: Run, **options: Any) -> Run:
    """The same run with other settings of the search."""
    plan = dataclasses.replace(run.competition.tuning, **options)
    return dataclasses.replace(run, competition=dataclasses.replace(run.competition, tuning=plan))


def quick(patch: pytest.MonkeyPatch) -> list[Any]:
    """Losses that are a function of the settings, in place of fits; returns the settings asked for."""
    asked: list[Any] = []

    def losses(run: Run, model: Any, split: Split, look: Any = None) -> pd.Series[float]:
        settings = {name: model.get(name) for name in space.TUNED}
        asked.append((split.name, settings))
        draw = np.random.default_rng(7)
        away = np.log(settings["lr"] / 0.03) ** 2 + settings["drop"] + settings["augment"]
        units = sorted(set(split.judged["unit_id"]))
        return pd.Series(0.3 + 0.05 * away + draw.normal(0, 0.01, len(units)), units).round(6)

    patch.setattr(scoring, "unit_losses", losses)
    patch.setattr(confirm, "unit_losses", losses)
    return asked


def searched(asked: list[Any]) -> list[Any]:
    """What the searches asked for, without what was scored again on fresh splits."""
    return [(name, settings) for name, settings in asked if name.startswith("tune")]


@pytest.fixture(scope="module")
def straight(
    photo_run: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[bytes, ...], list[Any]]:
    """What six trials a fold give without a stop, and the settings that were asked for."""
    with pytest.MonkeyPatch.context() as patch:
        asked = quick(patch)
        return tuned(photo_run(tmp_path_factory.mktemp("straight"), trials=6)), asked


def test_no_trial_looks_at_the_fold_it_will_be_judged_on(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(trials=2)
    images = labelled(run)
    seen: list[tuple[str, set[str], set[str]]] = []  # fold, learned from, scored on
    whole, predict = scoring.train, scoring.predict_images

    def learn(fit: Any) -> Any:
        seen.append((fit.purpose.split()[2], set(fit.images.index), set()))
        return whole(fit)

    def judge(run: Run, model: Any, network: Any, split: str, ids: Any) -> Any:
        seen[-1][2].update(ids)
        return predict(run, model, network, split, ids)

    monkeypatch.setattr(scoring, "train", learn)
    monkeypatch.setattr(scoring, "predict_images", judge)
    tuned(with_tuning(run, prune=False))
    assert len(seen) >= 2 * 3 * 2 and {fold for fold, *_ in seen} == {"0", "1", "2"}
    groups = run.tables.train["group_id"]
    for fold, learned, scored in seen:
        outside = set(images.index[(images["fold"] == fold) | (images["role"] == "holdout")])
        assert learned and scored and not outside & (learned | scored)
        assert not set(groups[list(learned)]) & set(groups[list(scored)])


@pytest.mark.parametrize(("wanted", "used"), [(1, ["2"]), (2, ["2", "3"]), (9, ["2", "3", "0"])])
def test_the_inner_folds_follow_the_judged_one_in_turn_and_one_stays_to_learn_from(
    wanted: int, used: list[str], make_run: Make
) -> None:
    run = with_tuning(make_run(), inner=wanted)
    images = labelled(run)
    images = images[images["role"] == "fold"]
    # A fourth fold, so that there is a choice.
    images["fold"] = images["fold"].mask(images.index.isin(["p0-0", "p1-0", "p2-0", "p3-0"]), "3")
    splits = scoring.inner_splits(run, images, "1")
    assert [sorted(set(split.judged["fold"])) for split in splits] == [[name] for name in used]
    for split in splits:
        assert set(split.learned["fold"]) == {"0", "1", "2", "3"} - {"1"} - set(split.judged["fold"])


def test_the_loss_of_a_unit_is_the_mean_over_its_images(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    rows = pd.DataFrame({"unit_id": ["u2", "u1", "u1", "u0"], "y": [0, 1, 1, 0]}, index=list("abcd"))
    said = np.array([[0.5, 0.5], [0.75, 0.25], [0.0, 1.0], [np.nan, np.nan]])
    monkeypatch.setattr(scoring, "train", lambda fit: None)
    monkeypatch.setattr(scoring, "predict_images", lambda *_: said)
    found = scoring.unit_losses(run, model_of(run), Split("x", rows, rows))
    assert found.to_dict() == pytest.approx(
        {"u0": scoring.WORST, "u1": np.log(4) / 2, "u2": np.log(2)}, abs=1e-6
    )


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


def trials_of(losses: list[Any], pruned: tuple[int, ...] = ()) -> study.Trials:
    """Finished trials with the losses of each."""
    return [
        optuna.trial.create_trial(
            state=TrialState.PRUNED if n in pruned else TrialState.COMPLETE,
            value=float(np.mean(mine)),
            user_attrs={"slot": n, "losses": [[float(x) for x in mine]], "settings": {"lr": 0.1 * n}},
        )
        for n, mine in enumerate(losses)
    ]


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


def test_a_bag_of_one_has_no_pool_to_choose(make_run: Make, make_bags: Make) -> None:
    one, many = (run.competition for run in (make_run(), make_bags(count=6)))
    model = model_of(make_run())
    assert set(space.space(one, model)) == {"lr", "weight_decay", "drop", "augment"}
    found = space.space(many, model)
    assert set(found) - set(space.space(one, model)) == {"pool", "bag"}
    assert found["bag"].choices == (2, 3, 4), "and the bag of the settings"


def test_what_a_model_declares_is_searched_as_declared(make_run: Make) -> None:
    run = make_run()
    spec = "test_efficientnet:frozen; lr=1e-3..1e-1; drop=0.1..0.3; epochs=4..39; batch=2..20; pool=mean|max"
    found = space.space(run.competition, model_of(run, spec))
    kinds = optuna.distributions
    assert found["lr"] == kinds.FloatDistribution(1e-3, 1e-1, log=True)
    assert found["drop"] == kinds.FloatDistribution(0.1, 0.3)
    assert found["epochs"] == kinds.IntDistribution(4, 39) and found["batch"].log
    assert found["pool"] == kinds.CategoricalDistribution(["mean", "max"])
    assert "weight_decay" in found, "and the rest as ever"
    settings = space.propose(run, model_of(run, spec), "0", 1, []).settings
    assert set(space.TUNED) | {"epochs", "batch"} == set(settings) and isinstance(settings["epochs"], int)


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_proposal_depends_on_seed_fold_slot_and_sampler_alone(sampler: str, make_run: Make) -> None:
    run = with_tuning(make_run(), sampler=sampler)
    model = model_of(run)
    once = space.propose(run, model, "0", 1, []).settings
    assert space.propose(run, model, "0", 1, []).settings == once
    other = dataclasses.replace(run, seed=1)
    for place in ((other, "0", 1), (run, "1", 1), (run, "0", 2)):
        assert space.propose(place[0], model, *place[1:], []).settings != once
    assert space.propose(run, model, "0", 0, []).settings == space.defaults(model)


def test_every_trial_is_listed_with_its_settings(make_run: Make) -> None:
    run = make_run(trials=2, epochs=2)
    tuned(run)
    table = read_strings(run.folder("tune") / "trials.csv")
    assert list(table["trial"]) == ["0", "1"] * 3 and list(table["fold"]) == list("001122")
    assert (table["loss"].astype(float) > 0).all() and (table["lr"].astype(float) > 0).all()
    assert set(table["state"][table["trial"] == "0"]) == {"complete"} and set(table["folds"]) <= {"1", "2"}


# --- trials that are given up ---------------------------------------------------------------------


def two_splits(units: int = 60) -> list[Split]:
    """Splits of many units, which are all judged in both."""
    rows = pd.DataFrame({"unit_id": [f"u{n}" for n in range(units)], "y": 0})
    return [Split(name, rows, rows) for name in "ab"]


def scored(
    run: Run, patch: pytest.MonkeyPatch, slot: int, best: float, mine: float, trials: bool = True
) -> study.Score:
    """What a trial scores whose losses differ so much from the best trial's, with noise that all share."""
    noise = np.random.default_rng(0).normal(0.5, 0.1, 60)
    own = np.random.default_rng(slot).normal(0, 0.02, 60)
    units = [f"u{n}" for n in range(60)]
    patch.setattr(scoring, "unit_losses", lambda *_: pd.Series(noise + mine + own, units).sort_index())
    first = pd.Series(noise + best, units).sort_index().tolist()
    (before,) = trials_of([[0.0]])
    before.user_attrs["losses"], before.values = [first, first], [float(np.mean(first))]
    return scoring.score(run, model_of(run), two_splits(), slot, [before] if trials else [])


def test_a_trial_that_clearly_loses_is_spared_the_other_splits(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    lost = scored(run, monkeypatch, 1, 0.0, 0.05)
    assert lost.pruned and len(lost.losses) == 1
    for slot, mine, reason in ((1, -0.05, "it wins"), (1, 0.0, "it is a draw"), (0, 0.05, "it is trial 0")):
        assert len(scored(run, monkeypatch, slot, 0.0, mine).losses) == 2, reason
    assert not scored(run, monkeypatch, 1, 0.0, 0.05, trials=False).pruned
    assert not scored(with_tuning(run, prune=False), monkeypatch, 1, 0.0, 0.05).pruned


def test_a_fit_that_diverges_loses_unless_it_is_what_the_user_asked_for(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()

    def diverge(*_: Any) -> None:
        raise Diverged("the loss is not finite")

    monkeypatch.setattr(scoring, "unit_losses", diverge)
    score = scoring.score(run, model_of(run), two_splits(3), 1, [])
    assert score.pruned and score.losses == [[scoring.WORST] * 3]
    with pytest.raises(Diverged):
        scoring.score(run, model_of(run), two_splits(3), 0, [])


def test_a_fine_tuned_trial_is_stopped_where_it_lags_twice(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run("test_efficientnet:scratch:24", finetune_epochs=8)
    model = model_of(run, "test_efficientnet:scratch:24")
    monkeypatch.setattr(scoring, "judge", lambda *_: pd.Series([next(curve)]))
    network = scoring.BagModel(None, 2, 2, "mean", 0.0)
    usual = [[0.6, 0.5, 0.4]] * 3
    for values, prune, seen in (
        ([0.7, 0.6, 0.1], True, [1, 3]),
        ([0.7, 0.4, 0.5], True, [1, 3, 5]),
        ([0.7, 0.6, 0.5], False, [1, 3, 5]),
    ):
        curve = iter(values)
        look = scoring._Curve(run, model, two_splits()[0], usual, prune)
        stopped = next((epoch for epoch in range(8) if look.look(epoch, network)), None)
        assert look.values == values[: len(seen)] and (
            stopped == seen[-1] if len(seen) == 2 else stopped is None
        )


def test_fine_tuned_trials_leave_the_curves_that_later_ones_are_compared_with(make_run: Make) -> None:
    run = make_run("test_efficientnet:scratch:24", trials=2, finetune_epochs=4)
    run = with_tuning(run, finetune=True, confirm=0)
    tuned(run)
    storage = open_storage(run)
    for found in storage.get_all_studies():
        first = storage.get_all_trials(found._study_id)[0]
        assert [len(curve) for curve in first.user_attrs["curves"]] == [3, 3]


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
