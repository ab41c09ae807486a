"""The key of a fit: everything that changes it, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from kit.learn import embed, needs
from kit.state import Run
from tests.learn.fits import fit_of

Make = Callable[..., Run]


def test_what_changes_a_fit_changes_its_key(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    fit = fit_of(run)
    y, first = fit.images["y"], fit.images.index[0]
    fits = [
        fit,
        fit_of(run, "scratch"),
        fit_of(run, "frozen:24"),
        fit_of(run, lr=0.5),
        fit_of(run, purpose="other"),
        fit_of(make_run(folder="s", seed=1)),
        fit_of(replace(run, threads=2)),
        fit_of(make_run(infer_batch=9)),
        replace(fit, images=fit.images.iloc[1:]),
        replace(fit, images=fit.images.assign(y=y.where(y.index != first, 1 - y[first]))),
        fit_of(replace(run, competition=replace(run.competition, classes=("b", "a")))),
    ]
    keys = {needs.key(one) for one in fits}
    monkeypatch.setattr(embed, "VERSION", embed.VERSION + 1)
    assert len(keys | {needs.key(fit)}) == len(fits) + 1


def test_what_changes_no_fit_leaves_its_key(make_run: Make) -> None:
    key = needs.key(fit_of(make_run()))
    others = {"hours": 3.0, "logs": (), "seeds": 3, "finetune_lr": 0.5, "layer_decay": 0.5, "compile": True}
    run = make_run("test_efficientnet:scratch", "test_efficientnet:frozen", workers=2, trials=3, **others)
    assert needs.key(fit_of(run)) == key
    assert needs.key(fit_of(run, "finetune")) != needs.key(fit_of(make_run(), "finetune"))
