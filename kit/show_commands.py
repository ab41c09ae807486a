"""The commands that show: a page about the data before anything is trained, and slides to walk through."""

from __future__ import annotations

import argparse
from pathlib import Path

from kit.command import MODELS, Command, at_least, room

BOXES = 700  # on the map of boxes: two maps in 13 s of a core
IMAGES = 12  # that are shown
OVERVIEWS = 4  # GiB of them that `view` keeps


def _explore_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("explore")
    group.add_argument(
        "--out", type=Path, metavar="DIR", help="where page and tables go (default: WORK/<name>/explore)"
    )
    group.add_argument(
        "--sizes",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="image_id,width,height of images that are not at hand (default: what stage tile has read, else"
        " the headers of the images)",
    )
    group.add_argument(
        "--images",
        type=at_least(0, 60),
        default=IMAGES,
        metavar="N",
        help=f"how many images are shown; 0 reads none (default: {IMAGES})",
    )
    group.add_argument(
        "--map",
        type=at_least(0),
        default=BOXES,
        metavar="N",
        help=f"how many boxes, drawn at random, are on the t-SNE map; 0: no map (default: {BOXES}; 1,500"
        " take a minute)",
    )


def _view_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "view",
        f"Overviews of slides are kept in WORK/<name>/view, up to {OVERVIEWS} GiB for all of them: those that"
        " were looked at longest ago go first. Nothing else is written.",
    )
    group.add_argument(
        "--port", type=at_least(0, 65535), default=0, metavar="N", help="of 127.0.0.1 (default: a free one)"
    )
    group.add_argument("--open", action="store_true", help="open the page in the browser, too")
    group.add_argument(
        "--split",
        choices=("train", "test", "extra"),
        nargs="+",
        default=["train", "test"],
        help="whose images are listed (default: train and test)",
    )


SHOW_COMMANDS = (
    Command(
        "explore",
        "one page about the data: tables, sizes, labels, boxes, and what gives the label away",
        _explore_options,
        room("kit.show.explore.command"),
        (),
        MODELS,
    ),
    Command(
        "view",
        "walk through slides in the browser: deep zoom, tissue, tiles, attention, predictions",
        _view_options,
        room("kit.show.view.command"),
        (),
        tuple(option for option in MODELS if option != "--folds"),
    ),
)
