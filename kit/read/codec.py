"""The bytes of one TIFF tile into its pixels: Deflate, LZW, JPEG, or none; with a predictor or not.

Every decoder writes where it is told and never more than a tile has: a small file that declares a huge
tile, or inflates without end, costs one tile of memory and is refused.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeAlias

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from kit.read.reader import Pixels

Bytes: TypeAlias = NDArray[np.uint8]
Inflate: TypeAlias = Callable[..., object]

# TIFF's numbers of compressions; the second two of Deflate are the registered and the older one.
NONE, LZW, JPEG, DEFLATE, OLD_DEFLATE = 1, 5, 7, 8, 32946
LOSSLESS = (LZW, DEFLATE, OLD_DEFLATE)
INFLATE: dict[int, Inflate] = {
    LZW: imagecodecs.lzw_decode,
    DEFLATE: imagecodecs.deflate_decode,
    OLD_DEFLATE: imagecodecs.deflate_decode,
}
START, END = b"\xff\xd8", b"\xff\xd9"  # of a JPEG stream
REDUCED = 8  # times smaller: a pixel for each block of a JPEG, its mean
# A stream may carry an orientation, which a TIFF's tile does not have.
_EIGHTH = cv2.IMREAD_REDUCED_COLOR_8 | cv2.IMREAD_IGNORE_ORIENTATION


class TileError(Exception):
    """The bytes of a tile are no tile; the reader says which."""


@dataclass(frozen=True)
class Codec:
    """How the tiles of one level are encoded. Tiles have three channels of 8 bits.

    compression, predictor: as TIFF numbers them; predictor 2 is the horizontal difference.
    width, height: of a tile.
    tables: the quantisation and Huffman tables that all JPEG tiles share, or nothing.
    ycbcr: whether JPEG tiles hold luma and chroma, not red, green and blue.
    """

    compression: int
    predictor: int
    width: int
    height: int
    tables: bytes = b""
    ycbcr: bool = False

    def decode(self, data: bytes, out: Pixels) -> None:
        """Decode one tile into ``out``, uint8 (height, width, 3), which may be a part of a larger array.

        Raises:
            TileError: the bytes are damaged, too few, or of another size.
        """
        try:
            if self.compression == JPEG:
                self._decode_jpeg(data, out)
            elif self.compression == NONE:
                self._checked(len(data))
                out[...] = np.frombuffer(data, np.uint8, out.size).reshape(out.shape)
            else:
                self._inflate(data, out)
        except TileError:
            raise
        except (RuntimeError, ValueError, TypeError) as error:  # what imagecodecs raises on damaged bytes
            raise TileError(" ".join(str(error).split()) or type(error).__name__) from error

    def decode_reduced(self, data: bytes, out: Pixels) -> None:
        """Decode one JPEG tile at an eighth of its size, from the first cosine coefficient of each block.

        At a half or a quarter a pixel would be no mean, and fine detail would come back as other colours.

        Args:
            out: uint8 (height / 8, width / 8, 3).

        Raises:
            TileError: as ``decode``.
        """
        self._check_jpeg(data)
        pixels = cv2.imdecode(np.frombuffer(self._whole(data), np.uint8), _EIGHTH)
        if pixels is None or pixels.shape != out.shape:
            raise TileError("its JPEG stream is damaged")
        out[...] = pixels[:, :, ::-1]

    def _inflate(self, data: bytes, out: Pixels) -> None:
        if self.compression == LZW and self._by_libtiff(data, out):
            return
        pixels = _scratch(out.shape)
        flat = pixels.reshape(-1)
        found = INFLATE[self.compression](data, out=flat)
        self._checked(len(found))  # type: ignore[arg-type]
        if self.predictor == 2:
            imagecodecs.delta_decode(pixels, axis=1, out=out)
        else:
            out[...] = pixels

    def _by_libtiff(self, data: bytes, out: Pixels) -> bool:
        """Whether libtiff takes a tile for a picture of its own: its LZW is a third faster.

        It wants an end code, which other decoders do without.
        """
        before, after = _strip_header(self.width, self.height, self.predictor)
        try:
            pixels = imagecodecs.tiff_decode(before + struct.pack("<I", len(data)) + after + data)
        except RuntimeError:
            return False
        if pixels.shape != out.shape or pixels.dtype != np.uint8:
            return False
        out[...] = pixels
        return True

    def _decode_jpeg(self, data: bytes, out: Pixels) -> None:
        self._check_jpeg(data)
        if data.rfind(END) < 0:  # libjpeg would fill the rest with grey
            raise TileError("its JPEG stream is cut short")
        colours = "ycbcr" if self.ycbcr else "rgb"
        tables = START + self._shared + END if self._shared else None
        out[...] = imagecodecs.jpeg8_decode(data, tables=tables, colorspace=colours, outcolorspace="rgb")

    def _checked(self, length: int) -> None:
        if length < self.width * self.height * 3:
            raise TileError(f"it has {length} bytes of pixels, not {self.width * self.height * 3}")

    def _check_jpeg(self, data: bytes) -> None:
        """A stream says its own size: read it before memory is given to it."""
        size = jpeg_size(data)
        if size != (self.width, self.height):
            raise TileError(f"its JPEG stream is of {size[0]} x {size[1]} pixels")

    def _whole(self, data: bytes) -> bytes:
        """A JPEG file of its own: shared tables put in, and its colours as the TIFF says, not the stream."""
        _, _, end = list(_segments(data))[-1]
        # Adobe's marker, whose last byte says: 1, luma and chroma; 0, as it is.
        adobe = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00" + bytes([int(self.ycbcr)])
        return START + adobe + self._shared + _plain(data) + data[end:]

    @cached_property
    def _shared(self) -> bytes:
        """The segments of the shared tables, and nothing that says how to show them."""
        return _plain(self.tables)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """Width and height in the frame header of a JPEG stream.

    Raises:
        TileError: it has none.
    """
    for marker, start, _ in _segments(data):
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if start + 9 > len(data):
                break
            height, width = struct.unpack(">HH", data[start + 5 : start + 9])
            return width, height
    raise TileError("it is no JPEG stream")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment before the pixels of a JPEG stream, as far as they make sense."""
    place = 0
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF:  # any number of these may stand before a marker
            place += 1
        elif marker == 0xD8:  # the start of the stream, which has no content
            place += 2
        elif marker in (0xD9, 0xDA):  # its end, and the start of the pixels
            return
        else:
            end = place + 2 + int(struct.unpack(">H", data[place + 2 : place + 4])[0])
            yield marker, place, end
            place = end


def _plain(data: bytes) -> bytes:
    """The segments of a JPEG stream without those of applications: some say other colours than the TIFF."""
    return b"".join(data[a:b] for marker, a, b in _segments(data) if not 0xE0 <= marker <= 0xEF)


@lru_cache(maxsize=64)
def _strip_header(width: int, height: int, predictor: int) -> tuple[bytes, bytes]:
    """The header of a TIFF whose only strip is LZW-encoded RGB, before and after its number of bytes."""
    short, long = 3, 4
    entries = [(256, short, 1, width), (257, short, 1, height), (258, short, 3, 0), (259, short, 1, LZW),
               (262, short, 1, 2), (273, long, 1, 0), (277, short, 1, 3), (278, short, 1, height),
               (279, long, 1, 0), (284, short, 1, 1), (317, short, 1, predictor)]  # fmt: skip
    depths = 8 + 2 + 12 * len(entries) + 4  # where the three depths are; the strip follows them
    places = {258: depths, 273: depths + 6}
    header = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    header += b"".join(
        struct.pack("<HHII", t, kind, n, places.get(t, value)) for t, kind, n, value in entries
    )
    header += struct.pack("<IHHH", 0, 8, 8, 8)
    count = 8 + 2 + 12 * [entry[0] for entry in entries].index(279) + 8
    return header[:count], header[count + 4 :]


_local = threading.local()


def _scratch(shape: tuple[int, ...]) -> Bytes:
    """A buffer of this thread that is used again and again."""
    found: Bytes | None = getattr(_local, "buffer", None)
    if found is None or found.shape != shape:
        found = _local.buffer = np.empty(shape, np.uint8)
    return found
