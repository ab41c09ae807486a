"""Slides through OpenSlide."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile

from kit.errors import ImageError
from kit.read.vendor import VendorSlide

ANY = np.random.default_rng(3).integers(0, 256, (300, 400, 3), dtype=np.uint8)


def test_what_was_not_scanned_is_white_and_the_reason_is_told(tmp_path: Path) -> None:
    """A tile without bytes is one that was not scanned."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, ANY, tile=(128, 128), photometric="rgb", compression="deflate")
    with tifffile.TiffFile(path, mode="r+") as file:
        counts = list(file.pages[0].tags["TileByteCounts"].value)
        counts[0] = 0
        file.pages[0].tags["TileByteCounts"].overwrite(counts)
    with VendorSlide(path, "a reason") as image:
        assert image.how == "OpenSlide: a reason"
        assert (image.region(0, 0, 128, 128) == 255).all()
        np.testing.assert_array_equal(image.overview(1)[128:], ANY[128:])
        assert image.detail(8) is None


def test_the_cost_of_an_overview_is_that_of_its_level(tmp_path: Path) -> None:
    options: dict[str, Any] = {"tile": (128, 128), "photometric": "rgb"}
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(ANY, **options)
        file.write(np.ascontiguousarray(ANY[::4, ::4]), subfiletype=1, **options)
    with VendorSlide(tmp_path / "a.tif", "") as image:
        assert image.decoded(3) == 400 * 300 and image.decoded(8) == 100 * 75
        assert image.decoded(8, area=1600) == pytest.approx(100)


@pytest.mark.parametrize("name", ["ImageWidth", "ImageLength"])
def test_more_pixels_than_any_slide_are_refused(name: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ANY, tile=(128, 128), photometric="rgb")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        file.pages[0].tags[name].overwrite(2**30, dtype="I")
    with pytest.raises(ImageError, match=r"a\.tif.*no slide has|a\.tif.*cannot be read"):
        VendorSlide(tmp_path / "a.tif", "")


def test_a_slide_that_is_refused_is_closed(tmp_path: Path, monkeypatch: Any) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ANY, tile=(128, 128), photometric="rgb")
    closed: list[int] = []
    monkeypatch.setattr(openslide.OpenSlide, "dimensions", (2**30, 2**30))
    monkeypatch.setattr(openslide.OpenSlide, "close", lambda self: closed.append(1))
    with pytest.raises(ImageError, match="no slide has"):
        VendorSlide(tmp_path / "a.tif", "")
    assert len(closed) == 1


@pytest.mark.parametrize(
    ("said", "shown"), [("102030", (16, 32, 48)), ("", (255, 255, 255)), ("1020 0", (255, 255, 255))]
)
def test_what_was_not_scanned_has_the_colour_of_the_file_if_it_is_one(
    said: str, shown: tuple[int, int, int], tmp_path: Path, monkeypatch: Any
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", ANY, tile=(128, 128), photometric="rgb")
    known = {openslide.PROPERTY_NAME_BACKGROUND_COLOR: said}
    monkeypatch.setattr(openslide.OpenSlide, "properties", known)
    with VendorSlide(tmp_path / "a.tif", "") as image:
        assert (image.region(1000, 1000, 64, 64) == shown).all()
