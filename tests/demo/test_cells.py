"""The made blood cells: their oddities, their best answer, and their bytes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import norm

from kit.competition import find
from kit.demo import cells
from kit.errors import SettingError
from kit.files import read_strings


def files(folder: Path) -> dict[str, bytes]:
    """Every file by its place."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        cells.make(tmp_path / name, seed, 80)
    one, same, other = (files(tmp_path / name) for name in "abc")
    assert one == same
    assert one["posterior.csv"] != other["posterior.csv"]


def test_the_folders_hold_what_real_ones_do(tmp_path: Path) -> None:
    cells.make(tmp_path, 0, 160)
    train = find("blood-cells").load(tmp_path).train
    assert Counter(train["label"]).most_common(1)[0][1] == 21
    assert len(train) == 162
    reasons = sorted(reason for _, reason in train.attrs["skipped"])
    assert reasons == ["a hidden file", "it lies beside the class folders", "no image that Pillow knows"]
    assert (train.groupby("cluster").size() == 2).sum() == 2
    assert sorted(label for *_, label in train.attrs["conflicts"]) == ["eosinophil", "neutrophil"]


def test_the_posterior_covers_every_image_and_is_right_as_often_as_the_latent_allows(tmp_path: Path) -> None:
    cells.make(tmp_path, 0, 80)
    table = read_strings(tmp_path / "posterior.csv").set_index("image_id")
    assert set(table.index) == set(find("blood-cells").load(tmp_path).train["image_id"])
    many = cells.cohort(0, 8000)
    right = np.mean([max(cell.posterior, key=cell.posterior.__getitem__) == cell.label for cell in many])
    assert right == pytest.approx(norm.cdf(cells.SEPARATION / 2), abs=0.015)
    sure = [cell for cell in many if max(cell.posterior.values()) > 0.9]
    said = np.mean([max(cell.posterior.values()) for cell in sure])
    assert np.mean([cell.posterior[cell.label] > 0.5 for cell in sure]) == pytest.approx(said, abs=0.01)


def test_the_colour_of_the_cytoplasm_follows_the_latent() -> None:
    low, high = (cells.picture(0, cells.Cell("IG_1", "ig", 2, latent)) for latent in (-3.0, 3.0))
    assert low.shape == (cells.SIDE, cells.SIDE, 3)
    changed = (np.abs(low.astype(int) - high.astype(int)).sum(axis=2) > 60).mean()
    assert 0.1 < changed < 0.4
    assert high[..., 2].astype(int).sum() < low[..., 2].astype(int).sum()  # less blue


def test_a_demo_smaller_than_its_oddities_bear_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="too small"):
        cells.make(tmp_path, 0, 79)
