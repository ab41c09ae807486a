"""Images that are there twice: by bytes, by pixels, nearly."""

from __future__ import annotations

import argparse
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit.commands import COMMANDS
from kit.competition import Competition, Tables, TileGrid
from kit.demo import cells
from kit.errors import SettingError
from kit.files import read_strings
from kit.metrics import LogLoss
from kit.read import duplicates
from kit.state import Run

LABELS = {"a": "x", "again": "y", "as_png": "x", "other": "y", "saved": "x", "unlike": "y"}


def encoded(pixels: np.ndarray, kind: str, quality: int = 75) -> bytes:
    """A picture as a file."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, quality=quality)
    return stream.getvalue()


def pictures(folder: Path) -> None:
    """A cell, its file again, its pixels as PNG, itself saved anew, and two other cells."""
    jpeg = encoded(cells.picture(0, cells.Cell("IG_1", "ig", 2, 0.3)), "JPEG")
    pixels = np.array(Image.open(io.BytesIO(jpeg)).convert("RGB"))
    files = {
        "a": jpeg,
        "again": jpeg,
        "as_png": encoded(pixels, "PNG"),
        "saved": encoded(pixels, "JPEG", 50),
        "other": encoded(cells.picture(0, cells.Cell("IG_2", "ig", 2, 0.3)), "JPEG"),
        "unlike": encoded(cells.picture(0, cells.Cell("BA_2", "basophil", 0, -1.0)), "JPEG"),
    }
    folder.mkdir()
    for name, content in files.items():
        (folder / f"{name}.jpg").write_bytes(content)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A competition of these pictures."""
    pictures(tmp_path / "data")
    table = pd.DataFrame({"image_id": list(LABELS), "label": list(LABELS.values())}, dtype=object)
    task = Competition(
        name="pairs", classes=("x", "y"), metric=LogLoss(), load=lambda _: Tables(train=table),
        files="{image_id}.jpg", tiles=TileGrid(size=64, count=1),
    )  # fmt: skip
    return Run(task, "pairs", tmp_path / "data", tmp_path / "work")


def asked(*words: str) -> argparse.Namespace:
    """Options as the command line gives them."""
    parser = argparse.ArgumentParser()
    COMMANDS["duplicates"].options(parser)
    return parser.parse_args(words)


def clusters(run: Run) -> dict[str, str]:
    """What the command wrote."""
    table = read_strings(run.folder("duplicates") / "clusters.csv")
    return dict(table[["image_id", "cluster"]].itertuples(index=False))


def test_equal_files_and_equal_pixels_are_one_cluster(run: Run) -> None:
    said, code = duplicates.run(run, asked())
    assert code == 0
    assert clusters(run) == {"a": "a", "again": "a", "as_png": "a"}
    kinds = read_strings(run.folder("duplicates") / "pairs.csv")["kind"].tolist()
    assert sorted(kinds) == ["bytes", "pixels"]
    assert "1 pairs of equal files, 1 of equal pixels alone, 0 near" in said


def test_a_picture_saved_anew_is_near_and_another_cell_of_its_kind_is_not(run: Run) -> None:
    duplicates.run(run, asked("--near"))
    assert clusters(run) == {"a": "a", "again": "a", "as_png": "a", "saved": "a"}


def test_labels_that_contradict_each_other_are_listed_apart(run: Run) -> None:
    said, _ = duplicates.run(run, asked())
    rows = read_strings(run.folder("duplicates") / "conflicts.csv")
    assert rows[["image_id", "label"]].to_numpy().tolist() == [["a", "x"], ["again", "y"], ["as_png", "x"]]
    assert "contradict" in said


def test_the_clusters_are_what_the_folds_take(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "mine.csv"
    said, _ = duplicates.run(run, asked("--out", str(out)))
    assert read_strings(out).columns.tolist() == ["image_id", "cluster"]
    assert f"--duplicates {out}" in said


def test_an_image_that_cannot_be_read_is_left_out(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    (run.data / "other.jpg").write_bytes(b"text")
    duplicates.run(run, asked())
    assert "1 images cannot be read and are left out, the first is other" in caplog.text
    assert len(clusters(run)) == 3


def test_pairs_are_those_of_all_correlations_however_they_are_cut_into_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = np.random.default_rng(0)
    bases = draw.integers(0, 255, (6, 64, 64))
    grey = np.stack([np.clip(bases[n % 6] + draw.normal(0, 9, (64, 64)), 0, 255) for n in range(40)])
    looks = {f"i{n:02d}": duplicates.Look(str(n), str(n), g.astype(np.uint8)) for n, g in enumerate(grey)}
    monkeypatch.setattr(duplicates, "BLOCK", 7)
    found = {(pair.first, pair.second) for pair in duplicates.near(looks)}
    table = np.corrcoef(grey.astype(np.uint8).reshape(40, -1))
    expected = {
        (f"i{a:02d}", f"i{b:02d}") for a in range(40) for b in range(a) if table[a, b] >= duplicates.NEAR
    }
    assert found == {tuple(sorted(pair)) for pair in expected}
    assert len(found) == 4 * 21 + 2 * 15  # of 40, four kinds have seven pictures and two have six


def test_blank_pictures_are_like_nothing() -> None:
    looks = {
        n: duplicates.Look(n, n, np.full((64, 64), level, np.uint8)) for n, level in (("a", 0), ("b", 9))
    }
    assert duplicates.near(looks) == []


def test_pairs_that_share_an_image_are_one_cluster() -> None:
    pairs = [duplicates.Pair(a, b, "near", 1.0) for a, b in (("c", "d"), ("b", "c"), ("x", "y"))]
    table = duplicates.joined(pairs)
    assert dict(table.itertuples(index=False)) == {"b": "b", "c": "b", "d": "b", "x": "x", "y": "x"}


def test_a_threshold_that_is_no_correlation_is_refused(run: Run) -> None:
    with pytest.raises(SettingError, match="--least is 2"):
        duplicates.run(run, asked("--near", "--least", "2"))


def test_pictures_are_looked_at_before_the_steps(run: Run) -> None:
    pixels = np.array(Image.open(run.data / "a.jpg").convert("RGB"))
    pixels[-5:, -5:] = 255 - pixels[-5:, -5:]  # nothing of the corner is left by the step
    (run.data / "other.jpg").write_bytes(encoded(pixels, "PNG"))
    tiles = replace(run.competition.tiles, steps=("mask-bar",))
    stepped = replace(run, competition=replace(run.competition, tiles=tiles))
    duplicates.run(stepped, asked())
    assert clusters(stepped) == {"a": "a", "again": "a", "as_png": "a"}


def test_what_each_rule_takes_for_an_image_is_said_of_class_folders(run: Run) -> None:
    table = run.competition.load(run.data).train
    table.attrs = {"skipped": (("x/stray.txt", "no image"),), "accepted": (("sound", 6), ("jfif", 5))}
    given = replace(run, competition=replace(run.competition, load=lambda _: Tables(train=table)))
    said, _ = duplicates.run(given, asked())
    assert "sound takes 6, jfif takes 5" in said
    rows = read_strings(run.folder("duplicates") / "skipped.csv")
    assert rows.to_numpy().tolist() == [["x/stray.txt", "no image"]]
