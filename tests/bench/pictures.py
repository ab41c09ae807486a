"""Photographs of two textures, as files and as a competition: what the benchmark of learning is run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kit import seeds, state
from kit.competition import Competition, FoldPlan, Tables, TileGrid, Training, Tuning
from kit.metrics import LogLoss
from kit.read.reader import Pixels
from kit.state import Run
from kit.tables import read_table

CLASSES = ("fine", "coarse")
GRAIN = {"fine": 1.5, "coarse": 2.5}  # standard deviation of the blur, in pixels
STAIN = np.array((200, 140, 180))


@dataclass(frozen=True)
class Album:
    """A folder of photographs, ``train/<class>/<id>.jpg``, and the table of them, ``labels.csv``."""

    folder: Path
    images: int
    side: int


def made(album: Album) -> Album:
    """The same, written if it is not there yet; every patient has four photographs."""
    table = album.folder / "labels.csv"
    if table.is_file():
        return album
    rows = [
        {"image_id": f"i{n:05d}", "patient": f"p{n // 4:04d}", "label": CLASSES[n // 4 % 2]}
        for n in range(album.images)
    ]
    for row in rows:
        path = album.folder / "train" / row["label"] / f"{row['image_id']}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = texture(row["image_id"], GRAIN[row["label"]], album.side)
        cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 95))
    pd.DataFrame(rows).to_csv(table, index=False)
    return album


def texture(name: str, grain: float, side: int) -> Pixels:
    """Stained noise of one grain, uint8 ``(side, side, 3)``."""
    noise = seeds.rng(0, "bench texture", name).normal(size=(side, side)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), grain)
    shade = 40 * smooth[:, :, None] / smooth.std()
    found: Pixels = np.clip(STAIN + shade, 0, 255).astype(np.uint8)
    return found


def load(data: Path) -> Tables:
    """The table of an album."""
    return Tables(train=read_table(data / "labels.csv", ("image_id", "patient", "label")))


def run_of(album: Album, training: Training, tuning: Tuning, work: Path, threads: int) -> Run:
    """A run on an album, folded and tiled."""
    task = Competition(
        name="album",
        classes=CLASSES,
        metric=LogLoss(),
        load=load,
        group="patient",
        files="train/{label}/{image_id}.jpg",
        folds=FoldPlan(k=3, holdout=0),
        tiles=TileGrid(size=album.side, count=1),
        training=training,
        tuning=tuning,
    )
    table = work / "folds.csv"
    run = Run(task, "album", album.folder, work, threads=threads, workers=threads, fold_table=table)
    for stage in ("fold", "tile"):
        if not state.finished(run, stage):
            state.execute(run, stage)
    return run
