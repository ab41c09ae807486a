"""What a command beside the stages is made of, and the types of its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from math import inf

from kit.state import Run

Said = tuple[str, int]  # what the console prints, and the exit code
MODELS = ("--folds", "--import", "--weights", "--oof", "--test", "--meta")  # options of a run's own inputs


@dataclass(frozen=True)
class Command:
    """A subcommand that is no stage.

    options: adds what it takes besides the options of every command.
    run: does the work.
    without: the options of every stage that it does not offer, since they would do nothing.
    """

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[Run, argparse.Namespace], Said]
    groups: tuple[str, ...] = ("combine",)  # the settings that it depends on
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lone:
    """A subcommand that finds out by itself which run it is about: none is made from its options."""

    name: str
    help: str
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], Said]


def room(module: str) -> Callable[[Run, argparse.Namespace], Said]:
    """The ``run`` of a module of a room, which is imported when it is asked for."""

    def run(run: Run, options: argparse.Namespace) -> Said:
        said: Said = import_module(module).run(run, options)
        return said

    return run


def at_least(least: int, most: float = inf) -> Callable[[str], int]:
    """The type of an option that takes a whole number from ``least`` on."""

    def whole(text: str) -> int:
        if not least <= (value := int(text)) <= most:
            wanted = f"{least} or more" if most == inf else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"it takes {wanted}, and got {value}")
        return value

    whole.__name__ = "whole number"  # argparse says it where the text is none
    return whole


def share(text: str) -> float:
    """The type of an option that takes a share: above 0 and below 1."""
    value = float(text)
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"it takes a number between 0 and 1, and got {text}")
    return value


def number(text: str) -> float:
    """The type of an option that takes a number above 0."""
    value = float(text)
    if not 0 < value < inf:
        raise argparse.ArgumentTypeError(f"it takes a number above 0, and got {text}")
    return value
