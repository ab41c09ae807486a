"""Submissions to judge: made by the command line, or written by hand."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.competition import find
from kit.deliver import manifest
from kit.files import digest, read_strings, write_json, write_table
from kit.state import Run
from tests.deliver import verified

Submit = Callable[..., Path]
Write = Callable[..., Path]


def _seal(folder: Path, content: dict[str, Any]) -> Path:
    rest = {name: value for name, value in content.items() if name != manifest.SEAL}
    write_json(folder / manifest.NAME, rest | {manifest.SEAL: digest(rest)})
    return folder


@pytest.fixture
def seal() -> Callable[[Path, dict[str, Any]], Path]:
    """``seal(folder, content)`` writes a manifest with these entries, and the digest that they then have."""
    return _seal


@pytest.fixture
def submitted(kit: Callable[..., Any], data: Path, oof: list[str], tmp_path: Path) -> Submit:
    """Type combine and submit with these words after the usual ones; return the folder of the submission."""

    def typed(*words: object, task: object = "strip-ai", folder: Path = data) -> Path:
        before = set((tmp_path / "submissions").glob("*/*"))
        for stage in ("combine", "submit"):
            ended = kit(stage, task, "--data", folder, *oof, *words)
            assert ended.code == 0, ended.err
        (new,) = set((tmp_path / "submissions").glob("*/*")) - before
        return new

    return typed


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a submission of strip-ai by hand: 400 scored units whose loss has a standard error of 0.02."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, score: float = 0.65, tested: int = 100, luck: int = 0, bold: float = 0.0) -> Path:
        folder = tmp_path / "submissions" / "strip-ai" / name
        folder.mkdir(parents=True)
        units = [f"u{n:03d}" for n in range(400)]
        labels = np.array([n % 2 for n in range(400)])
        common = np.random.default_rng(0).normal(0, 0.4, 400)
        own = np.random.default_rng(luck).normal(0, 0.1, 400) if luck else 0
        right = np.clip(np.exp(-(score + common + own)), 0.01, 0.99)
        late = np.where(labels == 1, right, 1 - right)
        write_table(
            folder / "oof_combined.csv", pd.DataFrame({"unit_id": units, "p_CE": 1 - late, "p_LAA": late})
        )
        folds = pd.DataFrame({"unit_id": units, "group_id": units, "role": "fold"})
        write_table(folder / "folds.csv", folds.assign(label=np.where(labels == 1, "LAA", "CE")))
        ids = [f"t{n}" for n in range(tested)]
        write_table(folder / "submission.csv", pd.DataFrame({"patient_id": ids, "CE": 0.4, "LAA": 0.6}))
        claim = {"score": score, "low": score - 0.0392, "high": score + 0.0392, "units": 400}
        pair = {"name": "bold one", "se": 0.01}
        row = {"set": "oof", "name": "bold one", "score": bold, "low": bold - 0.0392, "high": bold + 0.0392}
        write_json(
            folder / "metrics.json", {"rows": [row] if bold else [], "submissions": pair if bold else None}
        )
        if bold:
            (folder / "submission_bold.csv").write_text("")
        return _seal(folder, {"format": manifest.FORMAT, "claim": claim, "files": {}})

    return write


@pytest.fixture
def settled(data: Path, tmp_path: Path) -> Callable[..., Run]:
    """``settled()`` is a run with images of a few bytes and made-up predictions; nothing was computed.

    Its 10 first patients are held out, and no image of the last of these can be used.
    ``settled(reader="photo")`` changes the declaration.
    """

    def made(**changes: Any) -> Run:
        task = replace(find("strip-ai"), **changes)
        run = Run(task, task.name, data, tmp_path / "work" / task.name, fold_table=tmp_path / "folds.csv")
        for split in ("train", "test"):
            for name in read_strings(data / f"{split}.csv")["image_id"]:
                path = data / task.files.format(split=split, image_id=name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(name.encode() * 50)
        _write_results(run)
        return run

    return made


def _write_results(run: Run) -> None:
    """What fold, tile and combine would have written."""
    assert run.tables.test is not None
    train, test = run.tables.train, run.tables.test
    held = sorted(set(train["unit_id"]))[:10]
    role = np.where(train["unit_id"].isin(held), "holdout", "fold")
    write_table(run.folds, train.assign(role=role).reset_index()[["image_id", "unit_id", "role"]])
    rows = [
        (name, split, 2000, 1000 + 10 * n, 4, "unreadable" if table.loc[name, "unit_id"] == held[9] else "ok")
        for split, table in (("train", train), ("test", test))
        for n, name in enumerate(table.index)
    ]
    images = pd.DataFrame(rows, columns=["image_id", "split", "width", "height", "tiles", "status"])
    write_table(run.folder("tile") / "images.csv", images)
    draw = np.random.default_rng(0)
    for name, units in (("holdout", held[:9]), ("test", sorted(set(test["unit_id"])))):
        values = draw.uniform(0.2, 0.8, len(units)).round(6)
        table = pd.DataFrame({"unit_id": units, "p_CE": values, "p_LAA": 1 - values})
        write_table(run.folder("combine") / f"{name}.csv", table)
    write_json(run.folder("combine") / "second_level.json", {"scored_prior": [0.5, 0.5]})


@pytest.fixture(scope="module")
def one_code() -> Iterator[None]:
    """The package counts as the same all along, whoever edits it while these tests run."""
    with pytest.MonkeyPatch.context() as patch:
        verified.one_code(patch)
        yield


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> verified.Place:
    """Where a toy of photographs went through every stage."""
    return verified.made(tmp_path_factory.getbasetemp())


@pytest.fixture
def clone(photos: verified.Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its submission folder alone, in a place where nothing else is."""
    monkeypatch.chdir(tmp_path)
    return shutil.copytree(photos.submission, Path("submissions") / "toy" / photos.submission.name)
