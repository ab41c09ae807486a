"""What is written for Kaggle keeps the rules of its client: by our own checks, and by the client itself."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.deliver import kaggle
from kit.errors import SettingError
from kit.files import write_json

CLIENT = Path(__file__).with_name("kaggle_client.py")
needs_client = pytest.mark.skipif(
    importlib.util.find_spec("kaggle") is None, reason="the package kaggle is not installed"
)


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    folder = tmp_path / "kernel"
    folder.mkdir()
    (folder / "run.py").write_text("print(1)\n")
    name = "strip-ai-tile"
    kaggle.write_kernel(folder, "some-body", name, True, ["strip-ai-1-code"], "a-cup", [name])
    return folder


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "code"
    (folder / "models").mkdir(parents=True)
    (folder / "models/a.json").write_text("{}")
    (folder / "part.json").write_text("{}")
    kaggle.write_dataset(folder, "some-body", "strip-ai-1-code", "The code of a kernel that is pushed")
    return folder


def read(folder: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / name).read_text())
    return content


def test_a_kernel_is_private_without_internet_and_goes_on_from_itself(kernel: Path) -> None:
    about = read(kernel, kaggle.KERNEL)
    assert about["enable_internet"] is False and about["is_private"] is True and about["enable_gpu"] is True
    assert about["machine_shape"] == "NvidiaTeslaT4"
    assert about["dataset_sources"] == ["some-body/strip-ai-1-code"]
    assert about["competition_sources"] == ["a-cup"]
    assert about["kernel_sources"] == [about["id"]] == ["some-body/strip-ai-tile"]


KERNEL_HARM: list[tuple[dict[str, Any], str]] = [
    ({"enable_internet": True}, "enable_internet"),
    ({"is_private": False}, "is_private"),
    ({"id": "strip-ai-tile"}, "OWNER/NAME"),
    ({"id": "some-body/abcd", "title": "abcd"}, "5 to 50"),
    ({"title": "another name"}, "resolve"),
    ({"code_file": "gone.py"}, "code_file"),
    ({"language": "basic"}, "language"),
    ({"kernel_type": "novel"}, "kernel_type"),
    ({"docker_image_pinning_type": "newest"}, "docker_image_pinning_type"),
    ({"dataset_sources": ["nobody"]}, "OWNER/NAME"),
    ({"kernel_sources": ["a/b"]}, "OWNER/NAME"),
]
DATASET_HARM: list[tuple[dict[str, Any], str]] = [
    ({"title": "short"}, "title must have 6 to 50"),
    ({"title": "l" + "o" * 49 + "ng"}, "title must have 6 to 50"),
    ({"id": "some-body/small"}, "the name must have 6 to 50"),
    ({"subtitle": "too short"}, "subtitle must have 20 to 80"),
    ({"licenses": []}, "licenses"),
]


@pytest.mark.parametrize(("harm", "says"), KERNEL_HARM, ids=lambda value: str(value)[:40])
def test_a_kernel_that_would_be_refused_is_named(kernel: Path, harm: dict[str, Any], says: str) -> None:
    assert kaggle.check_kernel(kernel) == []
    write_json(kernel / kaggle.KERNEL, read(kernel, kaggle.KERNEL) | harm)
    assert [says in fault for fault in kaggle.check_kernel(kernel)].count(True) >= 1


@pytest.mark.parametrize(("harm", "says"), DATASET_HARM, ids=lambda value: str(value)[:40])
def test_a_data_set_that_would_be_refused_is_named(dataset: Path, harm: dict[str, Any], says: str) -> None:
    assert kaggle.check_dataset(dataset) == []
    write_json(dataset / kaggle.DATASET, read(dataset, kaggle.DATASET) | harm)
    assert any(says in fault for fault in kaggle.check_dataset(dataset))


@pytest.mark.parametrize("check", [kaggle.check_kernel, kaggle.check_dataset])
def test_a_folder_without_metadata_is_named(tmp_path: Path, check: Callable[[Path], list[str]]) -> None:
    assert "is not there" in check(tmp_path)[0]


@pytest.mark.parametrize("name", ["a", "strip-ai", "My_own Täsk", "x" * 200, "a-" * 60])
def test_names_are_within_the_limits_whatever_the_task_is_called(tmp_path: Path, name: str) -> None:
    (tmp_path / "run.py").touch()
    for stage in ("predict", "tile", "train"):
        kaggle.write_kernel(tmp_path, "me", kaggle.kernel_name(name, stage), False, [], "")
    for part in ("code", "weights", "wheels"):
        named = kaggle.dataset_name(name, "0123456789ab", part)
        assert named.endswith(f"0123456789ab-{part}")
        kaggle.write_dataset(tmp_path, "me", named, "Words of the right length")


def test_an_owner_is_a_name_or_a_loud_placeholder() -> None:
    assert kaggle.check_owner("some-body2") == "some-body2"
    assert kaggle.check_owner("") == kaggle.PLACEHOLDER
    with pytest.raises(SettingError, match="Some Body") as error:
        kaggle.check_owner("Some Body")
    assert "some-body" in error.value.hint


def test_a_data_set_of_too_many_files_or_bytes_is_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(51):
        (tmp_path / f"{n}.whl").write_bytes(bytes(10))
    assert "51 files at its top" in kaggle.too_large(tmp_path)[0]
    monkeypatch.setattr(kaggle, "DATASET_BYTES", 500)
    assert len(kaggle.too_large(tmp_path)) == 2


# -- the client itself


def pushed(tmp_path: Path, *folders: Path) -> subprocess.CompletedProcess[str]:
    """Let Kaggle's client check and push these folders; it has no account and no network."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("KAGGLE")}
    command = [sys.executable, str(CLIENT), *map(str, folders)]
    home = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(command, env=environment | home, capture_output=True, text=True)


@needs_client
def test_kaggles_client_takes_what_is_written(tmp_path: Path, kernel: Path, dataset: Path) -> None:
    done = pushed(tmp_path, kernel, dataset)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "does not resolve" not in done.stderr
    sent = json.loads(done.stdout)
    push, create = sent[str(kernel)], sent[str(dataset)]
    assert push["enableInternet"] is False and push["isPrivate"] is True
    assert push["kernelDataSources"] == [push["slug"]] and push["text"] == "print(1)\n"
    assert {file["token"] for file in create["files"]} == {"models.zip", "part.json"}
    assert create["isPrivate"] is True


@needs_client
@pytest.mark.parametrize(
    "harm",
    [
        {"id": "some-body/abcd"},
        {"language": "basic"},
        {"kernel_type": "novel"},
        {"docker_image_pinning_type": "newest"},
        {"dataset_sources": ["nobody"]},
        {"code_file": "gone.py"},
    ],
    ids=lambda value: str(value)[:40],
)
def test_kaggles_client_refuses_a_bad_kernel_as_we_do(
    tmp_path: Path, kernel: Path, harm: dict[str, Any]
) -> None:
    write_json(kernel / kaggle.KERNEL, read(kernel, kaggle.KERNEL) | harm)
    done = pushed(tmp_path, kernel)
    assert done.returncode != 0 and "ValueError" in done.stderr
    assert kaggle.check_kernel(kernel) != []


@needs_client
@pytest.mark.parametrize(("harm", "says"), DATASET_HARM, ids=lambda value: str(value)[:40])
def test_kaggles_client_refuses_a_bad_data_set_as_we_do(
    tmp_path: Path, dataset: Path, harm: dict[str, Any], says: str
) -> None:
    write_json(dataset / kaggle.DATASET, read(dataset, kaggle.DATASET) | harm)
    done = pushed(tmp_path, dataset)
    assert done.returncode != 0 and "ValueError" in done.stderr
    assert any(says in fault for fault in kaggle.check_dataset(dataset))
