"""How an encoder wants its pixels, who says so, and resizing exactly as it was trained to see."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import timm
from numpy.typing import NDArray
from PIL import Image

from kit.errors import SettingError, WeightsError, listed
from kit.learn import classic, foundation

assert classic.default_cfgs, "the networks that this import registers are asked for by name"
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "hamming": Image.Resampling.HAMMING,
    "lanczos": Image.Resampling.LANCZOS,
}
Tiles = NDArray[np.uint8]


@dataclass(frozen=True)
class Preprocessing:
    """What pixels an encoder was trained with.

    mean, std: of red, green and blue, on a scale from 0 to 1. interpolation: when an image is resized.
    size: pixels of an image, each side. source: who says so.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    size: int
    source: str

    def record(self) -> dict[str, Any]:
        """The same in timm's words, to be written beside weights as JSON."""
        return {
            "mean": list(self.mean),
            "std": list(self.std),
            "interpolation": self.interpolation,
            "input_size": [3, self.size, self.size],
        }


def of(encoder: str, weights: Path | None = None) -> Preprocessing:
    """What lies beside the weights says; where it says nothing, timm's record of the encoder does.

    Beside weights there may be ``weights.json`` (a folder's list), ``config.json`` of timm's hub or
    ``preprocessor_config.json`` of transformers (a hub folder), and ``NAME.json`` (a model of one's own).

    Raises:
        WeightsError: two of them contradict each other, or one is damaged.
    """
    said = {source: _fields(raw, source) for source, raw in _beside(encoder, weights).items() if raw}
    known = _known(encoder)
    found: dict[str, Any] = {}
    for source, values in said.items():
        for name, value in values.items():
            _agree(name, value, source, said)
            if not _equal(value, known[name]):
                sentence = f"{encoder}: {name} is {value}, not timm's {known[name]} ({source})"
                foundation.say_once(logging.INFO, sentence)
        found |= values
    spoken = " and ".join(source for source, values in said.items() if values)
    return Preprocessing(**(known | found | ({"source": spoken} if spoken else {})))


def from_record(record: Mapping[str, Any], source: str) -> Preprocessing:
    """What `Preprocessing.record` wrote.

    Raises:
        WeightsError: something is missing.
    """
    values = _fields(record, source)
    missing = [item.name for item in fields(Preprocessing) if item.name not in (*values, "source")]
    if missing:
        raise WeightsError(f"{source} does not say {', '.join(missing)}", "train again")
    return Preprocessing(**values, source=source)


def check(recorded: Preprocessing, now: Preprocessing) -> None:
    """A model is used with the pixels that it was trained with.

    Raises:
        WeightsError: naming each field that differs, and who says what.
    """
    names = [item.name for item in fields(Preprocessing) if item.name != "source"]
    pairs = [(name, getattr(recorded, name), getattr(now, name)) for name in names]
    wrong = [f"{name}: {old}, now {new}" for name, old, new in pairs if not _equal(old, new)]
    if wrong:
        raise WeightsError(
            f"the model was trained on other pixels ({recorded.source}) than it is shown now"
            f" ({now.source}):\n{listed(wrong)}",
            "attach the weights that the model was trained with, or train again",
        )


def resize(tiles: Tiles, size: int, interpolation: str) -> Tiles:
    """Tiles ``(T, H, W, 3)`` of ``size`` pixels each side, as timm's transform for evaluation does it.

    That is PIL's, which widens its filter when it shrinks (antialiasing). ``size`` 0 keeps them.

    Raises:
        SettingError: there is no such interpolation.
    """
    if interpolation not in FILTERS:
        raise SettingError(f"there is no interpolation '{interpolation}'", f"one of {', '.join(FILTERS)}")
    if size == 0 or tiles.shape[1:3] == (size, size):
        return tiles
    found = np.empty((len(tiles), size, size, 3), np.uint8)
    for place, tile in zip(found, tiles, strict=True):
        place[:] = np.asarray(Image.fromarray(tile).resize((size, size), FILTERS[interpolation]))
    return found


def _known(encoder: str) -> dict[str, Any]:
    """What is known of an encoder without its weights: its card, or timm's record of it."""
    card = foundation.CARDS.get(encoder)
    if card is not None:
        values: dict[str, Any] = {"mean": card.norm[0], "std": card.norm[1]}
        more = {"interpolation": card.interpolation, "size": card.size, "source": f"the page of {card.hub}"}
        return values | more
    config = timm.get_pretrained_cfg(encoder) or timm.models.PretrainedCfg()
    return _fields(config.__dict__, "timm") | {"source": f"timm's record of {encoder}"}


def _beside(encoder: str, weights: Path | None) -> dict[str, dict[str, Any]]:
    """What the files beside weights say, by their paths."""
    if weights is None:
        return {}
    folder = weights.with_name("weights.json")
    entries = foundation.read_json(folder)
    mine = [
        entry for entry in entries.values() if isinstance(entry, dict) and entry.get("file") == weights.name
    ]
    found = {f"{folder} of {weights.name}": mine[0]} if mine else {}
    if weights.name in foundation.HUB_FILES:
        said = foundation.config(weights)
        found[str(weights.with_name("config.json"))] = said.get("pretrained_cfg", said)
        processor = weights.with_name("preprocessor_config.json")
        found[str(processor)] = _processor(foundation.read_json(processor))
    own = weights.with_suffix(".json")
    if own != folder:
        found[str(own)] = foundation.read_json(own)
    return found


def _processor(said: Mapping[str, Any]) -> dict[str, Any]:
    """The words of transformers in those of timm; it numbers interpolations as PIL does."""
    found = {"mean": said.get("image_mean"), "std": said.get("image_std")}
    size = said.get("size")
    if isinstance(size, Mapping):
        size = size.get("height", size.get("shortest_edge"))
    names = {int(number): name for name, number in FILTERS.items()}
    found |= {"size": size, "interpolation": names.get(said.get("resample", -1))}
    return {name: value for name, value in found.items() if value is not None}


def _fields(raw: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Of what a source says: mean, std, interpolation and size, in one form."""
    try:
        found: dict[str, Any] = {name: _three(raw[name]) for name in ("mean", "std") if raw.get(name)}
        if raw.get("interpolation"):
            found["interpolation"] = str(raw["interpolation"])
        if raw.get("input_size") or raw.get("size"):
            found["size"] = _side(raw.get("input_size") or raw["size"])
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{source} makes no sense: {error}",
            "mean and std are three numbers, input_size is [3, pixels, pixels]",
        ) from error
    if found.get("interpolation", "bicubic") not in FILTERS:
        hint = f"one of {', '.join(FILTERS)}"
        raise WeightsError(f"{source} asks for the interpolation '{found['interpolation']}'", hint)
    return found


def _three(values: Sequence[float]) -> tuple[float, ...]:
    """A number a colour; that of a grey image stands for all three."""
    found = tuple(float(value) for value in values)
    if len(found) not in (1, 3):
        raise ValueError(f"{list(values)} is not one number a colour")
    return found * 3 if len(found) == 1 else found


def _side(size: int | Sequence[int]) -> int:
    sides = [size] if isinstance(size, int) else [int(side) for side in size][-2:]
    if len(set(sides)) != 1 or sides[0] <= 0:
        raise ValueError(f"images of {size} pixels are not square")
    return sides[0]


def _agree(name: str, value: Any, source: str, said: Mapping[str, Mapping[str, Any]]) -> None:
    for other, values in said.items():
        if name in values and not _equal(values[name], value):
            raise WeightsError(
                f"{name} is {value} in {source}, and {values[name]} in {other}",
                "keep the one that the weights were trained with, and remove the other",
            )


def _equal(one: Any, other: Any) -> bool:
    """Equal up to the digits that a JSON file may have rounded."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and bool(np.allclose(one, other, rtol=0, atol=1e-6))
    return bool(one == other)
