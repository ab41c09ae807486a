"""``python -m kit <stage> <competition>``: one stage at a time, listed in the order data flows."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from kit import cluster, competition, recipe, settings, state
from kit.command import Command, Lone, Said, at_least
from kit.commands import COMMANDS, need_predictions
from kit.data import demo_data, open_data
from kit.errors import KitError, SettingError, did_you_mean
from kit.files import storage_error, with_column
from kit.parallel import cores
from kit.stage_options import STAGE_OPTIONS, add_scheduler
from kit.state import STAGES, External, Run

log = logging.getLogger("kit")


def main(arguments: Sequence[str] | None = None) -> int:
    """The ``kit`` command. Returns 0, or 1: something was found, 2: a user's error, 130: Ctrl-C."""
    return guarded(lambda: run_one(sys.argv[1:] if arguments is None else list(arguments)))


def guarded(work: Callable[[], int | None]) -> int:
    """Run ``work`` for its exit code; a user's error prints message and hint, a bug keeps its traceback."""
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    log.setLevel(logging.INFO)
    try:
        return work() or 0
    except KitError as error:
        return complain(error)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where this one was", file=sys.stderr)
        return 130
    except OSError as error:
        known = storage_error(error)
        if known is None:
            raise
        return complain(known)


def complain(error: KitError) -> int:
    """Print an error and its hint."""
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return 2


def run_one(arguments: list[str]) -> int:
    """Run the named stage, or say that it is finished. Returns 1 where an audit or check found something."""
    check_stage(arguments)
    options = stage_parser().parse_args(arguments)
    check_alone(options.stage)
    if (said := without_run(options)) is not None:
        return tell(said)
    run = make_run(options)
    if (said := instead(run, options)) is not None:
        return tell(said)
    if options.stage not in options.force and state.finished(run, options.stage):
        log.info("%s: finished before, nothing has changed (--force repeats it)", options.stage)
    else:
        if options.stage == "combine":
            need_predictions(run)
        state.execute(run, options.stage, force=options.stage in options.force)
    state.show(run, options.stage)
    return 0


def without_run(options: argparse.Namespace) -> Said | None:
    """What is said by a command that needs no run of a competition; ``None``: this one does."""
    command = COMMANDS.get(options.stage)
    if isinstance(command, Lone):
        return command.run(options)
    stage = STAGE_OPTIONS.get(options.stage)
    return stage.before(options) if stage else None


def instead(run: Run, options: argparse.Namespace) -> Said | None:
    """What a command beside the stages says, or an option that stands for its stage; ``None``: neither."""
    command = COMMANDS.get(options.stage)
    if isinstance(command, Command):
        return command.run(run, options)
    stage = STAGE_OPTIONS.get(options.stage)
    return stage.act(run, options) if stage else None


def tell(said: Said) -> int:
    """Print it; returns the exit code."""
    text, code = said
    print(text)
    return code


def run_flow(arguments: list[str] | None = None) -> None:
    """Every stage in order; finished ones are skipped by key."""
    check_alone("the whole flow")
    options = flow_parser().parse_args(arguments)
    for name in options.force:
        if name not in STAGES:
            raise SettingError(f"there is no stage '{name}'", did_you_mean(name, STAGES))
    run = make_run(options)
    wanted = run.chain("report")
    state.preflight(run, wanted)
    for stage in (STAGES[name] for name in wanted):
        if stage.name not in options.force and state.finished(run, stage.name):
            log.info("== %s: finished before", stage.name)
            continue
        log.info("== %s: %s", stage.name, stage.help)
        state.execute(run, stage.name, force=stage.name in options.force)
    for name in wanted:
        state.show(run, name)
    print(state.spent(run, wanted))


def check_stage(arguments: list[str]) -> None:
    """Say which stage may have been meant, before argparse lists its choices."""
    name = next((word for word in arguments if not word.startswith("-")), "")
    known = [*STAGES, *COMMANDS]
    if name and name not in known:
        raise SettingError(f"there is no stage '{name}'", did_you_mean(name, known))


def check_alone(what: str) -> None:
    """Of processes that ``torchrun`` starts together, only `train` has use.

    Raises:
        SettingError: there are several, and this is another stage.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count > 1 and what != "train":
        raise SettingError(
            f"{what} takes one process, and torchrun has started {count}",
            "type it without torchrun; only train fits one model with several",
        )


def stage_parser() -> argparse.ArgumentParser:
    """One subcommand a stage, in flow order, then the commands beside them."""
    parser = argparse.ArgumentParser(
        prog="kit",
        description="From raw medical images to a calibrated, checked submission.csv, stage by stage.",
        epilog=f"The stages of the flow, in its order: {', '.join(STAGES)}. Run them all with: python"
        f" run_all.py [competition] [--data DIR]. Commands beside the flow: {', '.join(COMMANDS)}.",
    )
    commands = parser.add_subparsers(dest="stage", metavar="stage", required=True)
    for stage in STAGES.values():
        command = subcommand(commands, stage.name, stage.help, stage.groups)
        add_options(command)
        if stage.name in STAGE_OPTIONS:
            STAGE_OPTIONS[stage.name].options(command)
        command.set_defaults(force=[])
        command.add_argument(
            "--force",
            action="store_const",
            const=[stage.name],
            help="repeat the stage although it is finished",
        )
    for extra in COMMANDS.values():
        groups = extra.groups if isinstance(extra, Command) else ()
        command = subcommand(commands, extra.name, extra.help, groups)
        if isinstance(extra, Command):
            add_options(command, without=extra.without)
        extra.options(command)
    return parser


def flow_parser() -> argparse.ArgumentParser:
    """The options of the whole flow."""
    parser = argparse.ArgumentParser(
        prog="run_all.py",
        description="Raw images in, a calibrated and checked submission.csv out: every stage in order.",
        epilog=f"The stages: {' '.join(STAGES)}. One at a time: python -m kit <stage> <competition>",
    )
    add_options(parser, default="strip-ai")
    add_scheduler(parser)
    parser.add_argument(
        "--force",
        nargs="+",
        default=[],
        metavar="STAGE",
        help="repeat these stages although they are finished",
    )
    return parser


def subcommand(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, text: str, groups: Sequence[str]
) -> argparse.ArgumentParser:
    """A command with its line of help, as a sentence, and the settings that it depends on."""
    return commands.add_parser(
        name,
        help=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=text[0].upper() + text[1:] + ("" if text.endswith("?") else "."),
        epilog=settings_help(groups),
    )


def settings_help(groups: Sequence[str]) -> str:
    """The settings of a stage with the values they have in the first competition, and what they mean."""
    values = settings.known(competition.find("strip-ai"))
    mine = [f"  {k}={v}" for k, v in values.items() if k.split(".")[0] in groups]
    if not mine:
        return ""
    notes = [settings.NOTES[group] for group in groups if group in settings.NOTES]
    return "\n".join(["settings for --set, with their defaults in strip-ai:", *mine, *notes])


def add_options(
    parser: argparse.ArgumentParser, default: str | None = None, without: Sequence[str] = ()
) -> None:
    """The options that every command takes, in their groups; ``without`` some that would do nothing."""
    known = ", ".join(competition.names())
    parser.add_argument(
        "competition",
        nargs="?" if default else None,
        default=default,
        help=f"{known}, or the path of your own my_task.py",
    )
    for title, options in OPTIONS.items():
        offered = {name: kind for name, kind in options.items() if name not in without}
        group = parser.add_argument_group(title) if offered else None
        for name, kind in options.items():
            if group is not None and name in offered:
                group.add_argument(name, **kind)
            else:  # what make_run reads is there all the same
                parser.set_defaults(**{kind.get("dest", name.removeprefix("--")): kind.get("default")})


FILES: dict[str, Any] = {"nargs": "+", "action": "extend", "default": [], "metavar": "NAME=FILE"}
OPTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "data and results": {
        "--data": {
            "type": Path,
            "metavar": "DIR",
            "help": "the folder (or zip) as the competition ships it; default: the demo",
        },
        "--work": {
            "type": Path,
            "default": Path("work"),
            "metavar": "DIR",
            "help": "where stages keep their results (default: work)",
        },
        "--folds": {
            "type": Path,
            "metavar": "FILE",
            "help": "use this fold table, ours or another team's; it is checked and never written",
        },
        "--duplicates": {
            "type": Path,
            "metavar": "FILE",
            "help": "near-duplicates (image_id,cluster): images of a cluster are kept together by all stages",
        },
        "--import": {
            "type": Path,
            "dest": "coords",
            "metavar": "DIR",
            "help": "cut the tiles at the coordinates in these HDF5 files (one an image, of CLAM, TRIDENT or"
            " kit tile --export), not at our own; give it to every stage from tile on",
        },
    },
    "models": {
        "--weights": FILES
        | {"help": "pretrained weights of a backbone, or a folder of them; nothing is ever downloaded"},
    },
    "predictions made elsewhere": {
        "--oof": FILES
        | {
            "help": "out-of-fold predictions made elsewhere, for combine and evaluate; of a file with several"
            " models a column: NAME=FILE:COLUMN, the probability of the last class unless it names the first"
        },
        "--test": FILES | {"help": "their test predictions, under the same names"},
        "--meta": {
            "type": Path,
            "metavar": "FILE",
            "help": "metadata by image or unit, for the metadata-only baseline",
        },
    },
    "settings": {
        "--recipe": {
            "action": "append",
            "default": [],
            "metavar": "NAME|FILE",
            "help": f"settings from a file, below --set: {', '.join(recipe.names())}, or the path of your own"
            " .toml; given twice, the second is above the first",
        },
        "--set": FILES
        | {
            "dest": "settings",
            "metavar": "KEY=VALUE",
            "help": "change a setting (see the help of its stage)",
        },
        "--seed": {"type": int, "default": 0, "help": "the seed of every draw (default: 0)"},
        "--workers": {
            "type": at_least(0),
            "default": cores(),
            "help": "processes and threads that read images; no result depends on it",
        },
        "--threads": {
            "type": at_least(1),
            "default": cores(),
            "help": "compute threads; part of the result, and recorded",
        },
    },
}


def make_run(options: argparse.Namespace) -> Run:
    """What the options say, checked, with the demo's data made where no data was given."""
    task = competition.find(options.competition)
    demo = options.data is None
    given = ("folds", "meta", "duplicates", "audit", "tolerance")
    for option, path in ((f"--{name}", getattr(options, name, None)) for name in given):
        if path is not None and not path.is_file():
            raise SettingError(f"{option}: {path} is not a file", "check the path")
    if options.coords is not None and not options.coords.is_dir():
        raise SettingError(
            f"--import: {options.coords} is not a folder", "give the folder with one .h5 file an image"
        )
    scheduler = getattr(options, "scheduler", "")
    cluster.check_address(scheduler)
    chosen = [settings.split(pair) for pair in options.settings]
    if options.duplicates:
        chosen.append(("fold.duplicates", str(options.duplicates)))
    task = settings.apply(task, task.demo.settings if demo else ())
    for asked in options.recipe:
        task = recipe.apply(task, asked)
    task = settings.apply(task, chosen)
    name = f"{task.name}-demo" if demo else task.name
    work = options.work / name
    data = demo_data(task, work, options.workers) if demo else open_data(options.data, work)
    return Run(
        competition=task,
        name=name,
        data=data,
        work=work,
        demo=demo,
        seed=options.seed,
        threads=options.threads,
        workers=options.workers,
        weights=weights_files(options.weights),
        external=External(pairs(options.oof, "--oof"), pairs(options.test, "--test"), options.meta),
        asked=options.competition,
        fold_table=options.folds or getattr(options, "fold_out", None),
        folds_given=options.folds is not None,
        scheduler=scheduler,
        coords=options.coords,
    )


def weights_files(values: Sequence[str]) -> dict[str, Path]:
    """The files of ``--weights``; a folder stands for all that it lists."""
    found = pairs(values, "--weights", folders=True)
    plain = all(path.is_file() and name.replace("_", "").isalnum() for name, path in found.items())
    if plain and all(name == name.lower() for name in found):
        return found  # no folder and no name of a hub: nothing to look up, and torch need not be loaded
    expanded: dict[str, Path] = import_module("kit.learn.weights").expand(found)
    return expanded


def pairs(values: Sequence[str], option: str, folders: bool = False) -> dict[str, Path]:
    """``NAME=FILE`` or ``NAME=FILE:COLUMN`` words as a dictionary; a bare one is named by column or stem."""
    found: dict[str, Path] = {}
    for value in values:
        name, equals, text = value.partition("=")
        path = Path(text if equals else value)
        file, column = (path, "") if folders else with_column(path)
        if not equals:
            name = column or (path.name if path.is_dir() else file.stem)
        if name in found:
            raise SettingError(f"{option} names '{name}' twice", "give every file its own NAME=")
        if not (file.is_file() or (folders and path.is_dir())):
            raise SettingError(f"{option} {name}: {path} is not a file", "check the path")
        found[name] = path
    return found


if __name__ == "__main__":
    sys.exit(main())
