"""What a model looked at in an image: attention over its tiles, and Grad-CAM of the tile that counted most.

An image of a fold is explained by the model that was fitted without that fold, as it was predicted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.errors import KitError
from kit.files import read_strings
from kit.learn import attention, gradcam, plan
from kit.learn.gradcam import Explainer
from kit.learn.models import Model
from kit.learn.train import weights_path
from kit.read.reader import Pixels, resized
from kit.read.store import Tiles
from kit.show.results import without_folders
from kit.show.sheet import HEAT
from kit.show.verdict import SPACE
from kit.state import Run

SIDE = 144  # pixels of a tile
GAP = 6
VEIL = 0.5  # how much of a pixel's colour is heat


@dataclass(frozen=True)
class Seen:
    """One tile with what speaks for a class in it.

    place: of the tile, from 0. plain: the tile. heat: the same under its heat. places: of the map, in words;
    or that it is empty.
    """

    place: int
    plain: Pixels
    heat: Pixels
    places: str

    @property
    def picture(self) -> Pixels:
        """Both side by side."""
        gap = np.full((len(self.plain), GAP, 3), 255, np.uint8)
        return np.concatenate([self.plain, gap, self.heat], axis=1)


@dataclass
class Looks:
    """The model of a run that explains its images, and what it said of each.

    notes: why something is not shown, each once.
    """

    run: Run
    notes: list[str] = field(default_factory=list)

    @cached_property
    def rows(self) -> pd.DataFrame:
        """The OOF rows of the explaining model, by image: unit_id, fold and probabilities as text."""
        table = read_strings(self.run.folder("predict") / "oof.csv")
        model = self.model
        seed = str(self.run.seed + (0 if model is None else model.seed))
        name = table["model"].iloc[0] if model is None else model.name
        return table[(table["model"] == name) & (table["seed"] == seed)].set_index("image_id")

    @cached_property
    def known(self) -> list[Model]:
        """The models that were fitted, those that attend to tiles first; none where that is not known."""
        try:
            known = plan.kept(self.run)
        except KitError as error:
            self._note(f"which models were fitted is not known: {error.message}")
            return []
        # Sorting keeps the order of equal ones.
        return sorted(known, key=lambda one: not self._shares_of(one).is_file())

    @cached_property
    def model(self) -> Model | None:
        """The first model that attends to tiles, else the first; ``None`` where none is known any more."""
        return next(iter(self.known), None)

    @cached_property
    def shares(self) -> dict[str, NDArray[np.float32]]:
        """What each tile of each image counted; empty of a model that attends to none."""
        if self.model is None:
            return {}
        path = self._shares_of(self.model)
        try:
            return attention.read(path) if path.is_file() else {}
        except KitError as error:
            self._note(error.message)
            return {}

    @cached_property
    def explainer(self) -> Explainer | None:
        """Of the model, or where that has no maps of the first one that has; ``None`` where none has.

        Not of the one with the finest map: that is often the shallowest one.
        """
        if self.model is None:
            return None
        side = self.run.competition.tiles.size
        mapped = (one for one in self.known if gradcam.places(one, one.backbone.size or side) > 1)
        found = next(mapped, None)
        if found is None:
            self._note("there is no Grad-CAM: no model has maps of more than one place")
            return None
        if found.name != self.model.name:
            self._note(f"{self.model.name} has no maps of more than one place: Grad-CAM is of {found.name}")
        if found.training.layers == "all":
            self._note("Grad-CAM is of the last maps: what the model sees in earlier layers too is not in it")
        return Explainer(self.run, found)

    def attended(self, image: str, tiles: Tiles) -> NDArray[np.float32] | None:
        """The shares of the tiles of an image ``(T,)``; ``None`` where there are none, or of other tiles."""
        found = self.shares.get(image)
        return found if found is not None and len(found) == len(tiles) else None

    def seen(self, image: str, tiles: Tiles, label: int, size: tuple[int, int] = (SIDE, SIDE)) -> Seen | None:
        """Grad-CAM of a class in the tile that counted most; ``None`` where there is none, which is noted.

        Args:
            size: width and height in pixels, of a photograph whose tile is not of its shape.

        Raises:
            StageError: the tile is damaged.
        """
        if self.explainer is None or self.model is None or image not in self.rows.index or not len(tiles):
            return None
        shares = self.attended(image, tiles)
        place = int(np.argmax(tiles.weight if shares is None else shares))
        fold = str(self.rows.loc[[image], "fold"].iloc[0])
        if not _at_hand(weights_path(self.run, self.explainer.model, fold)):
            self._note(
                "there is no Grad-CAM: the weights of the fold models are not in the work folder any more"
            )
            return None
        tile = tiles.decode([place])[0]
        try:
            heat = self.explainer.explain(fold, tile, label).heat
        except KitError as error:  # of the encoder, and so of every other image
            self._note(f"there is no Grad-CAM: {error.message}")
            self.__dict__["explainer"] = None
            return None
        height, width = heat.shape
        words = f"{width}{SPACE}×{SPACE}{height} places" if heat.any() else "for which nothing in it speaks"
        return Seen(place, resized(tile, *size), veiled(tile, heat, size), words)

    def _shares_of(self, model: Model) -> Path:
        return attention.place(self.run, model.name, model.seed, "train")

    def _note(self, text: str) -> None:
        text = without_folders(self.run, text)
        if text not in self.notes:
            self.notes.append(text)


def _at_hand(path: Path) -> bool:
    return path.is_file() and path.with_suffix(".json").is_file()


def veiled(tile: Pixels, heat: NDArray[np.float32], size: tuple[int, int] = (SIDE, SIDE)) -> Pixels:
    """A tile ``(H, W, 3)`` under a heat ``(h, w)`` from 0 to 1: the lighter, the more."""
    plain = resized(tile, *size)
    fine = cv2.resize(heat, size, interpolation=cv2.INTER_CUBIC).clip(0, 1)
    colours = matplotlib.colormaps[HEAT](fine, bytes=True)[..., :3]
    grey = np.repeat(cv2.cvtColor(plain, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    return np.asarray(np.rint((1 - VEIL) * grey + VEIL * colours), np.uint8)
