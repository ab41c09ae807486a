"""Which sections are cuts of one clot: `python -m tests.bench.sections [--quick] [--json FILE]`.

Made slides (tests/bench/clots.py). The constants of the kit and of the baseline were fitted to seeds 0 to 69;
every number here is from seeds from 7000 on, which were never looked at for that.

A true section is given the clot of the found section that covers most of it, a section that was not found one
of its own. Values, a row each: the adjusted Rand index over the true sections of a slide, mean of the slides;
the percentage of distinct clots lost, where a clot is lost if it is the most frequent one of no found clot,
so that another takes its weight; milliseconds of one core a slide, the search for tissue not counted.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

from kit.read import sections as kit_sections
from kit.read import tissue
from kit.read.density import Mask
from kit.read.reader import Pixels
from kit.read.sections import Sections
from tests.bench import seed_sections
from tests.bench.clots import Slide, slide
from tests.bench.harness import Row, measure, report

Numbers = NDArray[np.int32]
Work: TypeAlias = Callable[[Pixels, Mask], Sections]
FIRST = 7000  # seed of the first slide; those below were looked at while the method was made


def apart(overview: Pixels, mask: Mask) -> Sections:
    """Every section is a clot of its own."""
    labels = kit_sections.find(mask)
    return Sections(labels, np.arange(labels.max(), dtype=np.int32))


SYSTEMS: dict[str, Work] = {
    "kit": kit_sections.sections,
    "seed paper": seed_sections.sections,
    "no clustering": apart,
}


def matched(truth: Slide, found: Sections) -> Numbers:
    """The found clot of each true section, int32 (S,); a negative one of its own where nothing covers it."""
    clots = -1 - np.arange(len(truth.clot), dtype=np.int32)
    for number in range(len(truth.clot)):
        cover = np.bincount(found.labels[truth.labels == number + 1], minlength=2)[1:]
        if cover.any():
            clots[number] = found.clot[cover.argmax()]
    return clots


def lost(clot: Numbers, found: Numbers) -> int:
    """How many clots are in no found clot the most frequent one."""
    kept = {int(np.bincount(clot[found == one]).argmax()) for one in np.unique(found)}
    return len(np.unique(clot)) - len(kept)


def find_all(work: Work, slides: list[Slide], masks: list[Mask]) -> list[Sections]:
    """The sections of all slides."""
    return [work(one.overview, mask) for one, mask in zip(slides, masks, strict=True)]


def run(quick: bool) -> Iterator[Row]:
    """Three rows a system: adjusted Rand index, clots lost, time."""
    slides = [slide(FIRST + number) for number in range(16 if quick else 64)]
    masks = [tissue.find(one.overview).mask for one in slides]
    case = f"repeated sections, {len(slides)} made slides"
    clots = sum(len(np.unique(one.clot)) for one in slides)
    for system, work in SYSTEMS.items():
        found, *cost = measure(partial(find_all, work, slides, masks))
        pairs = [(one.clot, matched(one, its)) for one, its in zip(slides, found, strict=True)]
        index = float(np.mean([adjusted_rand_score(*pair) for pair in pairs]))
        yield Row(case, system, *cost, index, "adjusted Rand index")
        yield Row(case, system, *cost, 100 * sum(lost(*pair) for pair in pairs) / clots, "% of clots lost")
        yield Row(case, system, *cost, 1000 * cost[1] / len(slides), "CPU ms a slide")


def rows(quick: bool) -> list[Row]:
    """All rows; with ``quick`` of 16 slides in place of 64."""
    return list(run(quick))


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(prog="tests.bench.sections", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer slides")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows here")
    options = parser.parse_args()
    report(rows(options.quick), options.json)


if __name__ == "__main__":
    main()
