"""Reading radiographs: what becomes of a detector's values."""

from __future__ import annotations

import contextlib
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import uid

from kit.competition import TileGrid
from kit.errors import SettingError
from kit.read import budget
from kit.read.reader import ImageMissing
from tests.read.dicoms import ALL, NOTEBOOK, fails, gradient, grey, notebook, opened, table, write

# Of the tags that pydicom sees in damaged files; readers do not show them either.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
REAL = Path(__file__).parents[2] / "../shared/data/vinbigdata/dicom"


# -- the picture


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("bits", "signed"), [(8, False), (12, False), (16, False), (12, True)])
def test_it_is_what_the_notebook_makes_of_it_to_the_bit(
    photometric: str, bits: int, signed: bool, tmp_path: Path
) -> None:
    values = gradient(bits, 300, 40, signed)  # more rows than are looked up at a time
    window = {"WindowCenter": float(np.median(values)), "WindowWidth": 2**bits * 0.4}
    path = write(tmp_path / "a.dicom", values, bits, photometric, **window)
    for voi in (True, False):
        for fix in (True, False):
            steps = [step for step, wanted in zip(NOTEBOOK, (voi, fix), strict=True) if wanted]
            np.testing.assert_array_equal(grey(path, *steps), notebook(path, voi, fix))


@pytest.mark.parametrize("bits", [8, 16])
def test_signed_values_of_full_range_do_not_overflow_as_they_do_in_the_notebook(
    bits: int, tmp_path: Path
) -> None:
    values = gradient(bits, signed=True)
    path = write(tmp_path / "a.dicom", values, bits, "MONOCHROME1")
    wide = values.max() - values.astype(np.int64)
    np.testing.assert_array_equal(grey(path, *NOTEBOOK), (wide / wide.max() * 255).astype(np.uint8))
    assert (grey(path, *NOTEBOOK) != notebook(path)).any()


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_each_window_function_is_that_of_the_standard(function: str, tmp_path: Path) -> None:
    values, centre, width = gradient(12), 2000.0, 1500.0
    tags = {"WindowCenter": [centre, 1], "WindowWidth": [width, 1], "VOILUTFunction": function}
    path = write(tmp_path / "a.dicom", values, **tags)
    x = values.astype(float)
    expected = {  # PS3.3 C.11.2.1.2 and C.11.2.1.3, from 0 to 1
        "LINEAR": np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1),
        "LINEAR_EXACT": np.clip((x - centre) / width + 0.5, 0, 1),
        "SIGMOID": 1 / (1 + np.exp(-4 * (x - centre) / width)),
    }[function]
    low, high = expected.min(), expected.max()
    assert np.abs(grey(path, "voi") - (expected - low) / (high - low) * 255).max() < 1.001
    np.testing.assert_array_equal(grey(path, "voi"), notebook(path))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_a_voi_table_comes_before_a_window(photometric: str, tmp_path: Path) -> None:
    entries = np.sqrt(np.linspace(0, 1, 3000)) * 65535
    path = write(
        tmp_path / "a.dicom", gradient(12), photometric=photometric,
        VOILUTSequence=table(entries, 500), WindowCenter=10, WindowWidth=20,
    )  # fmt: skip
    np.testing.assert_array_equal(grey(path, *NOTEBOOK), notebook(path))
    assert len(np.unique(grey(path, *NOTEBOOK))) > 200


def test_a_table_that_begins_below_zero_or_is_narrow_is_looked_up_all_the_same(tmp_path: Path) -> None:
    # pydicom's own raises for the first, and wraps round at 256 for the second.
    path = write(tmp_path / "a.dicom", gradient(12), VOILUTSequence=table(np.arange(4200), -100))
    np.testing.assert_array_equal(grey(path, "voi"), grey(path))
    path = write(tmp_path / "b.dicom", gradient(12), VOILUTSequence=table(np.arange(4096) // 16, 0, 8))
    assert np.abs(grey(path, "voi").astype(int) - grey(path)).max() <= 1


def test_a_table_may_have_every_value_of_16_bits_or_be_packed_in_bytes(tmp_path: Path) -> None:
    values = gradient(16)
    path = write(tmp_path / "a.dicom", values, 16, VOILUTSequence=table(np.arange(65536)[::-1], 0))
    assert np.abs(grey(path, "voi").astype(int) + grey(path) - 255).max() <= 1
    packed = table(np.arange(4096) // 16, 0, 8)
    packed[0].LUTDescriptor = [4096, 0, 8]
    packed[0].add_new("LUTData", "OW", bytes(n // 16 for n in range(4096)))
    path = write(tmp_path / "b.dicom", gradient(12), VOILUTSequence=packed)
    assert np.abs(grey(path, "voi").astype(int) - grey(path)).max() <= 1
    assert "left out" not in opened(path, "voi").how


def test_the_modality_step_comes_before_the_window(tmp_path: Path) -> None:
    values = gradient(12)
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 1000, "WindowWidth": 2000}
    path = write(tmp_path / "a.dicom", values, **tags)
    expected = np.clip((values * 2.0 - 1000 - 999.5) / 1999 + 0.5, 0, 1) * 255
    assert np.abs(grey(path, *ALL) - expected).max() < 1.001
    np.testing.assert_array_equal(grey(path, *NOTEBOOK), notebook(path))  # and is left out where it is
    assert (grey(path, *ALL) != grey(path, *NOTEBOOK)).mean() > 0.3


def test_a_modality_table_is_looked_up(tmp_path: Path) -> None:
    entries = 4095 - np.arange(4096)
    path = write(tmp_path / "a.dicom", gradient(12), ModalityLUTSequence=table(entries, 0))
    assert np.abs(grey(path, "modality").astype(int) + grey(path) - 255).max() <= 1


def test_padding_is_black_and_does_not_stretch_the_rest(tmp_path: Path) -> None:
    values = gradient(12) // 2 + 1000
    values[:10], values[10:12] = 0, 5
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        path = write(
            tmp_path / "a.dicom",
            values,
            photometric=photometric,
            PixelPaddingValue=0,
            PixelPaddingRangeLimit=9,
        )
        found = grey(path, *ALL)
        assert (found[:12] == 0).all() and found[12:].min() == 0 and found[12:].max() == 255
        np.testing.assert_array_equal(grey(path, *NOTEBOOK), notebook(path))
    bare = write(tmp_path / "b.dicom", values[12:], photometric="MONOCHROME2")
    np.testing.assert_array_equal(found[12:], grey(bare, *ALL))


def test_padding_of_signed_pixels_may_be_written_without_a_sign(tmp_path: Path) -> None:
    values = gradient(12, signed=True)
    values[:10] = -2048
    unsigned = pydicom.DataElement("PixelPaddingValue", "US", 65536 - 2048)
    path = write(tmp_path / "a.dicom", values, PixelPaddingValue=unsigned)
    values[:10] = values[10:].min()
    bare = write(tmp_path / "b.dicom", values)
    np.testing.assert_array_equal(grey(path, *ALL)[10:], grey(bare, *ALL)[10:])


@pytest.mark.parametrize("value", [0, 7, 4095])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_constant_image_is_flat(value: int, photometric: str, tmp_path: Path) -> None:
    values = np.full((20, 30), value, np.uint16)
    tags = {"WindowCenter": 100, "WindowWidth": 10, "PixelPaddingValue": 7}
    path = write(tmp_path / "a.dicom", values, photometric=photometric, **tags)
    assert (grey(path, *ALL) == 0).all()
    assert ("all of it is padding" in opened(path, *ALL).how) == (value == 7)


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"WindowCenter": 2000, "WindowWidth": 0}, "window left out: its width is 0"),
        ({"WindowCenter": 2000, "WindowWidth": 0, "VOILUTFunction": "SIGMOID"}, "its width is 0"),
        ({"WindowCenter": 2000, "WindowWidth": -5}, "window left out: its width is negative"),
        ({"WindowCenter": 90000, "WindowWidth": 10}, "window left out: it makes all values equal"),
        ({"WindowCenter": "nan", "WindowWidth": 10}, "window left out"),
        ({"WindowCenter": 2000, "WindowWidth": "1e400"}, "window left out"),
        ({"WindowCenter": 2000, "WindowWidth": 100, "VOILUTFunction": "CUBIC"}, "window left out"),
        ({"RescaleSlope": 0, "RescaleIntercept": 5}, "modality left out: it makes all values equal"),
        ({"RescaleSlope": "1e400", "RescaleIntercept": 5}, "modality left out"),
        ({"VOILUTSequence": table(np.zeros(4096), 0)}, "VOI table left out: it makes all values equal"),
    ],
)
def test_a_step_that_makes_no_sense_is_left_out_and_said(
    tags: dict[str, Any], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pydicom.config.settings, "writing_validation_mode", pydicom.config.IGNORE)
    path = write(tmp_path / "a.dicom", gradient(12), **tags)
    np.testing.assert_array_equal(grey(path, *ALL), grey(path))
    assert said in opened(path, *ALL).how


def test_a_table_that_is_short_gives_way_to_the_window(tmp_path: Path) -> None:
    short = table(np.arange(4096), 0)
    short[0].LUTDescriptor = [5000, 0, 16]
    window = {"WindowCenter": 2000, "WindowWidth": 1000}
    path = write(tmp_path / "a.dicom", gradient(12), VOILUTSequence=short, **window)
    plain = write(tmp_path / "b.dicom", gradient(12), **window)
    np.testing.assert_array_equal(grey(path, *ALL), grey(plain, *ALL))
    assert "VOI table left out: it has 4096 of its 5000 entries" in opened(path, *ALL).how


def test_a_window_of_width_one_is_a_threshold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(12), WindowCenter=2000, WindowWidth=1)
    assert set(np.unique(grey(path, *ALL))) == {0, 255}
    np.testing.assert_array_equal(grey(path, *ALL), notebook(path))


def test_levels_of_32_bits_and_fractions_are_stretched(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(30), 30, WindowCenter=2**29, WindowWidth=2**28)
    np.testing.assert_array_equal(grey(path, *NOTEBOOK), notebook(path))
    values = gradient(12).astype(np.float32) / 7
    path = write(tmp_path / "b.dicom", values, FloatPixelData=values.tobytes(), PixelData=None)
    assert np.abs(grey(path, *ALL) - values / values.max() * 255).max() < 1.001
    values[3, 3] = np.nan
    write(tmp_path / "b.dicom", values, FloatPixelData=values.tobytes(), PixelData=None)
    fails(tmp_path / "b.dicom", "not finite")


def test_bits_above_those_stored_are_no_part_of_a_value(tmp_path: Path) -> None:
    values = gradient(12)
    clean, dirty = write(tmp_path / "a.dicom", values), write(tmp_path / "b.dicom", values | 0x5000)
    np.testing.assert_array_equal(grey(dirty, *ALL), grey(clean, *ALL))
    signed = gradient(12, signed=True)
    unextended = (signed.view(np.uint16) & 0x0FFF).view(np.int16)
    clean, dirty = write(tmp_path / "c.dicom", signed), write(tmp_path / "d.dicom", unextended)
    np.testing.assert_array_equal(grey(dirty, *ALL), grey(clean, *ALL))


def test_colours_stay_as_they_are(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(40, 200, (40, 60, 3), dtype=np.uint8)
    plain = write(tmp_path / "a.dicom", colours, 8, "RGB")
    np.testing.assert_array_equal(opened(plain, *ALL).overview(1), colours)
    planes = np.ascontiguousarray(colours.transpose(2, 0, 1)).tobytes()
    by_plane = write(tmp_path / "b.dicom", colours, 8, "RGB", stream=planes, PlanarConfiguration=1)
    np.testing.assert_array_equal(opened(by_plane, *ALL).overview(1), colours)
    fine = np.random.default_rng(1).integers(-100, 100, colours.shape)
    deep = write(tmp_path / "c.dicom", (colours.astype(int) * 257 + fine).astype(np.uint16), 16, "RGB")
    np.testing.assert_array_equal(opened(deep, *ALL).overview(1), colours)
    lossless = write(tmp_path / "d.dicom", colours, 8, "RGB", uid.JPEGLosslessSV1, PlanarConfiguration=1)
    np.testing.assert_array_equal(opened(lossless, *ALL).overview(1), colours)
    grey_in_ybr = np.full((8, 8, 3), 128, np.uint8)
    ybr = write(tmp_path / "e.dicom", grey_in_ybr, 8, "YBR_FULL")
    assert (opened(ybr, *ALL).overview(1) == 128).all()


def test_of_several_frames_the_first_is_read_and_said(tmp_path: Path) -> None:
    first, both = gradient(12), np.stack([gradient(12), 4095 - gradient(12)])
    path = write(tmp_path / "a.dicom", first, stream=both.tobytes(), NumberOfFrames=2)
    np.testing.assert_array_equal(grey(path, *ALL), grey(write(tmp_path / "b.dicom", first), *ALL))
    assert "frame 1 of 2" in opened(path, *ALL).how


# -- the protocol


def test_it_offers_what_every_reader_does(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(12, 40, 60))
    with opened(path, *ALL) as image:
        assert image.size == (60, 40) and not image.tileable and image.detail(2) is None
        assert image.overview(16).shape == (3, 4, 3) and image.overview(1).dtype == np.uint8
        np.testing.assert_array_equal(image.region(10, 5, 20, 20), image.overview(1)[5:25, 10:30])
        assert (image.region(50, 0, 20, 20)[:, 10:] == 255).all()
        assert budget.cost(image, TileGrid()).tiles == 1


def test_a_radiograph_inside_an_archive_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(12))
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.write(path, "train/a.dicom")
    inside = tmp_path / "train.zip" / "train" / "a.dicom"
    np.testing.assert_array_equal(grey(inside, *ALL), grey(path, *ALL))
    with pytest.raises(ImageMissing, match="no such file"):
        opened(inside.with_name("b.dicom"))


def test_unknown_and_misplaced_steps_are_refused_with_what_is_known(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dicom", gradient(12))
    with pytest.raises(SettingError, match="no step 'windows'") as caught:
        opened(path, "windows")
    assert all(step in caught.value.hint for step in ALL)
    for steps in (("invert", "voi"), ("voi", "voi")):
        with pytest.raises(SettingError, match="one order"):
            opened(path, *steps)


def test_a_large_radiograph_takes_a_few_copies_of_its_pixels(tmp_path: Path) -> None:
    values = np.tile(gradient(12, 500, 500), (4, 4))
    path = write(tmp_path / "a.dicom", values, photometric="MONOCHROME1", WindowCenter=2000, WindowWidth=900)
    opened(path, *ALL)
    tracemalloc.start()
    image = opened(path, *ALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.size == (2000, 2000) and peak < 6 * values.nbytes


# -- what is wrong with it


def test_what_has_no_picture_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.dicom"
    fails(write(path, gradient(12), PixelData=None), "it has no pixel data")
    fails(write(path, gradient(12), Rows=None, PhotometricInterpretation=None), "no Rows and no Photometric")
    path.write_bytes(b"hello" * 100)
    assert "reader='photo'" in fails(path, "it is not DICOM").hint
    with pytest.raises(ImageMissing):
        opened(tmp_path / "b.dicom")


# -- files of others


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not there")
@pytest.mark.slow
def test_the_real_radiographs_are_what_the_notebook_makes_of_them() -> None:
    paths = sorted(REAL.glob("*.dicom"))
    assert len(paths) == 3
    for path in paths:
        np.testing.assert_array_equal(grey(path, *NOTEBOOK), notebook(path))
        np.testing.assert_array_equal(grey(path, *ALL), notebook(path))  # they have no tags of the others
        said = pydicom.dcmread(path, stop_before_pixels=True)
        assert (said.PhotometricInterpretation, said.BitsStored) == ("MONOCHROME1", 12)
        assert opened(path).size == (said.Columns, said.Rows)


@pytest.mark.skipif(not REAL.is_dir(), reason="../shared/data is not there")
@pytest.mark.slow
def test_a_real_radiograph_that_was_cut_off_is_an_image_error(tmp_path: Path) -> None:
    data = sorted(REAL.glob("*.dicom"))[0].read_bytes()
    for kept in (0.01, 0.5, 0.99):
        (tmp_path / "a.dicom").write_bytes(data[: int(len(data) * kept)])
        fails(tmp_path / "a.dicom", "it ends within its pixel data")


def _samples() -> list[Path]:
    """The grey single pictures of pydicom's own collection, where the package of its data is installed."""
    try:
        from data_store.data import __path__ as folders
    except ImportError:
        return []
    return sorted(path for path in Path(next(iter(folders))).glob("*.dcm"))


@pytest.mark.slow
@pytest.mark.skipif(not _samples(), reason="the package pydicom-data is not installed")
def test_what_devices_have_written_is_what_the_notebook_makes_of_it() -> None:
    compared = set()
    for path in _samples():
        with contextlib.suppress(pydicom.errors.InvalidDicomError):
            content = pydicom.dcmread(path, stop_before_pixels=True)
            single = content.get("NumberOfFrames") in (None, 1) and "Rows" in content
            if single and content.PhotometricInterpretation.startswith("MONOCHROME"):
                np.testing.assert_array_equal(grey(path, *NOTEBOOK), notebook(path), path.name)
                compared.add(path.name)
    # A real VOI table, a real modality table, a computed radiograph with a window, lossless JPEG.
    assert compared >= {"vlut_04.dcm", "mlut_18.dcm", "RG1_J2KR.dcm", "JPEG-LL.dcm"} and len(compared) >= 20
