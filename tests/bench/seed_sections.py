"""The de-duplication of the paper this project grew from, as the baseline of ``kit.read.sections``.

Its "approach 1": the slide resized to 256 x 256, bubbles removed by erosion and dilation, grey values,
background removed, a Gaussian filter, a binary picture without noise, connected components, a table of their
areas and bounding boxes, the Euclidean distance between its rows and a distance of shapes combined, and
clusters of what is nearer than a threshold. What the paper leaves open is chosen here in its favour: Hu
moments as the shape, sides of the bounding box in order of length, and the constants that are about the best
on the made slides of the benchmark.
"""

from __future__ import annotations

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster import hierarchy

from kit.read import tissue
from kit.read.density import Mask
from kit.read.reader import Pixels
from kit.read.sections import Numbers, Sections

SIDE = 256  # px
NOISE = 60  # px of the resized picture; a smaller component is noise
SHAPE = 0.1  # weight of the shape distance
THRESHOLD = 0.6


def sections(overview: Pixels, mask: Mask | None = None) -> Sections:
    """The sections on an overview uint8 (H, W, 3) and their clots; a given mask (H, W) only confines them."""
    small, count = ndimage.label(_binary(overview))
    table = _table(small, count)
    size = overview.shape[1::-1]
    labels = cv2.resize(small.astype(np.int32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
    if mask is not None:
        labels = np.where(mask, labels, 0).astype(np.int32)
    return Sections(labels, _clusters(_distances(table, small)))


def _binary(overview: Pixels) -> Mask:
    """Tissue on the resized slide, bool (256, 256)."""
    resized = cv2.resize(overview, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    kernel = np.ones((3, 3), np.uint8)
    without_bubbles = cv2.dilate(cv2.erode(resized, kernel), kernel)
    grey = cv2.cvtColor(without_bubbles, cv2.COLOR_RGB2GRAY).astype(np.float32)
    glass = float(tissue.background_colour(overview) @ np.array([0.299, 0.587, 0.114]))
    darker = np.clip(glass - grey, 0, 255).astype(np.uint8)
    smooth = cv2.GaussianBlur(darker, (5, 5), 0)
    _, binary = cv2.threshold(smooth, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    numbers, _ = ndimage.label(binary)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= NOISE)[numbers], np.bool_)


def _table(labels: Numbers, count: int) -> pd.DataFrame:
    """Area and bounding box of each component, in px of the resized slide."""
    boxes = ndimage.find_objects(labels)
    sides = [sorted((box[0].stop - box[0].start, box[1].stop - box[1].start)) for box in boxes]
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    table = pd.DataFrame(sides, columns=["short", "long"], dtype=float)
    return table.assign(area=areas)


def _distances(table: pd.DataFrame, labels: Numbers) -> NDArray[np.float64]:
    """Dissimilarity of the components, (n, n): Euclidean of the logarithms of the table, and of shapes."""
    rows = np.log(table.to_numpy())
    euclidean = np.sqrt(((rows[:, None] - rows) ** 2).sum(2))
    masks = [(labels == number).astype(np.uint8) for number in range(1, len(rows) + 1)]
    shape = np.zeros_like(euclidean)
    for a, b in zip(*np.triu_indices(len(rows), 1), strict=True):
        shape[a, b] = shape[b, a] = cv2.matchShapes(masks[a], masks[b], cv2.CONTOURS_MATCH_I3, 0)
    return np.asarray(euclidean + SHAPE * shape, np.float64)


def _clusters(distances: NDArray[np.float64]) -> Numbers:
    """The cluster of each component, from 0 in order of its first: int32 (n,)."""
    if len(distances) < 2:
        return np.zeros(len(distances), np.int32)
    upper = distances[np.triu_indices(len(distances), 1)]
    groups = hierarchy.fcluster(hierarchy.linkage(upper, "average"), THRESHOLD, "distance")
    _, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return first.argsort().argsort()[inverse].astype(np.int32)
