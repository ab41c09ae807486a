"""The options of single stages: what one can be asked for instead of its work."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kit import competition
from kit.errors import SettingError, StageError
from kit.state import Run, finished


@dataclass(frozen=True)
class StageOptions:
    """What one stage takes besides the options of every stage.

    options: adds them to the stage's parser.
    act: does what they ask for instead of the stage, and returns what the console prints with the
        exit code; None: they ask for nothing of the kind, and the stage is run.
    before: the same, for what needs neither the run nor its data.
    """

    options: Callable[[argparse.ArgumentParser], None]
    act: Callable[[Run, argparse.Namespace], tuple[str, int] | None]
    before: Callable[[argparse.Namespace], tuple[str, int] | None] = lambda options: None


def _fold_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, metavar="FILE", dest="fold_out", help="write here, not to folds/<name>.csv"
    )
    parser.add_argument(
        "--audit",
        type=Path,
        metavar="FILE",
        help="judge this fold table or list of test images, anybody's; nothing is written, and the exit"
        " code is 1 if there is a leak",
    )


def _fold(run: Run, options: argparse.Namespace) -> tuple[str, int] | None:
    if options.audit is None:
        return None
    found = import_module("kit.fold_audit").audit(run, options.audit)
    return found.text, min(found.leaks, 1)


def add_scheduler(parser: argparse.ArgumentParser) -> None:
    """The option of whatever tiles images."""
    parser.add_argument(
        "--scheduler",
        default="",
        metavar="ADDRESS",
        help="tile images in processes, not threads: local starts --workers of them on this machine;"
        " tcp://host:8786 uses a Dask cluster of many machines that share their files. Start it with: dask"
        " scheduler; and on each machine, with kit installed: dask worker tcp://host:8786. A worker that"
        " dies has its images repeated; no result depends on it",
    )


def _tile_options(parser: argparse.ArgumentParser) -> None:
    add_scheduler(parser)
    group = parser.add_argument_group("instead of tiling").add_mutually_exclusive_group()
    group.add_argument(
        "--plan",
        action="store_true",
        help="say from the headers what tiling would cost each image; only a few megapixels are decoded, to"
        " measure the speed",
    )
    group.add_argument(
        "--check",
        action="store_true",
        help="read every stored tile and compare with images.csv; the exit code is 1 if one is not whole",
    )
    group.add_argument(
        "--pictures",
        nargs="*",
        metavar="ID",
        help="draw tissue, sections and tiles of these images, from what is stored (none named: of all,"
        " with a page that lists them, failures first)",
    )
    group.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the coordinates of all tiles as CLAM and TRIDENT do: DIR/<split>/<image>.h5",
    )


def need_tiles(run: Run) -> None:
    """Make sure that the stored tiles were made with the settings that were typed.

    Raises:
        StageError: they were not, or there are none.
    """
    if not finished(run, "tile"):
        raise StageError(
            "tile has not been finished with these options and settings",
            f"type: python -m kit tile {run.asked or run.name} (same options), then repeat the command",
        )


def _tile(run: Run, options: argparse.Namespace) -> tuple[str, int] | None:
    found: tuple[str, int]
    if options.check:
        found = import_module("kit.read.check").check(run)
        return found
    if options.plan:
        return import_module("kit.read.plan").plan(run), 0
    if options.pictures is None and options.export is None:
        return None
    need_tiles(run)
    if options.pictures is not None:
        return import_module("kit.show.tiles").pictures(run, options.pictures), 0
    return import_module("kit.read.export").export(run, options.export), 0


class _AsSetting(argparse.Action):
    """Appends ``KEY=VALUE`` to what ``--set`` was given; ``metavar`` stays what the help shows."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        namespace.settings = [*namespace.settings, f"{self.const}={values}"]


def _tune_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--storage",
        action=_AsSetting,
        const="tune.storage",
        dest="settings",
        metavar="URL",
        help="keep the studies in a database, for example postgresql+psycopg://user@host/db (its password in"
        " ~/.pgpass), not in a journal file in the work folder; run_all.py takes it as --set"
        " tune.storage=URL. Type the same command (and --threads) again, in another terminal or, with a"
        " database, on another machine that has tiled the same data: the processes share the trials, and all"
        " end with the same settings. One that dies has its trials repeated. How many share a search changes"
        " which trials are made; one alone repeats exactly",
    )


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--pictures",
        nargs="*",
        metavar="ID",
        help="instead of predicting, draw what each tile of these images counted (none named: of all)",
    )


def _predict(run: Run, options: argparse.Namespace) -> tuple[str, int] | None:
    if options.pictures is None:
        return None
    return import_module("kit.show.attention").pictures(run, options.pictures), 0


def _submit_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("instead of writing one")
    group.add_argument(
        "--check",
        type=Path,
        metavar="FILE",
        help="judge this submission, anybody's; nothing is written; exit code 1 if a rule is broken",
    )
    group.add_argument(
        "--sample", type=Path, metavar="FILE", help="... by this sample (default: that of --data)"
    )


def _check_file(options: argparse.Namespace) -> tuple[str, int] | None:
    """Judge a file by a sample: no data folder is needed.

    Raises:
        SettingError: a sample is given, and nothing to judge by it.
    """
    if options.sample is None:
        return None
    if options.check is None:
        raise SettingError("--sample says what a file is judged by", "give the file too: --check FILE")
    found: tuple[str, int] = import_module("kit.deliver.check").judge(
        options.check, options.sample, competition.find(options.competition)
    )
    return found


def _submit(run: Run, options: argparse.Namespace) -> tuple[str, int] | None:
    if options.check is None:
        return None
    found: tuple[str, int] = import_module("kit.deliver.submit").judge(run, options.check)
    return found


STAGE_OPTIONS = {
    "fold": StageOptions(_fold_options, _fold),
    "tile": StageOptions(_tile_options, _tile),
    "tune": StageOptions(_tune_options, lambda run, options: None),
    "predict": StageOptions(_predict_options, _predict),
    "submit": StageOptions(_submit_options, _submit, _check_file),
}
