"""A measurement is of its function alone, in a process of its own, and reported in the agreed form."""

from __future__ import annotations

import json
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.bench.harness import Row, measure, report


def test_a_function_is_measured_in_a_process_of_its_own() -> None:
    other, wall, cpu, peak = measure(os.getpid)
    assert other != os.getpid() and 0 <= wall < 1 and 0 <= cpu < 1 and 10 < peak < 1000
    _, wall, cpu, _ = measure(partial(time.sleep, 0.2))
    assert wall >= 0.2 and cpu < 0.1
    _, _, _, more = measure(partial(np.ones, 50_000_000))  # 381 MiB
    assert more > peak + 300


def test_the_report_is_one_table_and_the_agreed_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report([Row("case", "kit", 1.5, 1.25, 100.0, 0.125, "share")], tmp_path / "rows.json")
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["machine"] and content["rows"] == [
        {"case": "case", "system": "kit", "wall_s": 1.5, "cpu_s": 1.25,
         "peak_mib": 100.0, "value": 0.125, "unit": "share"}
    ]  # fmt: skip
    assert content["machine"] in capsys.readouterr().out
