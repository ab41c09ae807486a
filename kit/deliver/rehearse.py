"""The bundle run as Kaggle will run it, on a hidden test made of images that the run knows.

What can be known before a submission is spent is known after it: whether the kernel ends, what it uses, and
that it predicts what the run did.
"""

from __future__ import annotations

import json
import logging
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit.deliver import bundle, failures, hidden, kaggle, launch, packages, projection, sandbox, wheels
from kit.deliver.failures import Compared, Failure
from kit.deliver.hidden import Hidden
from kit.deliver.origin import TOLERANCE
from kit.deliver.packages import Packages
from kit.deliver.projection import Work
from kit.deliver.sandbox import Ended, Kernel, Limits
from kit.errors import SettingError
from kit.files import read_json
from kit.state import Run

WIDTH = 100  # columns of what the console prints
REPORT = "kit_report.json"
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Options:
    """How to rehearse.

    bundle: a folder that `kit bundle` has made; None: that of this run, which is made if it is not there.
    images: how many hidden ones, without the odd ones.
    layouts: the ways to mount the inputs: see :func:`places`.
    hours, memory: what the rerun may take, and hold in GiB.
    expected: images of the real hidden test.
    slower: how many times slower Kaggle's machine is.
    """

    bundle: Path | None = None
    images: int = 20
    layouts: tuple[str, ...] = ("plain", "competitions", "datasets")
    hours: float = 9.0
    memory: float = 13.0
    expected: int = 280
    slower: float = 1.0


@dataclass(frozen=True)
class Attempt:
    """One rehearsal: how the kernel ended, why it would fail, and the hours that the real test takes."""

    layout: str
    ended: Ended
    failure: Failure | None
    compared: Compared | None
    hours: float
    report: Mapping[str, Any]


@dataclass(frozen=True)
class Stage:
    """Everything that the attempts share.

    about: ``bundle.json``. work, expected: what is rehearsed, and what the real test will be.
    """

    run: Run
    options: Options
    bundle: Path
    about: Mapping[str, Any]
    hidden: Hidden
    packages: Packages
    work: Work
    expected: Work

    @property
    def limits(self) -> Limits:
        """Those of one attempt."""
        seconds = projection.limit(self.options.hours, self.work, self.expected, self.options.slower)
        disk = float(self.about.get("limits", {}).get("disk_gib", 20))
        return Limits(seconds, self.options.memory, disk)

    @property
    def allowed(self) -> float:
        """How far a probability may be off: more where the run had a GPU and its kernel has none."""
        had = not all(name.endswith("no GPU") for name in self.about.get("machines", ()))
        return TOLERANCE["other" if had and not self.about.get("gpu") else "same"]


def rehearse(run: Run, options: Options) -> tuple[str, int]:
    """Rehearse in every layout: what the console prints, and 1 where a rule is broken, else 0.

    Raises:
        SettingError: the bundle is not one of this run, or not one that predicts.
        DataError: the competition has no hidden test.
    """
    run.need("report")  # the run's own predictions, and the submission that the bundle names
    stage = prepare(run, options)
    attempts = [attempt(stage, layout) for layout in options.layouts]
    return text(stage, attempts), int(any(faults(stage, one) for one in attempts))


def prepare(run: Run, options: Options) -> Stage:
    """Find or make the bundle, the hidden test and the packages."""
    hidden.read_shipped(run)  # before a bundle is made for nothing
    folder, about = find_bundle(run, options)
    made = hidden.make(run, run.folder("rehearse") / "data", options.images)
    shipped = (folder / "inputs" / "wheels").glob("*.whl")
    python = packages.build(
        run.folder("rehearse") / "python",
        about.get("image") or wheels.image(None),
        shipped,
        about.get("requires", {}),
    )
    images = hidden.known_images(run)
    known = images[images["split"] == "train"]
    rows = made.units
    work = Work(int(rows["images"].sum()), float(rows["megapixels"].sum()), 0.0)
    mean = known[["megapixels", "tiles"]].mean()
    expected = Work(options.expected, *(float(options.expected * mean[n]) for n in ("megapixels", "tiles")))
    return Stage(run, options, folder, about, made, python, work, expected)


def find_bundle(run: Run, options: Options) -> tuple[Path, dict[str, Any]]:
    """The folder of the bundle and its ``bundle.json``.

    Raises:
        SettingError: see :func:`rehearse`.
    """
    wanted = bundle.Options(hours=options.hours, memory=options.memory)
    folder = options.bundle or bundle.folder_of(run, wanted)
    about = _about(folder)
    if options.bundle is None and about.get("run") != run.submission.name:
        log.info("rehearse: making the bundle of %s", run.submission.name)
        bundle.bundle(run, wanted)
        about = _about(folder)
    if not about:
        raise SettingError(f"--bundle: {folder} has no inputs/code/bundle.json", "give what kit bundle made")
    if about["stage"] != "predict":
        raise SettingError(f"--bundle: {folder} is of the stage {about['stage']}", "rehearse one of predict")
    if about["run"] != run.submission.name:
        raise SettingError(
            f"--bundle: {folder} is of the submission {about['run']}, and this run's is"
            f" {run.submission.name}",
            "make it again with kit bundle, with these options and settings",
        )
    return folder, about


def _about(folder: Path) -> dict[str, Any]:
    return read_json(folder / "inputs" / "code" / "bundle.json")


def places(layout: str, run: Run, folder: Path, data: Path) -> dict[str, Path]:
    """Where Kaggle mounts the competition and each data set, below ``/kaggle/input``.

    plain: all by their own names. competitions: ``competitions/NAME`` and ``datasets/OWNER/NAME``.
    datasets: the competition by its name, the data sets as before.

    Args:
        folder: of the bundle. data: the hidden test.
    """
    slug = run.competition.kaggle or run.name
    found = {f"competitions/{slug}" if layout == "competitions" else slug: data}
    for part in sorted(path for path in (folder / "inputs").iterdir() if path.is_dir()):
        owner, name = _address(run, part)
        found[name if layout == "plain" else f"datasets/{owner}/{name}"] = part
    return found


def _address(run: Run, folder: Path) -> tuple[str, str]:
    """Owner and name of the data set that a part will be; a demo's is none, and gets what it would have."""
    path = folder / kaggle.DATASET
    if path.is_file():
        owner, _, name = str(json.loads(path.read_text())["id"]).partition("/")
        return owner, name
    part = json.loads((folder / "part.json").read_text())
    return kaggle.PLACEHOLDER.lower(), kaggle.dataset_name(run.name, part["bundle"], part["part"])


def attempt(stage: Stage, layout: str) -> Attempt:
    """Run the kernel with its inputs mounted in one way, and judge what it leaves."""
    log.info("rehearse: %s, at most %.0f s", layout, stage.limits.seconds)
    run, scratch = stage.run, stage.run.folder("rehearse") / layout
    kernel = Kernel(
        script=stage.bundle / "kernel" / "run.py",
        inputs=places(layout, run, stage.bundle, stage.hidden.folder),
        python=stage.packages.folder,
        scratch=scratch,
        visible=(*stage.packages.sources, *sandbox.links_out(stage.hidden.folder)),
        gpu=bool(stage.about.get("gpu")),
    )
    ended = sandbox.run(kernel, stage.limits)
    report = _report(kernel.working / REPORT)
    failure, compared = failures.of_kernel(ended, stage.limits), None
    if failure is None:
        failure, compared = failures.of_submission(
            kernel.working / "submission.csv", run.competition, stage.hidden,
            report.get("fallback", []), stage.allowed,
        )  # fmt: skip
    for name in ("tmp", "root"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    took = projection.project(
        {"images": stage.work.images} | dict(report), ended.seconds, stage.expected, stage.options.slower
    )
    return Attempt(layout, ended, failure, compared, took.hours, report)


def _report(path: Path) -> dict[str, Any]:
    """What the kernel says of itself; nothing where it has not come so far."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content


def faults(stage: Stage, one: Attempt) -> list[str]:
    """What would go wrong on Kaggle, a sentence each, beginning with the name that Kaggle has for it."""
    if one.failure is not None:
        return [str(one.failure)]
    found = []
    if one.hours > stage.options.hours - launch.MARGIN:
        said = f"{one.hours:.1f} h projected for {stage.options.expected} images; the limit is"
        early = f"and a kernel stops {60 * launch.MARGIN:.0f} minutes before"
        found.append(f"{failures.TIMEOUT}: {said} {stage.options.hours:g} h, {early}")
    if one.ended.open:
        found.append(f"not rehearsed as on Kaggle: {one.ended.open}")
    return found


def text(stage: Stage, attempts: list[Attempt]) -> str:
    """What the console prints, at most 100 columns wide."""
    broken = [f"{one.layout}: {fault}" for one in attempts for fault in faults(stage, one)]
    units, work = len(stage.hidden.units), stage.work
    lines = [
        f"rehearsal of {stage.about['run']}: {work.images} hidden images of {units} {_units(stage.run)},"
        f" {work.megapixels:.0f} Mpx",
        *table(stage, attempts),
        *broken,
        *_compared(stage, attempts),
        *_notes(stage, attempts),
        "it would fail on Kaggle" if broken else "nothing is known against it",
    ]
    wrapped = [
        textwrap.wrap(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        if len(line) > WIDTH
        else [line]
        for line in lines
    ]
    return "\n".join(line for part in wrapped for line in part)


def _units(run: Run) -> str:
    return f"units ({run.competition.unit})"


def table(stage: Stage, attempts: Iterable[Attempt]) -> list[str]:
    """One row a layout."""
    options = stage.options
    head = ("layout", "result", "seconds", "an image", "peak GiB", "left", "disk GiB")
    ahead = (f"h for {options.expected}", "left")
    row = "{:<13}{:<8}{:>8}{:>10}{:>10}{:>8}{:>10}{:>12}{:>9}"
    lines = [row.format(*head, *ahead)]
    for one in attempts:
        peak = one.ended.peak_mib / 1024
        cells = [
            one.layout,
            "fails" if faults(stage, one) else "passes",
            f"{one.ended.seconds:.1f}",
            f"{one.ended.seconds / max(stage.work.images, 1):.2f}",
            f"{peak:.2f}",
            f"{options.memory - peak:.2f}",
            f"{one.ended.disk_mib / 1024:.2f}",
            # A kernel that failed has not shown how long it takes.
            f"{one.hours:.2f}" if one.failure is None else "-",
            f"{options.hours - one.hours:.2f}" if one.failure is None else "-",
        ]
        lines.append(row.format(*cells))
    return lines


def _compared(stage: Stage, attempts: list[Attempt]) -> list[str]:
    """What the submissions say, of all layouts that left one; the furthest counts."""
    found = [one.compared for one in attempts if one.compared is not None]
    if not found:
        return []
    worst = max(found, key=lambda one: one.largest)
    lines = [
        f"{worst.units} of {len(stage.hidden.units)} units compared with what the run predicts: the largest"
        f" difference is {worst.largest:.1e} ({stage.allowed:g} is allowed)",
        f"{worst.priors} units got the prior; {int(stage.hidden.units['prior'].sum())} have no usable image",
    ]
    if worst.reason:
        lines.append(f"held-out units are not scored: {worst.reason}")
    else:
        lines.append(
            f"{stage.run.competition.metric.name} of {worst.scored} held-out units: {worst.score:.4f}; by the"
            f" run itself {worst.own:.4f}; a constant {worst.constant:.4f} (a sanity check)"
        )
    return lines


def _notes(stage: Stage, attempts: list[Attempt]) -> list[str]:
    """What a reader must know about what was rehearsed."""
    found, area = stage.packages, hidden.known_images(stage.run)["megapixels"].max()
    counts = stage.hidden.units.groupby("kind")["images"].sum()
    kinds = {kind: counts[kind] for kind in hidden.KINDS if kind in counts}
    notes = ["images: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())]
    if kinds.get(hidden.TRAINED):
        notes.append("those of training are neither compared nor scored: the models have seen them")
    notes += stage.hidden.said
    notes.append(
        f"largest unit rehearsed: {stage.hidden.units['megapixels'].max():.0f} Mpx;"
        f" largest image known: {area:.0f} Mpx"
    )
    gpu = "with the GPU of this machine, if it has one" if stage.about.get("gpu") else "without a GPU"
    notes.append(f"rehearsed on {sandbox.kernel_cores()} cores, {gpu}; Kaggle has {sandbox.CORES} cores")
    asked = set(stage.about.get("requires", {}))
    if found.other:
        names = sorted(found.other, key=lambda name: (name not in asked, name))
        pairs = [f"{name} {found.other[name][0]} ({found.other[name][1]})" for name in names]
        notes.append(f"packages of another version than the image's, which is in brackets: {_some(pairs)}")
    if found.borrowed:
        notes.append(f"bundled for another Python, taken from this machine: {', '.join(found.borrowed)}")
    if found.needed:
        notes.append(f"not in the image, but needed by the versions here: {_some(found.needed)}")
    if absent := sorted(asked & set(found.absent)):
        notes.append(f"in the image, and not here: {', '.join(absent)}")
    return [f"- {note}" for note in notes]


def _some(names: Sequence[str], most: int = 6) -> str:
    """The first of them, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
