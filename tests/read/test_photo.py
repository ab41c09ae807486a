"""Reading photographs, as files and inside archives."""

from __future__ import annotations

import contextlib
import io
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import photo
from kit.read.reader import ImageMissing

COLOURS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def pixels_of(path: Path) -> Any:
    with photo.open_image(path, TileGrid()) as image:
        return image.overview(1)


def test_a_photograph_is_read_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png")
    with photo.open_image(tmp_path / "a.png", TileGrid()) as image:
        assert image.size == (60, 40) and not image.tileable
        np.testing.assert_array_equal(image.overview(1), COLOURS)
        assert image.overview(16).shape == (3, 4, 3)
        np.testing.assert_array_equal(image.region(10, 5, 20, 20), COLOURS[5:25, 10:30])
        assert (image.region(50, 0, 20, 20)[:, 10:] == 255).all()


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    alpha = np.full((40, 60, 1), 255, np.uint8)
    alpha[:20] = 0
    Image.fromarray(np.concatenate([COLOURS, alpha], axis=2)).save(tmp_path / "a.png")
    found = pixels_of(tmp_path / "a.png")
    assert (found[:20] == 255).all()
    np.testing.assert_array_equal(found[20:], COLOURS[20:])


@pytest.mark.parametrize(("top", "name"), [(65535, "a.png"), (4095, "a.png"), (65535, "a.tif")])
def test_deep_grey_levels_keep_their_order_and_fill_eight_bits(top: int, name: str, tmp_path: Path) -> None:
    levels = np.linspace(0, top, 60 * 40).reshape(40, 60).astype(np.uint16)
    Image.fromarray(levels).save(tmp_path / name)
    found = pixels_of(tmp_path / name)
    assert found.min() == 0 and found.max() == 255
    assert np.abs(found[..., 0] - levels / top * 255).max() < 0.51


def test_fractions_and_palettes_are_read(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)).save(tmp_path / "f.tif")
    assert np.ptp(pixels_of(tmp_path / "f.tif")) == 255
    Image.fromarray(COLOURS).quantize(16).save(tmp_path / "p.png")
    assert pixels_of(tmp_path / "p.png").shape == (40, 60, 3)


def zipped(path: Path, names: list[str]) -> Path:
    data = io.BytesIO()
    Image.fromarray(COLOURS).save(data, "png")
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, data.getvalue())
    return path


def test_a_photograph_inside_an_archive_is_read(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip", ["a/ä b.png"])
    np.testing.assert_array_equal(pixels_of(archive / "a" / "ä b.png"), COLOURS)
    with pytest.raises(ImageMissing, match=r"photos\.zip has no such file"):
        photo.open_image(archive / "a" / "c.png", TileGrid())
    with pytest.raises(ImageMissing):
        photo.open_image(tmp_path / "others.zip" / "a.png", TileGrid())


def test_the_directory_of_an_archive_is_read_once_by_many_threads(tmp_path: Path, monkeypatch: Any) -> None:
    archive = zipped(tmp_path / "photos.zip", [f"{n}.png" for n in range(500)])
    opened = []
    real = zipfile.ZipFile

    def spy(file: Path) -> zipfile.ZipFile:
        opened.append(file)
        return real(file)

    monkeypatch.setattr(zipfile, "ZipFile", spy)
    pixels_of(archive / "0.png")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(pixels_of, [archive / f"{n}.png" for n in range(500)]))
    assert len(opened) == 1
    assert all((one == COLOURS).all() for one in found)


def test_an_archive_that_was_replaced_is_opened_again(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "photos.zip", ["a.png"])
    pixels_of(archive / "a.png")
    zipped(tmp_path / "photos.zip", ["a.png", "b.png"])
    assert pixels_of(archive / "b.png").shape == (40, 60, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "gif", "webp"])
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9])
def test_a_truncated_photograph_is_an_image_error(suffix: str, kept: float, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(COLOURS).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(ImageError, match=r"a\."):
        photo.open_image(path, TileGrid())


@pytest.mark.filterwarnings("ignore")  # Pillow's own about damaged tags
def test_damaged_bytes_are_an_image_error_or_a_picture_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    path = tmp_path / "a.bin"
    for kind in ("png", "jpeg", "tiff", "gif", "bmp", "ppm"):
        stream = io.BytesIO()
        Image.fromarray(COLOURS).save(stream, kind)
        for _ in range(40):
            data = bytearray(stream.getvalue())
            for place in rng.integers(0, min(len(data), 400), 6):
                data[place] = rng.integers(0, 256)
            path.write_bytes(data)
            with contextlib.suppress(ImageError):
                assert pixels_of(path).dtype == np.uint8


def test_what_is_no_picture_is_an_image_error(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("hello")
    with pytest.raises(ImageError, match="not a picture"):
        photo.open_image(tmp_path / "a.png", TileGrid())
    (tmp_path / "bad.zip").write_text("hello")
    with pytest.raises(ImageError, match="zip"):
        photo.open_image(tmp_path / "bad.zip" / "a.png", TileGrid())
    with pytest.raises(ImageMissing):
        photo.open_image(tmp_path / "none.png", TileGrid())
