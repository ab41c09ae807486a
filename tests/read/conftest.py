"""Small made slides, and runs over them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray

from kit.competition import Competition, Tables, TileGrid
from kit.metrics import WeightedLogLoss
from kit.state import Run

Pixels = NDArray[np.uint8]


@pytest.fixture
def write_slide() -> Callable[..., Path]:
    """Write pixels as the competition's slides are: one level, 128 x 128 tiles, Deflate."""

    def write(path: Path, pixels: Pixels, **options: object) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        settings = {"tile": (128, 128), "compression": "deflate", "predictor": 2, **options}
        tifffile.imwrite(path, pixels, photometric="rgb", **settings)  # type: ignore[arg-type]
        return path

    return write


@pytest.fixture
def paint() -> Callable[..., tuple[Pixels, NDArray[np.bool_]]]:
    """Glass with a textured ellipse of tissue on it, and the truth about where the tissue is."""

    def painted(
        width: int = 1200,
        height: int = 1000,
        glass: tuple[int, int, int] = (255, 255, 255),
        share: float = 0.2,
        seed: int = 0,
    ) -> tuple[Pixels, NDArray[np.bool_]]:
        rng = np.random.default_rng(seed)
        y, x = np.ogrid[:height, :width]
        radius = np.sqrt(share / np.pi)
        tissue = np.hypot((x / width - 0.5), (y / height - 0.5)) < radius
        if share > 0.5:  # a band, since an ellipse would reach over the edges
            tissue = np.broadcast_to(y < share * height, (height, width))
        coarse = rng.normal(0, 20, (height // 40 + 1, width // 40 + 1, 1))
        texture = np.kron(coarse, np.ones((40, 40, 1)))[:height, :width]
        stained = np.array((205, 120, 165)) * np.array(glass) / 255 + texture
        pixels = np.where(tissue[..., None], stained, glass) + rng.normal(0, 2, (height, width, 1))
        return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), tissue

    return painted


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Run]:
    """A run over images, given as ``{image_id: path relative to data}`` for train and test."""

    def make(
        train: dict[str, str],
        test: dict[str, str] | None = None,
        reader: str = "slide",
        tiles: TileGrid | None = None,
        work: str = "work",
        **options: int,
    ) -> Run:
        def table(images: dict[str, str], label: str) -> pd.DataFrame:
            rows = {"image_id": list(images), "file": list(images.values())}
            return pd.DataFrame(rows, dtype=object).assign(label=label)

        tables = Tables(table(train, "a"), None if test is None else table(test, ""))
        competition = Competition(
            name="made",
            classes=("a", "b"),
            metric=WeightedLogLoss(weights=(0.5, 0.5)),
            load=lambda data: tables,
            files="{file}",
            reader=reader,
            tiles=tiles or TileGrid(size=32, scale=4, count=6, overview=8),
        )
        return Run(competition, "made", tmp_path / "data", tmp_path / work, **options)

    return make
