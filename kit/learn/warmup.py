"""An encoder warmed up on tiles without labels, before it learns the task.

The method is VICReg (Bardes, Ponce and LeCun 2022, arXiv 2105.04906): an encoder learns that two
augmented views of a tile are alike (invariance), while its outputs keep their spread (variance) and say
different things (covariance). It needs neither negative pairs nor large batches, and what could go wrong
with it, a collapse to one constant, is measured.

Only images without labels are shown, of patients who have no labelled one: an encoder that has seen the
tiles of a validation fold would no longer be judged on patients it never met.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from kit import seeds
from kit.errors import DataError, SettingError
from kit.files import digest, file_digest, write_bytes, write_file, write_json
from kit.learn import augment, backbones, preprocess, weights
from kit.learn.bags import BagModel
from kit.learn.dataset import Ids
from kit.learn.encode import device
from kit.learn.models import Model
from kit.learn.optimise import cosine
from kit.progress import Bar
from kit.read import store
from kit.read.tiles import load_images
from kit.state import Run

VERSION = 1
BATCH = 64  # tiles of a step, about
TILES = 16  # drawn of an image in an epoch, at most
FEWEST = 16  # tiles of an epoch: with fewer, no spread can be measured
RATES = {"finetune": 1e-4, "scratch": 1e-3}  # pretrained weights are moved gently
DECAY = 1e-4
WIDTH = 256  # of the projector
INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0  # of the paper
CROP = 0.4  # least share of a tile's area that a view shows
COLLAPSED = 0.1  # share of the spread of a ball that the outputs must keep
log = logging.getLogger("kit")
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Pairs(Dataset[Pixels]):
    """A map from (epoch, image) to two views of its tiles, a function of the epoch and the image alone."""

    folder: Path
    ids: Ids
    size: int
    interpolation: str
    preset: str
    seed: int
    purpose: str

    def __getitem__(self, key: tuple[int, int]) -> Pixels:
        """Views ``(2, T, H, W, 3)`` of tiles that are drawn anew in each epoch."""
        epoch, n = key
        image = self.ids[n]
        content = store.read(store.path_of(self.folder, "extra", image))
        drawn = seeds.rng(self.seed, self.purpose, "tiles", epoch, image).permutation(len(content))[:TILES]
        tiles = preprocess.resize(content.decode(drawn.tolist()), self.size, self.interpolation)
        transform = augment.make(1.0, self.preset)
        views = []
        for view in range(2):
            draw = seeds.rng(self.seed, self.purpose, "crop", view, epoch, image)
            cropped = np.stack([crop(tile, draw) for tile in tiles])
            views.append(augment.apply(transform, cropped, self.seed, self.purpose, view, epoch, image))
        return np.stack(views)


def crop(tile: Pixels, draw: np.random.Generator) -> Pixels:
    """A square part of a tile, of 40 to 100 per cent of its area, at the tile's size."""
    side = tile.shape[0]
    part = max(1, round(side * float(np.sqrt(draw.uniform(CROP, 1.0)))))
    y, x = draw.integers(side - part + 1, size=2)
    resized = cv2.resize(tile[y : y + part, x : x + part], (side, side), interpolation=cv2.INTER_LINEAR)
    return np.asarray(resized, np.uint8)


@dataclass(frozen=True)
class Order:
    """A batch sampler: batches of (epoch, image number), from an epoch on, each in an order of its own."""

    images: int
    steps: int  # of an epoch
    first: int
    last: int
    seed: int
    purpose: str

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Batches of nearly as many images."""
        for epoch in range(self.first, self.last):
            order = seeds.rng(self.seed, self.purpose, "order", epoch).permutation(self.images)
            for part in np.array_split(order, self.steps):
                yield [(epoch, int(n)) for n in part]


class Projected(nn.Module):
    """An encoder and, above it, the projector whose outputs the loss compares."""

    def __init__(self, network: BagModel, features: int) -> None:
        super().__init__()
        self.network = network
        sizes = (features, WIDTH, WIDTH)
        hidden = [
            layer
            for n in range(2)
            for layer in (nn.Linear(sizes[n], sizes[n + 1]), nn.BatchNorm1d(sizes[n + 1]), nn.ReLU())
        ]
        self.projector = nn.Sequential(*hidden, nn.Linear(WIDTH, WIDTH))

    def forward(self, tiles: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 images ``(T, 3, H, W)`` -> features ``(T, D)`` and outputs ``(T, WIDTH)``."""
        features = self.network.embed(tiles)
        return features, self.projector(features)


def vicreg(one: Tensor, other: Tensor) -> Tensor:
    """The loss of the outputs ``(T, D)`` of two views of the same tiles (equations 1 to 6 of the paper)."""
    alike = nn.functional.mse_loss(one, other)
    wide = sum(nn.functional.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean() for z in (one, other)) / 2
    apart = sum((_off_diagonal(torch.cov(z.T)) ** 2).sum() / z.shape[1] for z in (one, other))
    return INVARIANCE * alike + VARIANCE * wide + COVARIANCE * apart


def _off_diagonal(square: Tensor) -> Tensor:
    return square - torch.diag(torch.diagonal(square))


def spread(outputs: Tensor) -> float:
    """How far outputs ``(T, D)`` point in different directions: about 1 all round, 0 if all are one.

    The standard deviation of the coordinates of normalised outputs, times sqrt(D) (Chen and He 2021).
    """
    unit = nn.functional.normalize(outputs.detach().float(), dim=1)
    return float(unit.std(dim=0).mean()) * float(np.sqrt(outputs.shape[1]))


@dataclass
class History:
    """The mean loss, and the mean spread of outputs and of features, of every epoch."""

    loss: list[float] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)
    features: list[float] = field(default_factory=list)

    def add(self, steps: list[tuple[float, float, float]]) -> None:
        """Add an epoch by what was measured in its steps."""
        for values, mean in zip(
            (self.loss, self.outputs, self.features), np.mean(steps, axis=0), strict=True
        ):
            values.append(round(float(mean), 6))


@dataclass(frozen=True)
class Warmup:
    """The warm-up of one backbone on some images.

    ids: the images, all of which have tiles.
    """

    run: Run
    model: Model
    ids: Ids

    @property
    def epochs(self) -> int:
        """How long it takes."""
        training = self.run.competition.training
        return max(1, round(training.extra_epochs * training.shorten))

    @property
    def steps(self) -> int:
        """Batches of an epoch; none has the tiles of one image alone.

        Raises:
            DataError: there are too few tiles.
        """
        tiles = load_images(self.run).query("split == 'extra'").set_index("image_id")["tiles"]
        drawn = int(tiles.loc[self.ids.tolist()].clip(upper=TILES).sum())
        if len(self.ids) < 2 or drawn < FEWEST:
            raise DataError(
                f"the warm-up has {drawn} tiles of {len(self.ids)} images, and needs {FEWEST} of 2 or more",
                "add images without a label, or leave out train.extra=pretrain",
            )
        return max(1, min(len(self.ids) // 2, drawn // BATCH))

    @property
    def purpose(self) -> str:
        """What its draws depend on."""
        return f"warm-up {self.model.backbone.name}"

    @property
    def preset(self) -> str:
        """How views differ; flips alone would leave the colours of a slide to tell its tiles by."""
        chosen = self.run.competition.training.preset
        return "light" if chosen in ("flips", "turns") else chosen

    @property
    def weights(self) -> Path | None:
        """Where it starts."""
        return weights.find_weights(self.model.backbone, self.run.weights)

    @property
    def key(self) -> str:
        """Everything that the result depends on."""
        run, backbone, stem = self.run, self.model.backbone, self.model.training.stem
        return digest(
            ({} if stem == "own" else {"stem": stem})
            | {
                "version": VERSION,
                "tiles": run.key("tile"),
                "images": self.ids.tolist(),
                "backbone": backbone.name,
                "weights": weights.weights_digest(backbone, run.weights),
                "pixels": preprocess.of(backbone.encoder, self.weights).record(),
                "preset": self.preset,
                "epochs": self.epochs,
                "seed": run.seed,
                "threads": run.threads,
                "device": device().type,
            }
        )

    def is_kept(self, path: Path) -> bool:
        """Whether the weights are there, of this very warm-up, and as they were written."""
        beside = path.with_suffix(".json")
        if not (path.is_file() and beside.is_file()):
            return False
        record = json.loads(beside.read_text())
        return bool(record["key"] == self.key and record["sha256"] == file_digest(path))

    def learn(self, path: Path) -> None:
        """Warm up and write the encoder's weights; a run that was stopped goes on at its last whole epoch."""
        log.info("warming up %s on %d images without a label", self.model.backbone.name, len(self.ids))
        with torch.random.fork_rng():
            torch.manual_seed(seeds.number(self.run.seed, self.purpose, "start"))
            network, history = self._learned(path.with_suffix(".ckpt"))
        self._require_sound(history)
        state = network.network.encoder.state_dict()  # type: ignore[union-attr]
        write_bytes(path, save({name: value.cpu().contiguous() for name, value in state.items()}))
        backbone = self.model.backbone
        record: dict[str, Any] = {
            "timm": backbone.encoder,
            "mode": backbone.mode,
            "key": self.key,
            "method": "vicreg",
        }
        record |= {"images": len(self.ids), "epochs": self.epochs, "sha256": file_digest(path)}
        record |= {"loss": history.loss, "outputs": history.outputs, "features": history.features}
        write_json(path.with_suffix(".json"), record | preprocess.of(backbone.encoder, self.weights).record())
        path.with_suffix(".ckpt").unlink(missing_ok=True)

    def _learned(self, checkpoint: Path) -> tuple[Projected, History]:
        network = self._new().to(device()).to(memory_format=torch.channels_last)
        optimiser = torch.optim.AdamW(
            network.parameters(), lr=RATES[self.model.backbone.mode], weight_decay=DECAY
        )
        history = History()
        first = self._resume(checkpoint, network, optimiser, history)
        order = Order(len(self.ids), self.steps, first, self.epochs, self.run.seed, self.purpose)
        batches = self._batches(order)
        network.train()
        for epoch in Bar(range(first, self.epochs), desc=self.purpose, unit="epoch"):
            # What dropout draws must not depend on where a stopped run went on.
            torch.manual_seed(seeds.number(self.run.seed, self.purpose, "dropout", epoch))
            steps = []
            for step in range(epoch * order.steps, (epoch + 1) * order.steps):
                rate = RATES[self.model.backbone.mode] * cosine(step / (self.epochs * order.steps))
                steps.append(_step(network, optimiser, next(batches).to(device()), rate))
            history.add(steps)
            self._keep(checkpoint, network, optimiser, history)
        return network.cpu().eval(), history

    def _new(self) -> Projected:
        """The encoder with the weights that it starts from, and a new projector."""
        backbone = self.model.backbone
        encoder = backbones.build(backbone.encoder, weights=self.weights, stem=self.model.training.stem)
        if self.weights is not None:
            weights.load_weights(encoder, self.weights, backbone.encoder)
        pixels = preprocess.of(backbone.encoder, self.weights)
        network = BagModel(encoder, encoder.features, 1, "mean", 0.0, pixels.mean, pixels.std)
        return Projected(network, encoder.features)

    def _batches(self, order: Order) -> Iterator[Tensor]:
        """Two views of the tiles of some images, uint8 ``(2, T, 3, H, W)``."""
        backbone = self.model.backbone
        pixels = preprocess.of(backbone.encoder, self.weights)
        pairs = Pairs(
            self.run.folder("tile"),
            self.ids,
            backbone.size,
            pixels.interpolation,
            self.preset,
            self.run.seed,
            self.purpose,
        )
        loader = DataLoader(
            pairs,
            batch_sampler=order,
            num_workers=self.run.workers,
            collate_fn=_joined,
            generator=torch.Generator(),  # its draws, of which none is used, are not taken from torch's own
            worker_init_fn=_start_worker,
        )
        return iter(loader)

    def _keep(self, path: Path, network: Projected, optimiser: torch.optim.AdamW, history: History) -> None:
        """Keep everything that the next epoch depends on."""
        content = {"key": self.key, "network": network.state_dict(), "optimiser": optimiser.state_dict()}
        content |= {"history": history.__dict__}
        write_file(path, lambda temporary: torch.save(content, temporary))

    def _resume(self, path: Path, network: Projected, optimiser: torch.optim.AdamW, history: History) -> int:
        """Load the checkpoint of this very warm-up; returns the epoch to go on with."""
        if not path.is_file():
            return 0
        content = torch.load(path, map_location=device(), weights_only=True)
        if content["key"] != self.key:
            return 0
        network.load_state_dict(content["network"])
        optimiser.load_state_dict(content["optimiser"])
        history.__dict__.update(content["history"])
        return len(history.loss)

    def _require_sound(self, history: History) -> None:
        """An encoder that says nearly the same of every tile would spoil every fit that starts from it."""
        name = self.model.backbone.name
        found = (history.outputs[-1], history.features[-1] / max(history.features[0], 1e-9))
        log.info("warm-up of %s: loss %.3f, spread %.2f", name, history.loss[-1], history.outputs[-1])
        if np.isfinite(history.loss[-1]) and min(found) >= COLLAPSED:
            return
        raise SettingError(
            f"the warm-up of {name} has collapsed: loss {history.loss[-1]:g}, its outputs keep {found[0]:.2f}"
            f" of the spread that they should have, its features {found[1]:.2f} of what they had",
            "leave out train.extra=pretrain; or tile more images without a label",
        )


def _start_worker(number: int) -> None:
    """One thread a worker: there are as many workers as cores are to be used."""
    cv2.setNumThreads(0)


def _joined(bags: list[Pixels]) -> Tensor:
    return torch.from_numpy(np.concatenate(bags, axis=1)).permute(0, 1, 4, 2, 3).contiguous()


def _step(
    network: Projected, optimiser: torch.optim.AdamW, views: Tensor, rate: float
) -> tuple[float, float, float]:
    """Learn from one batch; returns its loss, and the spread of outputs and of features."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    features, outputs = network(views.flatten(0, 1))
    loss = vicreg(*outputs.chunk(2))
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(loss.detach()), spread(outputs), spread(features)
