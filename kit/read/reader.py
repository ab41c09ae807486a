"""What every reader of an image offers, and the few things that all readers share."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, Self, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from kit.errors import ImageError, SettingError
from kit.files import split_archive

Pixels: TypeAlias = NDArray[np.uint8]  # (height, width, 3), red first


class ImageMissing(ImageError):
    """There is no file where the image should be."""


class Reader(Protocol):
    """One open image. Every distance is in level-0 pixels: its finest, as the file has it."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height at level 0."""

    @property
    def tileable(self) -> bool:
        """Whether tiles are chosen on it; if not, the whole image is one tile."""

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


def opener(name: str) -> Callable[[Path], Reader]:
    """The ``open_image`` of ``kit.read.<name>``: what ``Competition.reader`` names.

    Raises:
        SettingError: there is no such reader.
    """
    module = f"kit.read.{name}"
    try:
        found = getattr(importlib.import_module(module), "open_image", None)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        found = None
    if found is None:
        raise SettingError(
            f"there is no reader '{name}'", "a reader is a module of kit.read, as slide or photo"
        )
    opened: Callable[[Path], Reader] = found
    return opened


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
