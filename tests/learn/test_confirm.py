"""What a search found is scored again where it did not look, with groups kept apart as ever."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from tqdm.auto import tqdm

from kit.competition import FoldPlan
from kit.files import read_strings, write_json
from kit.learn import confirm, scoring, study, tune
from kit.learn.loop import Diverged
from kit.learn.storage import open_storage
from kit.learn.study import Trials
from kit.state import Run
from tests.learn.fits import model_of

Make = Callable[..., Run]


def cohort(units: int = 60, sites: int = 6) -> pd.DataFrame:
    """Units of two images in four folds: groups of two units, of one site each."""
    rows = [
        {"image_id": f"i{n}-{m}", "unit_id": f"u{n}", "group_id": f"g{n // 2}", "site": str(n // 2 % sites),
         "label": "ab"[n // 12 % 2], "y": n // 12 % 2, "role": "fold", "fold": str(n // 2 % sites % 4)}
        for n in range(units) for m in range(2)
    ]  # fmt: skip
    return pd.DataFrame(rows).set_index("image_id")


def confirming(run: Run, count: int, scheme: Any = "group-site") -> Run:
    """The same run with so many fresh splits."""
    tuning = dataclasses.replace(run.competition.tuning, confirm=count)
    task = dataclasses.replace(run.competition, tuning=tuning, folds=FoldPlan(k=4, scheme=scheme))
    return dataclasses.replace(run, competition=task)


@pytest.mark.parametrize("scheme", ["group-site", "group", "crossed"])
def test_fresh_splits_are_new_and_keep_apart_what_folds_keep_apart(scheme: str, make_run: Make) -> None:
    run, images = confirming(make_run(), 3, scheme), cohort()
    splits = confirm.fresh_splits(run, images, "1")
    searched = [set(split.judged.index) for split in scoring.inner_splits(run, images, "1")]
    assert len(splits) == 3 and len({split.name for split in splits}) == 3
    for split in splits:
        assert set(split.learned["fold"]) | set(split.judged["fold"]) <= {"0", "2", "3"}
        assert set(split.judged.index) not in searched
        assert set(split.learned["y"]) == {0, 1}
        for column in ("group_id", "unit_id", *(["site"] if scheme == "crossed" else [])):
            assert not set(split.learned[column]) & set(split.judged[column])
    # Three parts of one deal: every unit is judged once.
    judged = [unit for split in splits for unit in set(split.judged["unit_id"])]
    assert sorted(judged) == sorted(set(images.loc[images["fold"] != "1", "unit_id"]))


def test_a_deal_that_the_search_has_seen_is_dealt_again(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images = confirming(make_run(), 1), cohort()
    fold = dict(zip(images["group_id"], images["fold"], strict=True))
    dealt, whole = [], confirm.deal

    def deal(units: pd.DataFrame, parts: int, seed: int, sites: bool) -> dict[str, int]:
        dealt.append(seed)
        if len(dealt) > 2:
            return whole(units, parts, seed, sites)
        return {group: int(fold[group] != "2") for group in units["group_id"]}  # part 0 is an inner fold

    monkeypatch.setattr(confirm, "deal", deal)
    (split,) = confirm.fresh_splits(run, images, "1")
    assert len(set(dealt)) == 3 and set(split.judged["fold"]) != {"2"}


def test_fresh_splits_depend_on_the_seed_and_the_fold(make_run: Make) -> None:
    images = cohort()

    def judged(seed: int, fold: str) -> list[set[str]]:
        run = dataclasses.replace(confirming(make_run(), 2, "group"), seed=seed)
        return [set(split.judged["unit_id"]) for split in confirm.fresh_splits(run, images, fold)]

    assert judged(0, "1") == judged(0, "1")
    assert judged(0, "1") != judged(1, "1")


def test_a_class_of_one_group_cannot_be_dealt_afresh(make_run: Make) -> None:
    images = cohort()
    few = images[(images["label"] == "a") | (images["group_id"] == "g8")]
    assert confirm.fresh_splits(confirming(make_run(), 2), few, "1") == []


def trial(
    slot: int, losses: list[float], state: TrialState = TrialState.COMPLETE
) -> optuna.trial.FrozenTrial:
    attributes = {"slot": slot, "losses": [losses], "settings": {"lr": 0.01 * (slot + 1)}}
    return optuna.trial.create_trial(state=state, value=float(np.mean(losses)), user_attrs=attributes)


SEARCHED: Trials = [
    trial(0, [0.5, 0.5, 0.5]),
    trial(1, [0.1] * 3, TrialState.PRUNED),
    trial(2, [0.3, 0.2, 0.4]),
]


def test_winner_and_untuned_settings_are_fitted_on_every_fresh_split(
    make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images = confirming(make_run(), 2), cohort()
    asked: list[tuple[str, float]] = []

    def losses(run: Run, model: Any, split: Any) -> pd.Series[float]:
        asked.append((split.name, model.get("lr")))
        return pd.Series([model.get("lr") * 10, 0.4])

    monkeypatch.setattr(confirm, "unit_losses", losses)
    search = confirm.search(run, model_of(run), images, "1", "net", SEARCHED)
    assert search is not None and (search.name, search.slots) == ("net/confirm", 4)
    scores = [search.score(slot, dict(search.propose(slot, []).settings), []) for slot in range(4)]
    assert asked == [
        ("confirm 1 0", 0.01),
        ("confirm 1 0", 0.03),
        ("confirm 1 1", 0.01),
        ("confirm 1 1", 0.03),
    ]
    found = confirm.fresh([trial(slot, score.losses[0]) for slot, score in enumerate(scores)])
    assert (found.untuned, found.loss) == pytest.approx((0.25, 0.35)) and found.units == 4
    assert found.gain == pytest.approx(-0.1)
    assert found.error == pytest.approx(np.std([-0.2, 0, -0.2, 0], ddof=1) / 2)


@pytest.mark.parametrize(
    ("lost", "whose", "taken"),
    [({0.03}, "winner", False), ({0.01}, "untuned", True), ({0.01, 0.03}, "both", False), (set(), "", True)],
)
def test_settings_whose_fit_diverges_on_a_fresh_split_lose_and_the_stage_goes_on(
    lost: set[float], whose: str, taken: bool, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, images = confirming(make_run(), 2), cohort()
    model, counts = model_of(run), []

    def losses(run: Run, model: Any, split: Any) -> pd.Series[float]:
        counts.append(split.judged["unit_id"].nunique())
        if model.get("lr") in lost:
            raise Diverged("the loss is not finite", "a lower rate")
        return pd.Series([0.4] * counts[-1])

    monkeypatch.setattr(confirm, "unit_losses", losses)
    search = confirm.search(run, model, images, "1", "net", SEARCHED)
    assert search is not None
    with tqdm(disable=True) as bar:
        study.work(open_storage(run), [search], bar)
    found = confirm.fresh(study.finished(open_storage(run), search))
    assert (found.diverged, found.units) == (whose, sum(counts) // 2)
    assert found.loss == pytest.approx(scoring.WORST if 0.03 in lost else 0.4)
    assert (tune.choose(model, SEARCHED, found)["trial"] == 2) == taken
    row = confirm.row(model, "1", SEARCHED, found, taken)
    assert row["diverged"] == whose
    confirm.write(run, [row])
    write_json(run.folder("tune") / "best.json", {model.name: {"1": {}}})
    sides = {"both": ["untuned", "winner"], "": []}.get(whose, [whose])
    assert [f"{side} settings diverged" in confirm.text(run) for side in ("untuned", "winner")] == [
        side in sides for side in ("untuned", "winner")
    ]


def test_where_no_trial_beats_the_untuned_settings_there_is_nothing_to_confirm(make_run: Make) -> None:
    run = confirming(make_run(), 2)
    lost = [SEARCHED[0], trial(1, [0.6, 0.6, 0.6])]
    assert confirm.search(run, model_of(run), cohort(), "1", "net", lost) is None


@pytest.mark.parametrize(
    ("mode", "trials", "finetune", "more"),
    [
        ("scratch", 2, False, " (to search it: --set tune.finetune=true)"),
        ("scratch", 0, False, " (to search it: --set tune.trials=N --set tune.finetune=true)"),
        ("frozen", 0, False, " (to search it: --set tune.trials=N)"),
        ("scratch", 2, True, ""),
    ],
)
def test_a_declared_range_that_is_not_searched_is_said_with_the_value_that_is_used(
    mode: str, trials: int, finetune: bool, more: str, make_run: Make
) -> None:
    run = make_run(backbones=(f"x = test_efficientnet:{mode}; lr=1e-4..1e-2; pool=mean|max",), lr=3e-3,
                   scratch_lr=3e-3, pool="mean")  # fmt: skip
    tuning = dataclasses.replace(run.competition.tuning, trials=trials, finetune=finetune)
    run = dataclasses.replace(run, competition=dataclasses.replace(run.competition, tuning=tuning))
    confirm.write(run, [])
    write_json(run.folder("tune") / "best.json", {"x": {"0": {}}})
    said = "the declared ranges were not searched, lr=0.003, pool=mean is used"
    assert confirm.text(run) == f"tuning x: none, {said}{more}"


def test_the_table_and_the_text_tell_what_was_found_and_what_it_was_worth(make_run: Make) -> None:
    run = make_run()
    model = model_of(run)
    fresh = confirm.Fresh(loss=0.36, untuned=0.45, gain=0.09, error=0.02, units=40)
    rows = [
        confirm.row(model, "0", SEARCHED, fresh, taken=True),
        confirm.row(model, "1", SEARCHED[:1], None, taken=False),
    ]
    confirm.write(run, rows)
    table = read_strings(run.folder("tune") / "confirm.csv")
    assert list(table.columns) == confirm.COLUMNS
    first = table.iloc[0]
    assert (first["trial"], first["units"], first["taken"]) == ("2", "40", "true")
    assert float(first["optimism"]) == pytest.approx(0.06)
    assert table.iloc[1]["fresh"] == "" and table.iloc[1]["trial"] == "0"
    write_json(run.folder("tune") / "best.json", {model.name: {"0": {}, "1": {}}, "other": {"0": {}}})
    assert confirm.text(run).splitlines() == [
        "tuning other: none, settings as given",
        f"tuning {model.name}: found 0.4000 (untuned 0.5000), on fresh splits 0.3600 (untuned 0.4500), "
        "optimism 0.0600; taken in 1 of 2 folds",
    ]
