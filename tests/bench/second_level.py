"""The kit's default second level beside what else is done with out-of-fold probabilities.

``python -m tests.bench.second_level [--quick] [--json FILE]``

In simulated worlds the best possible score is known, and what a system loses to it is its *regret*, a mean
over draws. On real predictions the score is a mean over outer splits. What follows ``+-`` is one standard
error: over draws, or of a bootstrap over units. Every system predicts each outer fold from the others, on
one thread; all peers share a process, whose peak memory is given for each. The first run makes the
environment of the peers, which takes longer.
"""

from __future__ import annotations

import argparse
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import numpy as np
from sklearn.base import clone
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from kit.combine.choose import make
from kit.combine.method import Method
from kit.files import write_json
from tests.bench import problems
from tests.bench.environment import peers_python, run_peers
from tests.bench.harness import Row, machine, measure
from tests.bench.problems import Problem
from tests.bench.scoring import SHIFTED, Answer, Case, means, table
from tests.bench.worlds import SPECS

KIT = {
    "kit": "ridge pool",
    SHIFTED: "mean logit, prior shift",
    "kit: mean logit + Platt": "mean logit + platt",
}
ALIKE = (("A3", "A8", "A20", "B8"), ("C8", "D8"))  # worlds whose mean regret is of interest
MILLION = 1_000_000


@dataclass(frozen=True)
class Plan:
    """What is run.

    draws: of each world.
    splits: outer splits of the STRIP AI models.
    many: units of the large case; 0: none.
    """

    worlds: tuple[str, ...] = tuple(SPECS)
    draws: int = 24
    splits: int = 5
    classic: tuple[str, ...] = tuple(problems.CLASSIC)
    many: int = MILLION
    real: bool = True
    peers: bool = True


QUICK = Plan(("A3", "A8", "B8", "C8"), draws=4, splits=1, classic=("breast cancer",), many=0)


def gather(plan: Plan) -> list[Problem]:
    """Every problem, those of one case side by side; says which case is left out, and why."""
    makers: list[tuple[str, Callable[[], list[Problem]]]] = [
        (name, partial(_draws, name, plan.draws)) for name in plan.worlds
    ]
    if plan.real:
        makers += [("STRIP AI", lambda: list(problems.strip_ai(plan.splits)))]
        makers += [("VinBigData", lambda: [problems.vinbigdata()])]
    makers += [(name, partial(_classic, name)) for name in plan.classic]
    found = []
    for name, maker in tqdm(makers, desc="problems", unit="case"):
        try:
            found += maker()
        except FileNotFoundError as absent:
            tqdm.write(f"without {name}: {absent}", file=sys.stderr)
    return found


def _draws(name: str, draws: int) -> list[Problem]:
    return [problems.world(name, seed) for seed in range(draws)]


def _classic(name: str) -> list[Problem]:
    return [problems.classic(name)]


def nested(method: Method, problem: Problem, progress: bool = False) -> Answer:
    """Predict each outer fold by what was fitted on the others."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = np.empty((len(problem.labels), problem.probabilities.shape[2]))
    for fold in tqdm(np.unique(problem.outer), desc=problem.case, unit="fold", disable=not progress):
        inside = problem.outer == fold
        fitted = clone(method).fit(problem.probabilities[~inside], problem.labels[~inside])
        found[inside] = fitted.predict_proba(problem.probabilities[inside])
    return Answer(found, time.perf_counter() - wall, time.process_time() - cpu)


def method_for(system: str, problem: Problem) -> Method:
    """One of the kit's methods under the prior that a problem scores."""
    return make(KIT[system], problem.metric.fixed_prior, problem.probabilities.shape[2])


def by_kit(case: list[Problem]) -> dict[str, list[Answer]]:
    """What each of the kit's methods predicts for the problems of a case."""
    with threadpool_limits(1):
        for system in KIT:
            method_for(system, case[0]).fit(case[0].probabilities, case[0].labels)  # a first use is not timed
        answers: dict[str, list[Answer]] = {system: [] for system in KIT}
        for problem in tqdm(case, desc=f"kit, {case[0].case}", unit="problem"):
            for system in KIT:
                answers[system].append(nested(method_for(system, problem), problem))
    return answers


def by_peers(given: list[Problem]) -> tuple[dict[str, list[Answer]], float]:
    """What each peer predicts for each problem, and the peak memory of their one process in MiB."""
    with tempfile.TemporaryDirectory() as place:
        source, target = Path(place, "problems.npz"), Path(place, "predictions.npz")
        arrays = {
            f"p{n}_{name}": np.asarray(getattr(problem, name))
            for n, problem in enumerate(given)
            for name in ("probabilities", "labels", "outer", "weights")
        }
        np.savez(source, allow_pickle=False, count=np.array(len(given)), **arrays)
        peak = measure(partial(_run_peers, source, target))[0]
        with np.load(target) as found:
            names = [key[3:-8] for key in found.files if key.startswith("p0_") and key.endswith("_seconds")]
            answers = {
                name: [
                    Answer(found[key], float(found[f"{key}_seconds"]), float(found[f"{key}_cpu"]))
                    for key in (f"p{n}_{name}" for n in range(len(given)))
                ]
                for name in names
            }
    return answers, peak


def _run_peers(source: Path, target: Path) -> float:
    run_peers(source, target)
    most = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return most / (1024**2 if sys.platform == "darwin" else 1024)


def cases(plan: Plan) -> Iterator[Case]:
    """Every case, predicted by everybody; the peers first, because they may be absent."""
    if plan.peers:
        peers_python()  # made before anything is measured
    given = gather(plan)
    peers, peak = by_peers(given) if plan.peers else ({}, 0.0)
    first = 0
    for _, group in groupby(given, key=lambda problem: problem.case):
        mine = list(group)
        kit, _, _, kit_peak = measure(partial(by_kit, mine))
        others = {name: answers[first : first + len(mine)] for name, answers in peers.items()}
        peaks = dict.fromkeys(kit, kit_peak) | dict.fromkeys(others, peak)
        yield Case(mine, kit | others, peaks)
        first += len(mine)


@dataclass(frozen=True)
class Size:
    """A whole second level, nested score and final fit, with what it may cost."""

    units: int  # 0: one draw of the world A20
    most_s: float
    most_mib: float = 4096.0

    def problem(self) -> Problem:
        """The data."""
        return problems.many_units(self.units) if self.units else problems.world("A20", 0)

    def row(self) -> Row:
        """The cost, and the regret of the nested score."""
        (name, score, wall, cpu), _, _, peak = measure(partial(_whole, self))
        return Row(f"{name}, nested and final fit", "kit", wall, cpu, peak, score, "regret (nats)")

    def verdict(self, row: Row) -> str:
        """Whether the row keeps within the bounds."""
        kept = row.wall_s <= self.most_s and row.peak_mib <= self.most_mib
        bounds = f"at most {self.most_s:.0f} s and {self.most_mib:.0f} MiB"
        cost = f"{row.wall_s:.1f} s, {row.cpu_s:.1f} s of CPU, {row.peak_mib:.0f} MiB"
        return f"{row.case}: {cost}; {bounds}: {'kept' if kept else 'BROKEN'}; regret {row.value:.5f}"


def _whole(size: Size) -> tuple[str, float, float, float]:
    """The shape, the nested regret, and the seconds of nested and final fit together."""
    problem = size.problem()
    method = method_for("kit", problem)
    with threadpool_limits(1):
        answer = nested(method, problem, progress=True)
        wall, cpu = time.perf_counter(), time.process_time()
        clone(method).fit(problem.probabilities, problem.labels)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    case = Case([problem], {"kit": [answer]}, {})
    regret = float(case.scores()["kit"][0] - case.limits()[0])
    shape = problem.probabilities.shape
    return f"{shape[0]:,} x {shape[1]}", regret, answer.wall_s + wall, answer.cpu_s + cpu


def run(plan: Plan) -> Iterator[tuple[str, list[Row]]]:
    """Blocks of the report, each as text and rows."""
    done = []
    for case in cases(plan):
        done.append(case)
        found = case.rows()
        yield f"{case}\n{table(found)}", found
    for alike in ALIKE:
        members = [case for case in done if case.name in alike]
        if len(members) > 1:
            found = means(members)
            yield f"mean of {', '.join(case.name for case in members)}\n{table(found)}", found
    for size in [Size(0, 5.0)] + [Size(plan.many, 60.0)] * bool(plan.many):
        row = size.row()
        yield size.verdict(row), [row]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="tests.bench.second_level", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer worlds and draws, no million units")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(machine())
    found: list[Row] = []
    for text, block in run(QUICK if options.quick else Plan()):
        print(f"\n{text}", flush=True)
        found += block
    if options.json is not None:
        write_json(options.json, {"machine": machine(), "rows": [asdict(row) for row in found]})


if __name__ == "__main__":
    main()
