"""Radiographs: the picture of a DICOM file, from the detector's values to 8 bits of grey.

``TileGrid.steps`` names what is done to the values, in the order of the standard (DICOM PS3.4 N.2):

- ``padding``: values that its header calls padding are no part of the picture, and become black;
- ``modality``: its modality table, or its rescale slope and intercept;
- ``voi``: its VOI table, or its first window (LINEAR, LINEAR_EXACT or SIGMOID);
- ``invert``: MONOCHROME1, in which the least value is white.

Then the least value becomes 0 and the greatest 255, and fractions are cut off. ``voi, invert`` is what most
notebooks do (R. Bukowski's "convert dicom to np array, the correct way"), to the last bit. A step that the
file does not ask for does nothing; one that it asks for with nonsense is left out, and ``how`` says so.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_color_lut, apply_windowing
from pydicom.pixels.utils import pixel_array

from kit.competition import TileGrid
from kit.errors import ImageError, KitError, SettingError, did_you_mean
from kit.files import split_archive
from kit.read import dicom_codecs
from kit.read.picture import Picture, read_bytes
from kit.read.reader import Pixels, check_there

Values: TypeAlias = NDArray[Any]
Step: TypeAlias = Callable[[Values, Dataset], Values | None]  # None: the file does not ask for it

WHOLE = True  # see `kit.read.reader.whole`
MOST = 2**27  # pixels: a mammogram of 4 x 6 thousand has a fifth of it
ROWS = 256  # rows that are looked up at a time, since their indices take four times what they do
HEAD = ("Rows", "Columns", "PhotometricInterpretation", "BitsStored", "BitsAllocated", "NumberOfFrames")
AGAIN = "download it again"

dicom_codecs.register()
# It logs a traceback of what it raises, and warns of each odd tag of each file.
logging.getLogger("pydicom").setLevel(logging.CRITICAL)
warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")
config.settings.reading_validation_mode = config.IGNORE


@dataclass(frozen=True)
class Header:
    """What a file says of its picture."""

    height: int
    width: int
    photometric: str  # MONOCHROME1: the least value is white
    bits: int  # stored a sample
    frames: int
    syntax: str  # how its pixels are encoded


class Radiograph(Picture):
    """An open radiograph: a :class:`kit.read.reader.Reader`, and a bag of one."""

    kind = "radiograph"

    def __init__(self, path: Path, steps: Sequence[str]) -> None:
        check_there(path)
        with _told(path):
            source = _source(path)
            said = _header(_dataset(source, pixels=False))  # before memory is given to its pixels
            content = _dataset(source)
            pixels, decoder = _decoded(content, said)
            notes = [f"frame 1 of {said.frames}"] if said.frames > 1 else []
            colours = pixels.ndim == 3 or said.photometric == "PALETTE COLOR"
            made = _colours(pixels, content) if colours else _grey(pixels, content, steps, notes)
        super().__init__(made)
        self.how = "; ".join([f"{decoder}, {said.syntax}", *notes])


def open_image(path: Path, grid: TileGrid) -> Radiograph:
    """Open a radiograph; of several frames the first.

    Args:
        grid: ``steps`` says what is done to its values.

    Raises:
        SettingError: a step is unknown, or comes before one that the standard does first.
        ImageError: it is missing, no DICOM, without a picture, damaged, or encoded as nothing here decodes.
    """
    check_steps(grid.steps)
    return Radiograph(path, grid.steps)


def check_steps(steps: Sequence[str]) -> None:
    """Refuse steps that no radiograph has.

    Raises:
        SettingError: one is unknown, or they are not in the order of the standard.
    """
    for step in steps:
        if step not in STEPS:
            raise SettingError(f"tile.steps: radiographs have no step '{step}'", did_you_mean(step, STEPS))
    if list(steps) != [step for step in STEPS if step in steps]:
        raise SettingError(
            f"tile.steps={','.join(steps)}: the steps of a radiograph have one order",
            f"type them in this order, each at most once: {','.join(STEPS)}",
        )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever pydicom raises on damaged bytes (it may be anything) as an error that names the file."""
    try:
        yield
    except (KitError, MemoryError):
        raise
    except InvalidDicomError as error:
        hint = "is it a picture of another kind? For those declare reader='photo'"
        raise ImageError(f"{path}: it is not DICOM", hint) from error
    except Exception as error:
        raise ImageError(f"{path}: it cannot be read: {_reason(error)}", AGAIN) from error


def _reason(error: Exception) -> str:
    # pydicom names each plugin that has failed, and here there is one.
    text = " ".join(str(error).split()).rpartition(f"plugins: {dicom_codecs.NAME}: ")[2]
    return text[:300] or type(error).__name__


def _source(path: Path) -> Path | io.BytesIO:
    return io.BytesIO(read_bytes(path)) if split_archive(path)[1] else path


def _dataset(source: Path | io.BytesIO, pixels: bool = True) -> Dataset:
    if isinstance(source, io.BytesIO):
        source.seek(0)
    tags = None if pixels else list(HEAD)
    return pydicom.dcmread(source, stop_before_pixels=not pixels, specific_tags=tags)


def _header(content: Dataset) -> Header:
    absent = [name for name in HEAD[:4] if content.get(name) in (None, "")]
    if absent:
        raise ValueError(f"it has no picture: its header has no {' and no '.join(absent)}")
    height, width = int(content.Rows), int(content.Columns)
    if not 0 < height * width <= MOST:
        raise ValueError(f"it declares {width} x {height} pixels, which no radiograph has")
    return Header(
        height,
        width,
        str(content.PhotometricInterpretation),
        int(content.BitsStored),
        int(content.get("NumberOfFrames") or 1),
        content.file_meta.TransferSyntaxUID.name,
    )


def _decoded(content: Dataset, said: Header) -> tuple[Values, str]:
    """The values of its first frame, (height, width) or (height, width, samples), and by what."""
    if not any(name in content for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        # Of compressed pixels without an end pydicom gives back nothing at all, not even their header.
        raise ValueError("it has no pixel data" if "Rows" in content else "it ends within its pixel data")
    syntax = content.file_meta.TransferSyntaxUID
    ours = dicom_codecs.decodes(syntax, content.SamplesPerPixel)
    if not (ours or get_decoder(syntax).is_available):
        missing = ", or ".join(get_decoder(syntax).missing_dependencies)
        raise ImageError(
            f"{content.filename}: {said.syntax} needs a package that is not here", f"install {missing}"
        )
    pixels = pixel_array(content, index=0, decoding_plugin=dicom_codecs.NAME if ours else "")
    return pixels, "pydicom and imagecodecs" if ours else "pydicom"


def _colours(pixels: Values, content: Dataset) -> Pixels:
    """Colours as they are, of more than 8 bits the upper ones; no step is for them."""
    bits = int(content.BitsStored)
    if pixels.ndim == 2:
        pixels = apply_color_lut(pixels, content)
        bits = 8 * pixels.dtype.itemsize
    if pixels.shape[2] != 3:
        raise ValueError(f"it has {pixels.shape[2]} samples a pixel")
    if bits > 8:
        pixels = np.rint(pixels * (255 / (2**bits - 1)))
    return np.ascontiguousarray(pixels.astype(np.uint8))


def _grey(pixels: Values, content: Dataset, steps: Sequence[str], notes: list[str]) -> Pixels:
    """Grey levels as uint8 (height, width, 3); what was left out is added to ``notes``."""
    if pixels.dtype.itemsize > 2:
        return _tripled(_levels(pixels.ravel(), content, steps, notes).reshape(pixels.shape))
    # What becomes of a value depends on which others there are, and not on where they are: there are at
    # most 65,536 to work on. Negative ones are, as indices, the upper half of the table.
    blocks = [slice(row, row + ROWS) for row in range(0, len(pixels), ROWS)]
    seen = np.zeros(2 ** (8 * pixels.dtype.itemsize), bool)
    for rows in blocks:
        seen[pixels[rows]] = True
    values = np.flatnonzero(seen).astype(pixels.dtype)
    table = np.zeros(len(seen), np.uint8)
    table[values] = _levels(values, content, steps, notes)
    grey = np.empty(pixels.shape, np.uint8)
    for rows in blocks:
        grey[rows] = table[pixels[rows]]
    return _tripled(grey)


def _tripled(grey: NDArray[np.uint8]) -> Pixels:
    return np.repeat(grey[:, :, None], 3, axis=2)


def _levels(stored: Values, content: Dataset, steps: Sequence[str], notes: list[str]) -> NDArray[np.uint8]:
    """The grey level of each value: 0 for the least, 255 for the greatest; 0 if all are equal."""
    values = stored.astype(np.int64) if stored.dtype.kind in "iu" else stored.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("it has values that are not finite")
    shown = np.ones(len(values), bool)
    if "padding" in steps:
        shown = ~_padding(values, content)
        if not shown.any():
            notes.append("all of it is padding")
    levels = np.zeros(len(values), np.uint8)
    if shown.any():
        levels[shown] = _stretched(_stepped(values[shown], content, steps, notes))
    return levels


def _stepped(values: Values, content: Dataset, steps: Sequence[str], notes: list[str]) -> Values:
    """Do the steps; of a step that can be done in several ways, the first that makes sense."""
    for step in steps:
        for name, way in STEPS[step].items():
            try:
                with np.errstate(all="ignore"):
                    after = way(values, content)
                problem = "" if after is None else _nonsense(values, after)
            except Exception as error:  # anything, as all that pydicom does with damaged tags
                after, problem = None, _reason(error)
            if problem:
                notes.append(f"{name} left out: {problem}")
            elif after is not None:
                values = after
                break
    return values


def _nonsense(before: Values, after: Values) -> str:
    if not np.isfinite(after).all():
        return "it makes values that are not finite"
    flat = np.ptp(after) == 0 and np.ptp(before) > 0
    return "it makes all values equal" if flat else ""


def _stretched(values: Values) -> NDArray[np.uint8]:
    values = values - values.min()
    if not values.any():
        return np.zeros(values.shape, np.uint8)
    values = values / values.max()
    return (values * 255).astype(np.uint8)


def _padding(values: Values, content: Dataset) -> NDArray[np.bool_]:
    """Which values are padding: one, or those from it to the limit of its range."""
    first = content.get("PixelPaddingValue")
    if first is None:
        return np.zeros(len(values), bool)
    last = content.get("PixelPaddingRangeLimit")
    ends = [_signed(int(end), content) for end in (first, first if last is None else last)]
    return np.asarray((values >= min(ends)) & (values <= max(ends)))


def _signed(value: int, content: Dataset) -> int:
    """A value as its pixels are: some devices write those of signed pixels without a sign."""
    bits = int(content.BitsAllocated)
    return value - 2**bits if content.PixelRepresentation == 1 and value >= 2 ** (bits - 1) else value


def _modality(values: Values, content: Dataset) -> Values | None:
    if content.get("ModalityLUTSequence"):
        return _looked_up(values, content.ModalityLUTSequence[0], content)
    slope, intercept = content.get("RescaleSlope"), content.get("RescaleIntercept")
    if slope is None or intercept is None:
        return None
    return values.astype(np.float64) * float(slope) + float(intercept)


def _voi_table(values: Values, content: Dataset) -> Values | None:
    if not content.get("VOILUTSequence"):
        return None
    return _looked_up(values, content.VOILUTSequence[0], content)


def _window(values: Values, content: Dataset) -> Values | None:
    if content.get("WindowCenter") is None or content.get("WindowWidth") is None:
        return None
    widths = content.WindowWidth
    width = float(widths if content["WindowWidth"].VM == 1 else widths[0])
    # Of a width of 1 or less, LINEAR is one step, or nothing; the others are nothing at 0.
    if width <= 0:
        raise ValueError(f"its width is {'0' if width == 0 else 'negative'}")
    return apply_windowing(values, content)


def _invert(values: Values, content: Dataset) -> Values | None:
    return values.max() - values if content.PhotometricInterpretation == "MONOCHROME1" else None


# The steps in their order, and the ways in which each is done, by the name that ``how`` has for it.
STEPS: dict[str, dict[str, Step]] = {
    "padding": {},  # it decides which values there are: see `_levels`
    "modality": {"modality": _modality},
    "voi": {"VOI table": _voi_table, "window": _window},
    "invert": {"invert": _invert},
}


def _looked_up(values: Values, item: Dataset, content: Dataset) -> Values:
    """Values through a table: what lies below or above it takes its first or last entry.

    pydicom's own overflows where a table is shorter or narrower than the values, or begins below 0.
    """
    count, first, bits = (int(number) for number in item.LUTDescriptor)
    count = count or 2**16
    data: Any = item.LUTData
    if isinstance(data, bytes):
        order = "<" if content.file_meta.TransferSyntaxUID.is_little_endian else ">"
        narrow = bits <= 8 and len(data) < 2 * count  # packed, an entry a byte
        data = np.frombuffer(data, "u1" if narrow else f"{order}u2")
    table = np.asarray(data, np.int64).ravel()[:count]
    if len(table) < count:
        raise ValueError(f"it has {len(table)} of its {count} entries")
    places = np.rint(values).astype(np.int64) - first
    return np.asarray(table[np.clip(places, 0, count - 1)])
