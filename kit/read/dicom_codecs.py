"""The compressed pixels of DICOM, decoded by imagecodecs as a plugin of pydicom.

The plugins that pydicom comes with hold Python's global lock while they decode, so that threads would read
one radiograph after the other, and none of them knows lossless JPEG. These do not hold it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.pixels.decoders.base import DecodeRunner, get_decoder

Decode: TypeAlias = Callable[[bytes], Any]

NAME = "imagecodecs"
JPEG = imagecodecs.jpeg8_decode  # of libjpeg-turbo: 8 and 12 bits, and the lossless processes up to 16
STREAMS: dict[str, Decode] = {
    uid.JPEGBaseline8Bit: JPEG,
    uid.JPEGExtended12Bit: JPEG,
    uid.JPEGLossless: JPEG,  # process 14
    uid.JPEGLosslessSV1: JPEG,  # ... with selection value 1, which most devices write
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
}
# What pydicom looks for in a plugin, for its messages.
DECODER_DEPENDENCIES = dict.fromkeys((*STREAMS, uid.RLELossless), (NAME,))

SIZ = b"\xff\x4f\xff\x51"  # how a JPEG 2000 stream begins: its next marker holds the size
END = b"\xff\xd9"  # of a JPEG or JPEG-LS stream; a few bytes may follow that make its length even
FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # the markers of JPEG and JPEG-LS that hold it


LOSSLESS_JPEG = (uid.JPEGLossless, uid.JPEGLosslessSV1)  # no other plugin that is kept decodes them


def decodes(name: str, samples: int) -> bool:
    """Whether pictures of so many samples a pixel are decoded here; pydicom's own do the other colours."""
    return is_available(name) and (samples == 1 or name in LOSSLESS_JPEG)


def is_available(name: str) -> bool:
    """Whether imagecodecs decodes a transfer syntax; pydicom asks a plugin so."""
    return name in DECODER_DEPENDENCIES


def register() -> None:
    """Make the plugin known to pydicom, once."""
    for name in DECODER_DEPENDENCIES:
        decoder = get_decoder(uid.UID(name))
        if NAME not in decoder.available_plugins:
            decoder.add_plugin(NAME, (__name__, "decode"))


def decode(source: bytes, runner: DecodeRunner) -> bytes:
    """One frame as the bytes of its rows.

    Raises:
        ValueError: its stream is short, or of another size than the header says.
        NotImplementedError: as :func:`decodes`.
    """
    if not decodes(runner.transfer_syntax, runner.samples_per_pixel):
        raise NotImplementedError("colours in this transfer syntax are not decoded")
    size = (runner.rows, runner.columns)
    if runner.transfer_syntax == uid.RLELossless:
        return _run_lengths(source, runner)
    if (inside := stated(source)) != size:
        said = f"{inside[1]} x {inside[0]}" if inside else "no"
        raise ValueError(f"its stream has {said} pixels, and its header says {size[1]} x {size[0]}")
    if STREAMS[runner.transfer_syntax] is not imagecodecs.jpeg2k_decode and END not in source[-16:]:
        # libjpeg would make up the rest of its rows, and CharLS think about it for seconds.
        raise ValueError("its stream has no end")
    pixels = STREAMS[runner.transfer_syntax](source)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)  # as the stream has it
    return _little_endian(pixels)


def _run_lengths(source: bytes, runner: DecodeRunner) -> bytes:
    """A frame of run lengths: a plane for each byte of a value, the highest first (PS3.5 annex G).

    The decoder that imagecodecs has for all of it reads beyond a damaged stream; that of one plane does not.
    """
    size, wanted = runner.rows * runner.columns, runner.bits_allocated // 8
    count, *starts = struct.unpack_from("<16I", source)
    ends = [*starts[1:count], len(source)]
    if count != wanted:
        raise ValueError(f"its stream has {count} planes, and its header says {wanted}")
    planes = np.empty((size, count), np.uint8)
    for place, (start, end) in enumerate(zip(starts, ends, strict=False), 1):
        plane = imagecodecs.packbits_decode(source[start:end])
        if len(plane) < size:
            raise ValueError(f"its stream has {len(plane)} pixels, and its header says {size}")
        planes[:, count - place] = np.frombuffer(plane, np.uint8, size)
    return planes.tobytes()


def stated(source: bytes) -> tuple[int, int] | None:
    """Rows and columns by the head of a JPEG, JPEG-LS or JPEG 2000 stream; None where it has none."""
    start = source.find(SIZ, 0, 512)  # some writers put the boxes of a .jp2 file before it
    if start >= 0 and len(source) >= start + 24:
        right, bottom, left, top = struct.unpack_from(">4I", source, start + 8)
        return bottom - top, right - left
    for marker, place in _segments(source):
        if marker in FRAMES and len(source) >= place + 9:
            rows, columns = struct.unpack_from(">2H", source, place + 5)
            return rows, columns
    return None


def _segments(source: bytes) -> Iterator[tuple[int, int]]:
    """The markers of a JPEG stream before its pixels, and where each begins."""
    place = 2
    while place + 4 <= len(source) and source[place] == 0xFF:
        marker = source[place + 1]
        yield marker, place
        place += 1 if marker == 0xFF else 2 + struct.unpack_from(">H", source, place + 2)[0]


def _little_endian(pixels: NDArray[Any]) -> bytes:
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False).tobytes()
