"""Sizes are read from headers: nothing is decoded."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read.headers import size_of
from kit.read.reader import ImageMissing


def picture(path: Path, width: int = 30, height: int = 20) -> Path:
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    return path


def test_a_photograph_that_ends_early_still_has_its_size(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:60])
    assert size_of("photo", path, TileGrid()) == (30, 20)


def test_a_photograph_in_a_zip_has_a_size(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(picture(tmp_path / "a.png"), "in/a.png")
    assert size_of("photo", tmp_path / "a.zip" / "in" / "a.png", TileGrid()) == (30, 20)


@pytest.mark.parametrize("reader", ["photo", "radiograph", "slide"])
def test_what_is_missing_or_damaged_is_said_of_every_reader(reader: str, tmp_path: Path) -> None:
    with pytest.raises(ImageMissing):
        size_of(reader, tmp_path / "none.png", TileGrid())
    (tmp_path / "bad.tif").write_bytes(b"no image at all")
    with pytest.raises(ImageError, match=r"bad\.tif"):
        size_of(reader, tmp_path / "bad.tif", TileGrid())
