"""Coordinates of tiles in the HDF5 files of CLAM and TRIDENT, read and written.

Both keep one file a slide with a dataset ``coords``: (n, 2) whole numbers, the left and top edge of
each tile in level-0 pixels. What its attributes say of the side of a tile differs:

- CLAM: ``patch_size`` pixels of level ``patch_level``, of which ``downsample`` level-0 pixels make one
  (and downsampled_level_dim, level_dim, name, save_path);
- TRIDENT: ``patch_size_level0`` level-0 pixels (and patch_size at target_magnification, overlap,
  level0_magnification, level0_width, level0_height, name, savetodir).

``features``, (n, d) of float32, lies beside it where a file has them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import h5py  # type: ignore[import-untyped]
import numpy as np
from numpy.typing import NDArray

from kit.errors import DataError
from kit.files import write_file
from kit.read import store
from kit.read.reader import LONGEST
from kit.read.store import Integers

UNKNOWN = -1  # a magnification that nobody told us
AGAIN = "write it again with kit tile --export, CLAM or TRIDENT"


@dataclass(frozen=True)
class Coords:
    """Where the tiles of an image lie; ``width`` and ``height`` are 0 where the file does not say them."""

    name: str
    x: Integers  # (T,) left edge, level-0 px
    y: Integers  # (T,) top edge, level-0 px
    size: int  # side, level-0 px
    width: int = 0
    height: int = 0
    features: NDArray[np.float32] | None = None  # (T, d)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def digest(self) -> str:
        """Sixteen hex digits of where the tiles lie, whatever else their file says."""
        content = f"{self.size}\n".encode() + self.x.tobytes() + self.y.tobytes()
        return hashlib.sha256(content).hexdigest()[:16]


def write_coords(
    path: Path,
    name: str,
    x: Integers,
    y: Integers,
    size: int,
    width: int,
    height: int,
    features: NDArray[np.float32] | None = None,
) -> None:
    """Write a file that CLAM and TRIDENT can both read; the same content gives the same bytes.

    ``x`` and ``y`` are (T,) level-0 pixels, ``size`` the side of all tiles, ``width`` and ``height``
    those of the image. The attributes of both layouts are there, at level 0 and without a magnification.
    """
    flat = (width, height)
    attributes: dict[str, Any] = {
        "patch_size": size,
        "patch_level": 0,
        "downsample": (1.0, 1.0),
        "downsampled_level_dim": flat,
        "level_dim": flat,
        "name": name,
        "save_path": "",
        "patch_size_level0": size,
        "level0_magnification": UNKNOWN,
        "target_magnification": UNKNOWN,
        "overlap": 0,
        "savetodir": "",
        "level0_width": width,
        "level0_height": height,
    }

    def write(temporary: Path) -> None:
        with h5py.File(temporary, "w") as file:
            file["coords"] = np.stack([x, y], axis=1).astype(np.int64)
            for key, value in attributes.items():
                file["coords"].attrs[key] = value
            if features is not None:
                file["features"] = features.astype(np.float32)

    write_file(path, write)


def read_coords(path: Path, features: bool = False) -> Coords:
    """Read a file of CLAM or TRIDENT, or of our own.

    Args:
        features: whether those are read too, where the file has them.

    Raises:
        DataError: it cannot be read, or breaks a rule; names the dataset and the rule.
    """
    if not path.is_file():
        raise DataError(f"{path} is not there", AGAIN)
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get("coords"), h5py.Dataset):
                raise DataError(f"{path}: it must have a dataset coords; it has {', '.join(file) or 'none'}",
                                "give the files that hold the coordinates of patches")  # fmt: skip
            attributes = dict(file["coords"].attrs)
            coords = file["coords"][()]
            there = features and isinstance(file.get("features"), h5py.Dataset)
            encoded = file["features"][()] if there else None
    # As h5py and numpy tell of damage, and of a shape that nobody could hold.
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, MemoryError) as error:
        raise DataError(f"{path} is no readable HDF5 file: {error}", AGAIN) from error
    coords = _checked(path, coords)
    return Coords(
        name=_text(attributes.get("name", path.stem)),
        x=coords[:, 0].copy(),
        y=coords[:, 1].copy(),
        size=_side(path, attributes),
        width=_whole(path, attributes, "level0_width"),
        height=_whole(path, attributes, "level0_height"),
        features=None if encoded is None else _features(path, encoded, len(coords)),
    )


def coords_file(folder: Path, split: str, image_id: str) -> Path | None:
    """The file of an image in a folder of ``--export``, CLAM or TRIDENT; None where there is none."""
    name = store.path_of(folder, split, image_id).stem
    plain = quote(image_id, safe=" ")  # other programs keep the blanks of a slide's name
    stems = [f"{name}.h5", f"{plain}.h5", f"{plain}_patches.h5"]
    places = [folder / split, folder, folder / "patches"]
    return next((place / stem for place in places for stem in stems if (place / stem).is_file()), None)


def find_coords(folder: Path, split: str, image_id: str) -> Coords | None:
    """The coordinates given for an image in such a folder; None where there are none.

    Raises:
        DataError: its file breaks a rule.
    """
    path = coords_file(folder, split, image_id)
    return None if path is None else read_coords(path)


def _checked(path: Path, coords: Any) -> Integers:
    where = f"{path}: coords"
    if getattr(coords, "ndim", 0) != 2 or coords.shape[1] != 2:
        shape = " x ".join(map(str, np.shape(coords))) or "a single value"
        raise DataError(f"{where} must be n x 2 (x, y), and is {shape}", AGAIN)
    if coords.dtype.kind not in "iu":
        raise DataError(f"{where} must be whole numbers, and is {coords.dtype}",
                        "round them to level-0 pixels, as int64")  # fmt: skip
    found: Integers = coords.astype(np.int64)  # what is unsigned and too large becomes negative
    if (wrong := np.flatnonzero((found < 0).any(axis=1))).size:
        x, y = coords[wrong[0]]
        raise DataError(f"{where} row {wrong[0]}: ({x}, {y}) is outside the image; none may be negative",
                        "shift the grid, or leave these tiles out")  # fmt: skip
    return found


def _features(path: Path, features: Any, count: int) -> NDArray[np.float32]:
    if features.ndim == 3 and len(features) == 1:  # some encoders keep the batch of one
        features = features[0]
    if features.ndim != 2 or len(features) != count or features.dtype.kind != "f":
        shape = " x ".join(map(str, features.shape))
        raise DataError(f"{path}: features must be {count} x d floats, one row a coordinate, and is"
                        f" {shape} of {features.dtype}", "encode the tiles of this file again")  # fmt: skip
    found: NDArray[np.float32] = features.astype(np.float32)
    return found


def _side(path: Path, attributes: Mapping[str, Any]) -> int:
    """The side of a tile in level-0 pixels, by either layout; where both speak they must agree."""
    sides = {}
    if "patch_size_level0" in attributes:
        sides["patch_size_level0"] = _number(path, attributes, "patch_size_level0")
    if "patch_size" in attributes and "downsample" in attributes:
        shrunk = _number(path, attributes, "downsample")
        sides["patch_size x downsample"] = _number(path, attributes, "patch_size") * shrunk
    elif {"patch_size", "patch_level"} <= attributes.keys() and not _number(path, attributes, "patch_level"):
        sides["patch_size at level 0"] = _number(path, attributes, "patch_size")
    if not sides:
        raise DataError(f"{path}: coords must say the side of a tile: patch_size_level0, or patch_size with"
                        f" downsample; its attributes are {', '.join(sorted(attributes)) or 'none'}",
                        "give the files of the patching, not those of the features")  # fmt: skip
    whole = {name: round(max(0.0, min(value, 2.0 * LONGEST))) for name, value in sides.items()}
    if len(set(whole.values())) > 1 or not 1 <= min(whole.values()) <= LONGEST:
        said = " and ".join(f"{name} = {value:.0f}" for name, value in sides.items())
        raise DataError(f"{path}: coords must say one side of a tile, 1 or more and {LONGEST} at most, and"
                        f" says {said}", AGAIN)  # fmt: skip
    return next(iter(whole.values()))


def _number(path: Path, attributes: Mapping[str, Any], name: str) -> float:
    """An attribute as a number; of a pair (x, y) both must be alike to 2 %."""
    try:
        values = np.asarray(attributes[name], np.float64).ravel()
    except (TypeError, ValueError):
        values = np.zeros(0)
    if not len(values) or not np.isfinite(values).all() or np.ptp(values) > 0.02 * abs(values[0]):
        raise DataError(f"{path}: the attribute {name} of coords must be a number, and is"
                        f" {attributes[name]}", AGAIN)  # fmt: skip
    return float(values[0])


def _whole(path: Path, attributes: Mapping[str, Any], name: str) -> int:
    """A side of the image; 0 where the file does not say it."""
    value = _number(path, attributes, name) if name in attributes else 0.0
    if not 0 <= value <= LONGEST:
        raise DataError(f"{path}: the attribute {name} of coords must be pixels, {LONGEST} at most, and is"
                        f" {attributes[name]}", AGAIN)  # fmt: skip
    return round(value)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
