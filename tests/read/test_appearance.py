"""Numbers of colour and texture: what tells photographs apart without their objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import files
from kit.combine import baselines
from kit.competition import TileGrid
from kit.metrics import LogLoss
from kit.read import appearance, tiles
from kit.state import Run


def dotted(background: tuple[int, int, int], seed: int, spread: float = 4.0) -> np.ndarray:
    """Dark dots on an uneven background: uint8 (96, 96, 3)."""
    draw = np.random.default_rng(seed)
    picture = draw.normal(background, spread, (96, 96, 3))
    for x, y in draw.integers(8, 88, (12, 2)):
        picture[y - 4 : y + 4, x - 4 : x + 4] = (90, 60, 150)
    return np.clip(picture, 0, 255).astype(np.uint8)


def test_there_are_six_numbers_of_the_background_and_120_more() -> None:
    found = appearance.measure(dotted((230, 220, 210), 0))
    assert tuple(found) == appearance.COLUMNS and len(set(appearance.COLUMNS)) == 126
    assert len(appearance.BACKGROUND) == 6 and all(
        n.startswith(baselines.BACKGROUND) for n in list(found)[:6]
    )
    assert not [n for n in list(found)[6:] if n.startswith(baselines.BACKGROUND)]


def test_the_background_is_what_is_bright_whatever_lies_on_it() -> None:
    found = appearance.measure(dotted((230, 220, 210), 1))
    assert [found[name] for name in appearance.BACKGROUND[:3]] == pytest.approx([230, 220, 210], abs=1)
    assert [found[name] for name in appearance.BACKGROUND[3:]] == pytest.approx([4, 4, 4], abs=0.5)


def test_a_picture_of_one_colour_has_finite_numbers() -> None:
    for size in ((96, 96), (1, 1), (5, 300)):
        found = appearance.measure(np.full((*size, 3), 77, np.uint8))
        assert np.isfinite(list(found.values())).all()
        assert found["background_red"] == 77 and found["background_red_spread"] == 0


def test_texture_is_found_at_its_own_scale() -> None:
    lines = np.arange(96)
    strength = {}
    for period in (2, 32):
        levels = (128 + 80 * np.sign(np.sin(2 * np.pi * (lines + 0.5) / period))).astype(np.uint8)
        found = appearance.measure(np.repeat(np.tile(levels, (96, 1))[:, :, None], 3, axis=2))
        strength[period] = [found[f"grey_scale{scale}_spread"] for scale in appearance.SCALES]
    assert np.argmax(strength[2]) == 0 and np.argmax(strength[32]) == 3


@pytest.fixture
def photographs(tmp_path: Path, make_run: object) -> Run:
    """Two photographs and one file that is none, of which steps leave no colour."""
    (tmp_path / "data").mkdir()
    for n, colour in enumerate([(230, 220, 210), (200, 220, 240)]):
        Image.fromarray(dotted(colour, n)).resize((120, 96)).save(tmp_path / "data" / f"{n}.png")
    (tmp_path / "data" / "2.png").write_text("no picture")
    train = {str(n): f"{n}.png" for n in range(3)}
    grid = TileGrid(size=32, steps=("grey", "sharpen", "roi"))
    run: Run = make_run(train, {"0": "0.png"}, reader="photo", tiles=grid)  # type: ignore[operator]
    return run


def test_the_stage_tile_writes_the_looks_of_the_file_whatever_the_steps_leave(photographs: Run) -> None:
    outputs = tiles.run(photographs)
    path = photographs.folder("tile") / "appearance.csv"
    assert path in outputs
    table = files.read_strings(path)
    assert table[["split", "image_id"]].to_numpy().tolist() == [["test", "0"], ["train", "0"], ["train", "1"]]
    red = table.set_index(["split", "image_id"])["background_red"].astype(float)
    assert red["train", "0"] == pytest.approx(230, abs=2) and red["train", "1"] == pytest.approx(200, abs=2)
    images = tiles.load_images(photographs).set_index(["split", "image_id"])
    assert images.loc[("train", "0"), ["width", "height"]].tolist() == [120, 96]
    assert images.loc[("train", "1"), "background"] != images.loc[("train", "0"), "background"]
    assert not [name for name in images if name in appearance.COLUMNS or name == "appearance"]
    before = path.read_bytes()
    assert tiles.run(photographs) == outputs and path.read_bytes() == before, (
        "found again, not measured again"
    )


def test_colours_that_give_the_class_away_are_found_by_the_colour_baselines(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, 80)
    pictures = [dotted((225 + 6 * int(y), 220, 210), n) for n, y in enumerate(labels)]
    rows = [{"image_id": f"i{n}", "split": "train"} | appearance.measure(p) for n, p in enumerate(pictures)]
    files.write_table(tmp_path / "appearance.csv", pd.DataFrame(rows))
    found = baselines.looks(tmp_path / "appearance.csv")
    assert [frame.shape for frame in found.values()] == [(80, 6), (80, 120)]
    for name, frame in found.items():
        matrix = baselines.features(frame, None).to_numpy()
        values = baselines.nested(matrix, labels, np.arange(80) % 4, LogLoss(), baselines.ridge_of(name))
        assert (values.argmax(axis=1) == labels).mean() > 0.95, name
