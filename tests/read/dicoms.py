"""Small made DICOM files, and what most notebooks make of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom import DataElement, uid
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.processing import apply_voi_lut

from kit.competition import TileGrid
from kit.errors import ImageError
from kit.read import radiograph

Values = NDArray[Any]
ALL = ("padding", "modality", "voi", "invert")  # the steps of a radiograph
NOTEBOOK = ("voi", "invert")  # ... and those of `notebook`


def gradient(bits: int = 12, height: int = 40, width: int = 60, signed: bool = False) -> Values:
    """Values of so many bits: from the least to the greatest in two directions, with noise on them."""
    y, x = np.mgrid[:height, :width]
    share = np.clip((x / width + y / height) / 2 + np.random.default_rng(0).normal(0, 0.02, x.shape), 0, 1)
    least = -(2 ** (bits - 1)) if signed else 0
    kind = f"{'i' if signed else 'u'}{1 if bits <= 8 else 2 if bits <= 16 else 4}"
    return np.asarray(np.rint(share * (2**bits - 1)) + least, kind)


def encoded(pixels: Values, syntax: str, bits: int) -> bytes:
    """One frame as a stream of a transfer syntax."""
    plain = pixels.view(f"u{pixels.itemsize}")
    if syntax == uid.JPEG2000Lossless:
        stream = imagecodecs.jpeg2k_encode(
            pixels, level=0, codecformat="j2k", reversible=True, bitspersample=bits
        )
    elif syntax in (uid.JPEGLossless, uid.JPEGLosslessSV1):
        grey = pixels.ndim == 2
        stream = (
            imagecodecs.ljpeg_encode(plain, bitspersample=bits)
            if grey
            else imagecodecs.jpeg8_encode(plain, lossless=True)
        )
    elif syntax == uid.JPEGLSLossless:
        stream = imagecodecs.jpegls_encode(plain)
    elif syntax == uid.JPEGExtended12Bit:
        stream = imagecodecs.jpeg8_encode(plain, bitspersample=12, level=100)
    else:
        raise AssertionError(f"no test writes {syntax}")
    return bytes(stream)


def dataset(path: Path, pixels: Values, bits: int, photometric: str, syntax: str) -> FileDataset:
    """A file's content without its pixels."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.UID(syntax)
    meta.MediaStorageSOPClassUID = uid.DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid.UID("1.2.3")
    implicit, little = meta.TransferSyntaxUID.is_implicit_VR, meta.TransferSyntaxUID.is_little_endian
    made = FileDataset(str(path), {}, b"\0" * 128, meta, is_implicit_VR=implicit, is_little_endian=little)
    made.Rows, made.Columns = pixels.shape[:2]
    made.SamplesPerPixel = 1 if pixels.ndim == 2 else 3
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * pixels.itemsize, bits, bits - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PhotometricInterpretation = photometric
    if pixels.ndim == 3:
        made.PlanarConfiguration = 0
    return made


def write(
    path: Path,
    pixels: Values,
    bits: int = 12,
    photometric: str = "MONOCHROME2",
    syntax: str = uid.ExplicitVRLittleEndian,
    stream: bytes | None = None,
    **tags: object,
) -> Path:
    """Write pixels as DICOM.

    Args:
        stream: instead of the encoded pixels.
        tags: of the header, by keyword; None leaves one out, and an element is taken as it is.
    """
    made = dataset(path, pixels, bits, photometric, syntax)
    if syntax == uid.RLELossless:
        made.PixelData = pixels.tobytes()
        made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
        made.compress(uid.RLELossless, encoding_plugin="pydicom", generate_instance_uid=False)
    elif uid.UID(syntax).is_encapsulated:
        made.PixelData = encapsulate([stream or encoded(pixels, syntax, bits)])
        made["PixelData"].VR = "OB"
    else:
        made.PixelData = pixels.tobytes() if stream is None else stream
        made["PixelData"].VR = "OW" if bits > 8 else "OB"
    for name, value in tags.items():
        if value is None:
            delattr(made, name)
        elif isinstance(value, DataElement):
            made.add(value)
        else:
            setattr(made, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path, enforce_file_format=True)
    return path


def table(entries: Values, first: int, bits: int = 16) -> list[Dataset]:
    """A sequence of one lookup table, whose first entry is of the value ``first``."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "US", [int(entry) for entry in entries])
    return [item]


def notebook(path: Path, voi: bool = True, fix_monochrome: bool = True) -> NDArray[np.uint8]:
    """``read_xray`` of the notebook "convert dicom to np array, the correct way"."""
    content = pydicom.dcmread(path)
    data = apply_voi_lut(content.pixel_array, content) if voi else content.pixel_array
    if fix_monochrome and content.PhotometricInterpretation == "MONOCHROME1":
        data = np.amax(data) - data
    data = data - np.min(data)
    data = data / np.max(data)
    return (data * 255).astype(np.uint8)


def opened(path: Path, *steps: str) -> radiograph.Radiograph:
    return radiograph.open_image(path, TileGrid(steps=steps))


def grey(path: Path, *steps: str) -> Any:
    """The one channel of a picture whose three are equal."""
    pixels = opened(path, *steps).overview(1)
    np.testing.assert_array_equal(pixels, np.repeat(pixels[..., :1], 3, axis=2))
    return pixels[..., 0]


def fails(path: Path, says: str) -> ImageError:
    with pytest.raises(ImageError, match=says) as caught:
        opened(path, *ALL)
    assert caught.value.message.startswith(str(path)) and caught.value.hint
    return caught.value
