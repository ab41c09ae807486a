"""What a search may choose from, and what its next trial tries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import optuna
import pytest

from kit import state
from kit.errors import SettingError
from kit.learn import models, space
from kit.state import Run
from tests.learn.fits import model_of
from tests.learn.searches import quick, with_tuning

Make = Callable[..., Run]


def test_a_bag_of_one_has_no_pool_to_choose(make_run: Make, make_bags: Make) -> None:
    one, many = (run.competition for run in (make_run(), make_bags(count=6)))
    model = model_of(make_run())
    assert set(space.space(one, model)) == {"lr", "weight_decay", "drop"}
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
    assert space.space(run.competition, model_of(run, "test_efficientnet:frozen; pool=mean|vote"))
    settings = space.propose(run, model_of(run, spec), "0", 1, []).settings
    assert set(space.TUNED) | {"epochs", "batch"} == set(settings) and isinstance(settings["epochs"], int)


def test_a_value_that_a_model_names_is_no_part_of_its_search(make_run: Make) -> None:
    specs = (
        "named = test_efficientnet:frozen; drop=0.2; lr=1e-3..1e-1",  # 0.2 is the run's own value too
        "test_efficientnet:scratch; scratch_lr=1e-3; smoothing=0.1",
        "test_efficientnet:frozen",
    )
    run = make_run(*specs)
    found = [set(space.space(run.competition, model)) for model in models.of_run(run)]
    assert found[0] == {"lr", "weight_decay"}
    assert found[1] == {"weight_decay", "drop", "augment"}
    assert found[2] == {"lr", "weight_decay", "drop"}
    named = models.of_run(run)[0]
    assert space.propose(run, named, "0", 1, []).settings["drop"] == 0.2


def test_a_single_view_leaves_no_strength_to_search(make_run: Make) -> None:
    run = make_run()
    for spec, searched in (("frozen", False), ("frozen; views=2", True), ("frozen; views=1|4", True),
                           ("scratch", True)):  # fmt: skip
        model = model_of(run, f"test_efficientnet:{spec}")
        assert ("augment" in space.space(run.competition, model)) == searched


@pytest.mark.parametrize(
    "own",
    ["pool=mean|vote; mixup=0..0.2", "pool=mean|vote; loss=binary", "pool=vote; loss=cross-entropy|binary",
     "pool=mean|vote; mixup=0|0.2"],
)  # fmt: skip
def test_choices_that_do_not_go_together_are_refused_before_any_trial(
    own: str, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = quick(monkeypatch)
    run = make_run(f"test_efficientnet:frozen; {own}", trials=2)
    with pytest.raises(SettingError, match="pool=vote") as caught:
        state.execute(run, "tune")
    assert "train.pool=mean" in caught.value.hint and not asked


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
