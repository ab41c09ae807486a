"""The kernel predicts as the run did, touches no training image, and is ended by no bad slide."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.deliver import kernel
from kit.errors import DataError
from kit.learn import predict
from kit.read.tiler import Source, Tiler
from tests.deliver import bundled
from tests.deliver.bundled import Bundled


@pytest.fixture
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundled:
    return bundled.made(tmp_path_factory.getbasetemp())


class Ran:
    """What the kernel left, and said."""

    def __init__(self, out: Path, code: int, said: str) -> None:
        self.out, self.code, self.said = out, code, said

    @property
    def table(self) -> pd.DataFrame:
        return pd.read_csv(self.out / "submission.csv", dtype={"patient": str}).set_index("patient")

    @property
    def report(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.out / "kit_report.json").read_text())
        return content


@pytest.fixture
def ran(made: Bundled, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """``ran(data, weights=...)``: the kernel in this process, on a copy of the data."""

    def run(data: Path, weights: Path | None = None, work: Path = tmp_path / "work") -> Ran:
        (out := tmp_path / "out").mkdir(exist_ok=True)
        capsys.readouterr()
        words = {
            "code": made.code,
            "weights": weights or made.weights,
            "data": data,
            "out": out,
            "work": work,
        }
        code = kernel.main([f"--{name}={path}" for name, path in words.items()])
        return Ran(out, code, capsys.readouterr().out)

    return run


def test_the_submission_is_that_of_the_run_without_a_training_image(
    made: Bundled, ran: Any, tmp_path: Path
) -> None:
    found = ran(made.data(tmp_path / "data"))
    assert found.code == 0, found.said
    assert (found.out / "submission.csv").read_bytes() == made.submission.read_bytes()
    report = found.report
    assert (report["units"], report["images"], report["tiles"]) == (4, 4, 4)
    assert report["fallback"] == report["failed"] == []
    assert set(report["seconds"]) == {"start", "probe", "tile", "predict", "combine"}
    assert report["megapixels"] == pytest.approx(4 * 32 * 32 / 1e6, abs=1e-3) and report["peak_mib"] > 100


def test_units_without_a_usable_image_get_the_prior_and_are_counted(
    made: Bundled, ran: Any, tmp_path: Path
) -> None:
    data = made.data(tmp_path / "data")
    (data / "test" / "e000.png").write_bytes(b"no picture")
    (data / "test" / "e002.png").unlink()
    sample = (data / "sample_submission.csv").read_text().splitlines()
    lines = [sample[0], "never-seen,0.5,0.5", *reversed(sample[1:])]  # of which the test table has no row
    (data / "sample_submission.csv").write_text("\n".join(lines) + "\n")
    found = ran(data)
    assert found.code == 0, found.said
    prior = json.loads((made.weights / "second_level.json").read_text())["scored_prior"]
    assert found.table.index.tolist() == ["never-seen", "pe003", "pe002", "pe001", "pe000"]
    assert found.report["fallback"] == ["never-seen", "pe002", "pe000"]
    assert [row[:2] for row in found.report["failed"]] == [["e000", "unreadable"], ["e002", "missing"]]
    np.testing.assert_allclose(found.table.loc[found.report["fallback"]], [prior] * 3, atol=1e-9)
    whole = pd.read_csv(made.submission, dtype={"patient": str}).set_index("patient")
    kept = ["pe001", "pe003"]
    np.testing.assert_allclose(found.table.loc[kept], whole.loc[kept], atol=2e-6)


def test_a_slide_on_which_a_library_breaks_is_left_out(
    made: Bundled, ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Tiler.tile

    def broken(self: Tiler, source: Source) -> dict[str, Any]:
        if source.image_id == "e001":
            raise ValueError("cannot reshape")
        return whole(self, source)

    monkeypatch.setattr(Tiler, "tile", broken)
    found = ran(made.data(tmp_path / "data"))
    assert found.code == 0, found.said
    assert found.report["failed"] == [["e001", "unreadable", "ValueError: cannot reshape"]]
    assert found.report["fallback"] == ["pe001"]


def test_a_slide_that_has_killed_the_process_twice_is_not_read_again(
    made: Bundled, ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """What no handler catches."""

    whole = Tiler.tile

    def deadly(self: Tiler, source: Source) -> dict[str, Any]:
        if source.image_id == "e001":
            raise Killed
        return whole(self, source)

    monkeypatch.setattr(Tiler, "tile", deadly)
    data = made.data(tmp_path / "data")
    for _ in range(kernel.TRIES):
        with pytest.raises(Killed):
            ran(data)
        assert len(list((tmp_path / "work" / "trying").iterdir())) == 1
    found = ran(data)
    assert found.code == 0, found.said
    assert found.report["fallback"] == ["pe001"] and "killed" in found.report["failed"][0][2]


def test_an_image_of_which_a_network_says_no_number_is_left_out(
    made: Bundled, ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict.test_rows

    def spoilt(*words: Any) -> pd.DataFrame:
        table = whole(*words)
        table.iloc[0, -1] = np.nan
        return table

    monkeypatch.setattr(predict, "test_rows", spoilt)
    found = ran(made.data(tmp_path / "data"))
    assert found.code == 0 and found.report["fallback"] == ["pe000"]
    assert found.report["failed"] == [["e000", "unpredicted", "a model says no number of it"]]


@pytest.mark.parametrize(
    ("harm", "says"),
    [(lambda path: path.write_bytes(b"no picture"), "library: not one of 4 images can be read; 'e000': "),
     (Path.unlink, "exception: not one of 4 images can be read; 'e000': ")],
    ids=["unreadable", "missing"],
)  # fmt: skip
def test_no_readable_image_at_all_is_a_fault_and_leaves_the_priors(
    made: Bundled, ran: Any, tmp_path: Path, harm: Callable[[Path], None], says: str
) -> None:
    data = made.data(tmp_path / "data")
    for path in (data / "test").iterdir():
        harm(path)
    found = ran(data)
    (line,) = [line for line in found.said.splitlines() if line.startswith("FAULT")]
    assert found.code == 1 and line.startswith(f"FAULT {says}") and "Traceback" not in found.said
    assert not (found.out / "submission.csv").exists()


def test_images_that_show_nothing_were_read() -> None:
    kernel.require_readable(pd.DataFrame(columns=["status"]))
    kernel.require_readable(pd.DataFrame({"status": ["missing", "empty"]}))


@pytest.mark.parametrize(
    ("said", "kind"),
    [("CUDA error: no kernel image is available", "exception"), ("CUDA out of memory.", "memory"),
     ("DefaultCPUAllocator: can't allocate memory", "memory")],
)  # fmt: skip
def test_a_gpu_or_memory_that_fails_is_not_blamed_on_the_weights(
    made: Bundled, ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, kind: str
) -> None:
    def failing(*words: Any) -> None:
        raise RuntimeError(said)

    monkeypatch.setattr(predict, "features_of", failing)
    found = ran(made.data(tmp_path / "data"))
    (line,) = [line for line in found.said.splitlines() if line.startswith("FAULT")]
    assert line.startswith(f"FAULT {kind}: ") and said in line


def test_a_weight_that_was_changed_stops_it_before_it_predicts(
    made: Bundled, ran: Any, tmp_path: Path
) -> None:
    weights = shutil.copytree(made.weights, tmp_path / "weights")
    path = sorted((weights / "models").rglob("*.safetensors"))[0]
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    found = ran(made.data(tmp_path / "data"), weights)
    (line,) = [line for line in found.said.splitlines() if line.startswith("FAULT")]
    assert found.code == 1 and line.startswith("FAULT weights: ")
    assert not (found.out / "submission.csv").exists()


def test_what_the_user_can_mend_is_one_line_without_a_traceback(
    made: Bundled, ran: Any, tmp_path: Path
) -> None:
    data = made.data(tmp_path / "data")
    (data / "test.csv").write_text("image_id\ne000\n")
    found = ran(data)
    (line,) = [line for line in found.said.splitlines() if line.startswith("FAULT")]
    assert found.code == 1 and "patient" in line and "Traceback" not in found.said


def test_a_bug_is_one_line_too_beside_its_traceback(
    made: Bundled, ran: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "tile", lambda run: [][1])
    found = ran(made.data(tmp_path / "data"))
    (line,) = [line for line in found.said.splitlines() if line.startswith("FAULT")]
    assert line.startswith("FAULT exception: IndexError: ") and "Traceback" in found.said


@pytest.mark.parametrize(
    ("error", "kind"),
    [(MemoryError(), "memory"), (type("OutOfMemoryError", (RuntimeError,), {})("GPU"), "memory"),
     (ModuleNotFoundError("no timm"), "library"), (KeyError("x"), "exception")],
)  # fmt: skip
def test_errors_have_kinds(error: Exception, kind: str) -> None:
    with pytest.raises(type(error)) as raised:
        raise error
    assert kernel.told(raised.value).startswith(f"{kind}: ")  # type: ignore[arg-type]


def test_the_demo_is_rehearsed_and_never_submitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KIT_REHEARSAL", raising=False)
    with pytest.raises(DataError, match="of the demo"):
        kernel.require_real({"declared": {"demo": True}})
    monkeypatch.setenv("KIT_REHEARSAL", "1")
    kernel.require_real({"declared": {"demo": True}})


def test_metadata_of_a_file_are_refused_and_those_of_our_tiles_are_not(made: Bundled) -> None:
    with pytest.raises(DataError, match="nothing of a hidden test"):
        kernel.metadata_of(None, {"metadata": {"given": True, "features": []}})  # type: ignore[arg-type]
    assert kernel.metadata_of(None, {"metadata": None}) is None  # type: ignore[arg-type]
