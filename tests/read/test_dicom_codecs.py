"""Compressed radiographs: every encoding gives the same picture, and a damaged one an error."""

from __future__ import annotations

import contextlib
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import uid

from kit.errors import ImageError
from kit.read import dicom_codecs, radiograph
from tests.read import dicoms
from tests.read.dicoms import ALL, fails, gradient, grey, opened, write

# Of the tags that pydicom sees in damaged files; readers do not show them either.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
COMPRESSED = [
    uid.RLELossless,
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
    uid.JPEGLossless,
    uid.JPEGLosslessSV1,
]
PLAIN = [
    uid.ExplicitVRLittleEndian,
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian,
]


@pytest.mark.parametrize("syntax", PLAIN + COMPRESSED)
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, False), (12, True), (16, True)])
def test_every_lossless_encoding_gives_the_same_picture(
    syntax: str, bits: int, signed: bool, tmp_path: Path
) -> None:
    values = gradient(bits, 41, 63, signed=signed)
    stored = values.astype(values.dtype.newbyteorder(">")) if syntax == uid.ExplicitVRBigEndian else values
    path = write(tmp_path / "a.dicom", stored, bits, syntax=syntax)
    least = int(values.min())
    wide = values.astype(np.int64) - least
    np.testing.assert_array_equal(grey(path, *ALL), (wide / wide.max() * 255).astype(np.uint8))
    assert uid.UID(syntax).name in opened(path).how
    assert ("imagecodecs" in opened(path).how) == (syntax in COMPRESSED)


def test_lossy_jpeg_of_12_bits_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(12), syntax=uid.JPEGExtended12Bit)
    plain = write(tmp_path / "b.dicom", gradient(12))
    assert np.abs(grey(path, *ALL).astype(int) - grey(plain, *ALL)).max() <= 3


def test_a_syntax_that_nothing_decodes_names_what_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    path = write(tmp_path / "a.dicom", gradient(12), syntax=uid.JPEGLosslessSV1)
    monkeypatch.setattr(dicom_codecs, "decodes", lambda name, samples: False)
    monkeypatch.setattr(radiograph.get_decoder(uid.JPEGLosslessSV1), "_available", {})
    error = fails(path, "needs a package that is not here")
    assert "pylibjpeg-libjpeg" in error.hint and "JPEG Lossless" in error.message


@pytest.mark.parametrize(
    "syntax", [uid.ExplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian, *COMPRESSED]
)
@pytest.mark.parametrize("kept", [0.0, 0.02, 0.1, 0.5, 0.9, 0.97])
def test_a_truncated_file_is_an_image_error(syntax: str, kept: float, tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(12, 80, 80), syntax=syntax)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    fails(path, "it ends within its pixel data" if syntax in COMPRESSED and kept >= 0.5 else r"a\.dicom: ")


@pytest.mark.parametrize("syntax", [*COMPRESSED[1:], uid.JPEGExtended12Bit])
@pytest.mark.parametrize("kept", [0.3, 0.9, 0.99])
def test_a_stream_that_ends_early_in_a_whole_file_is_an_image_error(
    syntax: str, kept: float, tmp_path: Path
) -> None:
    stream = dicoms.encoded(gradient(12, 80, 80), syntax, 12)
    path = tmp_path / "a.dicom"
    fails(
        write(path, gradient(12, 80, 80), syntax=syntax, stream=stream[: int(len(stream) * kept)]), "read: "
    )


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, *COMPRESSED])
@pytest.mark.parametrize("declared", [(41, 60), (65535, 65535), (0, 60)])
def test_a_size_that_its_pixels_do_not_have_is_refused_and_costs_no_memory(
    syntax: str, declared: tuple[int, int], tmp_path: Path
) -> None:
    path = write(
        tmp_path / "a.dicom", gradient(12, 40, 60), syntax=syntax, Rows=declared[0], Columns=declared[1]
    )
    tracemalloc.start()
    fails(path, "pixel")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6


def test_run_lengths_of_other_planes_or_too_few_pixels_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(12, 40, 60), syntax=uid.RLELossless)
    data = path.read_bytes()
    place = data.rindex(b"\x02\0\0\0\x40\0\0\0")  # the head of its only frame: two planes, from byte 64 on
    path.write_bytes(data[:place] + b"\xff\xff\xff\x7f" + data[place + 4 :])
    fails(path, "its stream has 2147483647 planes, and its header says 2")
    path.write_bytes(data[: place + 100] + b"\x80" * (len(data) - place - 108) + data[-8:])
    fails(path, r"its stream has \d+ pixels, and its header says 2400")


@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.JPEGLosslessSV1])
def test_a_stream_may_be_narrower_than_the_header_says(syntax: str, tmp_path: Path) -> None:
    values = gradient(8)
    stream = dicoms.encoded(values, syntax, 8)
    path = write(tmp_path / "a.dicom", values.astype(np.uint16), 12, syntax=syntax, stream=stream)
    np.testing.assert_array_equal(grey(path), grey(write(tmp_path / "b.dicom", values, 8)))


def test_a_stream_of_a_huge_picture_is_not_decoded(tmp_path: Path) -> None:
    huge = bytearray(dicoms.encoded(gradient(12), uid.JPEG2000Lossless, 12))
    huge[8:16] = (60000).to_bytes(4, "big") * 2
    path = write(tmp_path / "a.dicom", gradient(12), syntax=uid.JPEG2000Lossless, stream=bytes(huge))
    fails(path, "its stream has 60000 x 60000 pixels, and its header says 60 x 40")


def test_damaged_bytes_are_an_image_error_or_a_picture_and_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for syntax in (uid.ExplicitVRLittleEndian, *COMPRESSED):
        path = write(tmp_path / "a.dicom", gradient(12), syntax=syntax, WindowCenter=2000, WindowWidth=1000)
        whole = path.read_bytes()
        for _ in range(40):
            data = bytearray(whole)
            for place in rng.integers(130, min(len(data), 900), 4):
                data[place] = rng.integers(0, 256)
            path.write_bytes(data)
            with contextlib.suppress(ImageError):
                assert opened(path, *ALL).overview(1).dtype == np.uint8
