"""The made image in the golden inputs: reading that changed is told before a hidden slide is touched."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kit import competition
from kit.deliver import specimen
from kit.errors import ImageError
from kit.files import write_arrays
from kit.read import store, tiler
from kit.state import Run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of STRIP AI with the demo's tiles; nothing of it was done."""
    place = tmp_path_factory.mktemp("specimen")
    task = competition.find("strip-ai")
    small = replace(task.tiles, size=128, scale=2.0, count=8)
    return Run(replace(task, tiles=small), task.name, place, place / "work")


@pytest.fixture(scope="module")
def golden(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    write_arrays(path, specimen.made(run))
    return path


def test_an_image_that_is_read_as_before_passes(run: Run, golden: Path) -> None:
    content = np.load(golden)
    assert len(content["specimen cuts"]) == 8
    assert specimen.read_otherwise(run, golden, "same") == ""


def test_another_choice_of_tiles_is_told(run: Run, golden: Path) -> None:
    task = run.competition
    darker = replace(run, competition=replace(task, tiles=replace(task.tiles, rank="darkness")))
    assert "other tiles are cut" in specimen.read_otherwise(darker, golden, "same")


def test_other_pixels_of_the_same_tiles_are_told(
    run: Run, golden: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = store.encode
    monkeypatch.setattr(store, "encode", lambda pixels: encode(pixels // 2 + 64))
    assert "other pixels" in specimen.read_otherwise(run, golden, "other")


def test_a_decoder_that_fails_is_told(run: Run, golden: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*words: Any, **more: Any) -> None:
        raise ImageError("the decoder is gone")

    monkeypatch.setattr(tiler, "look", broken)
    assert "the decoder is gone" in specimen.read_otherwise(run, golden, "same")


def test_a_competition_without_a_demo_goes_without_an_image(run: Run, tmp_path: Path) -> None:
    bare = replace(run, competition=replace(run.competition, demo=competition.Demo()))
    assert specimen.made(bare) == {}
    write_arrays(tmp_path / "golden.npz", {"tiles": np.zeros(1)})
    assert specimen.read_otherwise(bare, tmp_path / "golden.npz", "same") == ""
