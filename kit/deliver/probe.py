"""Golden inputs: a few tiles with what every network said of them when the bundle was made, and a made image.

The kernel predicts them first, and stops where it says something else: a wrong weight, other pixels, half
precision or another library give a submission that looks as good as a right one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from kit.deliver import specimen
from kit.deliver.origin import TOLERANCE, machine
from kit.deliver.sketch import PIXELS, other_pixels, sketched
from kit.errors import DataError, KitError, WeightsError
from kit.files import digest, file_digest, read_arrays, write_arrays
from kit.learn import embed, models, plan, predict, preprocess
from kit.learn.dataset import labelled
from kit.learn.models import Model
from kit.learn.train import fold_names, weights_path
from kit.read import store
from kit.read.tiles import load_images
from kit.state import Run

IMAGES, TILES = 3, 4  # at most, of each of them
LARGE = 1e-3  # from here on it is no rounding of another library
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python-headless")
MACHINE = re.compile("CUDA|cuDNN|cuBLAS|out of memory|n't allocate memory", re.IGNORECASE)
NAMES = ("tiles", "counts", "weight", "probabilities", "about")
Pixels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Fault = tuple[str, str]  # a kind, and a sentence
Eyes = dict[Any, tuple[list[tuple[NDArray[np.float32], NDArray[np.float32]]], "Seen"]]


@dataclass
class Seen:
    """What went through an encoder: a sketch of its pixels, and how exact the numbers were.

    pretrained: the digest of a frozen encoder's tensors; the files that they are in may differ.
    """

    pixels: list[NDArray[np.float32]] = field(default_factory=list)
    inexact: set[str] = field(default_factory=set)
    pretrained: str = ""

    def sketch(self) -> NDArray[np.float32]:
        """Of every tile and colour the mean, the mean square and some pixels ``(T, 3, 2 + GRID^2)``."""
        return np.concatenate(self.pixels)


def write(run: Run, path: Path) -> None:
    """Keep golden inputs of a run that has been trained.

    Raises:
        DataError: it has no image with tiles.
    """
    torch.set_num_threads(run.threads)
    images = chosen(run)
    texts = dict(
        zip([m.name for m in models.first_seeds(run)], run.competition.training.backbones, strict=True)
    )
    entries, values, arrays = [], [], dict[str, NDArray[Any]]()
    eyes: Eyes = {}
    folds = fold_names(labelled(run))
    for given in plan.kept(run):
        for fold in folds:
            seen = Seen()
            values.append(predicted(run, given, fold, images, seen, eyes))
            about_it = {"text": texts[given.name], "pretrained": seen.pretrained}
            entries.append(described(run, given, fold) | about_it)
            # Pixels are the same for all folds of a model.
            arrays.setdefault(f"pixels {given.purpose}", seen.sketch())
    about = {
        "entries": entries,
        "batch": run.competition.training.infer_batch,
        "precision": "fp32",
        "machine": machine(),
        "libraries": libraries(),
    }
    arrays |= specimen.made(run)
    arrays |= {
        "tiles": np.concatenate([tiles.decode() for tiles in images]),
        "counts": np.array([len(tiles) for tiles in images]),
        "weight": np.concatenate([tiles.weight for tiles in images]),
        "probabilities": np.stack(values),
        "about": np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8),
    }
    write_arrays(path, arrays)


def check(run: Run, path: Path) -> list[str]:
    """What is not as it was when the golden inputs were kept: ``kind: sentence`` each, one a kind at most."""
    torch.set_num_threads(run.threads)
    content = read_arrays(path, NAMES)
    if content is None:
        return [f"weights: {path.name} is {'damaged' if path.is_file() else 'not there'}"]
    about = json.loads(content["about"].tobytes())
    images = as_bags(content["tiles"], content["counts"], content["weight"])
    kind = "same" if (about["machine"], about["libraries"]) == (machine(), libraries()) else "other"
    found: dict[str, list[str]] = {}
    off: dict[str, float] = {}
    eyes: Eyes = {}
    if how := specimen.read_otherwise(run, path, kind):
        found["library" if kind == "other" else "preprocessing"] = [how]
    for entry, expected in zip(about["entries"], content["probabilities"], strict=True):
        given = replace(models.parse(entry["text"], run.competition.training), seed=entry["seed"])
        title = f"{given.purpose} without fold {entry['fold']}"
        faults, now = compared(run, given, entry, images, eyes, path, PIXELS[kind])
        for name, sentence in faults:
            found.setdefault(name, []).append(f"{title}: {sentence}")
        if now is not None:
            off[title] = float(np.abs(now - expected).max())
    if not found and (fault := judged(off, kind, about["libraries"])):
        found[fault[0]] = [fault[1]]
    return [f"{name}: {_first(sentences)}" for name, sentences in found.items()]


def compared(
    run: Run,
    given: Model,
    entry: Mapping[str, Any],
    images: Sequence[store.Tiles],
    eyes: Eyes,
    path: Path,
    tolerance: float,
) -> tuple[list[Fault], Floats | None]:
    """What one network is fed and made of otherwise than it was; and its probabilities ``(n, K)``, if any.

    Args:
        path: of the golden inputs. tolerance: of standardised pixels.
    """
    if fault := recorded_otherwise(run, given, entry):
        return [fault], None
    seen, faults = Seen(), []
    try:
        now = predicted(run, given, entry["fold"], images, seen, eyes)
    except (KitError, RuntimeError, SafetensorError, KeyError) as error:
        if of_machine(error):
            raise
        return [("weights", str(error))], None
    if seen.inexact:
        faults.append(("precision", ", ".join(sorted(seen.inexact))))
    if seen.pretrained != entry["pretrained"]:
        sentence = f"the pretrained weights of {given.backbone.encoder} are not those of the run"
        faults.append(("weights", sentence))
    before = read_arrays(path, (name := f"pixels {given.purpose}",))
    if how := other_pixels(seen.sketch(), None if before is None else before[name], tolerance):
        faults.append(("preprocessing", how))
    return faults, now


def _first(sentences: Sequence[str]) -> str:
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return " ".join(sentences[0].split()) + more


# -- the inputs


def chosen(run: Run) -> list[store.Tiles]:
    """A few tiles of a few images, drawn by their ids alone.

    Raises:
        DataError: there are none.
    """
    table = load_images(run)
    table = table[(table["tiles"] > 0) & table["split"].isin(["train", "test"])]
    if not len(table):
        raise DataError("no image has tiles", f"see the reasons in {run.folder('tile') / 'images.csv'}")
    pairs = sorted(zip(table["split"], table["image_id"], strict=True), key=digest)[:IMAGES]
    pixels, counts, weights = [], [], []
    for split, image in pairs:
        tiles = store.read(store.path_of(run.folder("tile"), split, image))
        some = np.unique(np.linspace(0, len(tiles) - 1, TILES).astype(int))
        pixels.append(tiles.decode(some.tolist()))
        weights.append(tiles.weight[some])
        counts.append(len(some))
    return as_bags(np.concatenate(pixels), np.array(counts), np.concatenate(weights))


def as_bags(tiles: Pixels, counts: NDArray[np.int64], weight: NDArray[np.float32]) -> list[store.Tiles]:
    """Tiles ``(T, S, S, 3)`` of images end to end, as the store gives those of each image."""
    ends = np.cumsum(counts)[:-1]
    header = {"key": "golden", "grid": {"size": tiles.shape[1]}}
    bags = []
    for pixels, mine in zip(np.split(tiles, ends), np.split(weight, ends), strict=True):
        zero, one = np.zeros(len(pixels), np.int64), np.ones(len(pixels), np.float32)
        bags.append(store.packed(header, list(pixels), zero, zero, zero + 1, one, weight=mine))
    return bags


# -- what is predicted, and how


def predicted(
    run: Run, given: Model, fold: str, images: Sequence[store.Tiles], seen: Seen, eyes: Eyes
) -> Floats:
    """Probabilities ``(n, K)`` of the images, on the way that the stage `predict` takes.

    Args:
        seen: is told what was seen. eyes: what pretrained encoders have seen already, which all folds share.
    """
    model, network = predict.recorded(run, given, fold), predict.load_network(run, given, fold)
    training = model.training
    key = (model.backbone.name, training.stem, training.layers, training.views) if model.frozen else fold
    if not model.frozen or key not in eyes:
        eye = embed.frozen_encoder(run, model) if model.frozen else network
        assert eye.encoder is not None, "an eye sees pixels"
        mine = Seen(pretrained=tensors_digest(eye.encoder) if model.frozen else "")
        with watching(eye.encoder, mine):
            bags = predict.features_of(run, model, eye, images)
        eyes[key] = (bags, mine)
    bags, mine = eyes[key]
    seen.pixels, seen.inexact, seen.pretrained = mine.pixels, set(mine.inexact), mine.pretrained
    with watching(network.head, Seen(inexact=seen.inexact)):
        said = predict.say_of(model, network, bags)
    return predict.probabilities(run, model, said.logits)


def tensors_digest(module: nn.Module) -> str:
    """SHA-256 of the names and values of all tensors of a network."""
    total = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return total.hexdigest()


@contextmanager
def watching(module: nn.Module, seen: Seen) -> Iterator[None]:
    """Note what an encoder or a head is shown, and how exact its numbers are."""

    def before(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if inputs[0].ndim == 4:
            seen.pixels.append(sketched(inputs[0]))

    def after(module: nn.Module, inputs: tuple[Tensor, ...], found: Tensor) -> None:
        if found.dtype != torch.float32:
            seen.inexact.add(f"it is computed in {str(found.dtype).removeprefix('torch.')}, not in float32")
        if (exact := torch.get_float32_matmul_precision()) != "highest":
            seen.inexact.add(f"products of float32 are computed with the precision '{exact}'")
        if found.is_cuda and torch.backends.cudnn.allow_tf32:
            seen.inexact.add("convolutions are computed in TF32")

    hooks = [module.register_forward_pre_hook(before), module.register_forward_hook(after)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


# -- what is wrong


def described(run: Run, given: Model, fold: str) -> dict[str, Any]:
    """What is recorded of a network beside what it says."""
    path = weights_path(run, given, fold)
    record = preprocess.from_record(json.loads(path.with_suffix(".json").read_text()), str(path))
    return {
        "model": given.name,
        "seed": given.seed,
        "fold": fold,
        "preprocessing": record.record(),
        "sha256": file_digest(path),
    }


def recorded_otherwise(run: Run, given: Model, entry: Mapping[str, Any]) -> Fault | None:
    """Why a network cannot be the one that it was, from what lies beside it; its kind and a sentence."""
    try:
        now = described(run, given, entry["fold"])
        predict.load_network(run, given, entry["fold"])
    except WeightsError as error:
        return ("preprocessing" if "pixels" in error.message else "weights"), error.message
    except (OSError, ValueError, RuntimeError, SafetensorError, KeyError) as error:
        if of_machine(error):
            raise
        return "weights", f"its weights cannot be read: {error}"
    for name, before in entry["preprocessing"].items():
        if now["preprocessing"][name] != before:
            return "preprocessing", f"{name} is {now['preprocessing'][name]}, and was {before} when bundled"
    if now["sha256"] != entry["sha256"]:
        return "weights", "its weights are not those that were bundled: their SHA-256 differs"
    return None


def of_machine(error: Exception) -> bool:
    """Whether it is the memory or the GPU that fails, whatever the weights are."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"OutOfMemoryError", "AcceleratorError"} or MACHINE.search(str(error)))


def judged(off: Mapping[str, float], kind: str, before: Mapping[str, str]) -> Fault | None:
    """The likeliest cause where pixels, files and types are the same, and probabilities are not.

    Args:
        off: the largest difference of each network's probabilities.
        kind: same or other, as the machine and the libraries are.
        before: the libraries when it was bundled.
    """
    allowed = TOLERANCE[kind]
    wrong = {title: value for title, value in off.items() if not value <= allowed}
    if not wrong:
        return None
    most = max(wrong.values())
    by = f"by up to {most:.2g}, and {allowed:g} is allowed"
    if kind == "other" and most < LARGE:
        now = libraries()
        other = [
            f"{name} {now[name]}, was {version}" for name, version in before.items() if now[name] != version
        ]
        return "library", f"probabilities differ {by}: {'; '.join(other) or 'another processor'}"
    if len(wrong) == len(off) and len(off) > 1:
        return "precision", f"probabilities of all models differ {by}: is it all float32?"
    return "weights", f"{', '.join(sorted(wrong))}: probabilities differ {by}; the others do not"


def libraries() -> dict[str, str]:
    """The versions of what decides numbers."""
    installed = {item.name.lower(): item.version for item in metadata.distributions()}
    return {name: installed.get(name, "not installed") for name in LIBRARIES}
