"""Memory: what is free, what a tile needs, and in how many parts a batch goes through."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from timm.layers import DropPath
from torch import nn

from kit.errors import SettingError
from kit.learn import embed, masks, memory, train
from kit.learn.bags import BagModel, Packed
from kit.state import Run
from tests.learn.fits import fit_of, model_of, weights_of

Make = Callable[..., Run]


def batch(bags: int, tiles: int) -> Packed:
    bag = torch.arange(bags).repeat_interleave(tiles)
    pixels = torch.zeros(bags * tiles, 3, 32, 32, dtype=torch.uint8)
    return Packed(pixels, bag, torch.ones(len(bag)), bags)


@pytest.fixture
def network(make_run: Make) -> BagModel:
    run = make_run()
    made = embed.new_encoder(run, model_of(run, "test_efficientnet:scratch")).train()
    assert made.encoder is not None
    masks.without_last(made.encoder)
    return made


def test_what_a_tile_leaves_for_the_backward_pass_grows_with_tiles_and_changes_nothing(
    network: BagModel,
) -> None:
    before = weights_of(network)
    one, four = (memory.activation_bytes(network, batch(1, n).tiles) for n in (1, 4))
    assert 3.5 * one < four < 4.5 * one and one > 32 * 32 * 4
    assert weights_of(network) == before and network.encoder is not None and network.encoder.training


def test_a_batch_is_cut_so_that_it_fits_into_what_is_free(
    network: BagModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(network)
    need = 2 * memory.activation_bytes(network, batch(1, 1).tiles) * 24
    for room, expected in ((10 * need, 1), (need / memory.SHARE / 1.9, 2), (1, 8)):
        monkeypatch.setattr(memory, "free", lambda room=room: room)
        assert memory.parts_for(network, batch(8, 3), 1) == expected
    assert memory.parts_for(network, batch(8, 3), 1, unit=2) == 4, "two that are mixed stay together"
    monkeypatch.setattr(memory, "free", lambda: None)
    assert memory.parts_for(network, batch(8, 3), 3) == 3, "nothing is known"


def kept(network: BagModel) -> None:
    """Let batch norm keep its statistics."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()


def test_what_is_free_cuts_no_batch_whose_parts_would_be_seen(
    network: BagModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    need = memory.activation_bytes(network, batch(1, 1).tiles) * 24
    monkeypatch.setattr(memory, "free", lambda: int(1.1 * need))
    with caplog.at_level(logging.WARNING, "kit"):
        assert memory.parts_for(network, batch(8, 3), 1) == 1
    assert "train.accumulate=3" in caplog.text
    monkeypatch.setattr(memory, "free", lambda: int(0.9 * need))
    with pytest.raises(SettingError, match="GiB are needed") as caught:
        memory.parts_for(network, batch(8, 3), 1)
    assert "train.accumulate=3" in caught.value.hint and "train.norm=kept" in caught.value.hint
    kept(network)
    assert memory.parts_for(network, batch(8, 3), 1) == 3


def test_batch_norm_and_an_encoders_own_dropout_see_parts_only_while_they_learn(network: BagModel) -> None:
    assert memory.sees_parts(network) and not memory.sees_parts(network.eval())
    network.train()
    kept(network)
    assert not memory.sees_parts(network), "the dropout of bags is drawn for whole batches"
    for dropping in (nn.Dropout(0.1), DropPath(0.1)):
        network.encoder = nn.Sequential(dropping)
        assert memory.sees_parts(network.train()) and not memory.sees_parts(network.eval())
        network.encoder = nn.Sequential(type(dropping)(0.0))
        assert not memory.sees_parts(network.train())


@pytest.mark.parametrize("freeze", [0, 1])
def test_a_network_with_batch_norm_learns_the_same_on_a_busy_machine(
    freeze: int, make_run: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = fit_of(make_run(), "finetune", freeze=freeze, optimiser="sgd")
    plenty = train.train(fit)
    monkeypatch.setattr(memory, "activation_bytes", lambda network, tiles: 1)
    monkeypatch.setattr(memory, "free", lambda: 5)  # bytes, for four tiles
    little = train._fitted(fit, None, None)
    pairs = zip(plenty.parameters(), little.network.parameters(), strict=True)
    # An encoder that waits may be cut, and no longer when it learns.
    assert max(float((a - b).detach().abs().max()) for a, b in pairs) < (1e-6 if freeze else 1e-12)
    assert little.parts == 1


def test_a_small_machine_ends_in_the_same_weights(make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = fit_of(make_run(), "finetune", norm="kept", optimiser="sgd")
    plenty = train._fitted(fit, None, None)
    monkeypatch.setattr(memory, "free", lambda: 1)
    little = train._fitted(fit, None, None)
    assert plenty.parts == 1 and little.parts > 1
    pairs = zip(plenty.network.parameters(), little.network.parameters(), strict=True)
    assert max(float((a - b).detach().abs().max()) for a, b in pairs) < 1e-6


def test_a_container_is_as_small_as_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CGROUPS", ((tmp_path, "memory.max", "memory.current"),))
    plain = memory.free()
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("700\n")
    assert memory.free() is not None and plain is not None and memory.free() > 1000
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory.free() == 300
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 200\n")
    assert memory.free() == 500, "files that were read make way"


@pytest.mark.parametrize(
    ("mode", "accumulate", "hint"),
    [
        ("scratch", 1, "use a larger train.batch"),
        ("scratch", 8, "use a larger train.batch, or fewer parts than train.accumulate=8"),
        ("finetune", 1, "use --set train.norm=kept, or a larger train.batch"),
    ],
)
def test_batch_norm_of_one_bag_is_refused_with_what_helps_in_its_mode(
    mode: str, accumulate: int, hint: str, make_run: Make
) -> None:
    batch = 1 if accumulate == 1 else 8
    fit = fit_of(make_run(), f"{mode}:32", batch=batch, accumulate=accumulate)
    with pytest.raises(SettingError, match=f"{fit.model.name}: batch norm has no .* part of 1 bag") as caught:
        train.train(fit)
    assert caught.value.hint == hint


def test_a_lack_of_memory_is_told_from_other_errors() -> None:
    assert memory.is_short(torch.OutOfMemoryError("CUDA out of memory."))
    assert memory.is_short(RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough"))
    assert not memory.is_short(RuntimeError("shapes differ"))


def test_some_bags_of_a_batch_are_theirs_alone() -> None:
    packed = batch(4, 2)
    part = memory.cut(packed, 1, 3)
    assert part.bags == 2 and part.bag.tolist() == [0, 0, 1, 1]
    assert memory.cut(packed, 0, 4) is packed
