"""Real predictions of three models, blended and calibrated, and the two-class filter that is made of them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from kit.combine import audit, baselines, reliability
from kit.combine.aggregate import plain_mean
from kit.combine.detection_metric import curves, resampled
from kit.combine.giveaways import metadata
from kit.combine.second_level import Problem
from kit.combine.two_class_filter import choose
from kit.combine.units import gather, labels_of
from kit.competition import find
from kit.files import write_table
from kit.metrics import Array, area_under_curve
from kit.state import External, Run
from tests.bench.detection import DETECTORS, Detector, World, detected, world

DATA = Path(__file__).parents[2] / "../shared/data/vinbigdata"
OOF = DATA / "class14-train-preds.csv.gz"
MODELS = ("effnet", "resnext", "densenet")
SEEN = {one.name: one for one in DETECTORS}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not OOF.is_file(), reason="the real VinBigData tables are not beside the project"),
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The three columns of one file, as models made elsewhere; sizes and readers as metadata."""
    task, meta = find("vinbigdata"), tmp_path / "meta.csv"
    assert task.boxes is not None
    write_table(meta, metadata(task.boxes(DATA)).reset_index())
    given = External({name: Path(f"{OOF}:{name}") for name in MODELS}, meta=meta)
    return Run(task, "vinbigdata", DATA, tmp_path / "work", external=given)


def test_the_blend_is_calibrated_and_far_better_than_the_models_and_than_size_and_readers(run: Run) -> None:
    with threadpool_limits(1):
        problem = Problem(run, gather(run))
        blend = problem.nested(problem.default, problem.outer)
        one = replace(run, external=replace(run.external, oof={"effnet": Path(f"{OOF}:effnet")}))
        platt = Problem(one, gather(one))
        alone = platt.nested("mean logit + platt", platt.outer)
        known = baselines.matrices(run, problem.frame, False)["metadata only"]
        assert not isinstance(known, str)
        labels, metric = labels_of(problem.frame), run.competition.metric
        shortcut = baselines.nested(known, labels, problem.label_folds, metric)
    units = problem.frame.index
    raw = [model.on(units).plain.to_numpy() for model in problem.level.oof.values()]
    mean = plain_mean(problem.level.oof, units)

    def loss(values: Array) -> float:
        return metric.score(labels, values)

    print(*(f"{name} {loss(p):.4f}" for name, p in zip(MODELS, raw, strict=True)))
    draws = audit.Draws(problem.frame["group_id"].to_numpy(dtype=object), 0)
    for name, values in {
        "mean": mean,
        "best after Platt": alone,
        "blend": blend,
        "metadata": shortcut,
    }.items():
        low, high = np.quantile(audit.resampled_areas(labels, values, draws), [0.025, 0.975])
        bins = reliability.reliability(values[:, 1], labels == 1, np.ones(len(labels)))
        error = reliability.calibration_error(bins)
        area = area_under_curve(labels, values)
        print(f"{name}: {loss(values):.4f}, AUC {area:.4f} ({low:.4f} - {high:.4f}), ECE {error:.4f}")
    assert len(labels) == 15_000
    assert [round(area_under_curve(labels, p), 4) for p in raw] == [0.9886, 0.9786, 0.9846]
    assert [round(loss(p), 4) for p in (raw[0], mean)] == [0.1335, 0.1323]
    assert loss(alone) == pytest.approx(0.1190, abs=0.0010)
    assert loss(blend) <= 0.1116
    bins = reliability.reliability(blend[:, 1], labels == 1, np.ones(len(labels)))
    error, chance = reliability.calibration_error(bins), reliability.chance_error(bins)
    assert error < 2 * chance
    assert loss(shortcut) > loss(blend) + 0.08


@cache
def radiographs() -> World:
    """Real annotations, and nested probabilities of the three models."""
    return world()


@pytest.mark.parametrize("name", ["bad", "fair", "excellent", "perfect"])
def test_the_filter_improves_detectors_and_never_harms_one_by_more_than_noise(name: str) -> None:
    before, after, noise = filtered_beside(SEEN[name])
    print(f"{name}: {before:.4f} -> {after:.4f} +- {noise:.4f}")
    assert after >= before - 2 * noise
    if name != "perfect":
        assert after > before + 0.015
        assert after > before + 10 * noise


def filtered_beside(detector: Detector) -> tuple[float, float, float]:
    """Mean average precision before and after the chosen filter, and the error of the difference."""
    known = radiographs()
    found = detected(known, detector)
    made = choose(found, known.abnormal, known.truths, known.folds, known.rules.nothing).nested
    every = [curves(table, known.truths, known.images) for table in (found, made)]
    drawn = resampled(every, np.array(known.images, dtype=object), 200, 0)
    before, after = (float(one.mean()[0]) for one in every)
    return before, after, float((drawn[1] - drawn[0]).std())
