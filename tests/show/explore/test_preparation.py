"""From a file to what a network sees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.competition import TileGrid, Training
from kit.demo import strip_ai
from kit.show.explore import preparation
from kit.show.explore.content import Data
from tests.show.explore.findings_made import draw_images, galleries
from tests.show.explore.tables_made import cohort, made, words
from tests.show.explore.test_examples import pixels_of

STEPS = TileGrid(size=32, count=1, steps=("grey", "unsharp"))


def photographs(folder: Path, training: Training | None = None) -> Data:
    """Two photographs, of which the first cannot be read."""
    (folder / "i000.png").write_bytes(b"no picture")
    draw_images(folder, ["i001"], (80, 40))
    return made(folder, cohort(3), images=2, tiles=STEPS, training=training or Training())


def test_each_step_of_the_first_readable_photograph_is_shown_in_turn(tmp_path: Path) -> None:
    section = preparation.section(photographs(tmp_path))
    steps, alone, draws = galleries(section)
    assert section is not None and section.facts["image_id"] == "i001"
    assert [one.caption for one in steps.pictures] == [
        "the file as it is", "1. grey: changes nothing here", "2. unsharp", "the tile: 32 × 32 px",
    ]  # fmt: skip
    assert steps.pictures[-1].size == (32, 32)
    assert "grey, sharpen, roi" in [one.caption for one in alone.pictures]
    assert len(draws.pictures) == 12


def test_draws_differ_from_each_other_and_are_the_same_again(tmp_path: Path) -> None:
    data = photographs(tmp_path, Training(augment=1.0))
    tile = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    one, two = (preparation.augmented(data, "i001", tile) for _ in range(2))
    assert np.array_equal(one[0].pixels, tile)
    assert all(np.array_equal(a.pixels, b.pixels) for a, b in zip(one, two, strict=True))
    assert len({shot.pixels.tobytes() for shot in one}) > 8


def test_without_augmentation_it_is_said_that_there_is_none(tmp_path: Path) -> None:
    section = preparation.section(photographs(tmp_path, Training(augment=0.0)))
    assert section is not None and "asks for no augmentation" in words(section)


def test_what_training_does_to_a_radiograph_and_to_a_frozen_encoders_tiles_is_said(tmp_path: Path) -> None:
    task = made(tmp_path, cohort(3)).run.competition
    one = replace(task, reader="radiograph", training=Training(augment=1.0, preset="flips", views=1))
    other = replace(task, training=Training(augment=1.0, preset="flips", views=4))
    assert "turned upside down and mirrored" in preparation._augmentation(one)
    assert "a frozen one sees tiles as they are." in preparation._augmentation(one)
    assert "upside down" not in preparation._augmentation(other)
    assert "a frozen one sees the mean of 4 views" in preparation._augmentation(other)


def test_where_no_image_can_be_read_the_reason_is_given(tmp_path: Path) -> None:
    (tmp_path / "i000.png").write_bytes(b"no picture")
    section = preparation.section(made(tmp_path, cohort(3), images=2))
    assert section is not None and galleries(section) == []
    assert "it is not a picture that Pillow knows" in words(section)
    assert preparation.section(made(tmp_path, cohort(3), images=0)) is None


def test_a_slide_shows_its_glass_its_tissue_its_best_tile_and_the_notebooks_grey(tmp_path: Path) -> None:
    strip_ai.write_image(tmp_path / "i000.tif")
    slide = made(tmp_path, cohort(2), images=1, files="{image_id}.tif", reader="slide")
    section = preparation.section(slide)
    assert section is not None
    steps, draws = galleries(section)
    captions = [one.caption for one in steps.pictures]
    assert captions[0].startswith("overview, ") and captions[3].startswith("the first tile of recipe grid")
    assert captions[1] == f"the colour of its glass: {section.facts['background']}"
    assert captions[4].startswith("recipe seed-overview: 5 %")
    share = section.facts["tissue"]
    assert isinstance(share, float) and 0.02 < share < 0.5
    glass = list(bytes.fromhex(str(section.facts["background"])[1:]))
    assert pixels_of(steps.pictures[1])[40, 40].tolist() == pytest.approx(glass, abs=4)
    marked, overview = (pixels_of(steps.pictures[n]).astype(int) for n in (2, 0))
    same = np.abs(marked - overview).max(axis=2) < 30
    assert same.mean() == pytest.approx(share, abs=0.02)  # the tissue keeps its colours
    assert len(draws.pictures) == 12
