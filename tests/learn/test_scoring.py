"""What a trial is scored on, and when it is given up."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tqdm.auto import tqdm

from kit.files import read_strings
from kit.learn import loop, scoring, study
from kit.learn.dataset import labelled
from kit.learn.loop import Diverged
from kit.learn.scoring import Split
from kit.learn.storage import open_storage
from kit.state import Run
from tests.learn.fits import model_of
from tests.learn.searches import trials_of, tuned, with_tuning

Make = Callable[..., Run]


def test_no_trial_looks_at_the_fold_it_will_be_judged_on(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(trials=2)
    images = labelled(run)
    seen: list[tuple[str, set[str], set[str]]] = []  # fold, learned from, scored on
    whole, predict = scoring.train, scoring.predict_images

    def learn(fit: Any, **options: Any) -> Any:
        seen.append((fit.purpose.split()[2], set(fit.images.index), set()))
        return whole(fit, **options)

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
    monkeypatch.setattr(scoring, "train", lambda fit, **_: None)
    monkeypatch.setattr(scoring, "predict_images", lambda *_: said)
    found = scoring.unit_losses(run, model_of(run), Split("x", rows, rows))
    assert found.to_dict() == pytest.approx(
        {"u0": scoring.WORST, "u1": np.log(4) / 2, "u2": np.log(2)}, abs=1e-6
    )


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
    assert score.diverged == "the loss is not finite"
    with pytest.raises(Diverged, match="trial 0, which has the settings as given"):
        scoring.score(run, model_of(run), two_splits(3), 0, [])


def test_a_trial_that_diverges_is_spent_and_listed_and_never_fitted_at_another_rate(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, rates, whole = make_run(trials=3, epochs=2), [], loop.Loop.run

    def diverging(self: loop.Loop, *arguments: Any) -> Any:
        if self.model.get("lr") == run.competition.training.lr:
            return whole(self, *arguments)
        rates.append(self.model.get("lr"))
        raise Diverged("the loss is not finite", "a lower rate")

    monkeypatch.setattr(loop.Loop, "run", diverging)
    best = json.loads(tuned(run)[0])
    table = read_strings(run.folder("tune") / "trials.csv")
    assert list(table["state"]) == ["complete", "diverged", "diverged"] * 3
    lost = table[table["state"] == "diverged"]
    assert rates == lost["lr"].astype(float).tolist() and set(lost["folds"]) == {"1"}
    chosen = list(best["test_efficientnet-frozen"].values())
    assert {(found["trial"], found["trials"], found["diverged"]) for found in chosen} == {(0, 3, 2)}


def test_a_trial_that_diverged_is_a_worse_sign_than_one_that_was_given_up(make_run: Make) -> None:
    """To a sampler, the one that came further is the better one."""
    storage = open_storage(make_run())
    scores = [study.Score([[0.5]]), study.Score([[0.6]], True), study.Score([[0.5], [9.0]], True, [], "inf")]
    search = study.Search("s", 3, lambda *_: study.Proposal({}), lambda slot, *_: scores[slot])
    with tqdm(disable=True) as bar:
        study.work(storage, [search], bar)
    _, pruned, lost = study.finished(storage, search)
    assert pruned.last_step > lost.last_step and study.diverged(lost) == "inf"


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
