"""One made radiograph of a chest: drawn from a number of what it shows, and written as a small DICOM file.

Everything that could give the class away grows with one ``strength``: the width of the heart, the knob of the
aorta, and how bright the spots in the lungs are.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from kit import seeds
from kit.files import write_file

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

BITS = 12
WHITE = 2**BITS - 1
KEPT = 0.4  # the part of its bytes that a truncated file keeps
LUNGS = ((0.3, 0.45), (0.7, 0.45))  # their middles, in shares of width and height
LUNG = (0.15, 0.28)  # half their width and height
HEART, AORTA = (0.55, 0.64), (0.57, 0.36)  # middles
NOISE = 0.015  # of the values, whose range is 1

Field = NDArray[np.float64]
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Sign:
    """Something that shows: its class, and its box in pixels."""

    class_id: int
    box: Box


@dataclass(frozen=True)
class Film:
    """What one radiograph shows, and how its file says it.

    strength: 0 to 1, of all that is not normal. spots: middle and radius of each, in shares of the width and
    height of the image. inverted: its least value is white (MONOCHROME1). packed: run-length encoded.
    window: its header has one.
    """

    image_id: str
    split: str
    width: int
    height: int
    strength: float
    spots: tuple[tuple[float, float, float], ...]
    inverted: bool = False
    packed: bool = False
    window: bool = False
    truncated: bool = False

    @property
    def heart(self) -> Box:
        """The box of the heart: the wider the stronger."""
        return self._box(*HEART, 0.1 + 0.13 * self.strength, 0.13)

    @property
    def aorta(self) -> Box:
        """The box of the knob of the aorta."""
        return self._box(*AORTA, 0.03 + 0.045 * self.strength, 0.03 + 0.03 * self.strength)

    def spot(self, number: int) -> Box:
        """The box of a spot in a lung."""
        x, y, radius = self.spots[number]
        return self._box(x, y, 1.6 * radius, 1.6 * radius)

    def _box(self, x: float, y: float, wide: float, high: float) -> Box:
        left, right = round((x - wide) * self.width), round((x + wide) * self.width)
        return left, round((y - high) * self.height), right, round((y + high) * self.height)


def draw_spots(rng: np.random.Generator, count: int) -> tuple[tuple[float, float, float], ...]:
    """Middles inside of the lungs, and radii."""
    spots = []
    for _ in range(count):
        x, y = LUNGS[int(rng.integers(2))]
        across, down = rng.uniform(-0.6, 0.6, 2)
        spots.append((x + across * LUNG[0], y + down * LUNG[1], float(rng.uniform(0.03, 0.055))))
    return tuple(spots)


def draw(seed: int, film: Film) -> NDArray[np.uint16]:
    """The values of a radiograph ``(height, width)``, the greatest white, of 12 bits."""
    rng = seeds.rng(seed, "demo", "film", film.image_id)
    rows, columns = (np.arange(film.height) + 0.5) / film.height, (np.arange(film.width) + 0.5) / film.width
    y, x = np.meshgrid(rows, columns, indexing="ij")
    picture = _thorax(x, y, film)
    picture = np.asarray(cv2.GaussianBlur(picture + NOISE * rng.standard_normal(picture.shape), (3, 3), 0))
    picture = rng.uniform(0.02, 0.1) + rng.uniform(0.8, 1.0) * picture  # the exposure
    return np.asarray(np.clip(np.round(picture * WHITE), 0, WHITE), np.uint16)


def _thorax(x: Field, y: Field, film: Film) -> Field:
    """What absorbs, from 0 to about 1; ``x`` and ``y`` in shares of the width and height."""
    body = 0.45 * _disc(x, y, (0.5, 0.55), (0.46, 0.6), 0.04)
    lungs = sum(_disc(x, y, middle, LUNG, 0.06) for middle in LUNGS)
    ribs = np.sin(60 * (y + 1.1 * (x - 0.5) ** 2)) ** 4
    spine = np.exp(-(((x - 0.5) / 0.035) ** 2))
    below = 1 / (1 + np.exp(-(y - 0.76 + 0.05 * np.cos(9 * x)) / 0.01))
    picture = (
        body - 0.33 * lungs * (1 - below) + 0.05 * ribs * lungs + 0.14 * spine + 0.12 * below * (body > 0.2)
    )
    strength = film.strength
    heart = _disc(x, y, HEART, (0.1 + 0.13 * strength, 0.13), 0.05)
    aorta = _disc(x, y, AORTA, (0.03 + 0.045 * strength, 0.03 + 0.03 * strength), 0.2)
    picture = np.maximum(picture, 0.5 * heart) + 0.1 * aorta
    for middle_x, middle_y, radius in film.spots:
        away = ((x - middle_x) ** 2 + (y - middle_y) ** 2) / radius**2
        picture = picture + (0.03 + 0.3 * strength) * np.exp(-away)
    return np.asarray(picture)


def _disc(x: Field, y: Field, middle: tuple[float, float], half: tuple[float, float], soft: float) -> Field:
    """1 inside of an ellipse, 0 outside, and in between at its edge."""
    away = ((x - middle[0]) / half[0]) ** 2 + ((y - middle[1]) / half[1]) ** 2
    return np.asarray(1 / (1 + np.exp(np.clip((away - 1) / (2 * soft), -40, 40))))


def write_film(path: Path, seed: int, film: Film) -> None:
    """Write one radiograph, whole or not at all; a truncated one keeps the first part of its bytes."""
    values = draw(seed, film)
    stored = WHITE - values if film.inverted else values
    content = io.BytesIO()
    _dataset(film, np.ascontiguousarray(stored, dtype="<u2")).save_as(content, enforce_file_format=True)
    data = content.getvalue()
    data = data[: round(KEPT * len(data))] if film.truncated else data
    write_file(path, lambda temporary: temporary.write_bytes(data))


def _dataset(film: Film, stored: NDArray[np.uint16]) -> Dataset:
    """The smallest header that readers of radiographs ask for, and the values."""
    # Not above: the tables of the cohort are made where no radiograph is, and nothing that reads one.
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import (
        DigitalXRayImageStorageForPresentation,
        ExplicitVRLittleEndian,
        RLELossless,
        generate_uid,
    )

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["demo", film.image_id])
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(os.devnull, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.PatientID = "DX", film.image_id
    data.Rows, data.Columns = film.height, film.width
    data.SamplesPerPixel, data.PixelRepresentation = 1, 0
    data.BitsAllocated, data.BitsStored, data.HighBit = 16, BITS, BITS - 1
    data.PhotometricInterpretation = "MONOCHROME1" if film.inverted else "MONOCHROME2"
    if film.window:
        data.WindowCenter, data.WindowWidth = f"{(WHITE + 1) // 2}", f"{WHITE + 1}"
    data.PixelData = stored.tobytes()
    if film.packed:
        data.compress(RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    return data
