"""How evenly, and at what cost, the kit and scikit-learn deal groups into five folds.

``python -m tests.bench.folds [--quick] [--json FILE]``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from kit.competition import find
from kit.dealing import deal, imbalance, share_sd
from tests.bench.harness import Row, measure, report

K = 5
REAL = Path(__file__).parents[2] / ".." / "shared" / "data" / "strip-ai"


def by_kit(units: pd.DataFrame) -> NDArray[np.int64]:
    """The fold of each unit."""
    return units["group_id"].map(deal(units, K, seed=0)).to_numpy(dtype=np.int64)


def by_stratified_group_k_fold(units: pd.DataFrame) -> NDArray[np.int64]:
    """The same by scikit-learn, which knows labels and groups."""
    return _numbers(StratifiedGroupKFold(K, shuffle=True, random_state=0), units)


def by_group_k_fold(units: pd.DataFrame) -> NDArray[np.int64]:
    """The same by scikit-learn, which here knows groups alone."""
    return _numbers(GroupKFold(K), units)


def _numbers(peer: GroupKFold | StratifiedGroupKFold, units: pd.DataFrame) -> NDArray[np.int64]:
    fold = np.full(len(units), -1)
    for n, (_, part) in enumerate(peer.split(units, units["label"], units["group_id"])):
        fold[part] = n
    return fold


SYSTEMS: dict[str, Callable[[pd.DataFrame], NDArray[np.int64]]] = {
    "kit": by_kit,
    "scikit-learn": by_stratified_group_k_fold,
    "scikit-learn GroupKFold": by_group_k_fold,
}


def made(groups: int, most: int) -> pd.DataFrame:
    """Units of ``groups`` groups of 1 to ``most`` units, 3 classes and 17 sites, all uneven."""
    draw = np.random.default_rng(0)
    count = draw.integers(1, most + 1, groups)
    group = np.repeat(np.arange(groups), count)
    site = np.repeat(draw.choice(17, groups, p=draw.dirichlet(np.full(17, 2.0))), count)
    label = draw.choice(3, len(group), p=[0.7, 0.22, 0.08])
    columns = {"group_id": [f"g{n:06d}" for n in group], "site": site.astype(str), "label": label.astype(str)}
    return pd.DataFrame(columns, dtype=object)


def cases(quick: bool) -> Iterator[tuple[str, pd.DataFrame]]:
    """Tables of one row a unit, by name."""
    if REAL.is_dir():
        train = find("strip-ai").tables(REAL).train
        yield "STRIP AI, 632 patients", train.drop_duplicates("unit_id")[["group_id", "site", "label"]]
    else:
        print(
            "without the competition's own tables: they are not in ../shared/data/strip-ai", file=sys.stderr
        )
    yield "15,000 groups of 1 unit", made(15_000, 1)
    yield "15,000 groups of 1 to 9 units", made(15_000, 9)
    if not quick:
        yield "100,000 groups of 1 to 3 units", made(100_000, 3)


def run(quick: bool) -> Iterator[Row]:
    """Two rows a case and system: how much class shares and site x class cells differ over folds."""
    for case, units in cases(quick):
        for system, work in SYSTEMS.items():
            fold, *cost = measure(partial(work, units))
            number = pd.Series(fold, units.index).astype(str)
            sd = share_sd(units["label"], number)
            yield Row(case, system, *cost, sd, "class-share sd over folds")
            most, _ = imbalance(units["site"], units["label"], number)
            yield Row(case, system, *cost, most, "units, site x class max - min")


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="tests.bench.folds", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the largest case")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    options = parser.parse_args()
    report(list(run(options.quick)), options.json)


if __name__ == "__main__":
    main()
