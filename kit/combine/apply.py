"""The second level on units that nothing was fitted on: ``second_level.json`` is all that it takes.

No fit, no network: anybody repeats a submission from its evidence, and a hidden test is predicted so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from kit.combine import baselines, choose
from kit.combine.aggregate import UnitLogits, covered, side_by_side
from kit.combine.predictions import own_logits
from kit.combine.side import Informed, Rows
from kit.competition import Competition
from kit.errors import DataError

assert choose.DEFAULT, "the methods that this import registers are asked for by name"
Which = Literal["default", "bold"]


def posterior(
    task: Competition,
    second_level: Mapping[str, Any],
    test: pd.DataFrame,
    units: pd.DataFrame,
    metadata: pd.DataFrame | None = None,
    which: Which = "default",
    more: Mapping[str, UnitLogits] | None = None,
) -> pd.DataFrame:
    """What `combine` wrote, or would have written, of the units that every model of the blend covers.

    Args:
        second_level: the content of ``second_level.json``.
        test: rows of ``test.csv``: image_id, unit_id, model, seed, fold and p_* (text or numbers).
        units: group_id and site by unit_id; an empty site, or one that was never seen, is an average one.
        metadata: numbers or text by unit_id, of `metadata_of`; needed only where they are fused.
        which: what the submission uses, or the second, bold one.
        more: models that were made elsewhere, by name.

    Returns:
        unit_id and p_* under the scored prior, sorted by unit_id.

    Raises:
        DataError: a model of the blend is absent, or a unit is not in ``units``; or there is no bold one.
    """
    columns = [f"p_{name}" for name in task.classes]
    content = second_level[which]
    if content is None:
        raise DataError(f"second_level.json has no {which} submission", "only the default one was proposed")
    models = own_logits(test, task.classes, "the table of test predictions") | dict(more or {})
    if not models:  # no image could be read
        return pd.DataFrame(columns=["unit_id", *columns])
    blended = _blended(second_level["models"], models)
    index = covered(blended)
    if unknown := sorted(set(index) - set(units.index)):
        raise DataError(f"unit '{unknown[0]}' is predicted, and is not in the table of units")
    with threadpool_limits(1):  # as `combine` does: sums depend on the number of threads
        X = side_by_side(blended, index, second_level["reference"], second_level["icc"])
        frame = units.loc[index]
        groups, sites = (frame[name].to_numpy(dtype=object) for name in ("group_id", "site"))
        rows = Rows(X, groups, sites, _features(second_level, metadata, index))
        values = Informed.from_json(content).predict_proba(rows)
    table = pd.DataFrame(values, columns=columns)
    table.insert(0, "unit_id", index.to_numpy(dtype=object))
    return table


def _blended(names: list[str], models: Mapping[str, UnitLogits]) -> dict[str, UnitLogits]:
    """The models of the blend in its order."""
    if lacking := [name for name in names if name not in models]:
        raise DataError(
            f"there are no test predictions of '{lacking[0]}', which is blended",
            f"there are some of {', '.join(models) or 'no model'}",
        )
    return {name: models[name] for name in names}


def _features(
    second_level: Mapping[str, Any], metadata: pd.DataFrame | None, units: pd.Index
) -> NDArray[np.float64] | None:
    """Metadata as numbers ``(n, F)``, as they were made for the fit; ``None`` where they are not fused."""
    said = second_level["metadata"]
    if said is None or metadata is None:
        return None
    found = [baselines.Feature(**feature) for feature in said["features"]]
    return baselines.applied(found, metadata.reindex(units)).to_numpy(dtype=np.float64)
