"""What every reader of an image offers, and the few things that all readers share."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol, Self, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from kit import files
from kit.competition import TileGrid
from kit.errors import ImageError, SettingError
from kit.files import split_archive

# Images are read side by side, a thread each: OpenCV's own threads would only compete with them.
cv2.setNumThreads(1)

Pixels: TypeAlias = NDArray[np.uint8]  # (height, width, 3), red first
WHITE: Pixels = np.full(3, 255, np.uint8)
MPP = (0.02, 20.0)  # micrometres a pixel that a microscope can have
LONGEST = 2**20  # pixels of the longest side of a slide: a glass of 76 mm at 0.07 micrometres a pixel
MOST = 2**37  # pixels of the largest slide


class ImageMissing(ImageError):
    """There is no file where the image should be."""


class ImageRefused(ImageError):
    """The image reads well, but not what is asked of it."""


class Reader(Protocol):
    """One open image. Every distance is in level-0 pixels: its finest, as the file has it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height at level 0."""

    @property
    def tileable(self) -> bool:
        """Whether tiles are chosen on it; if not, the whole image is one tile."""

    @property
    def how(self) -> str:
        """By what it is read, and why, for the log and ``images.csv``."""

    @property
    def kind(self) -> str:
        """What decodes it, as :data:`kit.read.budget.SPEED` names it."""

    @property
    def shown(self) -> float:
        """The share of level 0 that its header does not call blank; 1 where it does not tell."""

    def decoded(self, factor: float, area: int | None = None) -> float:
        """How many pixels have to be decoded to see the image ``factor`` times smaller, by its header.

        Args:
            area: of a part of it in level-0 pixels, which is decoded whole; None: an overview.
        """

    @property
    def mpp(self) -> float | None:
        """Micrometres a level-0 pixel, where the file says it plausibly."""

    def detail(self, factor: int) -> NDArray[np.float32] | None:
        """A map of how much fine detail there is, which an overview has lost; None where it is not free.

        Returns:
            float32 of the shape of ``overview(factor)``.
        """

    def overview(self, factor: int) -> Pixels:
        """The image with ``factor`` x ``factor`` level-0 pixels averaged into one.

        Returns:
            uint8 (ceil(height / factor), ceil(width / factor), 3); never upsampled.
        """

    def region(self, x: int, y: int, size: int, out: int) -> Pixels:
        """The level-0 square of ``size`` px at (x, y), resampled to ``out`` px.

        Returns:
            uint8 (out, out, 3); what lies outside of the image is white.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...


def opener(name: str) -> Callable[[Path, TileGrid], Reader]:
    """The ``open_image`` of ``kit.read.<name>``: what ``Competition.reader`` names.

    Raises:
        SettingError: there is no such reader.
    """
    found = getattr(_module(name), "open_image", None)
    if found is None:
        raise SettingError(
            f"there is no reader '{name}'", "a reader is a module of kit.read, as slide or photo"
        )
    opened: Callable[[Path, TileGrid], Reader] = found
    return opened


def whole(name: str) -> bool:
    """Whether an image of this reader is its own only tile, so that most of the work on it is Python's."""
    return bool(getattr(_module(name), "WHOLE", False))


def check_steps(name: str, steps: Sequence[str]) -> None:
    """Refuse steps that a reader has not, before an image is opened.

    Raises:
        SettingError: it has no such step, or none at all.
    """
    check = getattr(_module(name), "check_steps", None)
    if check is not None:
        check(steps)
    elif steps:
        raise SettingError(
            f"tile.steps={','.join(steps)}: reader '{name}' has no steps",
            "leave tile.steps out; it is for photographs and radiographs",
        )


def _module(name: str) -> ModuleType | None:
    """The module of a reader; ``None``: there is none."""
    module = f"kit.read.{name}"
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        return None


def check_there(path: Path) -> None:
    """Say plainly what is wrong with a path before a decoder says it obscurely.

    Raises:
        ImageMissing: no file is there.
        ImageError: it is a folder, or an empty file.
    """
    file, _ = split_archive(path)
    hint = "is --data the folder as the competition ships it?"
    try:
        if file.is_dir():
            raise ImageError(f"{path}: it is a folder", hint)
        if not file.is_file():
            raise ImageMissing(f"{path}: the file is not there", hint)
        if file.stat().st_size == 0:
            raise ImageError(f"{path}: the file is empty", "download it again")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise ImageError(f"{path}: {error.strerror}", hint) from error


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Refuse what no slide can be, before time and memory are given to it.

    Args:
        size: width and height as the header declares them, px.

    Raises:
        ImageError: it has no pixels, or more than any slide.
    """
    width, height = size
    if not (0 < width <= LONGEST and 0 < height <= LONGEST and width * height <= MOST):
        raise ImageError(
            f"{path}: it declares {width} x {height} pixels, which no slide has",
            "its header is damaged: download it again",
        )


def plausible_mpp(micrometres: float | str | None) -> float | None:
    """Micrometres a pixel, or None where they are absent or cannot be a microscope's.

    Most slides carry a library's default of 10 pixels a centimetre.
    """
    try:
        value = float(micrometres or 0)
    except ValueError:
        return None
    return value if MPP[0] <= value <= MPP[1] else None


def resized(pixels: Pixels, width: int, height: int) -> Pixels:
    """Resample any channels: by area where a side shrinks, cubic where it grows.

    Returns:
        uint8 (height, width, channels).
    """
    smaller = (min(width, pixels.shape[1]), min(height, pixels.shape[0]))
    shrunk = cv2.resize(pixels, smaller, interpolation=cv2.INTER_AREA)
    if smaller != (width, height):
        shrunk = cv2.resize(shrunk, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(shrunk, np.uint8)


def fingerprint(reader: str, file: Path) -> str:
    """What changes when an image does: see :func:`kit.files.fingerprint`.

    A folder of DICOM files is one slide, or as many radiographs.
    """
    try:
        return files.fingerprint(file, series=reader == "slide")
    except OSError as error:  # reading the image will say so again, in its own row
        return f"unreadable: {error.strerror}"
