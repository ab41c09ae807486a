"""What tiles counted: kept for every image by the model that never saw its group."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from kit.errors import StageError
from kit.files import read_strings
from kit.learn import attention, models, predict, train, tune
from kit.learn.attention import Attended
from kit.state import Run

Make = Callable[..., Run]


def predicted(run: Run) -> Run:
    """Bags are written straight to the store, so their stages are called and not recorded."""
    for stage in (tune, train, predict):
        outputs = stage.run(run)
    assert {path for path in outputs if path.suffix == ".npz"} == set(run.folder("predict").rglob("*.npz"))
    return run


def files(run: Run) -> list[str]:
    folder = run.folder("predict") / "attention"
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.npz"))


@pytest.mark.parametrize("pool", ["attention", "heads", "transformer", "vote"])
def test_every_image_has_shares_of_all_its_tiles_that_sum_to_one(pool: str, make_bags: Make) -> None:
    run = predicted(make_bags(pool=pool, epochs=2))
    assert files(run) == ["test_efficientnet-frozen/test.npz", "test_efficientnet-frozen/train.npz"]
    images = read_strings(run.folder("tile") / "images.csv")
    for split in ("train", "test"):
        found = attention.read(attention.place(run, "test_efficientnet-frozen", 0, split))
        mine = images[images["split"] == split]
        assert {name: len(shares) for name, shares in found.items()} == dict(
            zip(mine["image_id"], mine["tiles"].astype(int), strict=True)
        )
        np.testing.assert_allclose([shares.sum() for shares in found.values()], 1, atol=1e-5)


def test_an_image_of_a_fold_is_seen_by_its_own_model_and_another_by_all(make_bags: Make) -> None:
    run = predicted(make_bags(pool="attention", epochs=4, seeds=2))
    assert "test_efficientnet-frozen/seed1-train.npz" in files(run)
    given = models.of_run(run)[1]
    seen = attention.read(attention.place(run, given.name, 1, "train"))
    test = attention.read(attention.place(run, given.name, 1, "test"))
    oof = read_strings(run.folder("predict") / "oof.csv")
    row = oof[oof["model"] == given.name].iloc[3]

    def shares(fold: str, split: str, image: str) -> np.ndarray:
        network = predict.load_network(run, given, fold)
        model = predict.recorded(run, given, fold)
        return predict.say(run, model, network, split, np.array([image], object)).shares[0]

    np.testing.assert_allclose(seen[row["image_id"]], shares(row["fold"], "train", row["image_id"]))
    mean = np.mean([shares(fold, "test", "t1") for fold in "012"], axis=0)
    np.testing.assert_allclose(test["t1"], mean, atol=1e-6)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_nothing_is_kept_of_a_pool_that_attends_to_no_tile(pool: str, make_bags: Make) -> None:
    assert files(predicted(make_bags(pool=pool, epochs=1))) == []


def test_predict_leaves_no_attention_of_earlier_settings(make_bags: Make) -> None:
    run = predicted(make_bags(pool="attention", epochs=1))
    assert files(run)
    assert files(predicted(make_bags(pool="mean", epochs=1))) == []


def test_the_files_are_the_same_bytes_whatever_the_order(make_run: Make, tmp_path: Path) -> None:
    run = make_run()
    (model,) = models.of_run(run)
    parts = {"b": np.float32([0.25, 0.75]), "a": np.float32([1]), "c/d": np.float32([0.5, 0.2, 0.3])}
    written = []
    for names in (["b", "a", "c/d"], ["c/d", "b", "a"]):
        attended = Attended()
        for name in names:
            attended.add("train", [name], [parts[name]])
        (path,) = attended.write(run, model)
        written.append(path.read_bytes())
    found = attention.read(path)
    assert written[0] == written[1] and list(found) == ["a", "b", "c/d"]
    for name, shares in found.items():
        np.testing.assert_array_equal(shares, parts[name])


@pytest.mark.parametrize("damage", [None, b"half"])
def test_a_lost_or_damaged_file_says_what_to_type(damage: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "train.npz"
    if damage:
        path.write_bytes(damage)
    with pytest.raises(StageError, match="damaged" if damage else "not there") as caught:
        attention.read(path)
    assert "python -m kit predict" in caught.value.hint
