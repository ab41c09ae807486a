"""Learning curves from the logs of fits: the last epoch and the best one, told apart."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.competition import Competition, Tables
from kit.files import write_table
from kit.metrics import LogLoss
from kit.show import learning
from kit.state import Run

HEAD = "epoch,step,loss,inner_loss,rate,bags,seconds\n"


def logged(folder: Path, name: str, rows: list[tuple[object, ...]]) -> Path:
    """A log as a fit writes it."""
    folder.mkdir(parents=True, exist_ok=True)
    text = HEAD + "".join(",".join(map(str, row)) + "\n" for row in rows)
    (path := folder / f"{name}.log.csv").write_text(text)
    return path


ASIDE = [
    (0, 2, 1.0, "", 1, 30, 1),
    (0, 3, 0.4, 0.5, 1, 10, 1),
    (1, 3, 0.3, 0.2, 1, 40, 1),
    (2, 3, 0.1, 0.3, 1, 40, 1),
]


def test_rows_of_an_epoch_are_weighed_by_their_images(tmp_path: Path) -> None:
    fit = learning.read(logged(tmp_path, "fold0", ASIDE))
    np.testing.assert_allclose(fit.loss, [0.85, 0.3, 0.1])
    np.testing.assert_allclose(fit.inner, [0.5, 0.2, 0.3])


def test_the_best_epoch_is_that_of_what_was_set_aside_and_stands_beside_the_last(tmp_path: Path) -> None:
    logged(tmp_path / "net", "fold0", ASIDE)
    table = learning.table({"net": learning.of_model(tmp_path / "net", {"fold0"})})
    (row,) = table.rows
    assert (row[2], row[5], row[7]) == ("3", "2", "best")
    assert float(row[4]) == 0.3
    assert float(row[6]) == 0.2


def test_without_a_part_set_aside_the_last_epoch_is_the_model_and_no_best_is_claimed(tmp_path: Path) -> None:
    rows = [(*row[:3], "", *row[4:]) for row in ASIDE]
    fit = learning.read(logged(tmp_path / "net", "fold0", rows))
    assert fit.best is None
    (row,) = learning.table({"net": [fit]}).rows
    assert row[4:] == ("-", "-", "-", "last")


def test_only_fits_that_predicted_in_this_run_are_shown(tmp_path: Path) -> None:
    task = Competition(
        name="toy", classes=("x", "y"), metric=LogLoss(), load=lambda _: Tables(pd.DataFrame())
    )
    run = Run(task, "toy", tmp_path, tmp_path / "work", seed=4)
    for model, fits in {"net": ("fold0", "fold7", "seed1-fold0"), "old": ("fold0",)}.items():
        for fit in fits:
            logged(run.folder("train") / model, fit, ASIDE)
    rows = pd.DataFrame({"image_id": ["a", "b"], "model": "net", "seed": ["4", "5"], "fold": "0"})
    write_table(run.folder("predict") / "oof.csv", rows)
    found = learning.section(run)
    assert found is not None
    assert [row[:2] for row in found["table"].rows] == [("net", "fold0"), ("net", "seed1-fold0")]
    assert len(found["charts"]) == 1


@pytest.mark.parametrize("aside", [True, False])
def test_the_chart_says_what_it_shows_and_dashes_what_was_set_aside(tmp_path: Path, aside: bool) -> None:
    rows = ASIDE if aside else [(*row[:3], "", *row[4:]) for row in ASIDE]
    fit = learning.read(logged(tmp_path, "fold0", rows))
    svg = learning.chart(0, "net", [fit])
    assert svg.startswith('<svg role="img" aria-label="Learning curves of net: 1 fits')
    assert "last epoch 0.100" in svg
    # Ticks and frames are there anyway: what was set aside adds its dashed curve and the mark of its best.
    dashed = len(re.findall(r'<path d="[^"]*L[^"]*"[^>]*stroke-dasharray: ?[0-9.]+[ ,]', svg))
    assert dashed == aside
