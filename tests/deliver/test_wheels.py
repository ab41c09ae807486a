"""What Kaggle's image lacks is bundled, with all that it needs, for its Python; what the image has, never."""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name
from packaging.version import Version

from kit.deliver import wheels
from kit.errors import DataError, KitError, SettingError

ROOT = Path(__file__).parents[2]
PINS = ROOT / "requirements.txt"
IMAGE = {"numpy": "2.0.2", "torch": "2.11.0+cu128", "pillow": "11.3.0"}
# What the kernel runs, and what its readers import only when an image is opened.
READERS = ("kit.read.slide", "kit.read.vendor", "kit.read.photo", "kit.read.radiograph")
KERNEL = ("kit.read.tiles", *READERS, "kit.learn.predict", "kit.combine.second_level")


def make(
    folder: Path, name: str, version: str = "1.0", needs: Sequence[str] = (), tag: str = "py3-none-any"
) -> Path:
    """A wheel without code."""
    stem = f"{name.replace('-', '_')}-{version}"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {need}" for need in needs]
    path = folder / f"{stem}-{tag}.whl"
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}.dist-info/METADATA", "\n".join(lines) + "\n")
        archive.writestr(f"{stem}.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
        archive.writestr(f"{stem}.dist-info/RECORD", "")
    return path


def names(found: Sequence[wheels.Wheel]) -> list[str]:
    return [wheel.name for wheel in found]


def python_3_12() -> str | None:
    """A Python 3.12 of this machine, of PATH, uv or conda."""
    asked = [[sys.executable], ["python3.12"], ["python3"], ["conda", "run", "-n", "base", "python"]]
    if uv := shutil.which("uv"):
        found = subprocess.run([uv, "python", "find", "--offline", "3.12"], capture_output=True, text=True)
        asked.append([found.stdout.strip() or "python3.12"])
    program = "import ensurepip, sys; print(sys.executable, sys.version_info[:2] == (3, 12))"
    for words in asked:
        if shutil.which(words[0]):
            said = subprocess.run([*words, "-c", program], capture_output=True, text=True).stdout.split()
            if said[1:] == ["True"]:
                return said[0]
    return None


def test_a_list_of_an_image_is_read_as_pip_freeze_writes_it(tmp_path: Path) -> None:
    lines = [
        "# from a notebook",
        "huggingface_hub==1.17.0",
        "Pillow==11.3.0  # a comment",
        "torch @ https://host/whl/torch-2.1.0%2Bcu118-cp310-cp310-linux_x86_64.whl#sha256=ab",
        "google-colab @ file:///colabtools/dist/google_colab-1.0.0.tar.gz",
        "-e git+https://host/x.git@1#egg=x",
        "",
    ]
    (tmp_path / "image.txt").write_text("\n".join(lines))
    expected = {"huggingface-hub": "1.17.0", "pillow": "11.3.0", "torch": "2.1.0+cu118"}
    assert wheels.image(tmp_path / "image.txt") == expected


@pytest.mark.parametrize("text", ["", "numpy 2.0.2\n", "Package Version\n------- -------\n"])
def test_a_list_without_a_release_says_how_to_make_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "image.txt").write_text(text)
    with pytest.raises(DataError, match=r"image\.txt has no line name==version") as error:
        wheels.image(tmp_path / "image.txt")
    assert "pip freeze > image.txt" in error.value.hint
    with pytest.raises(DataError, match="cannot be read"):
        wheels.image(tmp_path / "absent.txt")


def test_the_kits_own_list_says_what_it_is_and_where_from() -> None:
    said = " ".join(line.lstrip("# ") for line in wheels.IMAGE.read_text().splitlines() if line[:1] == "#")
    for word in ("pip freeze", "Python 3.12", "2026", "commit", "--image"):
        assert word in said
    assert {"numpy", "torch", "timm", "scikit-learn"} <= set(wheels.image())


def test_what_is_absent_or_too_old_is_lacking_in_the_version_of_the_pins() -> None:
    pins = wheels.image(PINS)
    assert wheels.lacking(PINS, pins) == {}
    without = {name: version for name, version in pins.items() if name != "tqdm"}
    expected = {name: pins[name] for name in ("pandas", "tqdm")}
    assert wheels.lacking(PINS, without | {"pandas": "1.5.3"}) == expected


def test_the_oldest_releases_are_enough_but_for_networks() -> None:
    """They are code of timm, and an older timm may not have one, or another of its name."""
    assert list(wheels.lacking(PINS, wheels.LEAST)) == ["timm"]


def test_an_installed_kit_without_a_list_of_pins_takes_what_is_installed(tmp_path: Path) -> None:
    without = {name: metadata.version(name) for name in wheels.LEAST if name != "tqdm"}
    for none in (tmp_path / "requirements.txt", None):
        assert wheels.lacking(none, without) == {"tqdm": metadata.version("tqdm")}


def test_the_oldest_releases_are_those_of_what_the_kernel_imports_and_not_newer_than_the_pins() -> None:
    """A library that prediction begins to import must be named in oldest.txt."""
    program = (
        "import importlib, json, sys\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps(list(sys.modules)))"
    )
    kernel = [*KERNEL, *(["kit.deliver.kernel"] if (ROOT / "kit/deliver/kernel.py").exists() else [])]
    done = subprocess.run(
        [sys.executable, "-c", program, *kernel], cwd=ROOT, capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert {name.split(".")[0] for name in loaded} & {
        "optuna",
        "matplotlib",
        "jinja2",
        "h5py",
        "dask",
    } == set()
    imported = {top for name in loaded if name.split(".")[0] == "kit" for top in direct(name)}
    homes = metadata.packages_distributions()
    needed = {canonicalize_name(home) for top in imported for home in homes.get(top, [])}
    needed -= {"competition-kit"}  # where the kit itself is installed
    assert needed | {"openslide-bin"} == set(wheels.LEAST)  # which OpenSlide's module loads
    pins = wheels.image(PINS)
    assert [name for name, least in wheels.LEAST.items() if Version(least) > Version(pins[name])] == []


def direct(module: str) -> set[str]:
    """The first names of what a module of the kit imports when it is imported."""
    path = ROOT / (module.replace(".", "/") + ".py")
    tree = ast.parse((path if path.exists() else path.with_suffix("") / "__init__.py").read_text())
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A folder of wheels, of which ``reader`` needs others."""
    folder = tmp_path / "store"
    make(folder, "numpy", "2.0.2")
    make(folder, "numpy", "2.4.6")
    make(folder, "codec", "3.0", ["numpy>=1.26", "old-way; python_version < '3.12'"])
    make(folder, "old-way")
    make(folder, "reader", "1.5", ["codec[fast]>=2", "pillow", "new_way; python_version >= '3.12'"])
    make(folder, "new-way", "1.1", ["windows-only; sys_platform == 'win32'"])
    return folder


def test_what_is_needed_comes_along_and_what_the_image_has_does_not(store: Path, tmp_path: Path) -> None:
    """Conditions count as in the image's Python, whichever Python this is."""
    found = wheels.collect({"reader": "1.5"}, IMAGE, store, tmp_path / "out")
    assert found == [
        wheels.Wheel("codec", "3.0", "codec-3.0-py3-none-any.whl"),
        wheels.Wheel("new-way", "1.1", "new_way-1.1-py3-none-any.whl"),
        wheels.Wheel("reader", "1.5", "reader-1.5-py3-none-any.whl"),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [wheel.file for wheel in found]
    for wheel in found:
        assert (tmp_path / "out" / wheel.file).read_bytes() == (store / wheel.file).read_bytes()


def test_nothing_lacking_is_an_empty_folder(store: Path, tmp_path: Path) -> None:
    assert wheels.collect({}, IMAGE, store, tmp_path / "out") == []
    assert list((tmp_path / "out").iterdir()) == []


def test_a_library_that_the_image_has_too_old_is_bundled(store: Path, tmp_path: Path) -> None:
    image = IMAGE | {"numpy": "1.21.0"}
    assert names(wheels.collect({"numpy": "2.4.6", "codec": "3.0"}, image, store, tmp_path / "out")) == [
        "codec",
        "numpy",
    ]


def test_where_the_pin_does_not_go_with_the_image_an_older_supported_release_does(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for version, need in (("3.1", "numpy>=2.3"), ("3.2", "numpy>=2.0"), ("2.9", "numpy")):
        make(store, "codec", version, [need])
    lack = {"codec": "3.1"}
    monkeypatch.setattr(wheels, "LEAST", {"codec": "2.9"})
    assert wheels.collect(lack, IMAGE, store, tmp_path / "out")[0].version == "3.0"
    monkeypatch.setattr(wheels, "LEAST", {"codec": "3.1"})
    with pytest.raises(DataError, match=r"of codec==3\.1 go together with what the image has") as error:
        wheels.collect(lack, IMAGE, store, tmp_path / "out")
    assert "--image FILE" in error.value.hint


@pytest.mark.parametrize(
    "tag",
    [
        "cp313-cp313-manylinux_2_28_x86_64",
        "cp312-cp312-macosx_11_0_arm64",
        "cp312-cp312-manylinux_2_34_x86_64",
        "cp312-cp312-manylinux_2_28_aarch64",
        "cp313-abi3-manylinux_2_28_x86_64",
        "cp312-cp312-musllinux_1_2_x86_64",
    ],
)
def test_a_wheel_for_another_python_or_system_is_none(tmp_path: Path, tag: str) -> None:
    path = make(tmp_path / "store", "codec", "3.0", tag=tag)
    with pytest.raises(
        DataError, match=r"there is no wheel in .* of codec for CPython 3\.12 on Linux"
    ) as error:
        wheels.collect({"codec": "3.0"}, IMAGE, tmp_path / "store", tmp_path / "out")
    assert "codec==3.0" in error.value.hint and "manylinux_2_28" in error.value.hint
    with pytest.raises(DataError, match=r"is no wheel for CPython 3\.12 on Linux"):
        wheels.check(path)


@pytest.mark.parametrize(
    "tag",
    [
        "cp312-cp312-manylinux_2_28_x86_64",
        "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
        "cp312-cp312-manylinux_2_27_x86_64.manylinux_2_28_x86_64",
        "cp311-abi3-manylinux2014_x86_64",
        "py3-none-manylinux_2_28_x86_64",
        "py2.py3-none-any",
    ],
)
def test_every_tag_of_the_images_python_is_taken(tmp_path: Path, tag: str) -> None:
    make(tmp_path / "store", "codec", "3.0", tag=tag)
    assert names(wheels.collect({"codec": "3.0"}, IMAGE, tmp_path / "store", tmp_path / "out")) == ["codec"]


def test_a_source_archive_is_no_wheel(tmp_path: Path) -> None:
    (tmp_path / "codec-3.0.tar.gz").write_bytes(b"")
    with pytest.raises(DataError, match="there is no wheel"):
        wheels.collect({"codec": "3.0"}, IMAGE, tmp_path, tmp_path / "out")


def test_a_wheel_that_is_damaged_or_another_inside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "codec-3.0-py3-none-any.whl").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"codec-3\.0-py3-none-any\.whl is damaged"):
        wheels.check(tmp_path / "codec-3.0-py3-none-any.whl")
    other = make(tmp_path, "other", "3.0").rename(tmp_path / "codec-3.1-py3-none-any.whl")
    with pytest.raises(DataError, match=r"codec-3\.1-.* says inside that it is other 3\.0"):
        wheels.check(other)
    with pytest.raises(DataError, match="is not named as a wheel is"):
        wheels.check(tmp_path / "codec.whl")


def test_a_folder_that_is_not_there_is_no_place_to_look_in(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="is no folder"):
        wheels.collect({"codec": "3.0"}, IMAGE, tmp_path / "absent", tmp_path / "out")


def test_without_a_network_it_says_what_to_type_and_not_where_the_index_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://somebody:secret@127.0.0.1:9/simple")
    with pytest.raises(KitError, match=r"pip cannot reach its index.* lacks codec==3\.0") as error:
        wheels.collect({"codec": "3.0"}, IMAGE, "download", tmp_path / "out")
    assert "--wheels none" in error.value.hint and "pip download" in error.value.hint
    said = f"{error.value}{error.value.hint}{capfd.readouterr()}"
    assert "secret" not in said and "127.0.0.1" not in said


def test_a_folder_is_the_only_place_looked_in(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "elsewhere", "decoder", "4.0")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "elsewhere"))
    with pytest.raises(DataError, match="there is no wheel"):
        wheels.collect({"decoder": "4.0"}, IMAGE, store, tmp_path / "out")


def install(python: str, folder: Path, place: Path) -> list[str]:
    """What pip of a fresh environment of this Python installs from ``folder`` alone, as the kernel does."""
    subprocess.run([python, "-m", "venv", place / "venv"], check=True)
    files = sorted(folder.glob("*.whl"))
    words = ["install", "--quiet", "--no-index", "--no-deps", "--target", place / "there", *files]
    subprocess.run([place / "venv/bin/python", "-m", "pip", *words], check=True)
    return sorted(item.metadata["Name"] for item in metadata.distributions(path=[str(place / "there")]))


@pytest.mark.slow
def test_what_kaggles_image_lacks_installs_without_an_index_in_its_python(tmp_path: Path) -> None:
    has = wheels.image()
    lack = wheels.lacking(PINS, has)
    try:
        found = wheels.collect(lack, has, "download", tmp_path / "wheels")
    except KitError as error:
        if "cannot reach" in error.message:
            pytest.skip("pip has no index here")
        raise
    assert set(lack) <= set(names(found)) and set(names(found)) & set(has) <= set(lack)
    assert {"numpy", "torch", "pillow"} & set(names(found)) == set()
    for wheel in found:
        wheels.check(tmp_path / "wheels" / wheel.file)
    python = python_3_12()
    if python is None:
        pytest.skip("no Python 3.12 on PATH, in uv or in conda: the wheels were checked by their tags")
    assert [canonicalize_name(name) for name in install(python, tmp_path / "wheels", tmp_path)] == names(
        found
    )


@pytest.mark.slow
def test_an_empty_image_is_lacking_everything_and_all_of_it_is_resolved(tmp_path: Path) -> None:
    """Many wheels at once, but not those of gigabytes."""
    has: Mapping[str, str] = {name: wheels.image()[name] for name in ("torch", "torchvision", "timm")}
    lack = wheels.lacking(PINS, has)
    try:
        found = wheels.collect(lack, has, "download", tmp_path / "wheels")
    except KitError as error:
        if "cannot reach" in error.message:
            pytest.skip("pip has no index here")
        raise
    assert set(lack) <= set(names(found))
    assert {"python-dateutil", "albucore", "pydantic-core"} <= set(names(found))  # what others need
