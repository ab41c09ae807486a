"""What Kaggle would say of a kernel that has ended, and whether it predicted what the run did."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit.competition import Competition
from kit.deliver.check import Wanted, probabilities
from kit.deliver.hidden import BROKEN, Hidden
from kit.deliver.sandbox import Ended, Limits
from kit.errors import DataError, SubmissionError

TIMEOUT = "Notebook Timeout"
COMPUTE = "Notebook Exceeded Allowed Compute"
THREW = "Notebook Threw Exception"
NO_CSV = "Submission CSV Not Found"
SCORING = "Submission Scoring Error"
OTHER = "scored, but not what the run predicts"  # Kaggle would not notice
OF_KIND = {
    "time": TIMEOUT,
    "memory": COMPUTE,
    "disk": COMPUTE,
    "no-submission": NO_CSV,
    "scoring": SCORING,
    "sample": SCORING,
    "ids": SCORING,
}
FAULT = re.compile(r"^FAULT ([a-z-]+): (.*)$", re.MULTILINE)
KILLED = 137  # how a process ends that the system has killed, for memory most often


@dataclass(frozen=True)
class Failure:
    """Why a kernel fails: what Kaggle calls it, and a sentence."""

    kind: str
    said: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.said}"


@dataclass(frozen=True)
class Compared:
    """A submission beside what is known of its units.

    units: how many the run has predicted itself; largest: the difference from that, and of which unit.
    priors: how many got the prior.
    scored: of how many the label is known; score, own, constant: the metric of the submission, of the run's
        own predictions and of the prior on these; NaN where they cannot be scored, with the reason.
    """

    units: int
    largest: float
    worst: str
    priors: int
    scored: int
    score: float = float("nan")
    own: float = float("nan")
    constant: float = float("nan")
    reason: str = ""


def of_kernel(ended: Ended, limits: Limits) -> Failure | None:
    """Why the kernel itself failed, if it did."""
    broken = {
        "time": f"ended after {ended.seconds:.0f} s; it may take {limits.seconds:.0f} s",
        "memory": f"{ended.peak_mib / 1024:.2f} GiB of memory; the limit is {limits.memory_gib:g} GiB",
        "disk": f"{ended.output_mib / 1024:.1f} GiB of output; the limit is {limits.disk_gib:g} GiB",
    }
    if ended.broke:
        return Failure(OF_KIND[ended.broke], broken[ended.broke])
    if found := FAULT.search(ended.said):
        return Failure(OF_KIND.get(found[1], THREW), f"{found[1]}: {found[2]}")
    if ended.code == KILLED:
        return Failure(COMPUTE, "the system has killed it, for memory most often")
    if ended.code != 0:
        lines = [line.strip() for line in ended.said.splitlines() if line.strip()]
        return Failure(THREW, f"exit code {ended.code}: {lines[-1] if lines else 'it said nothing'}")
    return None


def of_submission(
    path: Path, task: Competition, hidden: Hidden, fallback: Sequence[str], tolerance: float
) -> tuple[Failure | None, Compared | None]:
    """Why a submission fails, if it does; and how it compares, where it can be read.

    Args:
        fallback: the units that the kernel says got the prior.
        tolerance: the largest difference of a probability from the run's own.
    """
    if not path.is_file():
        return Failure(NO_CSV, f"the kernel has left no {path.name}"), None
    try:
        _, values = probabilities(path, Wanted(task.unit, task.classes, list(hidden.units.index)))
    except SubmissionError as error:
        said = error.message.removeprefix(f"{path.parent}/")
        return Failure(SCORING, f"{said} ({error.hint})" if error.hint else said), None
    frame = pd.DataFrame(values, index=hidden.units.index, columns=[f"p_{name}" for name in task.classes])
    found = compare(task, hidden, frame, fallback)
    if found.largest > tolerance:
        said = f"{task.unit} '{found.worst}' differs by {found.largest:.2g} from the run's own prediction"
        return Failure(OTHER, f"{said}; {tolerance:g} is allowed"), found
    wrong = hidden.units.index[~hidden.units["prior"]].intersection(list(fallback))
    if len(wrong):
        return Failure(OTHER, f"{task.unit} '{wrong[0]}' got the prior, though its images can be used"), found
    return None, found


def compare(task: Competition, hidden: Hidden, frame: pd.DataFrame, fallback: Sequence[str]) -> Compared:
    """Differences and scores; the units that get the prior count too, by what the prior is.

    Args:
        frame: the submission, indexed by unit_id, with the columns p_<class>.
    """
    units, columns = hidden.units, list(frame.columns)
    known = units[columns].notna().all(axis=1)
    # A reader may save something of a file that is cut short: then it is no failure, and not known.
    known &= (units["kind"] != BROKEN) | units.index.isin(list(fallback))
    away = (frame[columns] - units[columns]).abs().max(axis=1)[known]
    labelled = units[units["label"] != ""]
    found = Compared(
        units=int(known.sum()),
        largest=float(away.max()) if len(away) else 0.0,
        worst=str(away.idxmax()) if len(away) else "",
        priors=len(fallback),
        scored=len(labelled),
    )
    truth = np.array([task.classes.index(label) for label in labelled["label"]], dtype=np.int64)
    tables = (frame.loc[labelled.index], labelled[columns])
    try:
        score, own = (task.metric.score(truth, table.to_numpy(dtype=float)) for table in tables)
        constant = task.metric.score(truth, np.tile(hidden.prior, (len(truth), 1)))
    except (DataError, ZeroDivisionError) as error:
        return Compared(**{**vars(found), "reason": str(error)})
    return Compared(**{**vars(found), "score": score, "own": own, "constant": constant})
