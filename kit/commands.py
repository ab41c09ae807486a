"""The commands beside the stages: those that show, judge, and hand a run over.

Nothing that they write is read by a stage. The rooms that do the work are imported when they are asked for.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from kit import competition
from kit.command import MODELS, Command, Lone, Said, at_least, number
from kit.data_commands import DATA_COMMANDS
from kit.errors import StageError
from kit.show_commands import SHOW_COMMANDS
from kit.state import Run

SCORES: dict[str, Any] = {"type": float, "metavar": "SCORE"}


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
    parser.add_argument(
        "--tolerance",
        type=Path,
        metavar="FILE",
        help="label,tolerance: the share of each class that may be missed, as a laboratory bears it",
    )


def _evaluate(run: Run, options: argparse.Namespace) -> Said:
    need_predictions(run)  # what it reads are the results of the stages before combine
    if options.leak_price:
        import_module("kit.learn.leak").run(run)
    return import_module("kit.combine.evaluate").evaluate(run, options.tolerance), 0


def _compare_options(parser: argparse.ArgumentParser) -> None:
    for name, letter in (("first", "A"), ("second", "B")):
        parser.add_argument(
            name,
            type=Path,
            metavar=letter,
            help="a file of predictions, or a folder submissions/<name>/<run>",
        )


def _compare(run: Run, options: argparse.Namespace) -> Said:
    scores = import_module("kit.combine.compare").compare(run, options.first, options.second)
    how = import_module("kit.deliver.differences").differences(options.first, options.second)
    return "\n\n".join(filter(None, (scores, how))), 0


def _bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--stage",
        dest="session",
        choices=("predict", "tile", "train"),
        default="predict",
        help="what is done on Kaggle: predict the hidden test (the default), or tile or train where the data"
        " are, in as many sessions as it takes",
    )
    parser.add_argument(
        "--winner",
        action="store_true",
        help="instead, what Kaggle asks of winners: code, settings, entry points",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: WORK/<name>/bundle/<stage>")
    parser.add_argument("--owner", default="", metavar="NAME", help="your name on Kaggle")
    parser.add_argument("--gpu", action="store_true", help="ask for a GPU")
    parser.add_argument("--hours", type=number, default=9.0, help="what a session may take (default: 9)")
    parser.add_argument(
        "--memory", type=number, default=13.0, metavar="GIB", help="... and hold (default: 13)"
    )
    parser.add_argument(
        "--image",
        type=Path,
        metavar="FILE",
        help="what Kaggle's image has installed, as pip freeze says there (default: a list of the kit's own)",
    )
    parser.add_argument(
        "--wheels",
        default="download",
        metavar="download|none|DIR",
        help="packages that the image lacks: from pip's index (the default), from a folder, or not at all",
    )


def _bundle(run: Run, options: argparse.Namespace) -> Said:
    module = import_module("kit.deliver.bundle")
    names = ("out", "owner", "gpu", "hours", "memory", "image", "wheels")
    values = {name: getattr(options, name) for name in names}
    wanted = module.Options(stage=options.session, **values)
    if options.winner:
        return import_module("kit.deliver.winner").package(run, wanted), 0
    return module.bundle(run, wanted), 0


def _rehearse_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="default: the bundle of this run, made if it is not there"
    )
    parser.add_argument(
        "--images", type=at_least(1), default=20, metavar="N", help="how many hidden images (default: 20)"
    )
    parser.add_argument(
        "--layouts",
        nargs="+",
        choices=("plain", "competitions", "datasets"),
        default=["plain", "competitions", "datasets"],
        help="how Kaggle mounts the inputs; it has three ways (default: all of them in turn)",
    )
    parser.add_argument("--hours", type=number, default=9.0, help="what the rerun may take (default: 9)")
    parser.add_argument(
        "--memory", type=number, default=13.0, metavar="GIB", help="... and hold (default: 13)"
    )
    parser.add_argument(
        "--expected", type=at_least(1), default=280, metavar="N",
        help="images of the real hidden test (default: 280)",
    )  # fmt: skip
    parser.add_argument(
        "--slower",
        type=number,
        default=1.0,
        metavar="X",
        help="how much slower Kaggle's machine is (default: 1)",
    )


def _rehearse(run: Run, options: argparse.Namespace) -> Said:
    module = import_module("kit.deliver.rehearse")
    names = ("bundle", "images", "hours", "memory", "expected", "slower")
    values = {name: getattr(options, name) for name in names}
    found: Said = module.rehearse(run, module.Options(layouts=tuple(options.layouts), **values))
    return found


def _verify_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="submissions/<name>/<run>")
    parser.add_argument(
        "--level",
        type=int,
        choices=range(5),
        default=2,
        help="0 integrity: every hash. 1 re-score: every number, from the out-of-fold rows and the labels."
        " 2 re-combine: the same bytes of submission.csv (the default; in seconds, without torch)."
        " 3 re-infer: the same probabilities, from images and weights. 4 re-train: everything again",
    )
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the competition's data (default: the demo, if it was one)"
    )
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="where the trained weights are, for level 3"
    )
    parser.add_argument(
        "--weights", nargs="+", action="extend", default=[], metavar="NAME=FILE",
        help="the attached weights of the run, for levels 3 and 4",
    )  # fmt: skip
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="keep what is computed here (default: a temporary folder)"
    )
    parser.add_argument(
        "--trust", action="store_true", help="run the declaration.py that came with it: read it first"
    )
    parser.add_argument(
        "--task", type=Path, metavar="FILE", help="your own copy of that declaration, instead"
    )
    parser.add_argument(
        "--all", dest="every", action="store_true",
        help="level 3: predict every training image again (default: a few of each fold)",
    )  # fmt: skip


def _verify(options: argparse.Namespace) -> Said:
    module = import_module("kit.deliver.verify")
    names = ("level", "data", "bundle", "weights", "work", "trust", "task", "every")
    wanted = module.Options(**{name: getattr(options, name) for name in names})
    found: Said = module.verify(options.folder, wanted)
    return found


def _ledger_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("competition", help="its name, or the path of your own my_task.py")
    parser.add_argument(
        "--add", default="", metavar="RUN", help="note scores of this submission (a folder, or its 12 digits)"
    )
    parser.add_argument("--public", **SCORES, help="what the public leaderboard said")
    parser.add_argument("--private", **SCORES, help="... and the private one, when it is open")
    parser.add_argument("--bold", action="store_true", help="it was submission_bold.csv")
    parser.add_argument("--note", default="", metavar="TEXT", help="a word of your own")
    parser.add_argument(
        "--units", type=int, default=0, metavar="N",
        help="units of the hidden test (default: those of the sample, or as many as were scored where these"
        " are a stand-in)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="the competition's data: tells how alike two runs err"
    )


def _ledger(options: argparse.Namespace) -> Said:
    module = import_module("kit.deliver.ledger")
    names = ("public", "private", "bold", "note", "units")
    entry = module.Entry(options.add, **{name: getattr(options, name) for name in names})
    return module.ledger(competition.find(options.competition), options.data, entry), 0


COMMANDS: dict[str, Command | Lone] = {
    command.name: command
    for command in (
        *SHOW_COMMANDS,
        *DATA_COMMANDS,
        Command(
            "evaluate", "can this score be trusted? sites, calibration, alarms", _evaluate_options, _evaluate
        ),
        Command(
            "compare",
            "is one set of predictions better than another?",
            _compare_options,
            _compare,
            without=MODELS,
        ),
        Command(
            "bundle",
            "what Kaggle takes: a kernel, and data sets of code, weights and wheels",
            _bundle_options,
            _bundle,
        ),
        Command(
            "rehearse",
            "run the bundle as Kaggle would, before a submission is spent",
            _rehearse_options,
            _rehearse,
        ),
        Lone("verify", "does a submission prove what it claims?", _verify_options, _verify),
        # No run is made: without --data that would be the demo's, which no leaderboard knows.
        Lone(
            "ledger",
            "scores of the leaderboard beside what was predicted; which two to select",
            _ledger_options,
            _ledger,
        ),
    )
}
