"""The commands beside the stages: they judge, and nothing that they write is read by a stage."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from kit.errors import StageError
from kit.state import Run


@dataclass(frozen=True)
class Command:
    """A subcommand that is no stage.

    options: adds what it takes besides the options of every command.
    run: does the work and returns what the console prints.
    without: the options of every stage that it does not offer, since they would do nothing.
    """

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Run, argparse.Namespace], str]
    groups: tuple[str, ...] = ("combine",)  # the settings that it depends on
    without: tuple[str, ...] = ()


def need_predictions(run: Run) -> None:
    """Make sure that combine has predictions to read: our own, or some made elsewhere.

    Raises:
        StageError: it has neither; says both ways to get some.
    """
    try:
        run.need("combine")
    except StageError as error:
        hint = f"{error.hint}; or give predictions made elsewhere with --oof NAME=FILE"
        raise StageError(error.message, hint) from error


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--leak-price",
        action="store_true",
        help="first fit one frozen model on image-level and on group-level folds (needs fold and tile)",
    )


def _evaluate(run: Run, options: argparse.Namespace) -> str:
    need_predictions(run)  # what it reads are the results of the stages before combine
    if options.leak_price:
        import_module("kit.learn.leak").run(run)
    found: str = import_module("kit.combine.evaluate").evaluate(run)
    return found


def _compare_options(parser: argparse.ArgumentParser) -> None:
    for name, letter in (("first", "A"), ("second", "B")):
        parser.add_argument(
            name,
            type=Path,
            metavar=letter,
            help="a file of predictions, or a folder submissions/<name>/<run>",
        )


def _compare(run: Run, options: argparse.Namespace) -> str:
    found: str = import_module("kit.combine.compare").compare(run, options.first, options.second)
    return found


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "evaluate", "can this score be trusted? sites, calibration, alarms", _evaluate_options, _evaluate
        ),
        Command(
            "compare",
            "is one set of predictions better than another?",
            _compare_options,
            _compare,
            without=("--folds", "--weights", "--oof", "--test", "--meta"),
        ),
    )
}
