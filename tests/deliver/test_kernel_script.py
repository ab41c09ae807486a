"""The kernel's script finds what is attached, writes priors first, and says every failure in one line."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.deliver import kernel_script as script
from tests.deliver import bundled
from tests.deliver.fake_bundle import PRIORS, Fake, pack, wheel


@pytest.fixture
def fake(tmp_path: Path) -> Callable[..., Fake]:
    return lambda **options: Fake(tmp_path / "kaggle", **options)


LAYOUTS = {
    "plain": {},
    "competitions": {
        "data": "competitions/toy-cup",
        "code": "datasets/me/code",
        "weights": "datasets/me/weights",
    },
    "deeper": {
        "data": "competitions/toy-cup/data",
        "code": "datasets/me/code/1",
        "weights": "datasets/me/w/x",
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_everything_is_found_wherever_it_is_mounted(layout: str, fake: Any) -> None:
    made = fake(places=LAYOUTS[layout]).build()
    other = made.root / "input" / "another" / "thing"
    other.mkdir(parents=True)
    (other / "part.json").write_text(json.dumps({"kit": 1, "part": "code", "bundle": "f" * 12, "files": {}}))
    ran = made.run()
    assert ran.code == 0 and ran.faults == [] and ran.submission == "predicted", ran.said
    assert "priors are there: True" in ran.said
    report = json.loads((ran.working / "kit_report.json").read_text())
    assert (
        report["seconds"]["start"] > 1.0
        and report["seconds"]["install"] >= 0
        and report["seconds"]["tile"] == 2
    )


def test_archives_that_kaggle_has_unpacked_are_used(fake: Any) -> None:
    made = fake(about={"requires": {"fakelib": ">=1"}})
    made.about["wheels"] = [wheel(made.path("wheels"), "fakelib", "1.5")]
    made.build()
    for archive in (made.path("code") / "kit-code.whl", next(made.path("wheels").glob("*.whl"))):
        with zipfile.ZipFile(archive) as content:
            content.extractall(archive.with_suffix(""))
        archive.unlink()
    ran = made.run(FAKE="import fakelib; print('has', fakelib.VERSION)")
    assert ran.code == 0 and "has 1.5" in ran.said and "unpacked by Kaggle" in ran.said, ran.said


def test_a_folder_of_thousands_of_files_is_not_walked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "CROWD", 5)
    for n in range(6):
        (tmp_path / "few" / "train" / f"{n}").mkdir(parents=True)
    (tmp_path / "few" / "deep" / "deeper").mkdir(parents=True)
    found = [path.relative_to(tmp_path).as_posix() for path in script.folders(tmp_path)]
    assert found == [".", "few", "few/deep", "few/train", "few/deep/deeper"]


def test_a_tampered_weight_is_named_and_the_priors_stay(fake: Any) -> None:
    made = fake().build()
    (made.path("weights") / "models" / "a.safetensors").write_bytes(b"Weights")
    ran = made.run()
    ran.failed("integrity", "weights: models/a.safetensors", "SHA-256")
    again = made.run(KAGGLE_IS_COMPETITION_RERUN="1")
    assert again.code == 0 and again.faults == ran.faults and again.submission == PRIORS


def test_what_is_missing_is_named(fake: Any) -> None:
    made = fake().build()
    (made.path("weights") / "models" / "a.safetensors").unlink()
    made.run().failed("integrity", "weights: models/a.safetensors is not there")
    (made.path("weights") / "part.json").write_text(
        json.dumps({"kit": 1, "part": "weights", "bundle": "0" * 12})
    )
    made.run().failed("integrity", "weights", "not attached", "0" * 12)


def test_a_part_whose_list_was_made_again_is_not_that_of_the_bundle(fake: Any) -> None:
    made = fake().build()
    before = made.identity
    (made.path("weights") / "second_level.json").write_text('{"models": []}')
    made.seal()  # every file is as its list says ...
    assert made.run().code == 0 and made.identity != before
    now, made.identity = made.identity, before
    for part in made.parts:  # ... and the list says it is of the bundle that was made
        path = made.path(part) / "part.json"
        path.write_text(path.read_text().replace(now, before))
    (made.root / "working" / "submission.csv").unlink()
    made.run().failed("integrity", "code, weights", now, f"not {before}")


def test_a_part_without_a_list_is_named(fake: Any) -> None:
    made = fake().build()
    path = made.path("weights") / "part.json"
    path.write_text(json.dumps({"kit": 1, "part": "weights", "bundle": made.identity}))
    made.run().failed("integrity", "weights: part.json lists no files")


def test_without_the_competition_nothing_can_be_submitted(fake: Any) -> None:
    made = fake().build()
    (made.path("data") / "test.csv").unlink()
    ran = made.run(KAGGLE_IS_COMPETITION_RERUN="1")
    assert ran.code == 1 and ran.faults[0].startswith("FAULT no-submission: no folder")


def test_another_sample_is_named(fake: Any) -> None:
    made = fake().build()
    (made.path("data") / "sample_submission.csv").write_text("patient,b,a\nx,1,0\n")
    ran = made.run()
    assert ran.code == 1 and ran.faults == [
        "FAULT sample: sample_submission.csv line 1 is patient,b,a, not patient,a,b"
    ]


def test_without_a_sample_the_test_units_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "test.csv").write_text("\ufeffimage_id,patient\n1,b\n2,007\n3,b\n")
    for name, value in {"TABLES": ("test.csv",), "UNIT": "patient", "CLASSES": ("a", "b")}.items():
        monkeypatch.setattr(script, name, value)
    assert script.wanted_ids(tmp_path) == ["007", "b"]


def test_a_demo_is_only_rehearsed(fake: Any) -> None:
    made = fake(about={"declared": {"name": "toy-demo", "demo": True}}).build()
    made.run().failed("integrity", "of the demo")
    assert made.run(KIT_REHEARSAL="1").code == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [("../out.py", "outside"), ("/tmp/out.py", "outside"), ("kit/link.py", "no plain file"), ("", "damaged")],
)
def test_bad_archives_are_refused(name: str, says: str, fake: Any) -> None:
    made = fake().build()
    path = made.path("code") / "kit-code.whl"
    if name:
        info = zipfile.ZipInfo(name)
        info.external_attr = (0o120777 if "link" in name else 0o100644) << 16
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(info, "/etc/passwd")
    else:
        path.write_bytes(path.read_bytes()[:-40])
    made.seal().run().failed("integrity", "kit-code.whl", says)


def test_an_archive_that_swells_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "UNPACKED_BYTES", 1000)
    pack(tmp_path / "a.whl", {"kit/a.py": "x" * 1001})
    with pytest.raises(script.Fault, match="too many"):
        script.unpack(tmp_path / "a.whl", tmp_path / "out")


# -- packages


def test_a_missing_wheel_is_named(fake: Any) -> None:
    made = fake(about={"requires": {"Fake_Lib": ">=1.2"}}).build()
    made.run().failed("wheel", "fake-lib is not installed, >=1.2 is needed")


def test_only_what_is_lacking_is_installed(fake: Any) -> None:
    made = fake(about={"requires": {"numpy": ">=1", "fakelib": ">=2"}})
    folder = made.path("wheels")
    made.about["wheels"] = [
        wheel(folder, "fakelib", "2.1"),
        wheel(folder, "numpy", "0.1"),
        wheel(folder, "more", "1"),
    ]
    ran = made.build().run(
        FAKE="import fakelib, more, numpy; print(fakelib.VERSION, numpy.__version__ > '1')"
    )
    assert ran.code == 0 and "2.1 True" in ran.said, ran.said
    assert "installing more-1" in ran.said and "installing numpy" not in ran.said


def test_a_wheel_that_pip_refuses_is_named(fake: Any) -> None:
    made = fake(about={"requires": {"fakelib": ">=2"}})
    made.about["wheels"] = [wheel(made.path("wheels"), "fakelib", "2.1")]
    (made.path("wheels") / "fakelib-2.1-py3-none-any.whl").write_bytes(b"no zip")
    made.build().run().failed("wheel", "fakelib-2.1-py3-none-any.whl cannot be installed")


@pytest.mark.parametrize(
    ("version", "spec", "expected"),
    [
        ("2.6.0+cu124", ">=2.4", True),
        ("2.4", ">=2.4.0", True),
        ("1.10", "<1.9,>=1", False),
        ("1.10", ">=1.9", True),
        ("1.4.2", "~=1.4.1", True),
        ("1.5", "~=1.4.1", False),
        ("2.0", "==2.*", True),
        ("2", "!=2.0", False),
        ("1.2", "", True),
        ("0.9", ">1", False),
        ("2.0rc1", "==2.0", True),
        ("3", "<=3.0", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, spec: str, expected: bool) -> None:
    assert script.satisfies(version, spec) is expected


def test_a_real_bundle_says_what_the_run_said(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = bundled.made(tmp_path_factory.getbasetemp())
    root = tmp_path / "kaggle"
    made.data(root / "input" / "competitions" / "toy-cup")
    for part in ("code", "weights"):
        shutil.copytree(made.bundle / "inputs" / part, root / "input" / "datasets" / "me" / part)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("KAGGLE", "KIT_", "PYTHONPATH"))}
    done = subprocess.run(
        [sys.executable, str(made.bundle / "kernel" / "run.py")],
        capture_output=True,
        text=True,
        env=kept | {"KIT_KAGGLE": str(root)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found, expected = (
        pd.read_csv(path, index_col=0) for path in (root / "working/submission.csv", made.submission)
    )
    pd.testing.assert_frame_equal(found, expected, atol=2e-6, rtol=0)
    assert json.loads((root / "working" / "kit_report.json").read_text())["fallback"] == []
