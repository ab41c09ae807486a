"""A bundle holds what a kernel needs and nothing else; it is the same bytes every time, whole or absent."""

from __future__ import annotations

import ast
import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file

from kit.competition import Training
from kit.deliver import archive, bundle, code_part, handover, kaggle, weights_part, wheels
from kit.deliver.bundle import Options
from kit.errors import DataError, SettingError, StageError, WeightsError
from kit.files import write_json
from kit.learn import backbones, models
from kit.learn.weights import load_weights
from kit.state import External, Run
from tests.deliver import toy
from tests.deliver.test_kaggle import needs_client, pushed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the toy is finished."""
    folder = tmp_path_factory.mktemp("toy")
    toy.finished(folder)
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(place)
    return toy.run_of(place)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "bundle"


@pytest.fixture(scope="module")
def made(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the toy to predict; for tests that only read."""
    out = tmp_path_factory.mktemp("made") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        bundle.bundle(toy.run_of(place), options(out))
    return out


def options(out: Path, **more: Any) -> Options:
    return Options(out=out, wheels="none", owner="some-body", **more)


def about(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "inputs/code/bundle.json").read_text())
    return content


def constants(folder: Path) -> dict[str, Any]:
    """What the script knows, by name."""
    found = {}
    for node in ast.parse((folder / "kernel/run.py").read_text()).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            try:
                found[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue
    return found


def test_a_bundle_holds_the_parts_that_a_kernel_needs(run: Run, made: Path) -> None:
    names = [name for name in archive.digests(made) if not name.endswith(("part.json", "metadata.json"))]
    folds = [f"{model}/fold{n}{kind}" for model in ("test_efficientnet-frozen", "test_efficientnet-scratch")
             for n in (0, 1) for kind in (".json", ".safetensors")]  # fmt: skip
    assert names == sorted(
        [
            "inputs/code/bundle.json",
            "inputs/code/kit-code.whl",
            "inputs/weights/attached/test_efficientnet.json",
            "inputs/weights/attached/test_efficientnet.safetensors",
            "inputs/weights/golden.npz",
            *(f"inputs/weights/models/{name}" for name in folds),
            "inputs/weights/second_level.json",
            "kernel/run.py",
        ]
    )
    assert archive.check_parts(made / "inputs") == []
    assert archive.check_weights(made / "inputs/weights") == []


def test_the_trained_weights_and_the_second_level_are_those_of_the_run(run: Run, made: Path) -> None:
    mine, theirs = archive.digests(run.folder("train")), archive.digests(made / "inputs/weights/models")
    assert theirs.items() <= mine.items() and len(theirs) == 8
    level = (run.folder("combine") / "second_level.json").read_bytes()
    assert (made / "inputs/weights/second_level.json").read_bytes() == level


def test_bundle_json_says_how_to_make_the_run_again(run: Run, made: Path) -> None:
    said = about(made)
    assert said["run"] == run.submission.name and said["stage"] == "predict"
    assert said["models"] == [
        {"name": "test_efficientnet-frozen", "seed": 0, "text": "test_efficientnet:frozen"},
        {"name": "test_efficientnet-scratch", "seed": 0, "text": "test_efficientnet:scratch"},
    ]
    assert said["folds"] == ["0", "1"] and said["task"] == "task/my_task.py"
    assert said["attached"] == {"test_efficientnet": "attached/test_efficientnet.safetensors"}
    assert said["tables"] == ["sample_submission.csv", "test.csv", "train.csv"]
    assert said["gpu"] is False and len(said["machines"]) == 1
    assert sum(said["prior"]) == pytest.approx(1) and said["classes"] == ["a", "b"]
    assert set(said["requires"]) == set(wheels.LEAST) and said["wheels"] == []


def test_the_script_knows_what_it_must_before_it_finds_a_file(made: Path) -> None:
    known, said = constants(made), about(made)
    part = json.loads((made / "inputs/weights/part.json").read_text())
    assert known["BUNDLE"] == part["bundle"] and len(known["BUNDLE"]) == 12
    assert known["PRIOR"] == tuple(said["prior"]) and known["CLASSES"] == ("a", "b")
    assert known["TABLES"] == tuple(said["tables"]) and known["PARTS"] == ("code", "weights")
    assert known["UNIT"] == "patient" and known["SLUG"] == "toy-cup" and known["STAGE"] == "predict"


def test_every_constant_of_the_bundle_is_one_of_the_script(run: Run, made: Path) -> None:
    source = (Path(code_part.__file__).with_name("kernel_script.py")).read_text()
    known = {
        "BUNDLE",
        "STAGE",
        "STAGES",
        "PARTS",
        "TABLES",
        "SLUG",
        "UNIT",
        "CLASSES",
        "PRIOR",
        "LIMITS",
        "KERNEL",
    }
    assert known <= {line.partition(" =")[0].partition(":")[0] for line in source.splitlines()}
    assert constants(made).keys() >= known


def test_two_bundles_of_a_run_are_the_same_bytes(run: Run, made: Path, tmp_path: Path) -> None:
    bundle.bundle(run, options(tmp_path / "again"))
    assert archive.digests(tmp_path / "again") == archive.digests(made)


def test_a_bundle_names_no_place_of_this_machine(made: Path, place: Path) -> None:
    code = zipfile.ZipFile(made / "inputs/code/kit-code.whl")
    texts = {name: code.read(name) for name in code.namelist()}
    texts |= {name: (made / name).read_bytes() for name in archive.digests(made)}
    for word in (str(place), str(Path.home()) + "/", "own.pth"):
        assert [name for name, text in texts.items() if word.encode() in text] == []


def test_the_code_is_the_package_and_the_declaration_with_its_own_modules(run: Run, made: Path) -> None:
    names = zipfile.ZipFile(made / "inputs/code/kit-code.whl").namelist()
    assert {
        "kit/__init__.py",
        "kit/show/pages/report.html.j2",
        "task/my_task.py",
        "task/my_columns.py",
    } <= set(names)
    assert [name for name in names if "__pycache__" in name or "secret" in name] == []
    assert [name for name in names if name.startswith("task/")] == ["task/my_columns.py", "task/my_task.py"]


def test_another_weight_makes_another_identity(run: Run, made: Path, tmp_path: Path) -> None:
    listed = {part: archive.listed(made / "inputs" / part) for part in ("code", "weights")}
    other = listed | {"weights": listed["weights"] | {"second_level.json": "0" * 64}}
    assert archive.identity(listed) == constants(made)["BUNDLE"] != archive.identity(other)


def test_an_older_bundle_is_replaced_and_a_killed_one_leaves_it_whole(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle.bundle(run, options(out, stage="tile"))
    before = archive.digests(out)
    bundle.bundle(run, options(out, stage="tile", hours=3))
    after = archive.digests(out)
    assert after != before and about(out)["limits"]["hours"] == 3

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(bundle.code_part, "write_script", killed)
    with pytest.raises(KeyboardInterrupt):
        bundle.bundle(run, options(out, stage="tile"))
    assert archive.digests(out) == after
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_folder_with_other_files_is_refused_and_kept(run: Run, out: Path) -> None:
    (out / "kernel").mkdir(parents=True)
    (out / "thesis.doc").write_text("all of it")
    with pytest.raises(SettingError, match="other files"):
        bundle.bundle(run, options(out))
    assert (out / "thesis.doc").is_file()


def test_a_run_that_is_not_finished_is_refused_with_what_to_type(run: Run, out: Path) -> None:
    other = replace(run, seed=7)
    with pytest.raises(StageError, match="a bundle needs the result of") as error:
        bundle.bundle(other, options(out))
    assert "python -m kit fold my_task.py" in error.value.hint and not out.exists()


def test_models_made_elsewhere_are_refused_by_name(run: Run, out: Path) -> None:
    outside = External(oof={"theirs": Path("oof.csv"), "another": Path("oof2.csv")})
    with pytest.raises(SettingError, match="another, theirs"):
        bundle.bundle(replace(run, external=outside), options(out))


def test_metadata_of_known_units_only_are_refused(run: Run, out: Path) -> None:
    task = replace(run.competition, second_level=replace(run.competition.second_level, fusion=True))
    fused = replace(run, competition=task, external=External(meta=Path("meta.csv")))
    with pytest.raises(SettingError, match="--meta"):
        bundle.bundle(fused, options(out))


def test_a_session_of_no_time_is_refused(run: Run, out: Path) -> None:
    with pytest.raises(SettingError, match="--hours"):
        bundle.bundle(run, options(out, hours=0))


@pytest.mark.parametrize(
    ("names", "says"),
    [([], "no table of toy is at the top"),
     (["train.csv"], "not know what to predict: none of train.csv says which patient"),
     (["train.csv", "test.csv"], "")],
    ids=["none", "no test", "no sample"],
)  # fmt: skip
def test_tables_that_a_kernel_would_not_find_are_refused(run: Run, names: list[str], says: str) -> None:
    if not says:
        code_part.require_found(run, names, "predict")
        return
    with pytest.raises(SettingError, match=says) as error:
        code_part.require_found(run, names, "predict")
    assert "top of the data folder" in error.value.hint


def test_tables_in_a_folder_below_make_no_bundle(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_part, "tables", lambda run: ["train.csv"])
    with pytest.raises(SettingError, match="would not know what to predict"):
        bundle.bundle(run, options(out))
    assert not out.exists()


def test_tiles_at_given_coordinates_are_refused(run: Run, out: Path) -> None:
    with pytest.raises(SettingError, match="--import"):
        bundle.bundle(replace(run, coords=Path("coords")), options(out))


# -- on Kaggle


def test_a_demo_can_be_rehearsed_and_not_pushed(run: Run, out: Path) -> None:
    task = replace(run.competition, kaggle="")
    text = bundle.bundle(replace(run, competition=task), options(out, stage="tile"))
    assert "not pushed" in text and "kaggle datasets" not in text
    assert [name for name in archive.digests(out) if name.endswith("metadata.json")] == []


def test_the_text_says_what_lies_where_and_what_to_type(run: Run, out: Path) -> None:
    text = bundle.bundle(run, Options(out=out, wheels="none"))
    assert f"kaggle datasets create -p {out}/inputs/weights --dir-mode zip" in text
    assert f"kaggle kernels push -p {out}/kernel" in text
    assert text.index("python -m kit rehearse my_task.py") < text.index("kaggle datasets create")
    assert "NO OWNER" in text and kaggle.PLACEHOLDER in text
    assert "MISSING: Kaggle's image lacks" in text and "openslide-python" in text


@needs_client
def test_kaggles_client_takes_the_bundle(made: Path, tmp_path: Path) -> None:
    done = pushed(tmp_path, made / "inputs/code", made / "inputs/weights", made / "kernel")
    assert done.returncode == 0, done.stderr[-2000:]
    sent = json.loads(done.stdout)
    sources = sent[str(made / "kernel")]["datasetDataSources"]
    slugs = [sent[str(made / "inputs" / part)] for part in ("code", "weights")]
    assert sources == [f"{slug['ownerSlug']}/{slug['slug']}" for slug in slugs]


def test_lacking_packages_are_brought_as_wheels(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "image.txt").write_text("numpy==2.0.0\n")
    asked: dict[str, Any] = {}

    def collect(
        lacking: dict[str, str], image: dict[str, str], source: Any, folder: Path
    ) -> list[wheels.Wheel]:
        asked.update(lacking=lacking, image=image, source=source)
        folder.mkdir(parents=True)
        names = ("thing-1-py3-none-any.whl", "timm-9.0-py3-none-any.whl")
        for name in names:
            (folder / name).write_bytes(b"PK")
        return [wheels.Wheel(*name.split("-")[:2], name) for name in names]

    monkeypatch.setattr(wheels, "collect", collect)
    chosen = options(out, stage="tile", image=tmp_path / "image.txt")
    text = bundle.bundle(run, replace(chosen, wheels=str(tmp_path)))
    assert "torch" in asked["lacking"] and asked["image"] == {"numpy": "2.0.0"}
    assert asked["source"] == tmp_path
    said = about(out)
    assert said["wheels"][0] == {"name": "thing", "version": "1", "file": "thing-1-py3-none-any.whl"}
    assert said["requires"]["timm"] == ">=9.0", "an older one of the image must not stand in for it"
    assert constants(out)["PARTS"] == ("code", "wheels") and "thing 1" in text
    assert archive.check_parts(out / "inputs") == []


def test_a_declaration_may_name_packages_of_its_own(run: Run, out: Path, place: Path) -> None:
    own = place / "my_task-requirements.txt"
    own.write_text("lifelines==0.30.0\n")
    try:
        text = bundle.bundle(run, options(out, stage="tile"))
    finally:
        own.unlink()
    assert "lifelines 0.30.0" in text and about(out)["requires"]["lifelines"] == "==0.30.0"
    assert "task/my_task-requirements.txt" in zipfile.ZipFile(out / "inputs/code/kit-code.whl").namelist()


@pytest.mark.parametrize(
    ("stage", "parts", "stages"),
    [
        ("tile", ("code",), ("tile",)),
        ("train", ("code", "weights"), ("fold", "tile", "tune", "train", "predict")),
    ],
)
def test_a_session_of_tiling_or_training_goes_on_from_its_own_output(
    run: Run, out: Path, stage: Any, parts: tuple[str, ...], stages: tuple[str, ...]
) -> None:
    text = bundle.bundle(replace(run, seed=9), options(out, stage=stage))
    known = constants(out)
    assert known["PARTS"] == parts and known["STAGES"] == stages and known["KERNEL"] == f"toy-{stage}"
    metadata = json.loads((out / "kernel/kernel-metadata.json").read_text())
    sources = [f"some-body/toy-{name}" for name in ("train", "tile")[stage == "tile" :]]
    assert metadata["kernel_sources"] == sources and metadata["id"] == sources[0]
    weights = [name for name in archive.digests(out) if name.endswith(".safetensors")]
    assert weights == ["inputs/weights/attached/test_efficientnet.safetensors"] * (stage == "train")
    assert ("optuna" in text.split("rehearse")[0]) == (stage == "train"), "what only tuning needs"
    assert "push it again" in text and "GiB of the 18.6 that a kernel may leave" in text


def test_tiles_that_a_kernel_cannot_leave_are_said_loudly(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "projected", lambda run: 25.0)
    assert "TOO MUCH" in bundle.bundle(run, options(out, stage="tile"))
    monkeypatch.setattr(handover, "projected", lambda run: None)
    assert "not here" in bundle.bundle(run, options(out, stage="tile"))


def test_folds_that_were_given_go_along_to_train(run: Run, out: Path) -> None:
    bundle.bundle(replace(run, folds_given=True), options(out, stage="train"))
    assert about(out)["folds_file"] == "folds.csv"
    assert (out / "inputs/code/folds.csv").read_bytes() == run.folds.read_bytes()


# -- pretrained weights


def loaded(encoder: str, weights: Path) -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = backbones.build(encoder, 0.0, "last", weights)
    load_weights(network, weights, encoder)
    return dict(network.state_dict())


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def test_converted_weights_load_to_the_same_tensors(place: Path, made: Path) -> None:
    original = loaded("test_efficientnet", place / "secret/own.pth")
    assert same(
        loaded("test_efficientnet", made / "inputs/weights/attached/test_efficientnet.safetensors"), original
    )


def test_weights_whose_names_are_told_by_their_order_keep_it(tmp_path: Path, place: Path) -> None:
    tensors = torch.load(place / "secret/own.pth", weights_only=True)["state_dict"]
    renamed = {f"z{999 - n}.{name.rsplit('.', 1)[-1]}": v for n, (name, v) in enumerate(tensors.items())}
    torch.save(renamed, tmp_path / "other.pth")
    weights_part.convert("test_efficientnet", tmp_path / "other.pth", tmp_path / "other.safetensors")
    assert same(
        loaded("test_efficientnet", tmp_path / "other.safetensors"),
        loaded("test_efficientnet", tmp_path / "other.pth"),
    )


def test_weights_that_are_converted_into_others_are_refused(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = weights_part._apart
    monkeypatch.setattr(weights_part, "_apart", lambda t: {k: v * 2 for k, v in right(t).items()})
    with pytest.raises(WeightsError, match="cannot be written as safetensors"):
        weights_part.convert("test_efficientnet", place / "secret/own.pth", tmp_path / "a.safetensors")


def test_a_hub_folder_keeps_what_it_says_of_its_network(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    folder.mkdir()
    said = {
        "architecture": "test_vit",
        "model_args": {"img_size": 64},
        "pretrained_cfg": {"mean": [0.4, 0.5, 0.6]},
    }
    write_json(folder / "config.json", said)
    network = timm.create_model("test_vit", num_classes=0, img_size=64)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    hub = replace(run, weights={"test_vit": folder / "pytorch_model.bin"})
    model = models.parse("test_vit:frozen:64", Training())
    found = weights_part.attached(hub, [model], tmp_path / "part")
    assert found == {"test_vit": "attached/test_vit/model.safetensors"}
    path = tmp_path / "part" / found["test_vit"]
    assert json.loads(path.with_name("config.json").read_text()) == said
    assert same(loaded("test_vit", path), loaded("test_vit", folder / "pytorch_model.bin"))
    assert json.loads(path.with_suffix(".json").read_text())["mean"] == [0.4, 0.5, 0.6]


def test_packaged_weights_come_as_safetensors_so_that_their_package_need_not(
    run: Run, tmp_path: Path
) -> None:
    models_ = [models.parse("tf_efficientnet_lite0:frozen", Training())]
    found = weights_part.attached(replace(run, weights={}), models_, tmp_path)
    tensors = load_file(tmp_path / found["tf_efficientnet_lite0"])
    assert len(tensors) > 100 and archive.check_weights(tmp_path) == []


def test_a_record_beside_weights_decides_their_pixels_in_the_bundle_too(
    run: Run, place: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes((place / "secret/own.pth").read_bytes())
    write_json(tmp_path / "own.json", {"mean": [0.1, 0.2, 0.3]})
    model = models.parse("test_efficientnet:frozen", Training())
    found = weights_part.attached(
        replace(run, weights={"test_efficientnet": own}), [model], tmp_path / "part"
    )
    beside = (tmp_path / "part" / found["test_efficientnet"]).with_suffix(".json")
    assert json.loads(beside.read_text())["mean"] == [0.1, 0.2, 0.3]


def test_a_pickle_that_calls_itself_safetensors_makes_no_bundle(
    run: Run, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pickled(run: Run, folder: Path) -> None:
        (folder / "models").mkdir(parents=True)
        torch.save({"a": torch.ones(2)}, folder / "models" / "fold0.safetensors")

    monkeypatch.setattr(weights_part, "trained", pickled)
    with pytest.raises(DataError, match="a pickle"):
        bundle.bundle(run, options(out))
    assert not out.exists()
