"""The search is shown as it went: fold by fold, and no more is said of its settings than the trials tell."""

from __future__ import annotations

import html as escaped
import re
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from kit.files import write_json, write_table
from kit.show.sections import tuning
from kit.state import Run


def table(folds: int = 3, trials: int = 6, seed: int = 0) -> pd.DataFrame:
    """Trials whose loss follows from the rate; of every fold the last one was stopped early."""
    draw, rows = np.random.default_rng(seed), []
    for fold in range(folds):
        for trial in range(trials):
            rate = 1e-3 if trial == 0 else 10 ** draw.uniform(-4, -2)
            state = "pruned" if trial == trials - 1 else "complete"
            loss = 0.5 + fold + 0.1 * (np.log10(rate) + 3.5) ** 2 - (5 if state == "pruned" else 0)
            rows.append(
                {"backbone": "net", "fold": fold, "trial": trial, "state": state, "folds": 3, "loss": loss,
                 "lr": rate, "pool": "mean" if trial % 2 else "attention", "bag": 4}
            )  # fmt: skip
    return pd.DataFrame(rows).astype(str)


def only(frame: pd.DataFrame) -> tuning.Trials:
    (found,) = tuning.of_table(frame)
    return found


def test_a_gain_is_that_over_the_settings_as_given_in_the_same_fold() -> None:
    found = only(table())
    first = found.frame["trial"].to_numpy() == "0"
    np.testing.assert_array_equal(found.gain[first], 0)
    assert found.settings == ["lr", "pool"]  # the bag is the same in all
    again = only(table().sample(frac=1, random_state=0))
    assert sorted(again.gain.tolist()) == sorted(found.gain.tolist())


def test_a_trial_that_was_stopped_early_never_counts_as_the_best() -> None:
    found = only(table())
    words = tuning.sentence(found)
    assert words.startswith("18 trials in 3 folds (15 complete, 3 pruned);")
    gain = float(re.search(r"is ([\d.]+) \(trial", words)[1])  # type: ignore[index]
    assert gain == pytest.approx(found.complete.gain.max(), abs=1e-4) and gain < 1
    for fold in tuning.histories(found):
        assert not fold.whole[-1] and (np.diff(fold.best) <= 0).all()
        assert fold.best[-1] == fold.loss[fold.whole].min() > fold.loss[-1]


def test_the_chart_tells_of_the_lowest_loss_of_a_complete_trial() -> None:
    found = only(table(folds=1))
    label = tuning.search_plots.history("h", "net", tuning.histories(found))
    lowest = found.complete.frame["loss"].astype(float).min()
    assert f"the lowest of a complete one is {lowest:.4f}" in label


def test_where_nothing_is_better_that_is_said() -> None:
    frame = table()
    frame.loc[frame["trial"] != "0", "loss"] = "9.0"
    assert "none scores lower than the settings as given" in tuning.sentence(only(frame))


def test_few_trials_have_no_importance_and_the_reason() -> None:
    complete = only(table(folds=2)).complete
    assert tuning.importances(complete, 0) == []
    assert tuning.importance_words(complete).startswith("10 complete trials are too few")


def test_enough_trials_rank_the_settings_and_say_how_roughly() -> None:
    few = only(table(folds=5)).complete
    found = tuning.importances(few, 0)
    assert found[0].name == "lr"
    assert found == tuning.importances(few, 0)
    many = only(table(folds=12)).complete
    assert "of the 60 trials" in tuning.importance_words(many)
    crowded = only(table(folds=5).assign(drop=lambda t: t.index.astype(str))).complete
    assert "roughly at best" in tuning.importance_words(crowded)
    assert all("even where no setting matters" in tuning.importance_words(one) for one in (many, crowded))


@pytest.mark.parametrize(
    ("texts", "places", "ends"),
    [
        (["1e-4", "1e-3", "1e-2"], [0, 0.5, 1], ["0.0001", "0.01"]),
        (["0.1", "0.2", "0.3"], [0, 0.5, 1], ["0.1", "0.3"]),
        (["mean", "attention", "max"], [1, 0, 0.5], ["attention", "max", "mean"]),
        (["16", "4", "16"], [1, 0, 1], ["4", "16"]),
    ],
)
def test_settings_are_put_on_a_scale_by_what_they_are(
    texts: list[str], places: list[float], ends: list[str]
) -> None:
    found = tuning.axis("x", texts)
    np.testing.assert_allclose(found.place, places, atol=1e-12)
    assert [words for _, words in found.words] == ends
    assert found.name == ("x (log)" if texts[0] == "1e-4" else "x")


def test_a_run_without_a_search_says_so(own_run: Run, finish: Callable[[Run], str]) -> None:
    kept = {"settings": {"lr": 0.001}, "trial": None, "trials": 0}
    write_json(own_run.folder("tune") / "best.json", {"net": {"0": kept, "1": kept}})
    text = escaped.unescape(finish(own_run))
    assert "There was no search: all 2 fits use the settings as given." in text
    assert "Trial 0 is" not in text and "no fold had a say" not in text


def test_the_page_shows_the_search_of_our_own_models(own_run: Run, finish: Callable[[Run], str]) -> None:
    kept = {"settings": {"lr": 0.001}, "trial": 0, "trials": 6}
    write_json(own_run.folder("tune") / "best.json", {"net": {"0": kept}})
    write_table(own_run.folder("tune") / "trials.csv", table(folds=4))
    text = escaped.unescape(finish(own_run))
    assert "The search for net" in text and "24 trials in 4 folds" in text
    assert 'aria-label="Search for net: inner loss of 24 trials in 4 folds' in text
    assert "Settings of 20 complete trials of net as lines over 2 settings" in text
    assert "Importance of settings, net" in text
    assert "fold 0, trial 5:" in text and ", stopped early" in text
