"""The bytes of single tiles."""

from __future__ import annotations

import struct
import zlib
from contextlib import suppress
from typing import Any

import imagecodecs
import numpy as np
import pytest

from kit.read.codec import DEFLATE, JPEG, LZW, NONE, Codec, TileError, jpeg_size

TILE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
SMOOTH = np.add.outer(np.arange(32), np.arange(48)).astype(np.uint8)[..., None].repeat(3, axis=2)


def decoded(codec: Codec, data: bytes) -> Any:
    """The tile, decoded into a part of something larger, whose rest must stay as it is."""
    around = np.full((codec.height + 2, codec.width + 2, 3), 7, np.uint8)
    codec.decode(data, around[1:-1, 1:-1])
    around[1:-1, 1:-1], inside = 7, around[1:-1, 1:-1].copy()
    assert (around == 7).all()
    return inside


def jpeg(pixels: Any, colours: str = "YCBCR", **options: Any) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, 90, colorspace="RGB", outcolorspace=colours, **options))


def encoded(compression: int, pixels: Any) -> bytes:
    data = np.ascontiguousarray(pixels).tobytes()
    return {NONE: data, LZW: imagecodecs.lzw_encode(data), DEFLATE: zlib.compress(data)}[compression]


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE])
@pytest.mark.parametrize("predictor", [1, 2])
def test_a_lossless_tile_comes_back(compression: int, predictor: int) -> None:
    if compression == NONE and predictor == 2:
        pytest.skip("TIFF has no such tiles")
    pixels = imagecodecs.delta_encode(TILE, axis=1) if predictor == 2 else TILE
    found = decoded(Codec(compression, predictor, 48, 32), encoded(compression, pixels))
    np.testing.assert_array_equal(found, TILE)


@pytest.mark.parametrize("compression", [NONE, LZW, DEFLATE])
@pytest.mark.parametrize("rows", [0, 1, 31])
def test_too_few_bytes_are_told(compression: int, rows: int) -> None:
    with pytest.raises(TileError):
        decoded(Codec(compression, 1, 48, 32), encoded(compression, TILE[:rows]))


@pytest.mark.parametrize("compression", [LZW, DEFLATE, JPEG])
def test_garbage_is_told(compression: int) -> None:
    rng = np.random.default_rng(1)
    for size in (0, 1, 2, 3, 100, 5000):
        with pytest.raises(TileError):
            decoded(Codec(compression, 1, 48, 32), rng.bytes(size))


def test_a_stream_that_inflates_without_end_costs_one_tile() -> None:
    bomb = zlib.compress(b"\0" * 2**24)
    with suppress(TileError):
        assert decoded(Codec(DEFLATE, 1, 48, 32), bomb).shape == (32, 48, 3)


@pytest.mark.parametrize("colours", ["YCBCR", "RGB"])
def test_the_colours_of_a_jpeg_are_what_the_tiff_says(colours: str) -> None:
    codec = Codec(JPEG, 1, 48, 32, ycbcr=colours == "YCBCR")
    data = jpeg(SMOOTH[:, :, ::-1] + np.array([9, 5, 0], np.uint8), colours, subsampling="444")
    assert np.abs(decoded(codec, data).astype(int) - SMOOTH - [9, 5, 0]).max() <= 6
    small = np.zeros((4, 6, 3), np.uint8)
    codec.decode_reduced(data, small)
    whole = decoded(codec, data).reshape(4, 8, 6, 8, 3).mean(axis=(1, 3))
    assert np.abs(small - whole).max() <= 1.5


def test_an_eighth_of_a_jpeg_is_told_its_colours_even_where_the_stream_says_others() -> None:
    """Red, green and blue with the marker that for other readers means luma and chroma."""
    pixels = np.full((32, 48, 3), (200, 30, 90), np.uint8)
    data = jpeg(pixels, "RGB", subsampling="444")
    jfif = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    data = data[:2] + jfif + data[2:]
    small = np.zeros((4, 6, 3), np.uint8)
    Codec(JPEG, 1, 48, 32, ycbcr=False).decode_reduced(data, small)
    assert np.abs(small.astype(int) - (200, 30, 90)).max() <= 3


def test_a_jpeg_of_another_size_is_refused_before_memory_is_given_to_it() -> None:
    data = bytearray(jpeg(SMOOTH))
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", 65000, 65000)
    assert jpeg_size(bytes(data)) == (65000, 65000)
    codec = Codec(JPEG, 1, 48, 32, ycbcr=True)
    with pytest.raises(TileError, match="65000 x 65000"):
        decoded(codec, bytes(data))
    with pytest.raises(TileError, match="65000 x 65000"):
        codec.decode_reduced(bytes(data), np.zeros((4, 6, 3), np.uint8))


@pytest.mark.parametrize("channels", [1, 4])
def test_a_jpeg_of_other_channels_is_refused_or_becomes_three(channels: int) -> None:
    pixels = SMOOTH[:, :, 0].copy() if channels == 1 else np.concatenate([SMOOTH, SMOOTH[:, :, :1]], axis=2)
    data = bytes(imagecodecs.jpeg8_encode(pixels, 90))
    with suppress(TileError):
        assert decoded(Codec(JPEG, 1, 48, 32, ycbcr=True), data).shape == (32, 48, 3)


def test_damaged_jpegs_are_a_tile_or_a_tile_error_and_nothing_else() -> None:
    rng = np.random.default_rng(3)
    valid, codec, done = jpeg(TILE), Codec(JPEG, 1, 48, 32, ycbcr=True), 0
    for _ in range(600):
        data = bytearray(valid)
        for place in rng.integers(0, len(data), 3):
            data[place] = rng.integers(256)
        cut = bytes(data[: rng.integers(len(data) // 2, 3 * len(data) // 2)])
        for decode, shape in ((codec.decode, (32, 48, 3)), (codec.decode_reduced, (4, 6, 3))):
            try:
                decode(cut, np.zeros(shape, np.uint8))
                done += 1
            except TileError:
                pass
    assert done > 100


APP0 = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
APP14 = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"  # luma and chroma


def split(data: bytes) -> tuple[bytes, bytes]:
    """The tables of a stream, without its ends, and the stream without them."""
    tables, rest, place = b"", b"\xff\xd8", 2
    while data[place + 1] != 0xDA:
        end = place + 2 + int.from_bytes(data[place + 2 : place + 4], "big")
        if data[place + 1] in (0xDB, 0xC4):
            tables += data[place:end]
        elif data[place + 1] < 0xE0:
            rest += data[place:end]
        place = end
    return tables, rest + data[place:]


@pytest.mark.parametrize("marker", [b"", APP0, APP14, APP0 + APP14], ids=["none", "app0", "app14", "both"])
@pytest.mark.parametrize("ends", [(b"\xff\xd8", b"\xff\xd9"), (b"", b""), (b"\xff\xd8", b"")])
def test_shared_tables_are_tables_whatever_else_they_carry(marker: bytes, ends: tuple[bytes, bytes]) -> None:
    """Red, green and blue, whatever the markers say."""
    pixels = np.full((32, 48, 3), (200, 30, 90), np.uint8)
    tables, stream = split(jpeg(pixels, "RGB", subsampling="444"))
    codec = Codec(JPEG, 1, 48, 32, ends[0] + marker + tables + ends[1])
    assert np.abs(decoded(codec, stream).astype(int) - (200, 30, 90)).max() <= 3
    small = np.zeros((4, 6, 3), np.uint8)
    codec.decode_reduced(stream, small)
    assert np.abs(small.astype(int) - (200, 30, 90)).max() <= 3


def test_bytes_that_fill_up_before_a_marker_are_passed_over() -> None:
    valid = jpeg(SMOOTH)
    place = valid.index(b"\xff\xc0")
    data = valid[:2] + b"\xff" * 3 + valid[2:place] + b"\xff" * 9 + valid[place:]
    codec, small = Codec(JPEG, 1, 48, 32, ycbcr=True), np.zeros((2, 4, 6, 3), np.uint8)
    np.testing.assert_array_equal(decoded(codec, data), decoded(codec, valid))
    for number, stream in enumerate((data, valid)):
        codec.decode_reduced(stream, small[number])
    np.testing.assert_array_equal(small[0], small[1])


def test_a_jpeg_that_is_cut_short_is_told_and_not_filled_with_grey() -> None:
    valid, codec = jpeg(TILE), Codec(JPEG, 1, 48, 32, ycbcr=True)
    assert decoded(codec, valid + b"\0\0").std() > 30, "what comes after the end is nothing"
    for kept in (len(valid) - 2, len(valid) - 60, len(valid) // 2):
        with pytest.raises(TileError, match="cut short"):
            decoded(codec, valid[:kept])
        with pytest.raises(TileError):
            codec.decode_reduced(valid[:kept], np.zeros((4, 6, 3), np.uint8))
