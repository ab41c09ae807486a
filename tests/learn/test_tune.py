"""Tuning: it looks at inner folds only, goes on after a kill, and is not fooled by noise."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from tqdm.auto import tqdm

from kit.competition import Tuning
from kit.files import read_strings
from kit.learn import backbones, tune
from kit.learn.dataset import labelled
from kit.learn.train import Fit, defaults
from kit.state import Run

Make = Callable[..., Run]
FROZEN = backbones.parse("test_efficientnet:frozen")


class Killed(Exception):
    """A kill, as a test can make one."""


def tuned(run: Run) -> tuple[bytes, bytes]:
    """What the stage writes: best.json and trials.csv."""
    best, trials = tune.run(run)
    return best.read_bytes(), trials.read_bytes()


def quick(patch: pytest.MonkeyPatch) -> list[Any]:
    """Losses that are a function of the settings, in place of fits; returns the settings asked for."""
    asked: list[Any] = []

    def losses(run: Run, backbone: Any, settings: Any, images: Any, fold: str) -> Any:
        asked.append((fold, settings))
        draw = np.random.default_rng(7)
        away = np.log(settings.lr / 0.03) ** 2 + settings.drop + settings.augment
        return 0.3 + 0.05 * away + draw.normal(0, 0.01, 20)

    patch.setattr(tune, "inner_losses", losses)
    return asked


@pytest.fixture(scope="module")
def straight(
    photo_run: Make, tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[bytes, bytes], list[Any]]:
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
    whole, predict = tune.train, tune.predict_images

    def learn(fit: Fit) -> Any:
        seen.append((fit.purpose.split()[2], set(fit.images.index), set()))
        return whole(fit)

    def judge(run: Run, backbone: Any, model: Any, split: str, ids: Any) -> Any:
        seen[-1][2].update(ids)
        return predict(run, backbone, model, split, ids)

    monkeypatch.setattr(tune, "train", learn)
    monkeypatch.setattr(tune, "predict_images", judge)
    tuned(run)
    assert len(seen) == 2 * 3 * 2 and {fold for fold, *_ in seen} == {"0", "1", "2"}
    groups = run.tables.train["group_id"]
    for fold, learned, scored in seen:
        outside = set(images.index[(images["fold"] == fold) | (images["role"] == "holdout")])
        assert learned and scored and not outside & (learned | scored)
        assert not set(groups[list(learned)]) & set(groups[list(scored)])


@pytest.mark.parametrize(("wanted", "used"), [(1, ["2"]), (2, ["2", "3"]), (9, ["2", "3", "0"])])
def test_the_inner_folds_follow_the_judged_one_in_turn_and_one_stays_to_learn_from(
    wanted: int, used: list[str], make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run()
    run = dataclasses.replace(
        run, competition=dataclasses.replace(run.competition, tuning=Tuning(inner=wanted))
    )
    images = labelled(run)
    images = images[images["role"] == "fold"]
    # A fourth fold, so that there is a choice.
    images["fold"] = images["fold"].mask(images.index.isin(["p0-0", "p1-0", "p2-0", "p3-0"]), "3")
    judged: list[str] = []
    monkeypatch.setattr(tune, "train", lambda fit: None)

    def judge(run: Run, backbone: Any, model: Any, split: str, ids: Any) -> Any:
        judged.extend(sorted(set(images.loc[ids, "fold"])))
        return np.full((len(ids), 2), 0.5)

    monkeypatch.setattr(tune, "predict_images", judge)
    losses = tune.inner_losses(run, FROZEN, defaults(run.competition.training, "frozen"), images, "1")
    assert judged == used
    np.testing.assert_allclose(losses, np.log(2))
    assert len(losses) == images["fold"].isin(judged).sum()


def test_folds_that_leave_no_inner_split_keep_the_settings(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, asked = make_run(trials=2), quick(monkeypatch)
    images = labelled(run)
    two = images[images["fold"].isin(["0", "1"])]
    assert tune.inner_folds(run, two, "0") == []
    # Without folds 0 and 1 there is nothing of class b: only fold 2 may be judged inside.
    lone = images[(images["role"] == "fold") & ((images["label"] == "a") | images["fold"].isin(["0", "1"]))]
    assert tune.inner_folds(run, lone, "0") == ["2"]
    plain = dataclasses.asdict(defaults(run.competition.training, "frozen"))
    with tqdm(disable=True) as bar:
        study = tune.search(run, FROZEN, two, "0", bar)
    assert tune.choose(run, FROZEN, study) == {"settings": plain, "trial": None, "trials": 0} and not asked


@pytest.mark.parametrize("after", [0, 1, 6])
def test_a_search_killed_while_a_trial_is_fitted_ends_as_if_it_had_not_been(
    after: int, make_run: Make, straight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial is left running, with all of its parameters drawn."""
    run, asked = make_run(trials=6), quick(monkeypatch)
    with monkeypatch.context() as patch:
        whole, count = tune.inner_losses, iter(range(99))

        def killed(*arguments: Any) -> Any:
            if next(count) == after:
                raise Killed
            return whole(*arguments)

        patch.setattr(tune, "inner_losses", killed)
        with pytest.raises(Killed):
            tune.run(run)
    assert left_running(run) == 1
    assert tuned(run) == straight[0]
    assert asked == straight[1], "each trial was fitted once, with the settings of a straight run"


def left_running(run: Run) -> int:
    storage = tune.storage(run)
    studies = [optuna.load_study(study_name=s.study_name, storage=storage) for s in storage.get_all_studies()]
    return sum(len(study.get_trials(states=(TrialState.RUNNING,))) for study in studies)


@pytest.mark.parametrize("after", [2, 4, 23])
def test_a_search_killed_while_a_trial_is_drawn_ends_as_if_it_had_not_been(
    after: int, make_run: Make, straight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trial is left running with a part of its parameters; photographs have four."""
    quick(monkeypatch)
    run = make_run(trials=6)
    whole, count = optuna.storages.JournalStorage.set_trial_param, iter(range(999))

    def killed(*arguments: Any) -> None:
        if next(count) == after:
            raise Killed
        whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.storages.JournalStorage, "set_trial_param", killed)
        with pytest.raises(Killed):
            tune.run(run)
    assert left_running(run) == 1
    assert tuned(run) == straight[0]


def test_a_search_killed_over_and_over_ends_as_if_it_had_not_been(
    make_run: Make, straight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    run = make_run(trials=6)
    whole = tune.inner_losses
    for after in (0, 0, 1, 2, 2):
        with monkeypatch.context() as patch:
            count = iter(range(99))

            def killed(*arguments: Any, count: Any = count, after: int = after) -> Any:
                if next(count) == after:
                    raise Killed
                return whole(*arguments)

            patch.setattr(tune, "inner_losses", killed)
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
        whole, count = tune.inner_losses, iter(range(99))
        patch.setattr(tune, "inner_losses", lambda *a: whole(*a) if next(count) < 2 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            tune.run(run)
    journal = run.folder("tune") / "study.journal"
    with journal.open("a") as stream:
        stream.write(torn)
    assert tuned(run) == straight[0]
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_a_whole_journal_is_left_as_it_is(tmp_path: Path) -> None:
    tune.drop_torn_line(tmp_path / "none")
    for text in ("", "a\nb\n"):
        (tmp_path / "whole").write_text(text)
        tune.drop_torn_line(tmp_path / "whole")
        assert (tmp_path / "whole").read_text() == text
    (tmp_path / "torn").write_text("only a part")
    tune.drop_torn_line(tmp_path / "torn")
    assert (tmp_path / "torn").read_text() == ""


def test_a_repeated_search_is_read_from_its_study(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = make_run(trials=3), quick(monkeypatch)
    first = tuned(run)
    assert len(asked) == 9
    assert tuned(run) == first and len(asked) == 9


def test_trial_zero_is_the_settings_as_given(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = make_run(trials=4, lr=0.02, drop=0.3), quick(monkeypatch)
    tuned(run)
    first = defaults(run.competition.training, "frozen")
    assert first.lr == 0.02 and next(s for fold, s in asked if fold == "1") == first
    assert len({settings for _, settings in asked}) == 3 * 3 + 1


def test_a_setting_that_the_search_would_not_draw_is_tried_as_given(
    make_bags: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bag of 3 tiles, no ridge, and much dropout are a user's right."""
    run, asked = make_bags(count=4, trials=3, bag=3, ridge=0.0, drop=0.9), quick(monkeypatch)
    tuned(run)
    assert asked[0][1] == defaults(run.competition.training, "frozen")
    assert {s.weight_decay for _, s in asked} == {0.0} and {s.bag for _, s in asked} <= {2, 3, 4}


def study_of(losses: list[Any]) -> optuna.Study:
    """A finished study: the losses of each trial."""
    study = optuna.create_study()
    lr = {"lr": optuna.distributions.FloatDistribution(0, 1)}
    for n, mine in enumerate(losses):
        study.add_trial(
            optuna.trial.create_trial(
                params={"lr": 0.1 * n}, distributions=lr, value=float(np.mean(mine)),
                user_attrs={"losses": [float(x) for x in mine]},
            )
        )  # fmt: skip
    return study


def test_a_trial_replaces_the_settings_only_when_it_is_better_by_more_than_one_error(make_run: Make) -> None:
    run = make_run()
    noise = np.random.default_rng(0).normal(0, 0.1, 100)
    noise -= noise.mean()
    error = noise.std(ddof=1) / 10
    start = np.full(100, 0.5)
    for gain, trial in ((0.9 * error, 0), (1.1 * error, 1), (-error, 0)):
        chosen = tune.choose(run, FROZEN, study_of([start, start - noise - gain]))
        assert chosen["trial"] == trial
        assert chosen["settings"]["lr"] == (0.1 if trial else 0.0) and chosen["trials"] == 2
        assert chosen["standard_error"] == pytest.approx(error if gain > 0 else 0)
        assert chosen["inner_loss_untuned"] == pytest.approx(0.5)
    # The error is that of the difference: what all trials share does not count.
    shared = np.random.default_rng(1).exponential(5, 100)
    assert tune.choose(run, FROZEN, study_of([shared, shared - 0.01 - 0.001 * noise]))["trial"] == 1


def test_gains_that_are_noise_mostly_keep_the_settings(make_run: Make) -> None:
    run, draw = make_run(), np.random.default_rng(0)
    studies = [[draw.exponential(0.5, 40) for _ in range(2)] for _ in range(40)]
    kept = [tune.choose(run, FROZEN, study_of(losses))["trial"] == 0 for losses in studies]
    assert 0.7 < np.mean(kept) < 0.98


def test_of_equal_trials_the_first_is_taken(make_run: Make) -> None:
    better = [0.1, 0.2, 0.1]
    assert tune.choose(make_run(), FROZEN, study_of([[0.5, 0.6, 0.5], better, better]))["trial"] == 1


def test_fine_tuning_is_searched_only_when_asked_for(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = quick(monkeypatch)
    run = make_run("test_efficientnet:scratch", "test_efficientnet:finetune:24", trials=3)
    best = json.loads(tuned(run)[0])
    assert asked == [] and len(read_strings(run.folder("tune") / "trials.csv")) == 0
    for name, mode in (("scratch", "scratch"), ("finetune-24", "finetune")):
        for fold in ("0", "1", "2"):
            plain = dataclasses.asdict(defaults(run.competition.training, mode))
            assert best[f"test_efficientnet-{name}"][fold] == {"settings": plain, "trial": None, "trials": 0}
    on = dataclasses.replace(run.competition, tuning=Tuning(trials=2, finetune=True))
    tuned(dataclasses.replace(run, competition=on))
    assert len(asked) == 2 * 3 * 2


def test_no_trials_keep_the_settings(make_run: Make) -> None:
    run = make_run(trials=0)
    best = json.loads(tuned(run)[0])[FROZEN.name]["0"]
    plain = dataclasses.asdict(defaults(run.competition.training, "frozen"))
    assert best == {"settings": plain, "trial": None, "trials": 0}
    assert not (run.folder("tune") / "study.journal").exists()


def test_a_bag_of_one_has_no_pool_to_choose(make_run: Make, make_bags: Make) -> None:
    one, many = (run.competition for run in (make_run(), make_bags(count=6)))
    assert set(tune.space(one, FROZEN)) == {"lr", "weight_decay", "drop", "augment"}
    found = tune.space(many, FROZEN)
    assert set(found) - set(tune.space(one, FROZEN)) == {"pool", "bag"}
    assert found["bag"].choices == (2, 3, 4), "and the bag of the settings"


def test_every_trial_is_listed_with_its_settings(make_run: Make) -> None:
    run = make_run(trials=2, epochs=2)
    tuned(run)
    table = read_strings(run.folder("tune") / "trials.csv")
    assert list(table["trial"]) == ["0", "1"] * 3 and list(table["fold"]) == list("001122")
    assert (table["loss"].astype(float) > 0).all() and (table["lr"].astype(float) > 0).all()


def test_a_database_holds_the_same_study_and_is_no_part_of_the_key(
    make_run: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(monkeypatch)
    run = make_run(trials=2)
    plan = dataclasses.replace(run.competition.tuning, storage=f"sqlite:///{tmp_path / 'study.db'}")
    task = dataclasses.replace(run.competition, tuning=plan)
    other = dataclasses.replace(run, competition=task, work=tmp_path / "other")
    shutil.copytree(run.folder("tile"), other.folder("tile"))
    assert other.key("tune") == run.key("tune")
    assert tuned(other) == tuned(run)
    assert (tmp_path / "study.db").is_file() and not (other.folder("tune") / "study.journal").exists()
