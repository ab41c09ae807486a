"""What lies beside a submission is what it was made from, under names that no one can climb out with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.competition import find
from kit.deliver import evidence, manifest
from kit.files import write_json
from kit.state import External, Run

Submit = Callable[..., Path]


def test_predictions_made_elsewhere_come_back_in_the_order_they_were_given(
    submitted: Submit, tmp_path: Path
) -> None:
    again = ["--oof", f"a net={tmp_path / 'oof.csv'}", "--test", f"a net={tmp_path / 'test.csv'}"]
    folder = submitted(*again, "--meta", tmp_path / "data" / "train.csv")
    found = evidence.external(folder, manifest.read(folder)["external"])
    assert list(found.oof) == ["net", "a net"] == list(found.test)
    assert found.oof["a net"].read_bytes() == (tmp_path / "oof.csv").read_bytes()
    assert found.meta == folder / "external" / "meta.csv" and found.meta.is_file()


def test_of_a_packed_file_of_several_models_the_column_that_was_read_is_kept_and_verified(
    submitted: Submit, kit: Callable[..., Any], tmp_path: Path
) -> None:
    both = []
    for name in ("oof", "test"):
        table = pd.read_csv(tmp_path / f"{name}.csv", dtype=str).assign(other="0.5")
        table.rename(columns={"predictions": "net b"}).to_csv(tmp_path / f"{name}.csv.gz", index=False)
        both += [f"--{name}", f"b={tmp_path / name}.csv.gz:net b"]
    folder = submitted(*both)
    assert (folder / "external/oof/b.csv").read_bytes() == (folder / "external/oof/net.csv").read_bytes()
    done = kit("verify", folder, "--data", tmp_path / "data")
    assert done.code == 0, done.out


@pytest.mark.parametrize("name", ["../../x", "/etc/x", "a/b", "..", "a\\b", "net é"])
def test_a_name_that_is_no_files_stays_in_its_folder(name: str) -> None:
    place = evidence.place("oof", name)
    assert place.startswith("external/oof/") and "/" not in place.removeprefix("external/oof/")
    assert "\\" not in place and place.removeprefix("external/oof/") not in ("..", ".")


def test_the_rows_of_our_own_models_are_kept_beside_what_was_made_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "state.json", {})
    run = Run(
        find("strip-ai"), "strip-ai", tmp_path, tmp_path, external=External({"net": tmp_path / "n.csv"})
    )
    assert evidence.sources(run)["oof.csv"] == tmp_path / "combine" / "oof.csv"
    assert "images.csv" not in evidence.sources(run) and "folds.csv" not in evidence.sources(run)
    monkeypatch.setattr(evidence, "joins_own", lambda run: True)
    found = evidence.sources(run)
    assert found["oof.csv"] == tmp_path / "predict" / "oof.csv"
    assert found["oof_combined.csv"] == tmp_path / "combine" / "oof.csv"
    assert found["images.csv"] == tmp_path / "tile" / "images.csv" and found["folds.csv"] == run.folds
