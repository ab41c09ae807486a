"""Headers of TIFFs: what is indexed, what is left to OpenSlide, and what is refused."""

from __future__ import annotations

import logging
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import slide
from kit.read.codec import DEFLATE
from kit.read.tiff import NotIndexed, read_index

PIXELS = np.random.default_rng(0).integers(0, 256, (200, 300, 3), dtype=np.uint8)
TILED: dict[str, Any] = {"tile": (64, 64), "photometric": "rgb", "compression": "adobe_deflate"}


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """A slide of which some tags are then overwritten, as (type, value) or a value."""

    def make(edits: dict[str, Any] | None = None, **options: Any) -> Path:
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, PIXELS, **{**TILED, **options})
        for name, value in (edits or {}).items():
            kind, value = value if isinstance(value, tuple) and isinstance(value[0], str) else (None, value)
            with tifffile.TiffFile(path, mode="r+") as file:
                file.pages[0].tags[name].overwrite(value, dtype=kind)
        return path

    return make


def refusal(path: Path) -> str:
    """What is said about a file, both ways, when it is opened or read; it names the file and has a hint."""
    said = []
    for grid in (TileGrid(), TileGrid(index=False)):
        with pytest.raises(ImageError) as caught:
            _read(path, grid)
        assert path.name in caught.value.message and caught.value.hint
        said.append(caught.value.message)
    return said[0]


def _read(path: Path, grid: TileGrid) -> None:
    with slide.open_image(path, grid) as image:
        image.overview(32)
        image.region(0, 0, 64, 64)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_the_index_tells_where_tiles_are(byteorder: Any, bigtiff: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PIXELS, bigtiff=bigtiff, byteorder=byteorder, **TILED)
    (level,) = read_index(path).levels
    assert (level.width, level.height, level.rows, level.columns) == (300, 200, 4, 5)
    assert level.codec.compression == DEFLATE and level.ratio == (1, 1)
    with slide.open_image(path, TileGrid()) as image:
        np.testing.assert_array_equal(image.overview(1), PIXELS)


def levels(path: Path) -> list[int]:
    return [level.width for level in read_index(path).levels]


def written(path: Path, *sizes: tuple[int, int, int]) -> Path:
    """Directories by width, height and subfile type."""
    with tifffile.TiffWriter(path) as file:
        for width, height, kind in sizes:
            file.write(np.zeros((height, width, 3), np.uint8), subfiletype=kind, **TILED)
    return path


def test_levels_are_the_smaller_versions_in_any_order_and_nothing_else(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.tif", (800, 600, 0), (50, 38, 1), (200, 150, 1), (300, 100, 1), (400, 300, 0)
    )
    assert levels(path) == [800, 200, 50]  # neither the label of another shape nor what is not reduced
    path = written(tmp_path / "a.tif", (800, 600, 0), (50, 38, 1), (200, 150, 1), (400, 300, 0))
    for grid in (TileGrid(), TileGrid(index=False)):
        with slide.open_image(path, grid) as image:
            assert image.size == (800, 600)


def test_a_finer_picture_behind_the_first_is_for_openslide(tmp_path: Path) -> None:
    path = written(tmp_path / "a.tif", (200, 150, 0), (800, 600, 1))
    with pytest.raises(NotIndexed, match="finest"):
        read_index(path)
    with slide.open_image(path, TileGrid()) as image:
        assert image.size == (800, 600)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"description": "Aperio Image Library v12\r\n20x"}, "svs"),
        ({"software": "MedScan 1"}, "trestle"),
        ({"software": "Philips DP v1", "description": "<?xml?><DataObject></DataObject>"}, "philips"),
    ],
)
def test_scanners_formats_are_for_openslide(options: Any, name: str, made: Any) -> None:
    with pytest.raises(NotIndexed, match=name):
        read_index(made(**options))


def test_orientation_and_other_oddities_are_for_openslide(made: Any) -> None:
    tag = [(274, 3, 1, 6, True)]
    with pytest.raises(NotIndexed, match="turned"):
        read_index(made(extratags=tag))
    with pytest.raises(NotIndexed, match="predictor"):
        read_index(made({"Predictor": 3}, predictor=2))
    with pytest.raises(NotIndexed, match="colours"):
        read_index(made({"PhotometricInterpretation": 8}))


@pytest.mark.parametrize(
    ("edits", "words"),
    [
        ({"ImageWidth": ("I", 2**31 - 1)}, "no slide has"),
        ({"ImageWidth": ("I", 10**6), "ImageLength": ("I", 10**6)}, "no slide has"),
        ({"ImageLength": ("I", 10**6)}, "offsets"),
        ({"ImageWidth": 0}, "no slide has"),
        ({"TileWidth": ("I", 65536)}, "65536 x 64"),
        ({"TileWidth": ("I", 65536), "TileLength": ("I", 65536)}, "65536 x 65536"),
        ({"TileLength": 0}, "a.tif"),
        ({"TileOffsets": ("I", [10**9] * 20)}, "20 of its 20 tiles lie beyond"),
        ({"TileByteCounts": ("I", [2**32 - 1] * 20)}, "beyond the end"),
        ({"TileByteCounts": ("I", [3] * 20)}, "row 0, column 0"),
        ({"TileOffsets": ("I", [8] * 20)}, "row 0, column 0"),
    ],
    ids=str,
)
def test_headers_that_cannot_be_true_are_refused(edits: Any, words: str, made: Any) -> None:
    began = time.monotonic()
    assert words in refusal(made(edits))
    assert time.monotonic() - began < 20


def test_a_tile_that_claims_far_too_many_bytes_is_not_read(made: Any) -> None:
    """It lies within a file that is long enough."""
    path = made()
    with path.open("r+b") as file:
        file.truncate(2**32 - 1)  # a hole: it takes no space
    with tifffile.TiffFile(path, mode="r+") as file:
        tag = file.pages[0].tags["TileByteCounts"]
        tag.overwrite([2**31, *tag.value[1:]], dtype="I")
    with slide.open_image(path, TileGrid()) as image, pytest.raises(ImageError, match="2147483648 bytes"):
        image.region(0, 0, 64, 64)


def test_rings_and_long_chains_of_directories_end(tmp_path: Path) -> None:
    began = time.monotonic()
    chain = written(tmp_path / "chain.tif", (300, 200, 0))
    data = bytearray(chain.read_bytes())
    (first,) = struct.unpack("<I", data[4:8])
    (count,) = struct.unpack("<H", data[first : first + 2])
    directory, link = bytes(data[first : first + 2 + 12 * count]), first + 2 + 12 * count
    ring = bytearray(data)
    ring[link : link + 4] = struct.pack("<I", first)
    (tmp_path / "ring.tif").write_bytes(ring)
    data[link : link + 4] = struct.pack("<I", len(data))
    step = len(directory) + 4
    data += b"".join(directory + struct.pack("<I", len(data) + step * (n + 1)) for n in range(5000))
    data += directory + struct.pack("<I", 0)
    chain.write_bytes(data)
    for path in (tmp_path / "ring.tif", chain):
        assert levels(path) == [300]
    assert time.monotonic() - began < 10


def test_a_file_without_rights_is_told(made: Any, monkeypatch: Any) -> None:
    path = made()

    def locked(*args: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tifffile, "TiffFile", locked)
    assert "Permission denied" in refusal(path)


def test_what_tifffile_logs_about_an_odd_file_is_not_spilled(
    made: Any, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    path = made({"XResolution": ("I", 3)})
    data = bytearray(path.read_bytes())
    (first,) = struct.unpack("<I", data[4:8])
    for at in range(first + 2, first + 2 + 12 * 12, 36):
        data[at + 2 : at + 8] = b"\xff\xff\xff\xff\xff\x7f"
    path.write_bytes(data)
    with pytest.raises(ImageError):
        slide.open_image(path, TileGrid())
    out, err = capfd.readouterr()
    assert out == err == ""
    assert [record for record in caplog.records if record.name == "tifffile"] == []


@pytest.mark.parametrize("grid", [TileGrid(), TileGrid(index=False)], ids=["index", "openslide"])
@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"tile": None}, "strips"),
        ({"tile": None, "rowsperstrip": 1}, "strips"),
        ({"compression": "jpeg2000"}, "JPEG2000"),
        ({"compression": "webp"}, "WEBP"),
    ],
)
def test_what_nobody_reads_is_named_with_what_to_do(
    options: dict[str, Any], why: str, grid: TileGrid, tmp_path: Path
) -> None:
    settings = {name: value for name, value in {**TILED, **options}.items() if value is not None}
    tifffile.imwrite(tmp_path / "a.tif", np.full((200, 300, 3), 90, np.uint8), **settings)
    with pytest.raises(ImageError, match=why) as caught, slide.open_image(tmp_path / "a.tif", grid) as image:
        image.overview(32)
    assert "vips tiffsave" in caught.value.hint and "reader='photo'" in caught.value.hint


def test_a_directory_within_the_first_that_is_no_image_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        file.write(PIXELS, subifds=2, **TILED)
        for scale in (2, 4):
            file.write(np.ascontiguousarray(PIXELS[::scale, ::scale]), subfiletype=1, **TILED)
    assert levels(path) == [300, 150, 75]
    with tifffile.TiffFile(path, mode="r+") as file:
        file.pages[0].pages[0].tags["ImageWidth"].overwrite(0, dtype="I")
    assert levels(path) == [300, 75]
