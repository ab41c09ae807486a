"""Many independent tasks over joblib workers, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import joblib
from tqdm.auto import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_all(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int, what: str
) -> list[Result]:
    """``[function(item) for item in items]``, in the order of ``items`` whatever the number of workers.

    Threads, not processes: every decoder and codec used here releases the GIL.
    """
    pool = joblib.Parallel(n_jobs=max(1, workers), prefer="threads", return_as="generator")
    results = pool(joblib.delayed(function)(item) for item in items)
    return list(tqdm(results, total=len(items), desc=what, unit="image", disable=len(items) < 2))
