"""Searches to try things on: the stage, trials of known losses, and losses in place of fits."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState

from kit.learn import confirm, scoring, space, study, tune
from kit.learn.scoring import Split
from kit.state import Run


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
