"""Coordinates as CLAM and TRIDENT keep them: what is written is read, and what breaks a rule is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py  # type: ignore[import-untyped]
import numpy as np
import pytest

from kit.errors import DataError
from kit.read import store
from kit.read.exchange import find_coords, read_coords, write_coords

XY = np.array([[0, 512], [1024, 0], [512, 512]])
CLAM = {"patch_size": 256, "patch_level": 1, "downsample": np.array([2.0, 2.0]),
        "downsampled_level_dim": np.array([5000, 4000]), "level_dim": np.array([5000, 4000]),
        "name": "slide 1", "save_path": "/somewhere/patches"}  # fmt: skip
TRIDENT = {"patch_size": 256, "patch_size_level0": 512, "level0_magnification": 40,
           "target_magnification": 20, "overlap": 0, "name": "slide 1", "savetodir": "/somewhere",
           "level0_width": 10000, "level0_height": 8000}  # fmt: skip


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., Path]:
    """A file with these datasets, and attributes of ``coords``, as another program writes it."""

    def make(attributes: dict[str, Any], **datasets: Any) -> Path:
        path = tmp_path / "theirs.h5"
        with h5py.File(path, "w") as file:
            for name, values in datasets.items():
                file.create_dataset(name, data=values, maxshape=(None, *np.shape(values)[1:]), chunks=True)
            if "coords" in file:
                file["coords"].attrs.update(attributes)
        return path

    return make


@pytest.mark.parametrize("count", [0, 1, 40])
def test_what_was_written_is_read_back_exactly(count: int, tmp_path: Path) -> None:
    draw = np.random.default_rng(count)
    x, y = draw.integers(0, 2**33, (2, count))
    features = draw.normal(size=(count, 5)).astype(np.float32)
    write_coords(tmp_path / "new" / "a.h5", "a b/ä", x, y, 1792, 90000, 70000, features)
    found = read_coords(tmp_path / "new" / "a.h5", features=True)
    assert (found.name, found.size, found.width, found.height) == ("a b/ä", 1792, 90000, 70000)
    for got, was in ((found.x, x), (found.y, y), (found.features, features)):
        assert got is not None and got.dtype == was.dtype
        np.testing.assert_array_equal(got, was)
    write_coords(tmp_path / "a.h5", "a b/ä", x, y, 1792, 90000, 70000, features)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "new" / "a.h5").read_bytes()
    assert read_coords(tmp_path / "a.h5").digest == found.digest


def test_both_layouts_are_read_at_level_0(made: Callable[..., Path]) -> None:
    for attributes, size in ((CLAM, (0, 0)), (TRIDENT, (10000, 8000))):
        found = read_coords(made(attributes, coords=XY))
        assert (found.name, found.size, found.features) == ("slide 1", 512, None)
        assert (found.width, found.height) == size
        np.testing.assert_array_equal(np.stack([found.x, found.y], 1), XY)
    assert read_coords(made({"patch_size": 300, "patch_level": 0}, coords=XY)).size == 300
    # Pyramids are seldom exact.
    assert read_coords(made(CLAM | {"downsample": (4.0004, 4.0009)}, coords=XY.astype(np.int32))).size == 1024


def test_what_we_write_has_what_either_program_looks_for(tmp_path: Path) -> None:
    write_coords(tmp_path / "a.h5", "a", XY[:, 0], XY[:, 1], 448, 9000, 7000)
    with h5py.File(tmp_path / "a.h5") as file:
        coords, said = file["coords"], dict(file["coords"].attrs)
        assert coords.shape == (3, 2) and coords.dtype == np.int64 and list(file) == ["coords"]
    assert set(CLAM) | set(TRIDENT) == set(said)
    assert said["patch_size_level0"] == said["patch_size"] * said["downsample"][0] == 448
    assert said["level0_magnification"] / said["target_magnification"] == 1, "tiles are of level 0"


def test_features_of_other_shapes_are_put_right_or_refused(made: Callable[..., Path]) -> None:
    values = np.ones((3, 4), np.float16)
    for given in (values, values[None]):
        found = read_coords(made(TRIDENT, coords=XY, features=given), features=True).features
        assert found is not None and found.shape == (3, 4) and found.dtype == np.float32
    for wrong in (values[:2], values[:, 0], np.ones((3, 4), np.int64)):
        with pytest.raises(DataError, match="features must be 3 x d floats"):
            read_coords(made(TRIDENT, coords=XY, features=wrong), features=True)
        assert read_coords(made(TRIDENT, coords=XY, features=wrong)).features is None, "nobody asked"


@pytest.mark.parametrize(
    ("attributes", "coords", "says"),
    [
        (TRIDENT, XY[:, :1], "coords must be n x 2 .x, y., and is 3 x 1"),
        (TRIDENT, XY.ravel(), "coords must be n x 2 .x, y., and is 6"),
        (TRIDENT, XY + 0.5, "coords must be whole numbers, and is float64"),
        (TRIDENT, XY - [0, 600], r"coords row 0: \(0, -88\) is outside"),
        ({}, XY, "must say the side of a tile.*its attributes are none"),
        ({"patch_size": 256, "patch_level": 2}, XY, "must say the side.*are patch_level, patch_size"),
        (TRIDENT | CLAM | {"downsample": (4, 4)}, XY, "patch_size_level0 = 512 and .* = 1024"),
        (TRIDENT | {"patch_size_level0": 0}, XY, "1 or more .*, and says patch_size_level0 = 0"),
        (TRIDENT | {"patch_size_level0": "wide"}, XY, "patch_size_level0 of coords must be a number"),
        (CLAM | {"downsample": (2, 4)}, XY, "downsample of coords must be a number"),
        (CLAM | {"downsample": "two"}, XY, "downsample of coords must be a number, and is two"),
        (CLAM | {"patch_size": np.nan}, XY, "patch_size of coords must be a number, and is nan"),
        (CLAM | {"patch_size": 1e300, "downsample": 1e300}, XY, "1048576 at most, and says .* = inf"),
        (CLAM | {"patch_size": -1e300, "downsample": 1e300}, XY, "1 or more .*, and says .* = -inf"),
        (TRIDENT | {"patch_size_level0": 2**20 + 1}, XY, "1048576 at most, and says .* = 1048577"),
        ({"patch_size": 256, "patch_level": "low"}, XY, "patch_level of coords must be a number"),
        (TRIDENT | {"level0_width": "wide"}, XY, "level0_width of coords must be a number, and is wide"),
        (TRIDENT | {"level0_width": (1, 2)}, XY, "level0_width of coords must be a number"),
        (TRIDENT | {"level0_height": np.nan}, XY, "level0_height of coords must be a number, and is nan"),
        (TRIDENT | {"level0_height": -5}, XY, "level0_height of coords must be pixels"),
        (TRIDENT, XY.astype(np.uint64) + np.uint64([0, 2**64 - 4096]), "coords row 0: .0, 1844.* is outside"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_by_name_and_rule(
    made: Callable[..., Path], attributes: dict[str, Any], coords: Any, says: str
) -> None:
    path = made(attributes, coords=coords)
    with pytest.raises(DataError, match=says) as caught:
        read_coords(path)
    assert str(path) in caught.value.message and caught.value.hint


def test_a_file_without_coords_or_that_is_no_hdf5_is_refused(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="must have a dataset coords; it has imgs"):
        read_coords(made({}, imgs=XY))
    (tmp_path / "text.h5").write_text("x,y\n")
    with pytest.raises(DataError, match="no readable HDF5 file"):
        read_coords(tmp_path / "text.h5")
    with pytest.raises(DataError, match="is not there"):
        read_coords(tmp_path / "none.h5")


def test_the_file_of_an_image_is_found_where_each_program_puts_it(tmp_path: Path) -> None:
    ours = store.path_of(tmp_path, "train", "a b/c").with_suffix(".h5")
    places = [ours, tmp_path / "a b_1.h5", tmp_path / "patches" / "d_patches.h5", tmp_path / "test" / "e.h5"]
    for n, path in enumerate(places, 1):
        write_coords(path, "x", XY[:n, 0], XY[:n, 1], 448, 9000, 7000)
    found = [find_coords(tmp_path, "train", name) for name in ("a b/c", "a b_1", "d", "e", "f")]
    assert [None if one is None else len(one) for one in found] == [1, 2, 3, None, None]
    assert find_coords(tmp_path, "test", "e") is not None, "of its own split"


def test_the_digest_is_of_where_the_tiles_lie_and_nothing_else(made: Callable[..., Path]) -> None:
    first = read_coords(made(CLAM, coords=XY)).digest
    assert read_coords(made(TRIDENT, coords=XY.astype(np.int32))).digest == first
    assert read_coords(made(TRIDENT, coords=XY[::-1])).digest != first, "the order is the order of tiles"
    assert read_coords(made(TRIDENT | {"patch_size_level0": 511}, coords=XY)).digest != first
