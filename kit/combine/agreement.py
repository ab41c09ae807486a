"""How far the readers of the same images agree: on what is there (Fleiss' kappa), and on where (IoU)."""

from __future__ import annotations

import numpy as np
import pandas as pd

from kit import seeds
from kit.boxes import CORNERS, has_box, nothing_class, paired_iou
from kit.combine.consensus import panels, votes
from kit.metrics import Array

RANGE = (0.025, 0.975)  # of a 95 % interval


def fleiss_kappa(named: Array, panel: Array, images: Array) -> Array:
    """Fleiss' kappa of a yes or no: agreement beyond chance, 1 if complete, 0 if as by chance.

    Fleiss 1971, https://doi.org/10.1037/h0031619; panels of several sizes are allowed, where each image
    counts the same and each word of a reader counts the same for the chance.

    Args:
        named: how many readers say yes ``(m,)``, of each pattern of votes.
        panel: how many readers there are ``(m,)``; 2 or more.
        images: how many images have the pattern ``(..., m)``: one row for each kappa.

    Returns:
        ``(...)``; NaN where all say the same of all images, so that chance alone explains everything.
    """
    other = panel - named
    alike = (named * (named - 1) + other * (other - 1)) / (panel * (panel - 1))
    observed = images @ alike / images.sum(axis=-1)
    yes = images @ named / (images @ panel)
    chance = yes**2 + (1 - yes) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance < 1, (observed - chance) / (1 - chance), np.nan))


def agreement(table: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Agreement on each finding, and that there is none, with 95 % bootstrap intervals by image.

    Args:
        table: findings as :func:`kit.boxes.check` gives them. Images of one reader are left out.

    Returns:
        By finding, in the order of the classes: any, two, three (images of which so many readers name it, at
        least), kappa, kappa_low, kappa_high, iou, iou_low, iou_high and pairs (see
        :func:`overlaps`; NaN for nothing).
    """
    counts, panel = votes(table), panels(table)
    several = panel > 1
    places = overlaps(table)
    rows = {}
    for name in counts:
        kappa = _kappa(counts[name][several], panel[several], resamples, seed, str(name))
        where = _mean(places[places["finding"] == name], resamples, seed, str(name))
        reached = {word: int((counts[name] >= n).sum()) for n, word in enumerate(("any", "two", "three"), 1)}
        rows[str(name)] = {**reached, **kappa, **where}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("finding")


def overlaps(table: pd.DataFrame) -> pd.DataFrame:
    """How well the boxes of readers who name the same finding of an image lie on each other.

    Returns:
        One row an image and finding that two readers or more drew: image_id, finding, total and pairs. A
        pair is a box, and another reader who drew that finding too; it counts with the greatest intersection
        over union of the box with a box of that reader, and ``total`` is the sum over the pairs.
    """
    place = ["image_id", "finding"]
    # Sorted, so that no sum depends on the order of the rows.
    drawn = table.loc[has_box(table), [*place, "reader", *CORNERS]]
    drawn = drawn.sort_values([*place, "reader", *CORNERS], ignore_index=True)
    drawn["box"] = np.arange(len(drawn))
    both = drawn.merge(drawn, on=place, suffixes=("", "_other"))
    both = both[both["reader"] != both["reader_other"]]
    others = [f"{corner}_other" for corner in CORNERS]
    both["iou"] = paired_iou(both[list(CORNERS)].to_numpy(), both[others].to_numpy())
    best = both.groupby([*place, "box", "reader_other"], as_index=False)["iou"].max()
    of_place = best.groupby(place)["iou"]
    return pd.DataFrame({"total": of_place.sum(), "pairs": of_place.size()}).reset_index()


def labels_by(table: pd.DataFrame) -> dict[int, int]:
    """How many labels, an image and a finding each, at least 1, 2, ... readers give; nothing is no label."""
    counts = votes(table).drop(columns=nothing_class(table), errors="ignore").to_numpy()
    return {n: int((counts >= n).sum()) for n in range(1, int(counts.max(initial=0)) + 1)}


def _kappa(
    named: pd.Series[int], panel: pd.Series[int], resamples: int, seed: int, name: str
) -> dict[str, float]:
    """Kappa and its interval. Images of equal votes are alike, so their numbers are drawn, not they."""
    if not len(named):
        return {"kappa": np.nan, "kappa_low": np.nan, "kappa_high": np.nan}
    patterns, images = np.unique(np.c_[named, panel].astype(float), axis=0, return_counts=True)
    found = fleiss_kappa(patterns[:, 0], patterns[:, 1], images.astype(float))
    rng = seeds.rng(seed, "agreement", "kappa", name)
    drawn = rng.multinomial(images.sum(), images / images.sum(), resamples).astype(float)
    low, high = _interval(fleiss_kappa(patterns[:, 0], patterns[:, 1], drawn))
    return {"kappa": float(found), "kappa_low": low, "kappa_high": high}


def _mean(places: pd.DataFrame, resamples: int, seed: int, name: str) -> dict[str, float]:
    """The mean over pairs and its interval, whole images drawn."""
    total, pairs = places["total"].to_numpy(), places["pairs"].to_numpy(dtype=np.float64)
    if not len(places):
        return {"iou": np.nan, "iou_low": np.nan, "iou_high": np.nan, "pairs": 0}
    rng = seeds.rng(seed, "agreement", "iou", name)
    drawn = rng.multinomial(len(places), np.full(len(places), 1 / len(places)), resamples)
    low, high = _interval(drawn @ total / (drawn @ pairs))
    return {
        "iou": float(total.sum() / pairs.sum()),
        "iou_low": low,
        "iou_high": high,
        "pairs": int(pairs.sum()),
    }


def _interval(values: Array) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    if not len(values):
        return np.nan, np.nan
    low, high = np.quantile(values, RANGE)
    return float(low), float(high)
