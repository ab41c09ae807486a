"""Images without a label of the task: who may learn from them, and the warm-up on them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from kit import seeds, state
from kit.competition import Tables
from kit.errors import DataError, SettingError
from kit.learn import backbones, extra, models, needs, warmup, weights
from kit.learn.dataset import labelled
from kit.learn.fit import Fit
from kit.read import store
from kit.state import Run

SIDE = 32
KINSMAN = "p0"  # a patient with labelled images, who has images without a label too


class Stopped(Exception):
    """A kill, as a test can make one."""


def other_images() -> pd.DataFrame:
    """24 images of twelve patients, and one of a patient of the train table."""
    rows = [{"image_id": f"o{n:02d}", "patient": f"u{n // 2:02d}", "label": "?"} for n in range(24)]
    return pd.DataFrame([*rows, {"image_id": "okin", "patient": KINSMAN, "label": "?"}], dtype=object)


@pytest.fixture
def extra_run(make_run: Callable[..., Run], photographs: Path, tmp_path: Path) -> Callable[..., Run]:
    """``extra_run(*backbones, **training)``: the toy with photographs without a label, folded and tiled."""
    others = other_images()
    (photographs / "other").mkdir(exist_ok=True)
    for image in others["image_id"]:
        draw = seeds.rng(0, "other", image)
        colour = draw.integers(40, 230, 3)
        pixels = np.clip(colour + draw.normal(0, 10, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(photographs / "other" / f"{image}.png")

    def make(*given: str, workers: int = 0, folder: str = "", tiled: bool = True, **training: object) -> Run:
        plain = make_run(*(given or ("test_efficientnet:scratch",)), workers=workers, **training)
        tables = plain.competition.load(photographs)
        task = replace(
            plain.competition,
            load=lambda data: Tables(tables.train, tables.test, others),
            tiles=replace(plain.competition.tiles, extra=tiled),
        )
        work = tmp_path / "extra" / folder
        run = replace(plain, competition=task, work=work, fold_table=tmp_path / "extra.csv")
        for stage in ("fold", "tile"):
            state.execute(run, stage)
        return run

    return make


def warmed(run: Run) -> Path:
    path = extra.warm(run, models.of_run(run)[0])
    assert path is not None
    return path


def table(*rows: tuple[str, str, str, str, str]) -> pd.DataFrame:
    columns = ["image_id", "unit_id", "group_id", "role", "fold"]
    return pd.DataFrame(rows, columns=columns, dtype=object).set_index("image_id")


def test_an_image_of_a_labelled_patient_goes_with_that_patient_s_fold() -> None:
    found = table(
        ("a0", "a", "a", "fold", "0"),
        ("b0", "b", "b", "fold", "1"),
        ("c0", "c", "c", "holdout", ""),
        ("d0", "d", "b", "fold", "1"),  # a near-duplicate of b's
        ("free", "x", "x", "extra", ""),
        ("of a", "a", "a", "extra", ""),
        ("of b", "b", "b", "extra", ""),
        ("of c", "c", "c", "extra", ""),
        ("of d", "d", "d", "extra", ""),
        ("like b", "y", "b", "extra", ""),
    )
    assert extra.allowed(found, "0").tolist() == ["free", "like b", "of b", "of d"]
    assert extra.allowed(found, "1").tolist() == ["free", "of a"]
    assert extra.allowed(found, "0", "1").tolist() == ["free"], "an inner validation fold is judged on too"
    assert "of c" not in extra.allowed(found), "never of a patient who is held out"
    assert extra.beside(found, ["b0"]).tolist() == ["free"], "d0 is of b's group, and was not learned from"
    assert extra.beside(found, ["b0", "d0"]).tolist() == ["free", "like b", "of b", "of d"]


def test_no_image_without_a_label_is_of_a_patient_that_a_fold_is_judged_on(extra_run: Any) -> None:
    run = extra_run()
    found, images = extra.everyone(run), labelled(run)
    assert (found["role"] == "extra").sum() == 25
    home = found.loc[images.index[images["unit_id"].str.startswith("p0-")], ["role", "fold"]]
    (role, fold) = home.drop_duplicates().to_numpy().tolist()[0]
    for judged in ("0", "1", "2"):
        may = role == "fold" and fold != judged
        assert ("okin" in extra.allowed(found, judged)) == may
        assert len(extra.allowed(found, judged)) == 24 + may
        seen = images.index[(images["role"] == "fold") & (images["fold"] != judged)]
        rows = extra.unlabelled(run, seen)
        assert rows.index.tolist() == extra.allowed(found, judged).tolist()
        assert (rows["y"] == -1).all()


def test_images_that_a_given_fold_table_does_not_list_are_known_all_the_same(extra_run: Any) -> None:
    run = extra_run()
    listed = pd.read_csv(run.folds, dtype=str, keep_default_na=False)
    listed[listed["role"] != "extra"].to_csv(run.folds, index=False)
    assert (extra.everyone(run)["role"] == "extra").sum() == 25


def test_a_way_that_cannot_be_gone_is_refused(extra_run: Any, caplog: Any) -> None:
    with pytest.raises(SettingError, match="needs the tiles") as caught:
        extra.check(extra_run(extra="negative", tiled=False))
    assert "tile.extra=true" in caught.value.hint
    with pytest.raises(SettingError, match="all of this run are frozen"):
        extra.check(extra_run("test_efficientnet:frozen", extra="pretrain"))
    run = extra_run("test_efficientnet:frozen", "test_efficientnet:scratch", extra="pretrain")
    with caplog.at_level(logging.WARNING, logger="kit"):
        extra.check(run)
    assert "does nothing for frozen models: test_efficientnet-frozen" in caplog.text
    extra.check(extra_run("test_efficientnet:frozen", extra="negative"))
    extra.check(extra_run())


def test_without_pretrain_and_for_frozen_models_nothing_is_warmed_up(extra_run: Any) -> None:
    run = extra_run(extra="class")
    assert extra.warm(run, models.of_run(run)[0]) is None
    run = extra_run("test_efficientnet:frozen", "test_efficientnet:scratch", extra="pretrain")
    assert extra.warm(run, models.of_run(run)[0]) is None
    assert not run.folder("extra").exists()


def test_images_without_tiles_are_said_to_be_missing(extra_run: Any) -> None:
    run = extra_run(extra="pretrain")
    path = run.folder("tile") / "images.csv"
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    rows[rows["split"] != "extra"].to_csv(path, index=False)
    with pytest.raises(DataError, match="24 may be, and none of them has tiles"):
        extra.warm(run, models.of_run(run)[0])


def test_a_warm_up_looks_at_no_patient_of_the_task(extra_run: Any, monkeypatch: Any) -> None:
    run = extra_run(extra="pretrain", extra_epochs=1)
    looked: set[tuple[str, str]] = set()
    real = store.read

    def spied(path: Path) -> store.Tiles:
        looked.add((path.parent.name, path.stem))
        return real(path)

    monkeypatch.setattr(store, "read", spied)
    warmed(run)
    assert looked == {("extra", f"o{n:02d}") for n in range(24)}


def test_a_warm_up_is_made_once_and_fits_its_encoder(extra_run: Any, monkeypatch: Any) -> None:
    run = extra_run(extra="pretrain", extra_epochs=2, seeds=2)
    path = warmed(run)
    record = json.loads(path.with_suffix(".json").read_text())
    assert (record["images"], record["epochs"], len(record["loss"])) == (24, 2, 2)
    assert (record["timm"], record["mode"]) == ("test_efficientnet", "scratch")
    assert not path.with_suffix(".ckpt").exists()
    monkeypatch.setattr(warmup.Warmup, "learn", lambda self, path: pytest.fail("made twice"))
    second = models.of_run(run)[1].having({"lr": 0.1, "pool": "attention", "layers": "all"})
    assert second.seed == 1 and extra.warm(run, second) == path
    encoder = backbones.build("test_efficientnet", layers="all").eval()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    weights.load_weights(encoder, path, "test_efficientnet")
    moved = [name for name, value in encoder.state_dict().items() if not torch.equal(value, before[name])]
    assert any("running_mean" in name for name in moved) and any("conv" in name for name in moved)
    assert encoder(torch.zeros(1, 3, SIDE, SIDE)).isfinite().all()


def test_other_workers_and_another_start_of_the_process_change_no_byte(extra_run: Any) -> None:
    one = warmed(extra_run(extra="pretrain", extra_epochs=2, folder="one"))
    torch.manual_seed(99)
    two = warmed(extra_run(extra="pretrain", extra_epochs=2, folder="two", workers=2))
    assert one.name == two.name and one != two
    assert one.read_bytes() == two.read_bytes()


def test_a_warm_up_that_was_stopped_goes_on_and_ends_in_the_same_bytes(
    extra_run: Any, monkeypatch: Any
) -> None:
    whole = warmed(extra_run(extra="pretrain", extra_epochs=3, folder="whole"))
    run = extra_run(extra="pretrain", extra_epochs=3, folder="stopped")
    real, steps = warmup._step, []

    def dying(*given: Any) -> Any:
        steps.append(given)
        if len(steps) == 2:  # in the second epoch
            raise Stopped
        return real(*given)

    monkeypatch.setattr(warmup, "_step", dying)
    with pytest.raises(Stopped):
        warmed(run)
    assert list(run.folder("extra").glob("*.ckpt")) and not list(run.folder("extra").glob("*.safetensors"))
    path = warmed(run)
    assert len(steps) == 2 + 2, "two epochs of one step were left"
    assert path.read_bytes() == whole.read_bytes()


def test_what_the_result_depends_on_is_in_its_name(extra_run: Any) -> None:
    run = extra_run(extra="pretrain", extra_epochs=1)
    keys = [
        warmup.Warmup(run, models.of_run(run)[0], ids).key for ids in (np.array(["o00"]), np.array(["o01"]))
    ]
    longer = extra_run(extra="pretrain", extra_epochs=2)
    keys.append(warmup.Warmup(longer, models.of_run(longer)[0], np.array(["o00"])).key)
    other = extra_run("test_efficientnet:scratch:24", extra="pretrain", extra_epochs=1)
    keys.append(warmup.Warmup(other, models.of_run(other)[0], np.array(["o00"])).key)
    assert len(set(keys)) == 4


def test_a_fit_knows_the_preset_that_its_encoder_was_warmed_up_with(extra_run: Any, monkeypatch: Any) -> None:
    def fit(preset: str) -> Fit:
        run = extra_run("test_efficientnet:scratch; preset=light", extra="pretrain", preset=preset)
        return Fit(run, models.of_run(run)[0], labelled(run), "fit")

    light, histology = fit("light"), fit("histology")
    assert light.training == histology.training
    keys = {needs.key(light), needs.key(histology), light.run.key("tune")}
    monkeypatch.setattr(warmup, "VERSION", 99)
    again = fit("light")
    assert len(keys | {needs.key(again), again.run.key("tune")}) == 5


def test_a_damaged_result_is_made_again(extra_run: Any) -> None:
    run = extra_run(extra="pretrain", extra_epochs=1)
    path = warmed(run)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    assert warmed(run).read_bytes() == whole


@pytest.mark.parametrize("kind", ["outputs", "not finite"])
def test_an_encoder_that_collapses_is_never_used(kind: str, extra_run: Any, monkeypatch: Any) -> None:
    run = extra_run(extra="pretrain", extra_epochs=60)

    def alike(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        # Nothing but invariance, towards one point: what the variance term keeps from happening.
        loss = ((one - 1) ** 2).mean() + ((other - 1) ** 2).mean()
        return loss if kind == "outputs" else loss * torch.nan

    monkeypatch.setattr(warmup, "vicreg", alike)
    monkeypatch.setattr(warmup, "RATES", {"scratch": 1e-2})
    with pytest.raises(SettingError, match="has collapsed") as caught:
        warmed(run)
    assert "train.extra=pretrain" in caught.value.hint
    assert not list(run.folder("extra").glob("*.safetensors"))


def test_too_few_tiles_are_refused(extra_run: Any) -> None:
    run = extra_run(extra="pretrain")
    for count, said in ((1, "1 tiles of 1 images"), (15, "15 tiles of 15 images")):
        ids = np.array([f"o{n:02d}" for n in range(count)], object)
        with pytest.raises(DataError, match=said):
            warmup.Warmup(run, models.of_run(run)[0], ids).learn(run.folder("extra") / "x.safetensors")


def test_the_loss_falls_and_tiles_stay_apart(extra_run: Any) -> None:
    path = warmed(extra_run(extra="pretrain", extra_epochs=20))
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["loss"][-1] < 0.9 * record["loss"][0], record["loss"]
    assert record["outputs"][-1] > 0.5 and record["features"][-1] > 0.5 * record["features"][0]


def test_the_loss_is_that_of_the_paper_by_hand() -> None:
    draw = np.random.default_rng(0)
    one, other = draw.normal(0, 0.7, (2, 9, 3))
    alike = ((one - other) ** 2).mean()
    wide = np.mean([np.maximum(0, 1 - np.sqrt(z.var(axis=0, ddof=1) + 1e-4)).mean() for z in (one, other)])
    apart = 0.0
    for z in (one, other):
        cov = np.cov(z.T)
        apart += ((cov**2).sum() - (np.diag(cov) ** 2).sum()) / 3
    found = warmup.vicreg(torch.from_numpy(one), torch.from_numpy(other))
    assert float(found) == pytest.approx(25 * alike + 25 * wide + apart, rel=1e-9)


def test_the_spread_is_one_all_round_and_nothing_of_a_constant() -> None:
    draw = torch.from_numpy(np.random.default_rng(0).normal(size=(4000, 64)))
    assert warmup.spread(draw) == pytest.approx(1, abs=0.02)
    assert warmup.spread(draw * 0.001 + 5) < 0.01


def test_a_crop_is_a_part_of_the_tile_and_as_large_as_it() -> None:
    y, x = np.mgrid[:64, :64]
    tile = np.stack([y * 4, x * 4, 0 * x], axis=-1).astype(np.uint8)
    areas = []
    for n in range(200):
        found = warmup.crop(tile, np.random.default_rng(n))
        assert found.shape == tile.shape and found.dtype == np.uint8
        steps = np.ptp(found[:, 0, 0].astype(int)) / 252, np.ptp(found[0, :, 1].astype(int)) / 252
        areas.append(steps[0] * steps[1])
    assert min(areas) < 0.45 and max(areas) > 0.95
