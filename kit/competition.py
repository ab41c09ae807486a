"""A competition is a declaration: its tables, classes, metric, and how one of its images is read.

No stage asks which competition it serves; whatever a stage needs to know is a field here.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from kit.errors import DataError, SettingError, did_you_mean
from kit.metrics import Metric
from kit.tables import check_declared, check_ids, check_sample, check_train, fill_sites


@dataclass(frozen=True)
class FoldPlan:
    """How units are kept apart."""

    k: int = 5  # cross-validation folds
    scheme: Literal["group", "site", "group-site", "crossed"] = "group-site"  # see kit.folds
    duplicates: str = ""  # a CSV image_id,cluster of near-duplicates that are kept together
    holdout: int = 20  # units a class in the held-out set, at most
    holdout_share: float = 0.15  # ... and at most this share of the rarest class


@dataclass(frozen=True)
class TileGrid:
    """Which tiles of an image a backbone sees."""

    recipe: Literal["grid", "by-aspect", "roi", "seed-overview"] = "grid"  # see kit.read.recipes
    size: int = 224  # pixels of a stored tile, each side
    scale: float = 8.0  # level-0 pixels a tile pixel; a photograph is resized instead
    mpp: float = 0.0  # micrometres a tile pixel, instead of scale; 0: scale counts
    slide_mpp: float = 0.0  # micrometres a level-0 pixel where the file does not say it plausibly
    count: int = 16  # best tiles kept an image; 0: all
    min_tissue: float = 0.25  # least tissue share of a kept tile
    overlap: float = 0.0  # share of a tile's side that its neighbour has too
    rank: Literal["tissue", "darkness", "spread"] = "tissue"  # what makes a tile better
    contrast: float = 0.0  # least standard deviation of the grey levels of a kept tile
    colour: Literal["none", "background", "reinhard", "macenko"] = "none"  # normalisation
    overview: int = 32  # level-0 pixels an overview pixel
    sections: bool = True  # find repeated sections and weigh their tiles
    index: bool = True  # read tiled TIFF by its own index; false: everything through OpenSlide
    steps: tuple[str, ...] = ()  # from the file's values to the picture, in this order; see the reader
    extra: bool = False  # tile the images without a label of the task too (other.csv)
    skip: bool = True  # do not decode tiles whose byte counts say that they are blank
    slide_seconds: float = 120.0  # projected, of one core, above which a slide gets fewer, coarser tiles
    slide_mib: float = 1024.0  # the same for memory; both cut down the recipe grid alone


@dataclass(frozen=True)
class Tuning:
    """The search over training settings: Optuna, on inner splits of each training fold."""

    trials: int = 6  # trials a backbone and fold; 0 keeps the settings of `train`
    inner: int = 2  # inner validation folds a trial
    finetune: bool = False  # also tune backbones that are fine-tuned (slow)
    sampler: Literal["tpe", "random"] = "tpe"
    prune: bool = True  # stop trials that lose on the first inner folds, or in the first epochs
    confirm: int = 2  # fresh inner splits on which winner and default are scored again; 0: not at all
    storage: str = ""  # an Optuna RDB URL; a journal file in the work folder if empty


@dataclass(frozen=True)
class Training:
    """How one backbone learns. A single one may differ: see ``kit.learn.models``."""

    # "encoder:mode:pixels": mode is frozen | finetune | scratch; pixels may be left out
    backbones: tuple[str, ...] = ("tf_efficientnet_lite0:frozen",)
    seeds: int = 1  # times that every model is fitted, each with a seed of its own
    hours: float = 0.0  # projected, above which the last seeds, then models, are left out; 0: no bound
    # -- how long
    epochs: int = 30  # of the frozen mode
    finetune_epochs: int = 12  # of the other modes
    shorten: float = 1.0  # factor on every number of epochs, for a slow machine
    stop: Literal["fixed", "inner"] = "fixed"  # inner: early stopping on a part of the training fold
    patience: int = 5  # epochs without gain before plateau lowers the rate; thrice that before inner stops
    factor: float = 0.1  # ... by which plateau lowers it
    schedule: Literal["cosine", "one-cycle", "plateau", "constant"] = "cosine"
    # -- steps
    batch: int = 16  # bags a step
    accumulate: int = 1  # parts in which a batch goes through the network
    infer_batch: int = 32  # tiles a forward pass when predicting; part of the result
    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    lr: float = 1e-2  # of the frozen mode
    finetune_lr: float = 3e-4
    scratch_lr: float = 3e-3
    layer_decay: float = 1.0  # factor on the rate from each block to the one before it
    freeze: int = 0  # first epochs in which the encoder stays as it is
    fixed: int = 0  # first layers of the encoder that stay as they are in every epoch
    norm: Literal["batch", "kept"] = "batch"  # kept: batch norm keeps its pretrained statistics
    average: Literal["none", "ema", "swa"] = "none"  # which average of the weights is the model
    ema: float = 0.99  # decay of the average, a step
    # -- against learning by heart
    ridge: float = 0.5  # L2 of the frozen mode, like 1 / C of a logistic regression
    weight_decay: float = 0.05  # of the other modes
    drop: float = 0.2
    smoothing: float = 0.0  # share of the label that goes to all classes
    mixup: float = 0.0  # parameter of the beta distribution that mixes two bags; 0: no mixing
    # -- what is shown
    pool: Literal["mean", "max", "attention", "heads", "transformer", "vote"] = "mean"
    bag: int = 8  # tiles drawn from a bag in an epoch
    bag_drop: float = 0.0  # share of the drawn tiles that are left out again
    turned: tuple[str, ...] = ()  # turned copies of a training image, by class in its order: "1,3"
    undersample: float = 0.0  # at most so many images of a class for each of the rarest; 0: all
    oversample: int = 0  # images of each class an epoch, at least: those of rarer ones are shown again
    augment: float = 0.5  # strength, 0 to 1
    preset: Literal["light", "histology", "flips", "turns"] = "light"
    stem: Literal["own", "fine"] = "own"  # fine: the first convolution moves by one pixel; small images
    layers: Literal["last", "all"] = "last"  # stages of the encoder whose features are taken
    views: Literal[1, 2, 4, 8] = 4  # symmetric views of a tile, whose features are averaged
    # -- the loss
    loss: Literal["cross-entropy", "balanced", "metric", "binary"] = "cross-entropy"
    extra: Literal["none", "negative", "class", "pretrain"] = "none"  # what unlabelled images are good for
    extra_epochs: int = 5  # of the warm-up on all images without labels
    # -- the machine
    precision: Literal["no", "bf16", "fp16"] = "no"  # of training; predictions are always fp32
    channels_last: bool = True
    compile: bool = False  # torch.compile
    logs: tuple[str, ...] = ("csv",)  # csv, tensorboard, wandb (offline, where it is installed)


@dataclass(frozen=True)
class SecondLevel:
    """From out-of-fold tables to calibrated probabilities."""

    method: str = "ridge pool"  # or "POOL + CALIBRATOR", or choose; see kit.combine.choose
    models: tuple[str, ...] = ()  # the models that are blended; empty: all
    unsafe: bool = False  # allow methods that are known to lose
    site_prior: bool = False  # shrunken class shares of known sites; see kit.combine.side
    fusion: bool = False  # metadata as one more model
    icc: float = 0.44  # correlation of the logits of two images of one unit
    folds: int = 10  # outer folds of the nested score when no fold table covers the units
    resamples: int = 2000  # of the bootstrap


@dataclass(frozen=True)
class Demo:
    """The embedded cohort that stands in when no ``--data`` is given."""

    module: str = ""  # where `make` is; empty: this competition has no demo
    patients: int = 120
    test_patients: int = 24
    largest: float = 200.0  # megapixels of the largest slide; 0: no such slide
    other: int = 0  # patients without a label of the task, made only where tile.extra is asked for
    settings: tuple[tuple[str, str], ...] = ()  # what the demo sets, below the user's --set


@dataclass(frozen=True)
class Claim:
    """Something that was said of the data elsewhere, for `explore` to hold against them.

    fact: the number that decides, by its name on the page: ``section.name``.
    low, high: between what, both included, it would have to be.
    """

    said: str
    fact: str
    low: float
    high: float


@dataclass(frozen=True)
class Tables:
    """The tables of a competition. All cells are strings, and every frame is indexed by id.

    train, extra: indexed by image_id; unit_id, group_id, site, label, path.
    test: the same without label; ``None`` where the task has no test table.
    sample: indexed by unit_id, one column a class; ``None`` where there is none.
    """

    train: pd.DataFrame
    test: pd.DataFrame | None = None
    extra: pd.DataFrame | None = None
    sample: pd.DataFrame | None = None


@dataclass(frozen=True)
class Competition:
    """The declaration of a task. Column names are those of the competition's own tables."""

    name: str
    classes: tuple[str, ...]
    metric: Metric
    load: Callable[[Path], Tables]  # reads the tables as shipped; use kit.tables
    unit: str = "image_id"  # what the submission scores
    group: str = ""  # what folds never split; the unit if empty
    site: str = ""  # where it was acquired; empty: not known
    image: str = "image_id"
    label: str = "label"
    files: str = "{split}/{image_id}.tif"  # place of an image in the data folder
    reader: str = "photo"  # the module of kit.read that opens one
    kaggle: str = ""
    folds: FoldPlan = field(default_factory=FoldPlan)
    tiles: TileGrid = field(default_factory=TileGrid)
    tuning: Tuning = field(default_factory=Tuning)
    training: Training = field(default_factory=Training)
    second_level: SecondLevel = field(default_factory=SecondLevel)
    demo: Demo = field(default_factory=Demo)
    boxes: Callable[[Path], pd.DataFrame] | None = None  # findings drawn on training images; see kit.boxes
    glossary: tuple[tuple[str, str], ...] = ()  # words of the field and what they mean, for `explore`
    claims: tuple[Claim, ...] = ()  # said elsewhere, and held against the data by `explore`

    def tables(self, data: Path) -> Tables:
        """Load, check and rename the tables of a data folder.

        Raises:
            DataError: names the file's line and value that breaks a rule.
        """
        raw = self.load(data)
        train = self._rename(raw.train, data, "train")
        check_train(train, self.classes)
        train = fill_sites(train)
        test = None if raw.test is None else self._rename(raw.test, data, "test")
        extra = None if raw.extra is None else self._rename(raw.extra, data, "other")
        if extra is not None and (both := set(extra["image_id"]) & set(train["image_id"])):
            raise DataError(f"image_id '{min(both)}' is both in {train.attrs['source']} and in extra")
        return Tables(
            by_image(train),
            None if test is None else by_image(test),
            None if extra is None else by_image(extra),
            None if raw.sample is None else self._sample(raw.sample, test),
        )

    def _rename(self, raw: pd.DataFrame, data: Path, split: str) -> pd.DataFrame:
        """One raw table under the kit's own column names, in its own order."""
        ours = {"image_id": self.image, "unit_id": self.unit, "group_id": self.group or self.unit}
        ours |= {"site": self.site, "label": self.label}
        check_declared(raw, split, ours)
        table = pd.DataFrame({name: raw.get(theirs, "") for name, theirs in ours.items()}, raw.index)
        rows: list[dict[str, str]] = raw.to_dict("records")  # type: ignore[assignment]
        try:
            places = [
                self.files.format(**(row | {"split": split, "image_id": row[self.image]})) for row in rows
            ]
        except KeyError as error:
            hint = f"the {split} table has {', '.join(map(str, raw.columns))}"
            raise SettingError(f"files='{self.files}' names {error}, which is no column", hint) from error
        table["path"] = [str(data / place) for place in places]
        table.attrs["source"] = raw.attrs.get("source", f"the {split} table")
        table.attrs["theirs"] = ours  # what messages call a column: the name that the file has
        check_ids(table)
        return table.drop(columns="label") if split == "test" else table

    def _sample(self, raw: pd.DataFrame, test: pd.DataFrame | None) -> pd.DataFrame:
        """The sample submission indexed by unit_id, in its own order."""
        raw.attrs.setdefault("source", "the sample submission")
        check_sample(raw, self.unit, set() if test is None else set(test["unit_id"]))
        return raw.rename(columns={self.unit: "unit_id"}).set_index("unit_id")


def by_image(table: pd.DataFrame) -> pd.DataFrame:
    """The table indexed and sorted by image_id."""
    return table.set_index("image_id").sort_index()


def names() -> list[str]:
    """The competitions that come with the kit."""
    folder = Path(__file__).parent / "competitions"
    return sorted(p.stem.replace("_", "-") for p in folder.glob("*.py") if p.stem != "__init__")


def find(name: str) -> Competition:
    """A competition by its name, or by the path of a Python file that declares one.

    Raises:
        SettingError: no such name or file, or the file does not declare exactly one competition.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
    if name not in names():
        hint = did_you_mean(name, names()) + "; or give the path of your own my_task.py"
        raise SettingError(f"there is no competition '{name}'", hint)
    module = importlib.import_module(f"kit.competitions.{name.replace('-', '_')}")
    return _declared(module.__dict__, name)


def _from_file(path: Path) -> Competition:
    sys.path.insert(0, str(path.parent.resolve()))  # its own modules may lie beside it
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise SettingError(f"{path} is not there", f"known competitions: {', '.join(names())}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's file raises is for its author to mend
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == spec.origin]
        where = f"{path} line {lines[-1]}" if lines else str(path)
        message = f"{where} cannot be imported: {type(error).__name__}: {error}"
        raise SettingError(message, f"correct the file until python {path} runs") from error
    return _declared(module.__dict__, str(path))


def _declared(content: dict[str, object], source: str) -> Competition:
    found = [value for value in content.values() if isinstance(value, Competition)]
    if len(found) != 1:
        raise SettingError(
            f"{source} declares {len(found)} competitions, and must declare one",
            "assign one Competition(...) to a name at the top level of the file",
        )
    return found[0]
