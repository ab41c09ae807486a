"""Passes of one size: nothing depends on who shares them, nor on who decodes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch

from kit.errors import StageError
from kit.learn import embed, encode, models
from kit.learn.bags import BagModel
from kit.learn.encode import Passes
from kit.learn.models import Model
from kit.state import Run

Make = Callable[..., Run]


def frozen(run: Run) -> Model:
    return models.of_run(run)[0]


def every(run: Run) -> list[str]:
    return [f"p{group}-{n}" for group in range(8) for n in range(3)]


def test_features_are_those_of_each_image_by_itself_in_every_view(make_bags: Make) -> None:
    run = make_bags()
    model = embed.frozen_encoder(run, frozen(run))
    images = embed.read_all(run, "train", every(run))
    whole = encode.bags(model, images, Passes(0, "bicubic", 8, (0, 3, 6)))
    assert whole.shape == (sum(map(len, images)), 3, 256) and whole.dtype == np.float32
    start = 0
    for tiles in images:
        pixels = tiles.decode()
        mirrored = np.rot90(pixels[:, :, ::-1], 2, axes=(1, 2))
        for axis, view in enumerate((pixels, np.rot90(pixels, 3, axes=(1, 2)), mirrored)):
            alone = encode.forward(model, np.ascontiguousarray(view), 8)
            np.testing.assert_allclose(whole[start : start + len(tiles), axis], alone, atol=1e-5)
        start += len(tiles)
    apart = np.abs(whole[:, 1:] - whole[:, :1]).max(axis=(1, 2))
    assert (apart > 1e-4).all()


def test_neither_threads_nor_a_mean_taken_at_once_change_a_byte(make_bags: Make) -> None:
    run = make_bags()
    model = embed.frozen_encoder(run, frozen(run))
    images = embed.read_all(run, "train", every(run))
    one, three = (encode.bags(model, images, Passes(0, "bicubic", 8, (0, 2), n)) for n in (1, 3))
    assert one.tobytes() == three.tobytes()
    mean = encode.bags(model, images, Passes(0, "bicubic", 8, (0, 2)), mean=True)
    np.testing.assert_allclose(mean[:, 0], one.mean(axis=1), atol=1e-6)


def test_a_pass_is_never_shorter_or_longer_and_the_padding_is_left_out(make_bags: Make) -> None:
    run = make_bags()
    sizes = []

    class Counted(BagModel):
        def embed(self, tiles: torch.Tensor) -> torch.Tensor:
            sizes.append(len(tiles))
            return super().embed(tiles)

    model = embed.frozen_encoder(run, frozen(run))
    model.__class__ = Counted
    images = embed.read_all(run, "train", every(run))
    total = sum(map(len, images))
    assert len(encode.bags(model, images, Passes(0, "bicubic", 7))) == total and total % 7
    assert sizes == [7] * -(-total // 7)
    assert encode.bags(model, [], Passes(0, "bicubic", 7, (0, 1))).shape == (0, 2, 256)


def test_spans_cover_every_tile_once_in_order() -> None:
    counts = [3, 0, 11, 1, 5]
    found = encode.spans(counts, 4)
    assert [sum(len(tiles) for _, tiles in spans) for spans in found] == [4, 4, 4, 4, 4]
    places = [(image, tile) for spans in found for image, tiles in spans for tile in tiles]
    assert places == [(image, tile) for image, count in enumerate(counts) for tile in range(count)]


def test_results_come_in_order_and_no_more_are_made_than_asked_for() -> None:
    begun, lock = [], threading.Lock()

    def work(n: int) -> int:
        with lock:
            begun.append(n)
        time.sleep(0.01 * (3 - n % 4))
        return n

    for seen, found in enumerate(encode.ahead(work, range(12), 3)):
        assert found == seen and len(begun) <= seen + 4
    assert sorted(begun) == list(range(12))


def test_a_tile_that_does_not_decode_is_reported(make_bags: Make) -> None:
    run = make_bags()
    model = embed.frozen_encoder(run, frozen(run))
    images = embed.read_all(run, "train", every(run)[:3])
    images[1].checks[0] += 1
    with pytest.raises(StageError, match="tile 0 does not decode"):
        encode.bags(model, images, Passes(0, "bicubic", 8))


def test_products_are_exact_inside_and_as_they_were_after() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with encode.exact():
            assert torch.get_float32_matmul_precision() == "highest"
            assert not torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.deterministic
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
