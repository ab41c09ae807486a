"""``kit bundle``: a kernel and the data sets it reads, ready to be rehearsed here and run on Kaggle.

A bundle is made in a folder of its own and moved into place when it is whole. It holds no clock, no name of
this machine and no path of it, so that the same run gives the same bytes again.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from kit.deliver import archive, code_part, kaggle, manifest, origin
from kit.deliver.handover import Handover, told
from kit.errors import DataError, SettingError, StageError
from kit.files import write_json
from kit.state import Run

SUBTITLES = {
    "code": "Code of the kernel {kernel}, bundle {bundle}",
    "weights": "Weights for the kernel {kernel}, bundle {bundle}",
    "wheels": "Packages for the kernel {kernel}, bundle {bundle}",
}
# The kernels that one goes on from: itself, and what has tiled.
SOURCES = {"predict": (), "tile": ("tile",), "train": ("train", "tile")}


@dataclass(frozen=True)
class Options:
    """What was asked for.

    out: the folder of the bundle; None: a place in the work folder. owner: a name on Kaggle. hours, memory
    (GiB): what a session has. image: what Kaggle's image has installed, as pip freeze says it; None: the
    kit's own list. wheels: download, none, or a folder.
    """

    stage: Literal["predict", "tile", "train"] = "predict"
    out: Path | None = None
    owner: str = ""
    gpu: bool = False
    hours: float = 9.0
    memory: float = 13.0
    image: Path | None = None
    wheels: str = "download"


def folder_of(run: Run, options: Options) -> Path:
    """Where the bundle of a run lies, whether it is made or not."""
    return options.out or run.work / "bundle" / options.stage


def bundle(run: Run, options: Options) -> str:
    """Make the bundle; returns what lies where, and what to type next.

    Raises:
        StageError: the run is not finished.
        SettingError: an option makes no sense, or what is asked for cannot be done on Kaggle.
        DataError, KitError: the weights or wheels cannot be had.
    """
    owner = kaggle.check_owner(options.owner)
    if not (options.hours > 0 and options.memory > 0):
        raise SettingError("--hours and --memory are of a session, and more than 0", "for example --hours 9")
    require_ready(run, options.stage)
    out = folder_of(run, options)
    _require_free(out)
    temporary = out.with_name(f".tmp-{out.name}")  # what a killed one left is begun anew
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        made = _write(run, options, owner, temporary)
        _check(temporary)
        archive.swap(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return told(run, replace(made, folder=out))


def pushable(run: Run) -> bool:
    """Whether the bundle is for a competition on Kaggle, and not for a demo."""
    return bool(run.competition.kaggle) and not run.demo


# -- what must be so


def require_ready(run: Run, stage: str) -> None:
    """The run can be brought to Kaggle, and is finished where its models are.

    Raises:
        SettingError, StageError: it cannot, or is not; says what to type.
    """
    if run.coords is not None:
        raise SettingError(
            "the tiles of this run were cut at coordinates from elsewhere (--import), which the hidden images"
            " do not have",
            "leave out --import, and repeat the stages from tile on",
        )
    if stage != "predict":
        return
    if names := sorted(run.external.oof):
        raise SettingError(
            f"the models {', '.join(names)} were made elsewhere (--oof): a kernel has only their files, and"
            " cannot predict a hidden test with them",
            "leave out --oof and --test: the bundle is then made of the models that this kit has trained",
        )
    if run.external.meta is not None and run.competition.second_level.fusion:
        raise SettingError(
            "the second level reads metadata from a file (--meta, combine.fusion=true), which has no row of a"
            " hidden unit",
            "leave out --meta, or --set combine.fusion=false, and repeat combine and submit",
        )
    if run.tables.test is None:
        raise SettingError(
            f"{run.name} has no test table, so there is nothing to predict on Kaggle",
            "hand in submission.csv",
        )
    try:
        run.need("report")  # all that submit rests on, and submit
    except StageError as error:
        raise StageError(error.message.replace("report needs", "a bundle needs", 1), error.hint) from error


def _require_free(out: Path) -> None:
    """Nothing but an older bundle is in the way."""
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= {"kernel", "inputs"}):
        raise SettingError(
            f"--out {out} holds other files than a bundle", "give a folder that is empty or not there"
        )


def _check(folder: Path) -> None:
    """The bundle as it lies there would be taken: what reads it later asks the same."""
    inputs = folder / "inputs"
    faults = archive.check_parts(inputs) + archive.inspect(inputs / "code" / code_part.CODE)
    if (inputs / "weights").is_dir():
        faults += archive.check_weights(inputs / "weights")
    if faults:
        raise DataError(faults[0], "mend the file that it came from, and repeat the command")


# -- writing


def _write(run: Run, options: Options, owner: str, folder: Path) -> Handover:
    inputs = folder / "inputs"
    limits = {"hours": options.hours, "memory_gib": options.memory, "disk_gib": kaggle.OUTPUT_BYTES / 2**30}
    about = code_part.about(run, options.stage, limits) | {"gpu": options.gpu}
    code_part.require_found(run, about["tables"], options.stage)
    about |= write_weights(run, options.stage, inputs / "weights")
    if options.stage == "predict":  # by now the golden inputs are predicted, so that a GPU would be known
        about["machines"] = sorted({manifest.read(run.submission)["machine"]["class"], origin.machine()})
    lacked, found = _write_wheels(run, options, inputs / "wheels")
    code_part.write(run, inputs / "code", about | found)
    parts = tuple(part for part in archive.PARTS if (inputs / part).is_dir())
    listed = {part: archive.listed(inputs / part) for part in parts}
    identity = archive.identity(listed)
    kernel = kaggle.kernel_name(run.name, options.stage)
    (folder / "kernel").mkdir()
    code_part.write_script(folder / "kernel", _constants(about, parts, identity, kernel))
    if pushable(run):
        _write_metadata(run, options, owner, folder, parts, identity)
    for part in parts:  # last: what it lists is there
        content = {"kit": 1, "part": part, "bundle": identity, "files": listed[part]}
        write_json(inputs / part / archive.PART, content)
    return Handover(
        folder,
        identity,
        parts,
        lacked,
        about | found,
        owner,
        kernel,
        options.gpu,
        options.out is not None,
        pushable(run),
    )


def write_weights(run: Run, stage: str, folder: Path) -> dict[str, Any]:
    """Write the weights part into a folder; returns what ``bundle.json`` says of it."""
    nothing: dict[str, Any] = {"models": [], "folds": [], "attached": {}}
    if stage == "tile":
        return nothing
    from kit.deliver import weights_part
    from kit.learn import models, plan

    if stage == "train":
        return nothing | {"attached": weights_part.attached(run, models.first_seeds(run), folder)}
    kept = plan.kept(run)
    weights_part.trained(run, folder)
    shutil.copyfile(run.folder("combine") / weights_part.SECOND_LEVEL, folder / weights_part.SECOND_LEVEL)
    from kit.deliver import probe

    probe.write(run, folder / weights_part.GOLDEN)
    return {
        "models": weights_part.described(run),
        "folds": weights_part.folds(run),
        "attached": weights_part.attached(run, kept, folder),
    }


def _write_wheels(run: Run, options: Options, folder: Path) -> tuple[dict[str, str], dict[str, Any]]:
    """The wheels part; what the image lacks, and what ``bundle.json`` says of it."""
    from kit.deliver import wheels

    image = wheels.image(options.image)
    pins = Path(__file__).parents[2] / "requirements.txt"  # not there where the kit was installed
    own = code_part.requirements_of(run)
    asked = wheels.image(own) if own else {}
    lacked = dict(wheels.lacking(pins if pins.is_file() else None, image))
    lacked |= {name: release for name, release in asked.items() if image.get(name) != release}
    if options.stage == "train" and "optuna" not in image:
        lacked["optuna"] = version("optuna")
    requires = {name: f">={release}" for name, release in wheels.LEAST.items()}
    found: list[dict[str, str]] = []
    if lacked and options.wheels != "none":
        source: Literal["download"] | Path = (
            "download" if options.wheels == "download" else Path(options.wheels)
        )
        found = [asdict(wheel) for wheel in wheels.collect(lacked, image, source, folder)]
    # What is bundled because the image's release is too old must be newer there than that.
    requires |= {wheel["name"]: f">={wheel['version']}" for wheel in found if wheel["name"] in lacked}
    requires |= {name: f"=={release}" for name, release in asked.items()}
    said = {"image": dict(sorted(image.items())), "requires": dict(sorted(requires.items()))}
    return lacked, said | {"wheels": found}


def _constants(
    about: Mapping[str, Any], parts: tuple[str, ...], identity: str, kernel: str
) -> dict[str, Any]:
    """What the script knows before it has found any file."""
    return {
        "BUNDLE": identity,
        "STAGE": about["stage"],
        "STAGES": tuple(about["stages"]),
        "PARTS": parts,
        "TABLES": tuple(about["tables"]),
        "SLUG": about["slug"],
        "UNIT": about["unit"],
        "CLASSES": tuple(about["classes"]),
        "PRIOR": tuple(about["prior"]),
        "LIMITS": about["limits"],
        "KERNEL": kernel,
    }


def _write_metadata(
    run: Run, options: Options, owner: str, folder: Path, parts: tuple[str, ...], identity: str
) -> None:
    kernel = kaggle.kernel_name(run.name, options.stage)
    names = {part: kaggle.dataset_name(run.name, identity, part) for part in parts}
    for part, name in names.items():
        subtitle = SUBTITLES[part].format(kernel=kernel, bundle=identity)
        kaggle.write_dataset(folder / "inputs" / part, owner, name, subtitle)
    kaggle.write_kernel(
        folder / "kernel",
        owner,
        kernel,
        options.gpu,
        list(names.values()),
        run.competition.kaggle,
        [kaggle.kernel_name(run.name, stage) for stage in SOURCES[options.stage]],
    )
