"""Cohorts whose predictions are drawn, and runs over them: no image and no network is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import folds, state
from kit.competition import Competition, FoldPlan, SecondLevel, Tables
from kit.files import write_json, write_table
from kit.metrics import LogLoss, Metric
from kit.state import External, Run


@dataclass(frozen=True)
class Cohort:
    """Patients p000, p001, ... with one to three images each, of two sites; in the test table q000, ..."""

    train: pd.DataFrame
    test: pd.DataFrame
    classes: tuple[str, ...]

    def predictions(self, split: str = "train", skill: float = 1.5, seed: int = 0) -> pd.DataFrame:
        """Probabilities by image that know the label as well as ``skill`` says."""
        table = getattr(self, split)
        draw = np.random.default_rng([seed, len(table)])
        logits = draw.normal(size=(len(table), len(self.classes)))
        logits += skill * (table["truth"].to_numpy()[:, None] == np.array(self.classes))
        values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        found = pd.DataFrame(values, columns=[f"p_{name}" for name in self.classes])
        found.insert(0, "image", table["image"].to_numpy())
        return found


def cohort(classes: tuple[str, ...], units: int, seed: int = 0) -> Cohort:
    """The first class is the most frequent."""
    draw = np.random.default_rng([seed, units, len(classes)])
    shares = np.r_[2.0, np.ones(len(classes) - 1)]
    tables = {}
    for split, letter, count in (("train", "p", units), ("test", "q", 6)):
        rows = []
        for k in range(count):
            # Every class has its share; its units are of both sites.
            label = classes[int(np.searchsorted(np.cumsum(shares) / shares.sum(), (k % 20 + 0.5) / 20))]
            for n in range(int(draw.integers(1, 4))):
                rows.append({"image": f"{letter}{k:03d}-{n}", "patient": f"{letter}{k:03d}",
                             "center": str(1 + k // 20 % 2), "truth": label})  # fmt: skip
        tables[split] = pd.DataFrame(rows, dtype=object)
    return Cohort(tables["train"], tables["test"], classes)


@pytest.fixture
def make_cohort() -> Callable[..., Cohort]:
    """``make_cohort(classes, units, seed)``: see `cohort`."""
    return cohort


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """``make_run(cohort, oof={name: table}, test={...}, own={name: skill}, ...)``: ready for `combine`.

    With ``own``, the folds are drawn and our own models' predictions written, as `predict` does.
    """

    def make(
        data: Cohort,
        oof: Mapping[str, pd.DataFrame] | None = None,
        test: Mapping[str, pd.DataFrame] | None = None,
        own: Mapping[str, float] | None = None,
        meta: pd.DataFrame | None = None,
        metric: Metric | None = None,
        site: str = "center",
        folder: str = "",
        test_table: bool = True,
        **plan: float,
    ) -> Run:
        place = tmp_path / folder
        task = Competition(
            name="toy",
            classes=data.classes,
            metric=metric or LogLoss(),
            load=lambda _: Tables(data.train.copy(), data.test.copy() if test_table else None),
            unit="patient",
            image="image",
            files="{split}/{image}.png",
            label="truth",
            site=site,
            folds=FoldPlan(k=4, holdout=6),
            second_level=SecondLevel(**{"resamples": 60, "folds": 4, **plan}),  # type: ignore[arg-type]
        )
        files = External(
            {name: _written(place / "oof" / f"{name}.csv", table) for name, table in (oof or {}).items()},
            {name: _written(place / "test" / f"{name}.csv", table) for name, table in (test or {}).items()},
            None if meta is None else _written(place / "meta.csv", meta),
        )
        run = Run(task, "toy", place, place / "work", external=files, fold_table=place / "folds.csv")
        if own:
            state.execute(run, "fold")
            write_own(run, data, own)
        return run

    return make


def _written(path: Path, table: pd.DataFrame) -> Path:
    write_table(path, table)
    return path


def write_own(run: Run, data: Cohort, models: Mapping[str, float]) -> None:
    """The three tables of `predict`: the held-out and test images have a row a fold."""
    drawn = folds.read_folds(run.folds)
    parts: dict[str, list[pd.DataFrame]] = {"oof": [], "holdout": [], "test": []}
    for seed, (model, skill) in enumerate(models.items()):
        for split in ("train", "test"):
            found = data.predictions(split, skill, seed).rename(columns={"image": "image_id"})
            found.insert(1, "unit_id", getattr(data, split)["patient"].to_numpy())
            found.insert(2, "model", model)
            found.insert(3, "seed", 0)
            if split == "test":
                parts["test"] += [found.assign(fold=k) for k in range(4)]
                continue
            rows = drawn.loc[found["image_id"]]
            found["fold"] = rows["fold"].to_numpy()
            inside = (rows["role"] == "fold").to_numpy()
            parts["oof"].append(found[inside])
            parts["holdout"] += [found[~inside].assign(fold=k) for k in range(4)]
    for name, tables in parts.items():
        write_table(run.folder("predict") / f"{name}.csv", pd.concat(tables))
    run._keys["predict"] = "made"  # its real key would ask for weights and images
    known = state.read_state(run.work)
    write_json(run.work / "state.json", known | {"predict": {"key": "made", "outputs": {}}})
