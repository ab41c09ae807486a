"""What was before calibration and after it is told of the same units; curves are those of scikit-learn."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from kit.combine import reliability, second_level
from kit.combine.predictions import read_own
from kit.metrics import LogLoss
from kit.show.results import Results
from kit.show.sections import calibration
from kit.state import Run
from tests.show.reading import cells


@pytest.fixture
def found(make_run: Callable[..., Run]) -> Results:
    run = make_run()
    second_level.run(run)
    return Results(run)


def test_before_calibration_are_the_models_as_they_came(found: Results) -> None:
    called, raw = calibration.before(found)
    model = found.problem.level.oof["net"]
    assert called == "net"
    np.testing.assert_array_equal(raw, model.plain.loc[found.scored.frame.index].to_numpy())
    section = calibration.section(found)
    hit = found.scored.labels == 1
    bins = reliability.reliability(raw[:, 1], hit, found.scored.weights)
    assert section["earlier"] == pytest.approx(reliability.calibration_error(bins))
    assert f"{section['earlier']:.3f}" in section["reliability"][0]


def test_several_models_are_their_mean_before_calibration(results: Results) -> None:
    called, raw = calibration.before(results)
    assert called == "test_efficientnet-frozen-64"
    own = read_own(results.run.folder("predict") / "oof.csv", results.run.competition.classes)
    np.testing.assert_allclose(raw, own[called].plain.loc[results.scored.frame.index].to_numpy())


def test_a_bin_says_its_numbers_under_the_pointer_and_in_the_table(html: str) -> None:
    tips = re.findall(r"<title>(calibrated: \d+ units, predicted [^<]+)</title>", html)
    rows = cells(html, "Reliability of P(B)")
    assert len(tips) == len(rows) > 2
    for tip, row in zip(tips, rows, strict=True):
        assert f"{row[1]} units, predicted {row[2]}, observed {row[3]}" in tip
    assert len(re.findall(r"<title>net, as it came: ", html)) == len(
        cells(html, "Reliability of P(B), net, as it came")
    )


def test_a_class_has_both_curves_with_scikit_learns_areas(found: Results) -> None:
    section = calibration.section(found)
    hit, predicted = found.scored.labels == 1, found.scored.probabilities[:, 1]
    ((roc,), (pr,)) = section["curves"]
    assert f"area {roc_auc_score(hit, predicted):.3f}" in roc
    assert f"average precision {average_precision_score(hit, predicted):.3f}" in pr
    assert f"guessing has a precision of {hit.mean():.3f}" in pr
    assert f"{hit.sum()} of {len(hit)} units" in pr


def test_of_several_classes_all_of_one_kind_come_first(
    make_run: Callable[..., Run], finish: Callable[[Run], str]
) -> None:
    html = finish(make_run(classes=("A", "B", "C"), n=90, metric=LogLoss()))
    kinds = re.findall(r'aria-label="(ROC|Precision-recall) curve of ([ABC])', html)
    assert kinds == [(kind, name) for kind in ("ROC", "Precision-recall") for name in "ABC"]


def test_the_footers_on_the_page_are_those_of_the_sentence_above_them(html: str) -> None:
    rows = {row[0]: row for row in cells(html, "Averages over classes, made anew from the matrix")}
    said = re.search(r"macro F1 is\s+([\d.]+)", html)
    assert said is not None and rows["macro average"][3] == said[1]
    share = re.search(r"By it, ([\d.]+) % are right", html)
    accuracy = float(rows["accuracy, as the metric weighs units"][3])
    assert share is not None and accuracy == pytest.approx(float(share[1]) / 100, abs=1e-3)
