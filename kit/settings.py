"""``--set key=value``: the settings of each stage by dotted name, parsed by their declared type."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterable
from typing import Any

from kit.competition import Competition
from kit.errors import SettingError, did_you_mean

# The stage that a group of settings belongs to, and the field of Competition that holds it.
GROUPS = {
    "fold": "folds",
    "tile": "tiles",
    "tune": "tuning",
    "train": "training",
    "combine": "second_level",
    "demo": "demo",
}

# What the values of a group mean, for the help of its stage.
NOTES = {
    "fold": """
schemes (fold.scheme): folds of whole patients (or what the competition keeps together) that
  group-site  balance classes and site x class cells
  group       balance classes alone; sites are not looked at
  site        leave one site out at a time
  crossed     are blocks of whole sites: neither patient nor site was seen in training""",
    "tile": """
recipes (tile.recipe): how a slide becomes tiles
  grid           squares of tile.size x tile.scale level-0 pixels (or tile.size x tile.mpp micrometres)
  by-aspect      the whole slide, cut across its longer side by its aspect ratio
  roi            one picture a clot, of only one of the sections that repeat it
  seed-overview  the whole slide in grey at 5 per cent
which squares: tile.rank tissue, darkness or spread; tile.count of the best, 0 for all; tile.overlap is a
share of a side; squares with less tissue than tile.min_tissue or contrast than tile.contrast are left out
tile.colour: none, background (glass becomes white), reinhard or macenko
tile.mpp needs the slide's resolution: from its file or, where that is no microscope's, tile.slide_mpp
tile.slide_seconds, tile.slide_mib: a slide that would cost more, by its header, gets fewer or coarser tiles
tile.steps: from the values of a file to the picture, in order. Of radiographs: padding (made black),
modality, voi (its table or window), invert (MONOCHROME1). Of photographs: see kit.read.steps
tile.sections=false does not look for repeated sections; tile.index=false reads all through OpenSlide;
tile.skip=false decodes tiles that are blank by their byte counts too
The demo's slides are small: it sets tile.size=128, tile.scale=2, tile.count=8 and train.bag=4.""",
    "tune": """
tune.trials trials a model and fold, each scored on tune.inner inner folds of whole patients; 0: none
tune.confirm: winner and untuned are scored again on so many fresh splits, so that luck is not chosen
tune.finetune=true tunes models that are not frozen too; tune.prune=false lets every trial finish
A model may say what is searched for it: lr=1e-5..1e-3 (between), pool=mean|attention (one of)""",
    "train": """
models (train.backbones), separated by commas: encoder:mode:pixels; mode and pixels may be left out
  frozen    embeddings are computed once, pool and head learn
  finetune  everything learns, from weights (--weights, or packaged)
  scratch   everything learns, from a random start
with a name and settings of its own: "slow = resnet50:finetune:224; lr=1e-7; epochs=60". lr, epochs and
weight_decay mean those of the model's mode. Many models are best written as a file: --recipe FILE
train.seeds fits every model so often; train.hours leaves out last what projected times do not allow
train.stop=inner stops early by a part of the training fold; train.shorten scales all numbers of epochs,
those of train.freeze and train.patience too
train.schedule: cosine, one-cycle, plateau (train.patience epochs without gain: rate x train.factor), constant
train.optimiser: adamw, adam, sgd; train.average: none, ema (train.ema), swa
train.layer_decay: rate of a block x that of the one above it; train.freeze: first epochs of the head alone
train.fixed=4: the first four layers stay as they are pretrained
train.norm=kept: batch norm keeps pretrained statistics; train.accumulate: parts of a batch, to save memory
train.loss: cross-entropy, balanced (classes count the same), metric (as the metric counts them), binary (one
yes or no a class); train.smoothing: share of a label for all classes; train.mixup: beta of mixing two bags
train.pool: mean, max, attention, heads (several attentions), transformer, vote (tiles vote by themselves)
train.bag tiles are drawn from a bag, a share train.bag_drop left out; train.views: 1, 2, 4 or 8 turned and
mirrored views of a tile; train.preset: light, histology, flips, turns (and a zoom), at a strength of
train.augment (0 to 1)
train.layers=all: features of all stages; train.turned=1,3: turned copies of a training image, by class;
train.undersample=2: at most two images of a class for each of the rarest
train.oversample=1000: of every class a thousand images an epoch at least, those of rarer ones again
train.stem=fine: the first convolution moves by one pixel, for images far smaller than the network's own
train.extra, what images without a label are for: none, negative, class, pretrain (train.extra_epochs); they
need tile.extra=true
train.precision: no, bf16, fp16 (training only); train.logs: csv, tensorboard, wandb""",
    "combine": """
combine.models=A,B blends these alone; the others are scored beside them
methods (combine.method): a pool, or "POOL + CALIBRATOR", or choose, which takes the simplest candidate
within one standard error of the best; upper case, spaces, _ and - do not count
  pools        mean, logit mean, rank mean, greedy, convex, logistic, non negative logistic, ridge pool
  calibrators  no calibration, prior shift, bias, temperature, platt, ridge platt, beta, quadratic,
               vector scaling, matrix scaling, venn abers, clipped isotonic, isotonic, floors
Other names: mean logit (logit mean), caruana (greedy), none (no calibration).
Isotonic, and temperature where the scored class shares are not those of the training data, are known to
lose: they are refused with the reason, unless combine.unsafe=true. Stackers of trees (LightGBM, XGBoost,
CatBoost, random forest) and MLPs are not made at all.
combine.site_prior=true adds the shrunken class shares of known sites, combine.fusion=true the metadata
(--meta, or our own images.csv) as one more model; both are fitted and scored nested.""",
}

# Rows of the second level's tables that are no models, where one word says what they are.
ROWS = ("constant", "limit", "logistic")

# The least and most that a number may be, where it is not 1 or more (whole) or 0 or more (with a fraction).
RANGES = {
    "fold.k": (2, math.inf),
    "demo.other": (0, math.inf),
    "demo.test_patients": (0, math.inf),
    "fold.holdout": (0, math.inf),
    "fold.holdout_share": (0, 1),
    "tile.scale": (0.1, 32),  # a tile is cut from size x scale pixels, held in memory
    "tile.count": (0, math.inf),
    "tile.min_tissue": (0, 1),
    "tile.overlap": (0, 0.9),
    "tune.trials": (0, math.inf),
    "tune.confirm": (0, math.inf),
    "train.lr": (1e-12, 10),  # a rate of nothing learns nothing; a greater one only diverges
    "train.finetune_lr": (1e-12, 10),
    "train.scratch_lr": (1e-12, 10),
    "train.shorten": (0.001, 100),
    "train.factor": (0.001, 0.999),
    "train.layer_decay": (0.01, 1),
    "train.freeze": (0, math.inf),
    "train.fixed": (0, math.inf),
    "train.ema": (0, 0.99999),
    "train.drop": (0, 0.99),
    "train.smoothing": (0, 0.99),
    "train.mixup": (0, 10),
    "train.bag_drop": (0, 0.99),
    "train.augment": (0, 1),
    "train.oversample": (0, math.inf),
    "combine.icc": (0, 1),
    "combine.folds": (2, math.inf),
    "combine.resamples": (20, math.inf),
}


def known(competition: Competition) -> dict[str, Any]:
    """Every key with its present value.

    >>> from kit.competition import find
    >>> known(find("strip-ai"))["fold.k"]
    5
    """
    return {
        f"{group}.{item.name}": getattr(getattr(competition, name), item.name)
        for group, name in GROUPS.items()
        for item in dataclasses.fields(getattr(competition, name))
        if not (group == "demo" and item.name in ("module", "settings"))
    }


def apply(competition: Competition, pairs: Iterable[tuple[str, str]]) -> Competition:
    """The competition with ``key=value`` pairs applied in turn.

    Raises:
        SettingError: an unknown key, or a value that is not of the key's type.
    """
    for key, text in pairs:
        if key not in known(competition):
            raise SettingError(f"there is no setting '{key}'", did_you_mean(key, known(competition)))
        group, name = key.split(".")
        part = getattr(competition, GROUPS[group])
        value = parse(text, typing.get_type_hints(type(part))[name], key)
        part = dataclasses.replace(part, **{name: value})
        competition = dataclasses.replace(competition, **{GROUPS[group]: part})
    return competition


def split(pair: str) -> tuple[str, str]:
    """``key=value`` as a pair."""
    key, found, value = pair.partition("=")
    if not found:
        raise SettingError(f"--set takes key=value, and got '{pair}'", f"for example {key}=VALUE")
    return key.strip(), value.strip()


def parse(text: str, kind: Any, key: str) -> Any:
    """Text as a value of a field's type.

    Raises:
        SettingError: it is none, or out of range; says what the key takes.
    """
    if typing.get_origin(kind) is typing.Literal:
        choices = {str(choice): choice for choice in typing.get_args(kind)}
        if text not in choices:
            raise SettingError(f"{key} cannot be '{text}'", f"it takes one of: {', '.join(choices)}")
        return choices[text]
    if typing.get_origin(kind) is tuple:
        return tuple(item.strip() for item in text.split(",") if item.strip())
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise SettingError(f"{key} cannot be '{text}'", "it takes true or false")
        return text.lower() == "true"
    if kind is str:
        return text
    try:
        value = kind(text)
    except ValueError:
        raise SettingError(f"{key} cannot be '{text}'", f"it takes a value of type {kind.__name__}") from None
    least, most = RANGES.get(key, (1 if kind is int else 0, math.inf))
    if not (least <= value <= most and math.isfinite(value)):
        upper = f" to {most}" if math.isfinite(most) else " or more"
        raise SettingError(f"{key} cannot be '{text}'", f"it takes {least}{upper}")
    return value


def part(competition: Competition, group: str) -> Any:
    """The settings of one group that decide its result, for a stage's key and the manifest."""
    content = dataclasses.asdict(getattr(competition, GROUPS[group]))
    content.pop("storage", None)  # where a study is kept decides nothing, and may hold a password
    content.pop("duplicates", None)  # nor where a file lies: its digest is an input of `fold`
    content.pop("logs", None)  # what is written beside a fit
    content.pop("hours", None)  # which fits are made, not how: an input of `train` alone
    return content
