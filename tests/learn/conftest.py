"""A tiny competition of photographs through the real stages, and bags written straight to the store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from kit import seeds, state
from kit.competition import Competition, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.files import write_table
from kit.metrics import LogLoss
from kit.read import store
from kit.state import Run

SIDE = 32
COLOURS = {"a": (200, 130, 130), "b": (130, 130, 200)}
GROUPS = (4, 4, 4, 4, 4, 4, 3, 3)  # images of each; classes take turns
PLAN = FoldPlan(k=3, holdout=3)
TOY = Training(
    backbones=("test_efficientnet:frozen",),
    epochs=8,
    finetune_epochs=3,
    batch=4,
    infer_batch=8,
    bag=3,
    views=1,
)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As the stages do: more threads than cores would spin, and change sums."""
    torch.set_num_threads(1)


def labelled_images() -> pd.DataFrame:
    """30 images: two classes, eight patients."""
    rows = [
        {"image_id": f"p{group}-{n}", "patient": f"p{group}", "label": "ab"[group % 2]}
        for group, size in enumerate(GROUPS)
        for n in range(size)
    ]
    return pd.DataFrame(rows, dtype=object)


def unlabelled_images() -> pd.DataFrame:
    """Four images of two other patients."""
    rows = [{"image_id": f"t{n}", "patient": f"q{n // 2}", "label": "ab"[n // 2]} for n in range(4)]
    return pd.DataFrame(rows, dtype=object)


def picture(image: str, label: str, noise: float = 30) -> np.ndarray:
    """One of two colours under noise: (SIDE, SIDE, 3)."""
    draw = seeds.rng(0, "picture", image)
    pixels = np.array(COLOURS[label]) + draw.normal(0, noise, (SIDE, SIDE, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder: ``train/*.png`` and ``test/*.png``."""
    data = tmp_path_factory.mktemp("photographs")
    for split, table in (("train", labelled_images()), ("test", unlabelled_images())):
        (data / split).mkdir()
        for row in table.itertuples():
            Image.fromarray(picture(row.image_id, row.label)).save(data / split / f"{row.image_id}.png")
    return data


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of test_efficientnet that no training made: a random encoder still sees colours."""
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = timm.create_model("test_efficientnet", num_classes=0)
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.momentum = None  # its statistics become those of these images
        model(torch.randn(64, 3, 32, 32))
    save_file(model.state_dict(), path)
    return path


def task_of(reader: str, tiles: TileGrid, training: Training, tuning: Tuning, test: bool) -> Competition:
    """The declaration of the toy."""
    tables = Tables(labelled_images(), unlabelled_images().drop(columns="label") if test else None)
    return Competition(
        name="toy",
        classes=("a", "b"),
        metric=LogLoss(),
        load=lambda data: tables,
        group="patient",
        files="{split}/{image_id}.png",
        reader=reader,
        folds=PLAN,
        tiles=tiles,
        training=training,
        tuning=tuning,
    )


@pytest.fixture(scope="session")
def photo_run(photographs: Path, weights: Path) -> Callable[..., Run]:
    """``photo_run(folder, *backbones, **options)``: folded and tiled, ready to learn.

    Options are those of Training, and trials, seed, workers, test.
    """

    def make(
        folder: Path,
        *backbones: str,
        trials: int = 0,
        seed: int = 0,
        workers: int = 0,
        test: bool = True,
        **training: object,
    ) -> Run:
        chosen = replace(TOY, **training)  # type: ignore[arg-type]
        chosen = replace(chosen, backbones=backbones or chosen.backbones)
        task = task_of("photo", TileGrid(size=SIDE, count=1), chosen, Tuning(trials=trials), test)
        run = Run(
            task,
            "toy",
            photographs,
            folder / "work",
            seed=seed,
            workers=workers,
            weights={"test_efficientnet": weights},
            # One place for all: the key of a run knows the place of its fold table.
            fold_table=photographs / f"folds{seed}.csv",
        )
        for stage in ("fold", "tile"):
            if not state.finished(run, stage):
                state.execute(run, stage)
        return run

    return make


@pytest.fixture
def make_run(photo_run: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """``make_run(*backbones, folder="", **options)``: see `photo_run`."""

    def make(*backbones: str, folder: str = "", **options: object) -> Run:
        return photo_run(tmp_path / folder, *backbones, **options)

    return make


@pytest.fixture
def make_bags(tmp_path: Path, weights: Path) -> Callable[..., Run]:
    """``make_bags(count, side=16, **training)``: bags of 1 to ``count`` tiles, written to the store.

    The class is seen in the first tile only; the others are grey.
    """

    def make(count: int = 6, side: int = 16, trials: int = 0, **training: object) -> Run:
        task = task_of(
            "slide",
            TileGrid(size=side, count=count),
            replace(TOY, **training),  # type: ignore[arg-type]
            Tuning(trials=trials),
            True,
        )
        run = Run(
            task,
            "bags",
            tmp_path / "nothing",
            tmp_path / "bags",
            workers=0,
            weights={"test_efficientnet": weights},
            fold_table=tmp_path / "folds.csv",
        )
        state.execute(run, "fold")
        rows = []
        for split, table in (("test", unlabelled_images()), ("train", labelled_images())):
            for row in table.sort_values("image_id").itertuples():
                tiles = _bag(row.image_id, row.label, count, side)
                store.write(store.path_of(run.folder("tile"), split, row.image_id), tiles)
                rows.append({"image_id": row.image_id, "split": split, "width": 900, "height": 900,
                             "tissue": 0.5, "background": "#ffffff", "tiles": len(tiles), "sections": 1,
                             "clots": 1, "status": "ok", "reason": ""})  # fmt: skip
        write_table(run.folder("tile") / "images.csv", pd.DataFrame(rows))
        return run

    return make


def _bag(image: str, label: str, count: int, side: int) -> store.Tiles:
    draw = seeds.rng(0, "bag", image)
    number = int(draw.integers(1, count + 1))
    colours = [COLOURS[label], *[(150, 150, 150)] * (number - 1)]
    pixels = [
        np.clip(np.array(colour) + draw.normal(0, 20, (side, side, 3)), 0, 255).astype(np.uint8)
        for colour in colours
    ]
    header = {"key": image, "grid": {"size": side}, "width": 900, "height": 900, "tissue": 0.5,
              "background": "#ffffff"}  # fmt: skip
    zero = np.zeros(number, np.int64)
    return store.packed(header, pixels, zero, zero, zero + side, np.ones(number, np.float32))


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """``cut(run, sections, clots)``: the tiles of a bag take turns in so many sections of so many clots."""
    # The key of a run does not see what is changed here.
    monkeypatch.setattr("kit.learn.embed._CACHE", {})

    def change(run: Run, sections: int, clots: int) -> None:
        for path in run.folder("tile").glob("t*/*.npz"):
            tiles = store.read(path)
            section = np.arange(len(tiles), dtype=np.int32) % sections
            clot = section % clots
            present = [len(set(section[clot == mine])) for mine in clot]
            weight = 1 / np.array(present, np.float32)
            store.write(path, replace(tiles, section=section, clot=clot, weight=weight))

    return change


@pytest.fixture(scope="session")
def finished_run(photo_run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Both ways of learning, through every stage up to predict; for tests that only read."""
    folder = tmp_path_factory.mktemp("finished")
    run = photo_run(folder, "test_efficientnet:frozen", "test_efficientnet:scratch:24")
    for stage in ("tune", "train", "predict"):
        state.execute(run, stage)
    return run
