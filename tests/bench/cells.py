r"""Five networks of a course's report and the kit's default on blood cells: one split, equal test images.

python -m tests.bench.cells [--quick] [--data DIR] [--weights NAME=FILE ...] [--work DIR] [--only NAME ...]

The report drew 160 other test images for each network and printed two of its tables twice; here every network
is tested on the images that the competition's folds hold out, and learns from all others, or from the first
few thousand of them in a drawn order. No network but the kit's has weights to start from. The last epoch is
the model: nobody chose it by the test. For a CPU's sake AlexNet, VGG16 and InceptionV3 see 4,000 images for
three epochs, and the modified LeNet 4,000 images for twelve, which the table says. ``--quick``: the demo's
cells and a pass or two in a folder of their own, to see that all of it runs. What is done stays done in
``WORK/cells.json``, under the settings that it was done with: others are done anew.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kit import seeds, settings, state
from kit.combine import classification
from kit.combine.sentences import aligned
from kit.competition import Competition, find
from kit.data import demo_data
from kit.files import digest, file_digest, read_json, write_text
from kit.learn import models, predict, train
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.metrics import Array
from kit.parallel import cores
from kit.state import Run

SEED_CLAIMS = {"LeNet-5": 0.89, "AlexNet": 0.81, "VGG16": 0.81, "InceptionV3": 0.99, "modified LeNet": 0.89}
SMALL = 4000  # images that the large networks learn from
HEAD = (
    "network",
    "pixels",
    "parameters",
    "images",
    "epochs",
    "test",
    *classification.SUMMARY[1:],
    "minutes",
    "claimed",
)


@dataclass(frozen=True)
class Network:
    """A network, as ``train.backbones`` has it, and from how many images it learns (0: all)."""

    name: str
    spec: str
    images: int = 0


SLOW = "lr=1e-4; epochs=3; batch=32"
NETWORKS = (
    Network("LeNet-5", "lenet5:scratch:32; stem=own; lr=1e-3; epochs=50"),
    Network("AlexNet", f"alexnet:scratch:64; stem=own; {SLOW}", SMALL),
    Network("VGG16", f"vgg16:scratch:64; stem=own; {SLOW}", SMALL),
    Network("InceptionV3", "inception_v3:scratch:96; stem=own; lr=1e-3; epochs=3; batch=32", SMALL),
    Network("modified LeNet", "lenet5_224:scratch:224; stem=own; lr=1e-3; epochs=12", SMALL),
)


def networks(task: Competition) -> list[Network]:
    """The report's five, and what the declaration has."""
    return [*NETWORKS, *(Network(f"kit: {spec}", spec) for spec in task.training.backbones)]


def prepared(options: argparse.Namespace) -> Run:
    """The run with its folds and tiles."""
    task = find("blood-cells")
    if options.quick:
        task = settings.apply(task, [*task.demo.settings, ("demo.patients", "160")])
        data = demo_data(task, options.work, cores())
    else:
        data = options.data
    weights = {name: Path(file) for name, file in (pair.split("=", 1) for pair in options.weights)}
    run = Run(
        task,
        "blood-cells",
        data,
        options.work,
        demo=options.quick,
        threads=cores(),
        workers=cores(),
        weights=weights,
    )
    for stage in ("fold", "tile"):
        state.execute(run, stage)
    return run


def digest_of(run: Run, network: Network) -> str:
    """What a row of the table follows from: the network, the images, every setting and the weights."""
    weights = {name: file_digest(path) for name, path in sorted(run.weights.items())}
    training = {key: str(value) for key, value in settings.known(run.competition).items()}
    return digest([asdict(network), run.key("tile"), training, weights, run.seed, run.demo])


def scored(run: Run, network: Network, quick: bool) -> dict[str, object]:
    """Fit one network and score it on the held-out images."""
    training = run.competition.training
    model = models.parse(network.spec, training)
    if quick and not model.frozen:
        model = model.having({"epochs": 1})
    images = labelled(run)
    rows, test = images[images["role"] == "fold"], images[images["role"] == "holdout"]
    if network.images and len(rows) > network.images:
        drawn = np.argsort([seeds.number(run.seed, "bench cells", name) for name in rows.index])
        rows = rows.iloc[np.sort(drawn[: network.images])]
    start = time.perf_counter()
    fitted = train.train(Fit(run, model, rows, f"bench {network.name}"))
    p: Array = predict.predict_images(run, model, fitted, "train", test.index.to_numpy(dtype=object)).astype(
        float
    )
    y, groups = test["y"].to_numpy(), test["group_id"].to_numpy(dtype=object)
    found = classification.summary(y, p, groups, run.competition.metric.row_weights(y))
    return found | {
        "name": network.name,
        "pixels": model.backbone.size or run.competition.tiles.size,
        "parameters": sum(tensor.numel() for tensor in fitted.parameters()),
        "images": len(rows),
        "epochs": model.epochs,
        "test": len(test),
        "minutes": (time.perf_counter() - start) / 60,
    }


def cells(row: dict[str, object]) -> tuple[str, ...]:
    """One network as a line."""
    first, *rest = classification.summary_cells(row)
    counted = [f"{row[key]:,}" for key in ("pixels", "parameters", "images", "epochs", "test")]
    claimed = SEED_CLAIMS.get(str(row["name"]))
    return (first, *counted, *rest, f"{row['minutes']:.1f}", "" if claimed is None else f"{claimed} of 160")


def main(words: Sequence[str] | None = None) -> None:
    """Fit the networks one by one, but for those that are done."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/blood-cells"))
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--work", type=Path, default=Path("work/bench-cells"))
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME")
    options = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.quick:
        options.work = options.work / "quick"
    run, kept = prepared(options), options.work / "cells.json"
    known: dict[str, dict[str, object]] = read_json(kept)
    rows: dict[str, dict[str, object]] = {}
    for network in networks(run.competition):
        key = digest_of(run, network)
        if key not in known:
            if options.only and network.name not in options.only:
                continue
            known[key] = scored(run, network, options.quick)
            write_text(kept, json.dumps(known, indent=1) + "\n")
            print(*cells(known[key]), flush=True)
        rows[network.name] = known[key]
    print("\n".join(aligned(HEAD, [cells(row) for row in rows.values()])))
    pd.DataFrame([cells(row) for row in rows.values()], columns=list(HEAD)).to_csv(
        options.work / "cells.csv", index=False
    )


if __name__ == "__main__":
    main()
