"""The second level is applied from its numbers alone, and says exactly what `combine` wrote."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.combine import baselines, second_level
from kit.combine.apply import posterior
from kit.combine.side import Informed
from kit.errors import DataError
from kit.files import read_strings, write_table
from kit.metrics import WeightedLogLoss
from kit.state import Run

Make = Callable[..., Run]
OWN = {"strong": 2.0, "weak": 0.7}


def numbers(run: Run) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((run.folder("combine") / "second_level.json").read_text())
    return content


def units_of(run: Run) -> pd.DataFrame:
    table = run.tables.test
    assert table is not None
    return table.drop_duplicates("unit_id").set_index("unit_id")[["group_id", "site"]]


def written(run: Run, name: str = "test") -> pd.DataFrame:
    table = read_strings(run.folder("combine") / f"{name}.csv")
    table["unit_id"] = table["unit_id"].to_numpy(dtype=object)
    return table.astype({column: float for column in table if column != "unit_id"})


def again(run: Run, **options: Any) -> pd.DataFrame:
    test = read_strings(run.folder("predict") / "test.csv")
    return posterior(run.competition, numbers(run), test, units_of(run), **options)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert len(found) == 6
    pd.testing.assert_frame_equal(found, expected, check_exact=True, check_dtype=False)


@pytest.mark.parametrize("site_prior", [False, True])
@pytest.mark.parametrize("method", ["ridge pool", "choose", "mean logit + platt", "logistic", "greedy + beta",
                                    "rank mean + venn-abers", "convex + vector scaling"])  # fmt: skip
def test_it_says_what_combine_wrote(method: str, site_prior: bool, make_cohort: Any, make_run: Make) -> None:
    metric = WeightedLogLoss((0.5, 0.5))
    run = make_run(make_cohort(("a", "b"), 80), own=OWN, method=method, site_prior=site_prior, metric=metric,
                   unsafe=True)  # fmt: skip
    second_level.run(run)
    same(again(run), written(run))


def test_of_three_classes_and_plain_log_loss_too(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(("a", "b", "c"), 90), own=OWN, site_prior=True)
    second_level.run(run)
    same(again(run), written(run))


def test_the_bold_submission_too(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(("a", "b"), 80), own=OWN, method="mean logit, prior shift")
    second_level.run(run)
    assert numbers(run)["bold"] is not None
    same(again(run, which="bold"), written(run, "bold"))
    assert not again(run, which="bold").equals(again(run))


def test_models_made_elsewhere_are_given_beside(make_cohort: Any, make_run: Make) -> None:
    from kit.combine.units import gather

    data = make_cohort(("a", "b"), 80)
    run = make_run(data, own=OWN, oof={"theirs": data.predictions("train", 1.0, 7)},
                   test={"theirs": data.predictions("test", 1.0, 7)})  # fmt: skip
    second_level.run(run)
    same(again(run, more={"theirs": gather(run).test["theirs"]}), written(run))
    with pytest.raises(DataError, match="no test predictions of 'theirs'"):
        again(run)


def meta_of(data: Any) -> pd.DataFrame:
    """A number that knows the label, one that is sometimes missing, a text, by image; also of test images."""
    rows = pd.concat([data.train, data.test])
    draw = np.random.default_rng(0)
    size = 100 * np.exp((rows["truth"] == "b") + draw.normal(size=len(rows)))
    shift = pd.Series(draw.normal(size=len(rows)), rows.index).where(draw.random(len(rows)) > 0.2)
    text = np.where(draw.random(len(rows)) < 0.5, "he", "pas")
    return pd.DataFrame({"image": rows["image"], "size": size, "shift": shift, "stain": text})


@pytest.mark.parametrize("site_prior", [False, True])
def test_fused_metadata_are_made_the_same_numbers(site_prior: bool, make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(("a", "b"), 80)
    run = make_run(data, own=OWN, meta=meta_of(data), fusion=True, site_prior=site_prior)
    second_level.run(run)
    assert numbers(run)["metadata"]["given"]
    table = run.tables.test
    assert table is not None and run.external.meta is not None
    metadata = baselines.given_by_unit(run.competition, run.external.meta, table["unit_id"])
    same(again(run, metadata=metadata), written(run))


def images_of(run: Run, **test: str) -> pd.DataFrame:
    """What `tile` would have written of the images; ``test``: other values of those of the test."""
    draw = np.random.default_rng(3)
    rows = []
    for split, table in (("train", run.tables.train), ("test", run.tables.test)):
        for image in table.index:  # type: ignore[union-attr]
            row = {"image_id": image, "split": split, "width": str(draw.integers(500, 5000)),
                   "height": str(draw.integers(500, 5000)), "tissue": str(draw.random()),
                   "background": "#" + bytes(draw.integers(0, 255, 3).tolist()).hex()}  # fmt: skip
            rows.append(row | (test if split == "test" else {}))
    return pd.DataFrame(rows)


def test_of_our_own_tiles_the_test_images_are_enough(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(("a", "b"), 80), own=OWN, fusion=True)
    path = run.folder("tile") / "images.csv"
    write_table(path, images_of(run))
    second_level.run(run)
    assert not numbers(run)["metadata"]["given"]
    write_table(path, images_of(run).query("split == 'test'"))  # as in a kernel
    table = baselines.tile_metadata(path, ("test",))
    metadata = baselines.by_unit(table, run.tables.test["unit_id"])  # type: ignore[index]
    same(again(run, metadata=metadata), written(run))


def test_a_test_unit_of_which_nothing_is_known_gets_a_number_all_the_same(
    make_cohort: Any, make_run: Make
) -> None:
    run = make_run(make_cohort(("a", "b"), 80), own=OWN, fusion=True)
    path = run.folder("tile") / "images.csv"
    write_table(path, images_of(run))
    second_level.run(run)
    write_table(path, images_of(run, width="0", background="").query("split == 'test'"))  # unreadable
    metadata = baselines.by_unit(baselines.tile_metadata(path, ("test",)), run.tables.test["unit_id"])  # type: ignore[index]
    found = again(run, metadata=metadata)
    assert len(found) == 6 and np.isfinite(found[["p_a", "p_b"]]).all(axis=None)


def test_units_of_the_test_change_no_number_of_the_second_level(make_cohort: Any, make_run: Make) -> None:
    data = make_cohort(("a", "b"), 80)
    contents = []
    for name, test in (("one", data.test), ("two", data.test.iloc[:3])):
        run = make_run(replace(data, test=test), own=OWN, fusion=True, site_prior=True, folder=name)
        write_table(run.folder("tile") / "images.csv", images_of(run, width=str(len(test))))
        second_level.run(run)
        contents.append(numbers(run))
    assert contents[0] == contents[1]


def test_a_unit_of_a_site_never_seen_is_an_average_one(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(("a", "b"), 80), own=OWN, site_prior=True)
    second_level.run(run)
    test = read_strings(run.folder("predict") / "test.csv")
    content = numbers(run)
    found = [
        posterior(run.competition, content, test, units_of(run).assign(site=site)) for site in ("", "new")
    ]
    assert found[0].equals(found[1]) and not found[0].equals(again(run))


def test_without_a_readable_image_there_are_no_units(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(("a", "b"), 80), own=OWN)
    second_level.run(run)
    test = read_strings(run.folder("predict") / "test.csv").iloc[:0]
    found = posterior(run.competition, numbers(run), test, units_of(run))
    assert found.empty and list(found.columns) == ["unit_id", "p_a", "p_b"]


def test_what_is_not_there_is_named(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(("a", "b"), 80), own=OWN)
    second_level.run(run)
    test, content = read_strings(run.folder("predict") / "test.csv"), numbers(run)
    with pytest.raises(DataError, match="no test predictions of 'weak'"):
        posterior(run.competition, content, test[test["model"] == "strong"], units_of(run))
    with pytest.raises(DataError, match="unit 'q001' is predicted"):
        posterior(run.competition, content, test, units_of(run).drop(index="q001"))
    with pytest.raises(DataError, match="no bold submission"):
        posterior(run.competition, content | {"bold": None}, test, units_of(run), which="bold")


def test_a_fit_survives_json(make_cohort: Any, make_run: Make) -> None:
    run = make_run(make_cohort(("a", "b"), 80), own=OWN, site_prior=True)
    second_level.run(run)
    content = numbers(run)["default"]
    assert Informed.from_json(content).to_json() == content


def alone(program: str) -> str:
    """What a program says that has imported nothing else."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, kit.combine.apply\n{program}"],
        cwd=root,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_alone_it_knows_every_method() -> None:
    import kit.combine.second_level  # noqa: F401
    from kit.combine.method import METHODS

    known = set(alone("from kit.combine.method import METHODS; print(*METHODS)").split())
    mine = {name for name, kind in METHODS.items() if kind.__module__.startswith("kit.")}
    assert "RidgePool" in known and known == mine


def test_it_loads_no_library_that_reads_or_learns() -> None:
    assert alone("print({'torch', 'timm', 'openslide', 'kit.read'} & set(sys.modules))") == "set()"
