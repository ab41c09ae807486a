"""Level 4: every model trained again, and what is allowed to differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from kit.__main__ import run_flow
from kit.deliver import origin
from kit.deliver.verify import Options, verify
from kit.files import read_strings
from tests.deliver.verified import Place, asked, edit_table, failures, manifest, remade, sealed

pytestmark = pytest.mark.usefixtures("one_code")


@pytest.fixture
def trained(photos: Place, clone: Path, tmp_path: Path) -> Path:
    """A work folder in which level 4 finds the training that it would do: it goes on where it had got."""
    place = tmp_path / "work" / "verify" / clone.name / "retrained"
    shutil.copytree(photos.work, place / "work")
    shutil.copytree(photos.work.parent / "folds", place / "folds")
    return tmp_path / "work"


def test_level_4_needs_no_trained_weights(photos: Place, clone: Path, trained: Path) -> None:
    text, code = asked(clone, 4, data=photos.data, work=trained)
    said = " ".join(text.split())
    assert code == 0, text
    assert "The claim holds up to level 4; level 3 (re-infer) was not checked: the trained weights" in said
    assert "3 files, trained again to the same bytes" in said
    assert "6 test images and 36 train images, 40 tiles, as before" in said
    assert "out-of-fold probabilities: 34 rows" in said and "held-out probabilities: 3 rows" in said
    text, code = asked(clone, 4, work=trained)
    said = " ".join(text.split())
    assert code == 2 and "up to level 2, as" in said and "level 4 (re-train) cannot be checked" in said


def nearer(clone: Path, share: float) -> None:
    """The out-of-fold rows moved to the truth."""
    label = read_strings(clone / "folds.csv").set_index("image_id")["label"]

    def change(table: pd.DataFrame) -> pd.DataFrame:
        truth = (table["image_id"].map(label) == "a").astype(float)
        table["p_a"] = (1 - share) * table["p_a"].astype(float) + share * truth
        return table.assign(p_b=1 - table["p_a"])

    edit_table(clone / "oof.csv", change)


def test_out_of_fold_rows_that_were_moved_to_the_truth_are_found(
    photos: Place, clone: Path, trained: Path, tmp_path: Path
) -> None:
    nearer(clone, 0.02)
    remade(clone, photos.data, tmp_path / "forger")
    text, code = asked(clone, 4, data=photos.data, work=trained)
    assert code == 1 and "out-of-fold probabilities: 34 of 34 rows differ" in failures(text)


def test_elsewhere_they_are_found_by_their_paired_difference(
    photos: Place, clone: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin, "machine", lambda: "another processor, x86_64, no GPU")
    weights = manifest(clone)["weights"]
    other = {"weights": weights | {"trained": dict.fromkeys(weights["trained"], "0" * 64)}}
    sealed(clone, **other)
    text, code = asked(clone, 4, data=photos.data, work=trained)
    assert code == 0 and "ok           out-of-fold losses: 0.0000" in text, text
    nearer(clone, 0.05)
    remade(clone, photos.data, tmp_path / "forger")
    text, code = asked(clone, 4, data=photos.data, work=trained)
    assert code == 1 and "more than 3 of these" in failures(text), text


def test_weights_that_the_manifest_does_not_name_are_a_fault(
    photos: Place, clone: Path, trained: Path
) -> None:
    sealed(clone, weights={"attached": {}, "trained": {}})
    text, code = asked(clone, 4, data=photos.data, work=trained)
    assert code == 1 and "fold0.safetensors is not in the manifest" in failures(text)


@pytest.mark.slow
def test_level_4_trains_the_same_weights_again(
    photos: Place, clone: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(photos.work, tmp_path / "work")
    with caplog.at_level("INFO", "kit"):
        text, code = asked(clone, 4, data=photos.data, work=tmp_path / "work")
    assert code == 0 and "The claim holds up to level 4." in text, text
    assert "3 files, trained again to the same bytes" in text
    assert any("seconds there; it starts now" in line for line in caplog.messages)


@pytest.mark.slow
def test_a_demo_is_verified_by_somebody_who_has_nothing_but_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker, stranger = tmp_path / "maker", tmp_path / "stranger"
    maker.mkdir()
    monkeypatch.chdir(maker)
    small = ["demo.patients=24", "demo.test_patients=6", "demo.largest=0", "fold.k=3", "tile.count=4"]
    small += ["tune.trials=1", "tune.inner=1", "train.epochs=3", "train.finetune_epochs=1"]
    run_flow(["strip-ai", "--threads", "1", "--workers", "2", "--set", *small])
    (made,) = (maker / "submissions" / "strip-ai-demo").iterdir()
    folder = shutil.copytree(made, stranger / made.name)
    monkeypatch.chdir(stranger)
    text, code = verify(folder, Options(level=4, work=maker / "work"))
    assert code == 0 and "The claim holds up to level 4." in text, text
    assert "not checked" not in text and "FAILED" not in text
