"""Bags of many tiles, written straight to the store, and what a frozen backbone spends on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from kit import state
from kit.competition import Competition, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.files import write_table
from kit.learn import models, predict, train
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.metrics import LogLoss
from kit.read import store
from kit.state import Run
from tests.bench.pictures import CLASSES, GRAIN, texture

IMAGES = 8
SIDE = 64


def rows() -> pd.DataFrame:
    """Eight images of eight patients."""
    found = [{"image_id": f"b{n}", "patient": f"p{n}", "label": CLASSES[n % 2]} for n in range(IMAGES)]
    return pd.DataFrame(found, dtype=object)


def load(data: Path) -> Tables:
    """The table of the eight images."""
    return Tables(train=rows())


def run_of(folder: Path, tiles: int, threads: int) -> Run:
    """A run whose images have so many tiles each."""
    task = Competition(
        name="bags",
        classes=CLASSES,
        metric=LogLoss(),
        load=load,
        group="patient",
        reader="slide",
        folds=FoldPlan(k=2, holdout=0),
        tiles=TileGrid(size=SIDE, count=tiles),
        training=Training(backbones=("tf_efficientnet_lite0:frozen",), pool="attention", bag=tiles, epochs=3),
        tuning=Tuning(trials=0),
    )
    run = Run(task, "bags", folder, folder, threads=threads, workers=0, fold_table=folder / "folds.csv")
    state.execute(run, "fold")
    _write(run, tiles)
    return run


def _write(run: Run, tiles: int) -> None:
    table = []
    for row in rows().itertuples():
        pixels = [texture(f"{row.image_id} {n % 16}", GRAIN[row.label], SIDE) for n in range(tiles)]
        header = {"key": row.image_id, "grid": {"size": SIDE}, "width": 900, "height": 900, "tissue": 0.5,
                  "background": "#ffffff"}  # fmt: skip
        zero = np.zeros(tiles, np.int64)
        kept = store.packed(header, pixels, zero, zero, zero + SIDE, np.ones(tiles, np.float32))
        store.write(store.path_of(run.folder("tile"), "train", row.image_id), kept)
        table.append({"image_id": row.image_id, "split": "train", "width": 900, "height": 900,
                      "tissue": 0.5, "background": "#ffffff", "tiles": tiles, "sections": 1, "clots": 1,
                      "status": "ok", "reason": ""})  # fmt: skip
    write_table(run.folder("tile") / "images.csv", pd.DataFrame(table))


def learn(run: Run) -> int:
    """Embed, fit and predict all bags; returns how many tiles they have."""
    images, (model,) = labelled(run), models.of_run(run)
    network = train.train(Fit(run, model, images, "bench"))
    predict.predict_images(run, model, network, "train", images.index.to_numpy(object))
    return len(images) * run.competition.tiles.count
