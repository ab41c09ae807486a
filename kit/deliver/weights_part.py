"""The weights of a bundle: trained models, the pretrained ones that they stand on, the second level.

Nothing in it is a pickle: pretrained weights that come as one are converted, and the result is loaded
beside the original and compared, tensor by tensor.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from kit.errors import WeightsError
from kit.files import write_bytes, write_json
from kit.learn import backbones, foundation, models, plan, preprocess
from kit.learn.dataset import labelled
from kit.learn.models import Model
from kit.learn.train import fold_names, weights_path
from kit.learn.weights import WRAPPERS, find_weights, load_weights
from kit.state import Run

MODELS, ATTACHED, SECOND_LEVEL, GOLDEN = "models", "attached", "second_level.json", "golden.npz"


def described(run: Run) -> list[dict[str, Any]]:
    """The models that were fitted, with their specification in ``train.backbones``."""
    firsts = [model.name for model in models.first_seeds(run)]
    texts = dict(zip(firsts, run.competition.training.backbones, strict=True))
    return [{"name": m.name, "seed": m.seed, "text": texts[m.name]} for m in plan.kept(run)]


def folds(run: Run) -> list[str]:
    """The folds that every model was fitted on."""
    return fold_names(labelled(run))


def trained(run: Run, folder: Path) -> None:
    """Copy the weights of every fold of every kept model, each with its record."""
    for model in plan.kept(run):
        for fold in folds(run):
            path = weights_path(run, model, fold)
            place = folder / MODELS / path.relative_to(run.folder("train"))
            place.parent.mkdir(parents=True, exist_ok=True)
            for source in (path, path.with_suffix(".json")):
                shutil.copyfile(source, place.with_suffix(source.suffix))


def attached(run: Run, todo: list[Model], folder: Path) -> dict[str, str]:
    """Bring the pretrained weights of these models into a folder, as safetensors.

    Those that an installed package carries come too: with them there, the package is not needed.

    Returns:
        The place of each below the folder, by the name of its encoder.

    Raises:
        WeightsError: they are not there, or cannot be converted.
    """
    found: dict[str, str] = {}
    for model in todo:
        source = find_weights(model.backbone, run.weights)
        encoder = model.backbone.encoder
        if source is not None and encoder not in found:
            place = _place(encoder, source)
            _bring(encoder, source, folder / place)
            found[encoder] = place.as_posix()
    return dict(sorted(found.items()))


def _place(encoder: str, source: Path) -> Path:
    """Where weights go: a folder where what lies beside them is needed, as a hub's ``config.json``."""
    safe = re.sub("[^A-Za-z0-9._-]+", "-", encoder)
    if foundation.config(source):
        return Path(ATTACHED) / safe / foundation.HUB_FILES[0]
    return Path(ATTACHED) / f"{safe}.safetensors"


def _bring(encoder: str, source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == ".safetensors":
        shutil.copyfile(source, target)
    else:
        convert(encoder, source, target)
    # What any file beside the original said about its pixels.
    write_json(target.with_suffix(".json"), preprocess.of(encoder, source).record())
    if said := foundation.config(source):
        write_json(target.with_name("config.json"), said)


def convert(encoder: str, source: Path, target: Path) -> None:
    """Write weights as safetensors that load to the very same tensors.

    Names stay as they are; where those of the original were matched by their order, which safetensors do
    not keep, the encoder's own names stand instead.

    Raises:
        WeightsError: the original does not fit its encoder.
    """
    wanted = _loaded(encoder, source, source)
    content = torch.load(source, map_location="cpu", weights_only=True)
    while (inside := next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)) is not None:
        content = content[inside]
    for tensors in ({str(key): value for key, value in content.items()}, wanted):
        write_bytes(target, save(_apart(tensors)))
        try:
            found = _loaded(encoder, target, source)
        except WeightsError:
            continue
        if all(torch.equal(found[name], value) for name, value in wanted.items()):
            return
    raise WeightsError(
        f"{source} cannot be written as safetensors", f"attach the weights of {encoder} as .safetensors"
    )


def _apart(tensors: dict[str, Any]) -> dict[str, Tensor]:
    """Tensors that share no memory and lie in one piece each, as safetensors wants them."""
    return {
        key: value.detach().clone(memory_format=torch.contiguous_format)
        for key, value in tensors.items()
        if isinstance(value, Tensor)
    }


def _loaded(encoder: str, weights: Path, about: Path) -> dict[str, Tensor]:
    """The tensors of an encoder once weights are loaded into it; ``about`` lies beside its description."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = backbones.build(encoder, 0.0, "last", about)
    load_weights(network, weights, encoder)
    body = network.body
    return {name: value for name, value in body.state_dict().items() if isinstance(value, Tensor)}
