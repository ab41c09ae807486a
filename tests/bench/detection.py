"""The two-class filter on simulated detectors, with real annotations and real image probabilities.

``python -m tests.bench.detection [--quick] [--json FILE]``

Detectors from bad to perfect are drawn from the annotations of 15,000 radiographs: they miss findings,
displace boxes, and see some that are not there, on normal images too; the true ones get higher confidences.
The filter has the nested probabilities of three real models, calibrated by the kit's default. ``kit`` chooses
the variant without the images that are scored (by folds), ``limit`` filters by the true labels. Every
reader's box counts as a truth here (``--truth readers`` of the command), so that a perfect detector, which
draws each finding once, does not reach 1. What follows
``+-`` is a bootstrap standard error over images, of the gain on the detector alone where there is one. A last
row times the metric on 15,000 images with 100 boxes each.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from threadpoolctl import threadpool_limits

from kit import boxes, seeds
from kit.boxes import CORNERS
from kit.combine.detection_metric import curves, resampled, truths_of
from kit.combine.detections import COLUMNS, DOT, IMAGE, Rules, rules_of
from kit.combine.fusion import nms
from kit.combine.two_class_filter import CANDIDATES, Filter, choose, filtered
from kit.files import read_strings, write_json
from tests.bench.harness import Row, machine, measure
from tests.bench.problems import REAL, present, vinbigdata
from tests.bench.second_level import method_for, nested

RENAMED = {"class_name": "finding", "rad_id": "reader"}
RESAMPLES = 400
TRUTH = "every reader's box"
DOUBT = 2.0  # standard errors below which a harm is noise


@dataclass(frozen=True)
class Detector:
    """How good a simulated detector is.

    recall: the share of findings that it sees.
    jitter: the standard deviation of a corner, as a share of the box's side.
    false: boxes an image that are not there, on average.
    gap: by how many standard deviations the confidences of true boxes are higher (as logits).
    """

    name: str
    recall: float
    jitter: float
    false: float
    gap: float


DETECTORS = (
    Detector("bad", 0.35, 0.20, 10.0, 1.0),
    Detector("poor", 0.50, 0.15, 6.0, 1.5),
    Detector("fair", 0.65, 0.10, 3.0, 2.0),
    Detector("good", 0.80, 0.07, 1.5, 3.0),
    Detector("excellent", 0.92, 0.04, 0.4, 4.0),
    Detector("nearly perfect", 0.98, 0.02, 0.02, 6.0),
    Detector("perfect", 1.00, 0.00, 0.0, 6.0),
)


@dataclass(frozen=True)
class World:
    """Real radiographs: what is there, and what models say of them.

    truths: what is to be found.
    lesions: of what several readers drew, each finding once.
    abnormal, label, folds: the nested probability of a finding, the truth of it, and the fold, by image_id.
    """

    rules: Rules
    truths: pd.DataFrame
    lesions: pd.DataFrame
    abnormal: pd.Series[float]
    label: pd.Series[float]
    folds: pd.Series[int]

    @property
    def images(self) -> list[str]:
        """All of them, in order."""
        return list(self.folds.index)


def world(count: int = 0) -> World:
    """The real data; only the first images of them where a count is given.

    Raises:
        FileNotFoundError: they are not there.
    """
    problem = vinbigdata()
    with threadpool_limits(1):
        answer = nested(method_for("kit", problem), problem).probabilities
    folder = REAL / "vinbigdata"
    ids = read_strings(present(folder / "class14-train-preds.csv.gz"))[IMAGE]
    known = pd.DataFrame({"p": answer[:, 0], "label": 1.0 - problem.labels, "fold": problem.outer}, ids)
    known = known.sort_index().iloc[: count or None]
    raw = read_strings(present(folder / "train_with_size_and_fold.csv.gz")).rename(columns=RENAMED)
    raw.loc[raw["finding"] == boxes.NOTHING, list(CORNERS)] = ""
    drawn = boxes.check(raw[raw[IMAGE].isin(known.index)].drop_duplicates())
    truths = truths_of(drawn, list(known.index))
    return World(rules_of(drawn), truths, _lesions(drawn), known["p"], known["label"], known["fold"])


def _lesions(drawn: pd.DataFrame) -> pd.DataFrame:
    """Each finding once, with one reader's box."""
    there = drawn[boxes.has_box(drawn)]
    kept = []
    for _, rows in there.groupby(IMAGE, sort=False):
        corners = rows[list(CORNERS)].to_numpy()
        found = nms(corners, np.ones(len(rows)), rows["class_id"].to_numpy(), 0.4)
        kept.append(rows.iloc[found])
    return pd.concat(kept, ignore_index=True)[[IMAGE, "class_id", *CORNERS]]


def detected(world: World, detector: Detector, seed: int = 0) -> pd.DataFrame:
    """A submission of a simulated detector; where it sees nothing it says so."""
    draw = seeds.rng(seed, "detector", detector.name)
    seen = world.lesions[draw.random(len(world.lesions)) < detector.recall]
    images = np.array(world.images, dtype=object)
    owners = np.repeat(images, draw.poisson(detector.false, len(images)))
    false = world.lesions.iloc[draw.integers(0, len(world.lesions), len(owners))].assign(**{IMAGE: owners})
    logits = np.r_[draw.normal(detector.gap, 1, len(seen)), draw.normal(0, 1, len(false))] - detector.gap / 2
    found = pd.concat([seen, false], ignore_index=True).assign(score=expit(logits))
    corners = found[list(CORNERS)].to_numpy()
    sides = np.tile(corners[:, 2:] - corners[:, :2], 2)
    edges = np.tile(world.rules.sizes.reindex(found[IMAGE]).to_numpy(), 2)
    moved = np.clip(corners + draw.normal(0, 1, corners.shape) * detector.jitter * sides, 0, edges)
    upright = (moved[:, 2:] > moved[:, :2] + 1).all(axis=1)
    # A box beside the image, from a larger one, becomes its whole.
    found[list(CORNERS)] = np.where(upright[:, None], moved, np.hstack([0 * edges[:, :2], edges[:, :2]]))
    lacking = images[~np.isin(images, found[IMAGE].unique())]
    columns = {IMAGE: lacking, "class_id": world.rules.nothing, "score": 1.0}
    none = pd.DataFrame(columns | dict(zip(CORNERS, DOT, strict=True)))
    return pd.concat([found, none], ignore_index=True)[list(COLUMNS)]


def rows_of(world: World, detector: Detector) -> list[Row]:
    """The detector alone, each variant, the choice, and the filter that knows the truth."""
    found, nothing = detected(world, detector), world.rules.nothing
    made = {"detector alone": found}
    for plan in CANDIDATES[1:]:
        made[f"kit: {plan.variant}"] = filtered(found, world.abnormal, plan, nothing)
    made["kit"] = choose(found, world.abnormal, world.truths, world.folds, nothing).nested
    made["limit"] = filtered(found, world.label, Filter("multiply"), nothing)
    every = [curves(table, world.truths, world.images) for table in made.values()]
    drawn = resampled(every, np.array(world.images, dtype=object), RESAMPLES, 0)
    rows = []
    for n, name in enumerate(made):
        score, gain = float(every[n].mean()[0]), drawn[n] - drawn[0] * (n > 0)
        rows.append(Row(f"{detector.name} detector", name, 0.0, 0.0, 0.0, score, "mAP"))
        rows.append(Row(f"{detector.name} detector", name, 0.0, 0.0, 0.0, float(gain.std(ddof=1)), "+- mAP"))
    return rows


def table(rows: list[Row]) -> str:
    """The rows of one detector as text."""
    scores, errors = rows[::2], rows[1::2]
    lines = [f"{rows[0].case}; truth: {TRUTH}"]
    for row, error in zip(scores, errors, strict=True):
        gain = row.value - scores[0].value
        told = f"  {row.system:<16} {row.value:.4f}"
        noise = f"  gain {gain:+.4f} +- {error.value:.4f}{'  HARM' * (gain < -DOUBT * error.value)}"
        lines.append(told + (noise if row is not scores[0] else f"  +- {error.value:.4f}"))
    return "\n".join(lines)


def timed(images: int, boxes_each: int) -> Row:
    """How long the metric takes on made boxes."""
    score, wall, cpu, peak = measure(partial(scored, images, boxes_each))
    return Row(f"{images:,} images x {boxes_each} boxes", "kit", wall, cpu, peak, score, "mAP")


def scored(images: int, boxes_each: int) -> float:
    """Mean average precision of random boxes."""
    draw = seeds.rng(0, "many boxes")
    names = np.array([f"{n:05d}" for n in range(images)], dtype=object)

    def made(each: int) -> pd.DataFrame:
        low = draw.uniform(0, 60, (images * each, 2))
        corners = np.hstack([low, low + draw.uniform(20, 40, low.shape)])
        found = pd.DataFrame(corners, columns=list(CORNERS))
        found.insert(0, IMAGE, np.repeat(names, each))
        found.insert(1, "class_id", draw.integers(0, 15, len(found)))
        return found.assign(score=draw.random(len(found)))

    return float(curves(made(boxes_each), made(5), list(names)).mean()[0])


def run(quick: bool) -> Iterator[tuple[str, list[Row]]]:
    """Blocks of the report, each as text and rows."""
    known = world(3000 if quick else 0)
    for detector in DETECTORS[::3] if quick else DETECTORS:
        rows = rows_of(known, detector)
        yield table(rows), rows
    row = timed(15_000, 10 if quick else 100)
    yield f"{row.case}: {row.wall_s:.1f} s, {row.peak_mib:.0f} MiB", [row]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="tests.bench.detection", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3,000 images and three detectors")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    options = parser.parse_args()
    print(machine())
    found: list[Row] = []
    for text, block in run(options.quick):
        print(f"\n{text}", flush=True)
        found += block
    if options.json is not None:
        write_json(options.json, {"machine": machine(), "rows": [asdict(row) for row in found]})


if __name__ == "__main__":
    main()
