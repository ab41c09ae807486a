"""The commands that look at the data: doubles among images, radiographs as pictures, boxes and who drew them.

The flow needs none of them. What they write is given to it by an option (``--duplicates``, ``--meta``), or is
a submission of boxes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from kit.command import MODELS, Command, at_least, room, share

Options = Callable[[argparse.ArgumentParser], None]
NEAR = 0.95  # least correlation of two pictures that are near-equal
PICTURES = "../input/{name}/train/{image_id}.png"
OVERLAP = 0.5  # from which two boxes of several submissions are one
LOW, HIGH = 0.08, 0.95  # of the two-class filter's thresholds: probabilities of a finding


def _duplicates_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--near", action="store_true", help="find near-equal pictures too, not equal ones alone"
    )
    parser.add_argument(
        "--least",
        type=float,
        default=NEAR,
        metavar="R",
        help=f"the correlation from which two pictures are near-equal (default: {NEAR})",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="default: WORK/<name>/duplicates/clusters.csv"
    )


def _convert_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="where the pictures are written"
    )
    parser.add_argument(
        "--size",
        type=at_least(1, 8192),
        nargs="+",
        default=[512],
        metavar="N",
        help="pixels of a side; several are made of one reading (default: 512)",
    )
    parser.add_argument("--format", choices=("png", "jpg"), default="png", help="(default: png)")
    parser.add_argument(
        "--keep-ratio",
        action="store_true",
        help="N is the longer side, and a smaller image stays as it is (default: squeezed to a square)",
    )
    parser.add_argument(
        "--splits",
        nargs="+",
        choices=("train", "test", "extra"),
        default=["train", "test"],
        help="(default: train, and test where there is one)",
    )


def _annotations_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("annotations")
    group.add_argument("--out", type=Path, metavar="DIR", help="default: WORK/<name>/annotations")
    group.add_argument(
        "--consensus",
        choices=("fuse", "nms"),
        default="fuse",
        help="of boxes that overlap: their weighted mean (the default), or the one that most readers support",
    )
    group.add_argument(
        "--iou", type=share, default=0.4, help="the overlap above which two boxes are one (default: 0.4)"
    )
    group.add_argument(
        "--votes", type=at_least(1), default=1, metavar="N",
        help="readers that a box of consensus.csv and a finding of votes.csv need (default: 1)",
    )  # fmt: skip
    group.add_argument(
        "--paths",
        default=PICTURES,
        metavar="TEMPLATE",
        help="img_path of classification.csv, made of {name}, {image_id} and {path}, the image's place in the"
        f" data (default: {PICTURES})",
    )


def _detect_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="submissions of boxes (image_id,PredictionString); each is checked, and several are fused",
    )
    group = parser.add_argument_group("boxes")
    group.add_argument(
        "--sample", type=Path, metavar="FILE", help="sample_submission.csv, whose ids every FILE must have"
    )
    group.add_argument(
        "--clip",
        action="store_true",
        help="cut boxes off at the edges of their image, where its size is known",
    )
    group.add_argument(
        "--fuse",
        choices=("wbf", "nms"),
        help="how: weighted boxes fusion (the default), or the surest of boxes that overlap",
    )
    group.add_argument(
        "--votes", type=float, nargs="+", default=[], metavar="N",
        help="what each FILE counts in the fusion, in their order (default: all the same)",
    )  # fmt: skip
    group.add_argument(
        "--iou",
        type=share,
        help=f"of the fusion: the overlap above which two boxes are one (default: {OVERLAP})",
    )
    group.add_argument(
        "--filter",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="the two-class filter, with the probabilities of images in these files: oof.csv and holdout.csv,"
        " or test.csv, of combine, or whatever --oof takes. Of FILE:COLUMN, a column with the name of the"
        " first class (abnormal, p_abnormal) has its probability, any other that of the last class (normal)",
    )
    group.add_argument(
        "--variant",
        choices=("append", "multiply", "threshold", "choose"),
        help="append: every image says 'nothing' with its probability; multiply: that, and boxes count by"
        " the probability of a finding; threshold: by --low and --high; choose: the best on the images of"
        " FILE, which must be training images, scored nested (default: choose with --score and probabilities"
        " of training images, else multiply)",
    )
    group.add_argument(
        "--low", type=float, metavar="P",
        help=f"of threshold: below this probability of a finding only 'nothing' is said (default: {LOW})",
    )  # fmt: skip
    group.add_argument(
        "--high", type=float, metavar="P",
        help=f"of threshold: from this one on the boxes are left alone (default: {HIGH})",
    )  # fmt: skip
    group.add_argument(
        "--score",
        action="store_true",
        help="mean average precision of FILEs of training images, before and after, with intervals",
    )
    group.add_argument(
        "--truth",
        choices=("readers", "consensus"),
        help="what is to be found: the readers' boxes of one finding fused (the default), which is nearer to"
        " the hidden truth, or every box that a reader drew, which rewards a box for each of them",
    )
    group.add_argument(
        "--mle-bench",
        action="store_true",
        help="score by the rule of mle-bench's grader, which is not the official one",
    )
    group.add_argument("--out", type=Path, metavar="FILE", help="where to write the fused, filtered boxes")


def _command(name: str, text: str, options: Options, module: str) -> Command:
    return Command(name, text, options, room(module), (), (*MODELS, "--duplicates"))


DATA_COMMANDS = (
    _command(
        "duplicates", "which images are there twice, or nearly", _duplicates_options, "kit.read.duplicates"
    ),
    _command(
        "convert", "images as small PNG or JPEG files, in several sizes", _convert_options, "kit.read.convert"
    ),
    _command(
        "annotations",
        "who drew which boxes, how far readers agree, and what gives the label away",
        _annotations_options,
        "kit.combine.annotations",
    ),
    _command(
        "detect", "check, fuse, filter and score submissions of boxes", _detect_options, "kit.combine.detect"
    ),
)
