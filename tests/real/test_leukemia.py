"""Real blood smears: equal files, blocks of neighbours, and what colours alone tell of a class."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit import competition, metrics
from kit.class_folders import read
from kit.competitions.leukemia import BLOCK, CLASSES
from tests.real import leukemia

DATA = Path(__file__).parents[2] / "../shared/data/leukemia"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the real smears are not beside the project")


@real
def test_forty_pairs_of_equal_files_are_found_all_in_pro_and_none_is_split() -> None:
    images = read(DATA, CLASSES).images
    twice = images[images["cluster"].duplicated(keep=False)]
    assert len(images) == 3256 and len(twice) == 80 and set(twice["label"]) == {"Pro"}
    assert twice.groupby("cluster").size().tolist() == [2] * 40
    numbers = twice["image_id"].str.extract(r"(\d+)$", expand=False).astype(int).groupby(twice["cluster"])
    assert set(numbers.max() - numbers.min()) == {1}
    train = competition.find("leukemia").tables(DATA).train
    groups = train["group_id"].loc[twice["image_id"]].groupby(twice["cluster"].to_numpy()).nunique()
    assert set(groups) == {1}
    assert train["label"].value_counts().to_dict() == {"Early": 985, "Pre": 963, "Pro": 804, "Benign": 504}
    assert train.groupby("group_id").size().max() <= BLOCK + 1 and train["group_id"].nunique() == 44


@real
@pytest.mark.slow
def test_colours_alone_reach_what_networks_were_published_for(tmp_path: Path) -> None:
    given = argparse.Namespace(data=DATA, work=tmp_path, workers=2, splits=["image", "blocks", "stain"],
                               epochs=1, quick=True)  # fmt: skip
    found, judges = leukemia.judged(given)
    right = {(name, split): judges[split].mean(judges[split].right(p)) for (name, split), p in found.items()}
    assert right["colour only", "image"][0] == pytest.approx(0.933, abs=0.01)
    assert right["colour and texture", "image"][0] > 0.99
    for name in ("colour only", "colour and texture"):
        shares = [right[name, split][0] for split in judges]
        assert shares == sorted(shares, reverse=True), "the more is kept apart, the less is right"
    print(leukemia.table(found, judges), *leukemia.conclusions(found, judges), sep="\n")


def made() -> tuple[dict[tuple[str, str], np.ndarray], dict[str, leukemia.Judge]]:
    """Predictions of 400 images in 40 groups: colours are right in 90 %, a network in all or in half."""
    labels = np.arange(400) % 4
    judge = leukemia.Judge(labels, metrics.Bootstrap(np.array([str(n // 10) for n in range(400)]), 200, 0))

    def right_in(share: float, seed: int = 0) -> np.ndarray:
        shown = np.where(np.random.default_rng(seed).random(400) < share, labels, (labels + 1) % 4)
        return 0.1 + 0.6 * np.eye(4)[shown]

    half = right_in(0.5)
    half[200:] = np.nan
    found = {
        ("colour only", "image"): right_in(0.9),
        ("net", "image"): right_in(1.0),
        ("part", "image"): half,
        ("colour only", "stain"): right_in(0.6),
        ("net", "stain"): right_in(0.6, seed=1),
    }
    return found, {"image": judge, "stain": judge}


def test_the_conclusion_is_computed_from_the_numbers() -> None:
    found, judges = made()
    said = "\n".join(leukemia.conclusions(found, judges))
    assert "by image: net beats colour only (+" in said
    assert "by image: part LOSES TO colour only (-" in said
    assert "by stain: net is not told apart from colour only" in said
    assert "colour only: 87.5% by image" in said and "points of it are lost by stain" in said
    assert "part: one split alone" in said
    assert said.endswith("than colours and textures tell: no network, under any split")


def test_no_price_is_told_of_a_system_that_is_judged_on_other_images_in_every_split() -> None:
    found, judges = made()
    other = found["net", "stain"].copy()
    other[:200] = np.nan
    said = leukemia.conclusions({**found, ("part", "stain"): other}, judges)
    assert "part: judged on other images in every split, so that no price can be told" in said
    assert not any(line.startswith("part") and "lost by" in line for line in said)


def test_the_networks_name_says_what_was_shortened() -> None:
    _, seed = leukemia.systems(12)
    assert all(word in seed.name for word in ("bf16", "12 of 40 epochs", "one fold of three"))
    assert leukemia.systems(12)[1].folder != leukemia.systems(25)[1].folder


def test_the_table_has_an_interval_for_every_number_and_a_dash_where_there_is_none() -> None:
    shown = leukemia.table(*made()).splitlines()
    assert shown[0].split() == ["by", "image", "by", "stain"] and len(shown) == 7
    (part,) = [line for line in shown if line.startswith("part: accuracy")]
    assert part.endswith("-") and "(" in part
    for line in shown[1:]:
        assert "%" in line or "log loss" in line


def test_a_network_of_one_fold_is_judged_on_it_alone() -> None:
    found, judges = made()
    share, low, high = judges["image"].mean(judges["image"].right(found["part", "image"]))
    assert share == pytest.approx(0.5, abs=0.1) and low < share < high
    assert judges["image"].loss(found["part", "image"])[200:].tolist() == pytest.approx(
        [np.nan] * 200, nan_ok=True
    )


def test_clusters_of_the_background_are_those_of_its_colour() -> None:
    draw = np.random.default_rng(0)
    six = pd.DataFrame(draw.normal(0, 0.1, (240, 6)), index=[f"i{n}" for n in range(240)])
    six += np.repeat(np.arange(12), 20)[:, None] * np.array([1, -1, 2, 0.5, 1, 3])
    found = leukemia.stains(six)
    assert found.groupby(np.repeat(np.arange(12), 20)).nunique().tolist() == [1] * 12
    assert found.nunique() == 12
