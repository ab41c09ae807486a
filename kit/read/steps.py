"""Named steps from a photograph as its file has it to the picture that is learned from.

``tile.steps=grey,sharpen,roi`` applies them in this order. Each takes and gives uint8 (height, width, 3); a
grey picture has three equal channels. Some are here because a published recipe has them, faults and all, so
that its score can be had again; the corrected variant of each is beside it:

==============  ==========================================================  ==========================
step            what it does                                                corrected by
==============  ==========================================================  ==========================
resize-224      squeezes to 224 x 224, bicubic, as Pillow does by default   tile.size (by area)
grey            levels of ITU-R BT.601, as OpenCV's
blur            Gaussian, 5 x 5, standard deviation 1.1
sharpen         1.5 x picture - 0.2 x blurred, clipped: 1.3 times brighter  unsharp
unsharp         1.5 x picture - 0.5 x blurred, clipped: as bright as it was
roi             white where sharpen has clipped, elsewhere black            cell
cell            the square about the largest strongly coloured object
mask-bar        the corner of the scale bar painted over, in every picture
==============  ==========================================================  ==========================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from kit.errors import SettingError, did_you_mean
from kit.read.reader import Pixels

KERNEL = (5, 5)  # of the Gaussian; OpenCV makes its standard deviation 1.1
# Share of the width and height that a scale bar takes up with its box and text, in the lower right corner.
BAR = (0.20, 0.16)
COLOURED = 60  # least saturation of a stained nucleus, of 255
SPECK = 0.002  # share of the picture below which a coloured object is no cell
MARGIN = 0.25  # of a cell's side, kept around it


def resize_224(pixels: Pixels) -> Pixels:
    """Squeezed to 224 x 224 pixels, bicubic; a picture of that size stays as it is."""
    return np.asarray(Image.fromarray(pixels).resize((224, 224)))


def grey(pixels: Pixels) -> Pixels:
    """Grey levels: .299 red + .587 green + .114 blue, rounded."""
    return _three(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY))


def blur(pixels: Pixels) -> Pixels:
    """Gaussian blur of 5 x 5 pixels."""
    return np.asarray(cv2.GaussianBlur(pixels, KERNEL, 0), np.uint8)


def sharpen(pixels: Pixels) -> Pixels:
    """``clip(1.5 x - 0.2 blur(x))`` of levels in 0 to 1, cut off (not rounded) to whole levels.

    Its fault: the factors add up to 1.3, so that it brightens more than it sharpens, and every even area of
    level 197 or more becomes white. Cutting off keeps 255 for what is clipped, as `roi` needs it.
    """
    return _sharpened(pixels, -0.2).astype(np.uint8)


def unsharp(pixels: Pixels) -> Pixels:
    """``clip(1.5 x - 0.5 blur(x))``, rounded: an unsharp mask that leaves an even area as it is."""
    return np.rint(_sharpened(pixels, -0.5)).astype(np.uint8)


def roi(pixels: Pixels) -> Pixels:
    """White where the picture is white, elsewhere black.

    Its fault: it was meant to draw the contours of Canny's edges (thresholds 30 and 100). But it is given
    levels of 0 to 1 and makes whole numbers of them: 0, or 1 where they were clipped. No gradient of such a
    picture reaches 30, so no edge is found and nothing is drawn. What is left is the outline of the glass.
    """
    return np.where(pixels == 255, 255, 0).astype(np.uint8)


def cell(pixels: Pixels) -> Pixels:
    """The square about the largest strongly coloured object, with a margin; the whole picture without one.

    Stained nuclei are the most saturated part of a blood smear. The threshold is Otsu's, and at least 60.
    """
    saturation = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[:, :, 1]
    level, _ = cv2.threshold(saturation, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    coloured = (saturation > max(level, COLOURED)).astype(np.uint8)
    mask = cv2.morphologyEx(coloured, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, boxes, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return pixels
    x, y, width, height, area = boxes[1 + int(boxes[1:, cv2.CC_STAT_AREA].argmax())].tolist()
    if area < SPECK * mask.size:
        return pixels
    side = min(round(max(width, height) * (1 + 2 * MARGIN)), *mask.shape)
    left = min(max(0, x + (width - side) // 2), mask.shape[1] - side)
    top = min(max(0, y + (height - side) // 2), mask.shape[0] - side)
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def mask_bar(pixels: Pixels) -> Pixels:
    """The lower right corner, where cameras burn in their scale bar, in the median colour of all the rest.

    The style of a bar (black or red, in a white box or not, its length) follows the camera, and with it the
    class. So the same corner is painted over in every picture, whether a bar is seen there or not: a mask
    that followed the bar would tell its style too. Nothing of what is in the corner is left.
    """
    height, width = pixels.shape[:2]
    top, left = height - round(BAR[1] * height), width - round(BAR[0] * width)
    rest = np.concatenate([pixels[:top].reshape(-1, 3), pixels[top:, :left].reshape(-1, 3)])
    painted = pixels.copy()
    if len(rest):
        painted[top:, left:] = np.median(rest, axis=0).astype(np.uint8)
    return painted


STEPS: Mapping[str, Callable[[Pixels], Pixels]] = MappingProxyType(
    {
        "resize-224": resize_224,
        "grey": grey,
        "blur": blur,
        "sharpen": sharpen,
        "unsharp": unsharp,
        "roi": roi,
        "cell": cell,
        "mask-bar": mask_bar,
    }
)


def check_steps(names: Iterable[str]) -> None:
    """Every step is known.

    Raises:
        SettingError: one is not.
    """
    for name in names:
        if name not in STEPS:
            raise SettingError(f"tile.steps: a photograph has no step '{name}'", did_you_mean(name, STEPS))


def apply(pixels: Pixels, names: Iterable[str]) -> Pixels:
    """A photograph uint8 (height, width, 3) after these steps, one after the other."""
    for name in names:
        pixels = STEPS[name](pixels)
    return pixels


def _three(levels: NDArray[np.generic]) -> Pixels:
    return np.repeat(np.asarray(levels, np.uint8)[:, :, None], 3, axis=2)


def _sharpened(pixels: Pixels, share: float) -> NDArray[np.float64]:
    """``1.5 x + share * blur(x)`` of levels in 0 to 1, clipped; as levels in 0 to 255."""
    levels = pixels / 255.0
    blurred = cv2.GaussianBlur(levels, KERNEL, 0)
    mixed = cv2.addWeighted(levels, 1.5, blurred, share, 0)
    return np.asarray(np.clip(mixed, 0, 1) * 255)
