"""Small runs whose predictions were made elsewhere, and their pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.combine import second_level
from kit.competition import Competition, SecondLevel, Tables
from kit.deliver import submit
from kit.files import digest, read_strings, write_json, write_table
from kit.metrics import Metric, WeightedLogLoss
from kit.show import report
from kit.state import External, Run


def cohort(classes: tuple[str, ...], n: int, unit: str, site: str) -> pd.DataFrame:
    """Units 000, 001, ...: every third is of a later class; the site "lone" has one class only."""
    units = [unit.format(f"{k:03d}") for k in range(n)]
    labels = [classes[0 if k % 3 else 1 + k // 3 % (len(classes) - 1)] for k in range(n)]
    sites = [site.format("lone" if k < 4 and k % 3 else 1 + k % 2) for k in range(n)]
    return pd.DataFrame({"image_id": [f"{k:03d}_0" for k in range(n)], "unit": units, "site": sites,
                         "label": labels})  # fmt: skip


def predictions(table: pd.DataFrame, classes: tuple[str, ...], skill: float) -> pd.DataFrame:
    """Probabilities by image that know the label as well as ``skill`` says."""
    draw = np.random.default_rng(0)
    logits = draw.normal(size=(len(table), len(classes)))
    logits += skill * (table["label"].to_numpy()[:, None] == np.array(classes))
    values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = pd.DataFrame(values, columns=[f"p_{name}" for name in classes])
    found.insert(0, "image_id", table["image_id"].to_numpy())
    return found


def build(
    folder: Path, classes: tuple[str, ...] = ("A", "B"), skill: float = 2.0, n: int = 60,
    model: str = "net", metric: Metric | None = None, unit: str = "{}", site: str = "{}",
) -> Run:  # fmt: skip
    """A run whose predictions were made elsewhere, ready for `combine`."""
    train = cohort(classes, n, unit, site)
    test = train.iloc[:5].drop(columns="label")
    task = Competition(
        name="toy", classes=classes, metric=metric or WeightedLogLoss((1.0,) * len(classes)),
        load=lambda data: Tables(train.copy(), test.copy()), unit="unit", site="site",
        second_level=SecondLevel(resamples=100, folds=4),
    )  # fmt: skip
    found = predictions(train, classes, skill)
    write_table(folder / "oof.csv", found)
    write_table(folder / "test.csv", found.iloc[:5])
    external = External({model: folder / "oof.csv"}, {model: folder / "test.csv"})
    return Run(task, "toy", folder, folder / "work", external=external)


def page_of(run: Run) -> str:
    """Run the stages that the page tells of, and return the page."""
    for stage in (second_level, submit, report):
        stage.run(run)
    return (run.submission / "report.html").read_text()


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """``make_run(**options)``: see `build`."""
    return partial(build, tmp_path)


@pytest.fixture
def finish() -> Callable[[Run], str]:
    """``finish(run)``: see `page_of`."""
    return page_of


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, str]:
    """The plainest run and its page, for tests that only read them."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = build(folder)
        return run, page_of(run)


@pytest.fixture
def html(made: tuple[Run, str]) -> str:
    return made[1]


@pytest.fixture
def own_run(tmp_path: Path, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with models of its own: what the first level would have written, by hand."""
    monkeypatch.setattr(Run, "key", lambda self, name: digest([name]))
    run = replace(make_run(), external=External(), fold_table=tmp_path / "folds.csv")
    table = run.tables.train.reset_index().drop(columns="path")
    rows = np.arange(len(table))
    role = np.where(rows >= 50, "holdout", "fold")
    table = table.assign(role=role, fold=np.where(rows < 50, rows % 5, -1), fold_site="")
    table["fold"] = table["fold"].astype(str).replace("-1", "")
    write_table(tmp_path / "folds.csv", table)
    found = read_strings(tmp_path / "oof.csv").assign(model="net", seed=0, fold=table["fold"])
    found["unit_id"] = table["unit_id"]
    for name, part in (("oof", found[:50]), ("holdout", found[50:]), ("test", found[:4])):
        write_table(run.folder("predict") / f"{name}.csv", part)
    seen = {"inputs": {"images": 5, "digest": "d" * 64}}
    record = {"key": "k" * 64, "seconds": 83.0, "peak_mib": 1234, "outputs": {}, "ingredients": seen}
    write_json(run.work / "state.json", dict.fromkeys(("predict", "tile", "train"), record))
    return run
