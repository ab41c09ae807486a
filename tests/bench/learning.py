"""What learning costs: training and prediction beside timm's own loop, tuning, and bags of many tiles.

``python -m tests.bench.learning [--quick] [--case NAME ...] [--json FILE]``

Every number is measured in a fresh process, on photographs that are made once (``work/bench-photographs``).

- train: images a second of a whole fit from scratch, files to weights, beside timm's own data set, loader,
  transforms and optimiser: the same backbone, size, batch, epochs, threads and loader processes, with
  each side's own augmentation and without any. The two take turns; the ratio is that of their fastest runs.
- infer: the same for the probabilities of every image.
- tuning: twenty trials of one fold in frozen mode, in embedding passes of the images that they learn from.
- tiles: embedding, fit and prediction of bags with more and more tiles.
- waiting: the share of a training step in which a GPU waits for data; left out without a GPU.
- strip-paper: the paper's recipe beside the kit's default on the demo; see ``strip_paper.py``.
- extra: what images without labels are good for; see ``extra.py``.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd
import torch

from kit import state
from kit.competition import Training, Tuning
from kit.learn import models, predict, train
from kit.learn.dataset import labelled
from kit.learn.embed import embeddings, new_encoder
from kit.learn.fit import Fit
from kit.state import Run
from tests.bench import bags, timm_loop
from tests.bench.environment import ROOT
from tests.bench.harness import Row, machine, measure, of_cases, options_of, write
from tests.bench.pictures import Album, made, run_of

FOLDER = ROOT / "work" / "bench-photographs"
THREADS = 2
WORKERS = 16  # loader processes beside a GPU
EPOCHS = 2
BATCH = 16
TRIALS = 20
STEADY = 30.0  # seconds
Timed = tuple[int, float, float, float]  # images, wall and CPU seconds, peak MiB


@dataclass(frozen=True)
class Plan:
    """What is run: encoders with the side and the number of their pictures, and how often."""

    encoders: tuple[tuple[str, int, int], ...]
    tuned: int
    repeats: int
    quick: bool = False


FULL = Plan((("mobilenetv2_100", 128, 256), ("resnet18", 128, 256), ("resnet50", 224, 64)), 1000, repeats=2)
QUICK = Plan((("mobilenetv2_100", 128, 96),), 200, repeats=1, quick=True)


def album_of(images: int, side: int) -> Album:
    """A folder of so many photographs of this size, made at the first call."""
    return made(Album(FOLDER / f"{images}x{side}", images, side))


def kit_train(album: Album, encoder: str, augment: float) -> int:
    """The kit's fit of a network from scratch, with tiling left out; returns how many images it has seen."""
    training = Training(
        backbones=(f"{encoder}:scratch",),
        batch=BATCH,
        finetune_epochs=EPOCHS,
        augment=augment,
    )
    run, images = ready(album, training)
    train.train(Fit(run, models.of_run(run)[0], images, "bench"))
    return EPOCHS * len(images)


def kit_predict(album: Album, encoder: str) -> int:
    """The kit's probabilities of every image, by a network that has just been made."""
    run, images = ready(album, Training(backbones=(f"{encoder}:scratch",), views=1))
    model = models.of_run(run)[0]
    network = new_encoder(run, model)
    return len(predict.predict_images(run, model, network.eval(), "train", images.index.to_numpy(object)))


def ready(album: Album, training: Training) -> tuple[Run, pd.DataFrame]:
    """A run on an album, and its images."""
    run = run_of(album, training, Tuning(trials=0), album.folder / "kit", THREADS)
    torch.set_num_threads(THREADS)
    return run, labelled(run)


def in_turns(ours: Callable[[], int], theirs: Callable[[], int], repeats: int) -> tuple[Timed, Timed]:
    """The fastest of each side's runs; no further ones where they are long enough to be steady."""
    found = [(measure(ours), measure(theirs))]
    while len(found) < repeats and wall(found[0][0]) < STEADY:
        found.append((measure(ours), measure(theirs)))
    first, second = zip(*found, strict=True)
    return min(first, key=wall), min(second, key=wall)


def wall(timed: Timed) -> float:
    """Its wall seconds."""
    return timed[1]


def beside(case: str, ours: Callable[[], int], theirs: Callable[[], int], repeats: int) -> Iterator[Row]:
    """Images a second of both sides, and how many times the peer's the kit's are."""
    kit, peer = in_turns(ours, theirs, repeats)
    for system, (images, *cost) in (("kit", kit), ("timm", peer)):
        yield Row(case, system, *cost, images / cost[0], "images/s")
    ratio = (kit[0] / kit[1]) / (peer[0] / peer[1])
    yield Row(case, "kit", *kit[1:], ratio, "times timm's images/s")


def train_rows(plan: Plan) -> Iterator[Row]:
    """Training from scratch."""
    for encoder, side, images in plan.encoders:
        album = album_of(images, side)
        ready(album, Training())  # tiled before anything is measured
        for name, augment in (("augmented", True), ("as they are", False)):
            yield from beside(
                f"train {encoder} at {side} px, {name}",
                partial(kit_train, album, encoder, 0.5 if augment else 0.0),
                partial(timm_loop.train, album, encoder, BATCH, EPOCHS, THREADS, THREADS, augment),
                plan.repeats,
            )


def infer_rows(plan: Plan) -> Iterator[Row]:
    """Prediction."""
    for encoder, side, images in plan.encoders:
        album = album_of(images, side)
        ready(album, Training())
        yield from beside(
            f"infer {encoder} at {side} px",
            partial(kit_predict, album, encoder),
            partial(timm_loop.predict, album, encoder, 32, THREADS, THREADS),
            plan.repeats,
        )


def tuning_rows(plan: Plan) -> Iterator[Row]:
    """A search of twenty trials a fold, beside the embedding pass that it rests on."""
    album = album_of(plan.tuned, 128)
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        images, *cost = measure(partial(embed_album, album, work))
        yield Row("tuning, embedding pass", "kit", *cost, images / cost[0], "images/s")
        folds, *spent = measure(partial(tune_album, album, work))
        yield Row("tuning, 20 trials a fold", "kit", *spent, spent[0] / folds, "seconds a fold")
        yield Row("tuning, 20 trials a fold", "kit", *spent, spent[0] / folds / cost[0], "embedding passes")


def frozen_run(album: Album, work: Path) -> Run:
    """A run with one frozen backbone, its tiles in ``work``."""
    training = Training(backbones=("tf_efficientnet_lite0:frozen",))
    run = run_of(album, training, Tuning(trials=TRIALS), work, THREADS)
    torch.set_num_threads(THREADS)
    return run


def embed_album(album: Album, work: Path) -> int:
    """Embed every image."""
    run = frozen_run(album, work)
    return len(embeddings(run, models.of_run(run)[0], "train").ids)


def tune_album(album: Album, work: Path) -> int:
    """Search on every fold; returns how many folds there are."""
    run = frozen_run(album, work)
    state.execute(run, "tune")
    return run.competition.folds.k


def tile_rows(plan: Plan) -> Iterator[Row]:
    """Bags of more and more tiles."""
    for tiles in (8, 32) if plan.quick else (8, 32, 128, 512, 2048):
        with tempfile.TemporaryDirectory() as place:
            run = bags.run_of(Path(place), tiles, THREADS)
            count, *cost = measure(partial(bags.learn, run))
        yield Row(f"bags of {tiles} tiles", "kit", *cost, 1000 * cost[0] / count, "ms a tile")


def waiting_rows(plan: Plan) -> Iterator[Row]:
    """How long a GPU waits for data."""
    if not torch.cuda.is_available():
        logging.getLogger(__name__).warning("waiting: left out, this machine has no GPU")
        return
    for encoder, side, images in plan.encoders:
        album = album_of(images, side)
        with tempfile.TemporaryDirectory() as place:
            share, *cost = measure(partial(waiting, album, encoder, Path(place)))
        yield Row(f"waiting, {encoder} at {side} px", "kit", *cost, 100 * share, "% of a step")


def waiting(album: Album, encoder: str, work: Path) -> float:
    """The mean share of a training step that the device waits for data, first epoch left out."""
    training = Training(backbones=(f"{encoder}:scratch",), batch=64, finetune_epochs=4, precision="bf16")
    run = replace(run_of(album, training, Tuning(trials=0), work, THREADS), workers=WORKERS)
    for stage in ("tune", "train"):
        state.execute(run, stage)
    (model,) = models.of_run(run)
    log = pd.read_csv(train.weights_path(run, model, "0").with_suffix(".log.csv"))
    return float(log["idle_share"].iloc[1:].mean())


def paper_rows(plan: Plan) -> Iterator[Row]:
    """The paper's recipe, measured elsewhere."""
    from tests.bench import strip_paper

    yield from strip_paper.rows(plan.quick)


def extra_rows(plan: Plan) -> Iterator[Row]:
    """Images without labels, measured elsewhere."""
    from tests.bench import extra

    yield from extra.rows(plan.quick)


CASES: dict[str, Callable[[Plan], Iterator[Row]]] = {
    "train": train_rows,
    "infer": infer_rows,
    "tuning": tuning_rows,
    "tiles": tile_rows,
    "waiting": waiting_rows,
    "strip-paper": paper_rows,
    "extra": extra_rows,
}


def main() -> None:
    """Measure, print and write."""
    options = options_of(
        "tests.bench.learning", __doc__, CASES, "one small encoder, fewer images, one run each"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    print(machine())
    rows = list(of_cases(CASES, QUICK if options.quick else FULL, options.case))
    write(rows, options.json)


if __name__ == "__main__":
    main()
