"""The kit's reading of gigapixel slides beside other libraries, on two cores.

``python -m tests.bench.slides [--quick] [--case NAME ...] [--json FILE]``

The slides are made once (``work/bench-slides``, 2.1 GB; 0.3 GB for ``--quick``), and so is the environment
of the peers (``work/bench-slide-peers``, 0.3 GB). Every number is measured in a fresh process, with the file
in the system's cache. ``limit`` is a loop that does nothing but read, inflate and add up the right tiles.

- mask: from the file to the coordinates of its tissue tiles. The peers only make an overview at the same
  factor; value: how many times the kit's wall time they take.
- overview: a slide at 1/16, by compression.
- tiles: every square of 256 pixels with a quarter of tissue, at full resolution; the bytes are compared.
- area: the kit alone, from the file to all its tissue tiles, on slides with more and more tissue.
- accuracy: the kit's tissue against the truth, by colour of the glass and compression.
- sections: repeated sections of one clot; see ``sections.py``.

Left out on purpose: ``get_thumbnail`` and tifffile's whole level on the largest slide, which would need 20
and 15 GB of memory.
"""

from __future__ import annotations

import logging
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kit.competition import TileGrid
from kit.read import grid, tissue
from kit.read.reader import Pixels, Reader
from kit.read.slide import open_image
from tests.bench.environment import ROOT, ask, peers_python
from tests.bench.harness import Row, fastest, machine, measure, of_cases, options_of, write
from tests.bench.slide_files import Made, Spec, made

SCRIPT = Path(__file__).with_name("slide_peers.py")
REQUIREMENTS = Path(__file__).with_name("slide_requirements.txt")
PEERS = ROOT / "work" / "bench-slide-peers"
SIDE = 256  # of a square
LEAST = 0.25  # of a square that is tissue
FACTOR, COARSE = 16, 32  # of the overview that is compared, and of the one in which tissue is found
SHARES = (0.03, 0.12, 0.26, 0.50)
WHOLE = ("openslide get_thumbnail", "tifffile whole level")  # systems that hold a whole level in memory
BLOCKS = ("openslide by blocks", "pyvips")
GLASS = {
    "white": (255, 255, 255),
    "green": (196, 211, 192),
    "violet": (234, 216, 254),
    "pink": (255, 241, 255),
}

Corners = NDArray[np.int64]
Cost = tuple[float, float, float]  # wall and CPU seconds, peak MiB


@dataclass(frozen=True)
class Plan:
    """What is run: two slides by their specs, and how often; the fastest run counts."""

    middle: Spec
    large: Spec
    repeats: int
    quick: bool = False


FULL = Plan(Spec(20470, 29310, 0.26), Spec(48256, 101376, 0.12, big=True), repeats=3)
QUICK = Plan(Spec(6470, 9310, 0.26), Spec(9770, 20510, 0.12, big=True), repeats=1, quick=True)


# -- the kit's side: all that changes when its reader does


def kit_open(path: Path) -> Reader:
    """A slide as the tile stage opens it."""
    return open_image(path, TileGrid())


def kit_overview(path: Path, factor: int) -> Pixels:
    """The overview alone."""
    with kit_open(path) as slide:
        return slide.overview(factor)


@dataclass(frozen=True)
class Look:
    """What the kit finds on a slide before it reads a tile."""

    factor: int
    tissue: tissue.Tissue
    corners: Corners  # (n, 2) x and y of the squares with enough tissue


def kit_look(path: Path) -> Look:
    """From the file to the coordinates of its tissue tiles."""
    with kit_open(path) as slide:
        factor = grid.overview_factor(slide.size, COARSE)
        found = tissue.find(slide.overview(factor), detail=slide.detail(factor))
        x, y = grid.candidates(slide.size, SIDE)
    enough = grid.shares(found.usable, x, y, SIDE, factor) >= LEAST
    return Look(factor, found, np.stack([x, y], axis=1)[enough])


def kit_tiles(path: Path, corners: Corners, use: Callable[[Pixels], int]) -> list[int]:
    """Squares at full resolution in two threads; keeps what ``use`` makes of each."""
    with kit_open(path) as slide:

        def work(part: Corners) -> list[int]:
            return [use(slide.region(x, y, SIDE, SIDE)) for x, y in part.tolist()]

        with ThreadPoolExecutor(2) as pool:
            return [*chain.from_iterable(pool.map(work, np.array_split(corners, 2)))]


def kit_all(path: Path) -> int:
    """Everything up to the pixels of the tissue tiles; returns how many there are."""
    return len(kit_tiles(path, kit_look(path).corners, len))


# -- measuring


def by_kit(plan: Plan, function: Callable[..., Any], *given: object) -> tuple[Any, Cost]:
    """What a function of the kit's side returns, and what that cost."""
    result, *cost = fastest(lambda: measure(partial(function, *given)), plan.repeats)
    return result, (cost[0], cost[1], cost[2])


def by_peer(plan: Plan, system: str, slide: Made, **question: object) -> Cost:
    """What a peer's answer cost."""
    return fastest(lambda: (None, *_asked(system, slide, {"save": None, **question})), plan.repeats)[1:]


def answer(system: str, slide: Made, **question: object) -> NDArray[Any]:
    """What a peer answers, whatever the cost."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "answer.npy")
        _asked(system, slide, {"save": str(file), **question})
        return np.asarray(np.load(file))


def _asked(system: str, slide: Made, question: dict[str, object]) -> Cost:
    words = {"system": system, "path": str(slide.path), **question}
    cost = ask(SCRIPT, words, PEERS, REQUIREMENTS)
    return cost["wall_s"], cost["cpu_s"], cost["peak_mib"]


def ready(spec: Spec) -> Made:
    """A slide that is made, and in the system's cache."""
    slide = made(spec)
    with slide.path.open("rb") as stream:
        while stream.read(2**24):
            pass
    return slide


# -- the cases


def mask_rows(plan: Plan) -> Iterator[Row]:
    """From the file to coordinates; the ratio is that of wall times."""
    for spec in (plan.middle, plan.large):
        slide, case = ready(spec), f"mask, {spec.name}"
        look, cost = by_kit(plan, kit_look, slide.path)
        yield Row(case, "kit", *cost, 1.0, "x the kit's time")
        for system in (*WHOLE, *BLOCKS) if spec == plan.middle else BLOCKS:
            other = by_peer(plan, system, slide, task="overview", factor=look.factor)
            yield Row(case, system, *other, other[0] / cost[0], "x the kit's time")


def overview_rows(plan: Plan) -> Iterator[Row]:
    """One overview by compression; the kit's differs from the mean of all pixels by so much."""
    for compression in ("Deflate", "LZW", "JPEG"):
        slide = ready(replace(plan.middle, compression=compression))
        case = f"overview, {slide.spec.name}"
        task: dict[str, Any] = {"task": "overview", "factor": FACTOR}
        overview, cost = by_kit(plan, kit_overview, slide.path, FACTOR)
        yield Row(case, "kit", *cost, slide.spec.mpx / cost[0], "Mpx/s")
        exact = answer(BLOCKS[0], slide, **task)
        difference = np.abs(exact.astype(np.int16) - overview).mean()
        yield Row(case, "kit", *cost, float(difference), "grey levels from the mean of all pixels")
        for system in BLOCKS:
            cost = by_peer(plan, system, slide, **task)
            yield Row(case, system, *cost, slide.spec.mpx / cost[0], "Mpx/s")


def tile_rows(plan: Plan) -> Iterator[Row]:
    """All tissue squares; stops unless everybody has read the same bytes."""
    slide = ready(plan.middle)
    corners = tissue_squares(slide)
    case = f"tiles, {slide.spec.name}"
    task: dict[str, Any] = {"task": "tiles", "corners": corners.tolist()}
    mpx = len(corners) * SIDE**2 / 1e6
    ours = kit_tiles(slide.path, corners, checksum)
    _, cost = by_kit(plan, kit_tiles, slide.path, corners, len)
    yield Row(case, "kit", *cost, mpx / cost[0], "Mpx/s")
    for system in ("limit", "openslide", "pyvips", "tifffile"):
        check_same(system, corners, ours, answer(system, slide, **task).tolist())
        cost = by_peer(plan, system, slide, **task)
        yield Row(case, system, *cost, mpx / cost[0], "Mpx/s")


def tissue_squares(slide: Made) -> Corners:
    """The squares of which a quarter is truly tissue: (n, 2) x and y."""
    x, y, share = slide.truth.squares(SIDE)
    return np.stack([x, y], axis=1)[share >= LEAST]


def checksum(pixels: Pixels) -> int:
    """As ``slide_peers.checksum``."""
    return zlib.crc32(np.ascontiguousarray(pixels).data)


def check_same(system: str, corners: Corners, ours: list[int], theirs: list[int]) -> None:
    """Stop the benchmark where the pixels of a square are not those that a peer has read.

    Raises:
        AssertionError: they differ; names the first square.
    """
    different = [corner for corner, a, b in zip(corners.tolist(), ours, theirs, strict=True) if a != b]
    if different:
        raise AssertionError(f"{len(different)} squares differ from {system}'s, the first at {different[0]}")


def area_rows(plan: Plan) -> Iterator[Row]:
    """What a slide costs by its tissue; the value says how much tissue that was."""
    for share in SHARES:
        slide = ready(replace(plan.middle, share=share))
        count, cost = by_kit(plan, kit_all, slide.path)
        yield Row(f"area, {slide.spec.name}", "kit", *cost, count * SIDE**2 / 1e6, "Mpx of tissue tiles")


def accuracy_rows(plan: Plan) -> Iterator[Row]:
    """Tissue against the truth: the share's error, and the squares that are found."""
    specs = {f"{name} glass": replace(plan.middle, share=0.12, background=rgb) for name, rgb in GLASS.items()}
    specs["JPEG"] = replace(plan.middle, compression="JPEG")
    for name, spec in specs.items():
        slide = ready(spec)
        look, cost = by_kit(plan, kit_look, slide.path)
        for unit, value in accuracy(slide, look).items():
            yield Row(f"accuracy, {name}", "kit", *cost, value, unit)


def accuracy(slide: Made, look: Look) -> dict[str, float]:
    """How near what the kit has found is to the truth, by unit."""
    x, y, share = slide.truth.squares(SIDE)
    true = share >= LEAST
    found = grid.shares(look.tissue.usable, x, y, SIDE, look.factor) >= LEAST
    both = int(np.count_nonzero(true & found))
    return {
        "points of tissue share too much": 100 * (look.tissue.share - slide.truth.share),
        "recall of tissue squares": both / max(1, int(true.sum())),
        "precision of tissue squares": both / max(1, int(found.sum())),
    }


def section_rows(plan: Plan) -> Iterator[Row]:
    """Repeated sections, measured elsewhere."""
    from tests.bench import sections

    yield from sections.rows(plan.quick)


CASES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "mask": mask_rows,
    "overview": overview_rows,
    "tiles": tile_rows,
    "area": area_rows,
    "accuracy": accuracy_rows,
    "sections": section_rows,
}


def main() -> None:
    """Measure, print and write."""
    options = options_of(
        "tests.bench.slides", __doc__, CASES, "slides of 60 and 200 megapixels, one run each"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if hasattr(os, "sched_setaffinity"):  # inherited by all that is measured
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])
    print(machine())
    peers_python(PEERS, REQUIREMENTS)  # made before anything is measured
    rows = list(of_cases(CASES, QUICK if options.quick else FULL, options.case))
    write(rows, options.json)


if __name__ == "__main__":
    main()
