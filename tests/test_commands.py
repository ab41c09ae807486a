"""The commands beside the stages, and the options of single stages, as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest

from kit.__main__ import guarded, make_run, run_flow, stage_parser
from kit.command import Command
from kit.commands import COMMANDS
from kit.state import STAGES, Run

ROOT = Path(__file__).parents[1]
Kit = Callable[..., Any]
Refused = Callable[..., str]


def test_evaluate_prints_every_section_and_writes_what_combine_would(
    kit: Kit, data: Path, tmp_path: Path, oof: list[str]
) -> None:
    ended = kit("evaluate", "strip-ai", "--data", data, *oof)
    assert ended.code == 0, ended.err
    heads = ("By site", "By class", "Reliability", "AUC against loss", "Shortcuts", "Price of a leak")
    places = [ended.out.index(f"\n{head}") for head in (*heads, "The held-out set")]
    assert places == sorted(places)
    work = tmp_path / "work" / "strip-ai"
    assert kit("combine", "strip-ai", "--data", data, *oof).code == 0
    mine, combined = (json.loads((work / f"{n}/metrics.json").read_text()) for n in ("evaluate", "combine"))
    assert mine["rows"] == combined["rows"]
    assert json.loads((work / "state.json").read_text()).keys() == {"combine"}


def test_evaluate_without_predictions_says_what_to_run_first(refused: Refused, data: Path) -> None:
    refused("evaluate", "strip-ai", "--data", data, says=["needs the result of fold", "python -m kit fold"])


@pytest.mark.parametrize("name", ["combine", "evaluate"])
def test_what_reads_predictions_says_that_they_may_come_from_elsewhere(
    name: str, refused: Refused, data: Path
) -> None:
    says = ["needs the result of fold", "; or give predictions made elsewhere with --oof NAME=FILE"]
    refused(name, "strip-ai", "--data", data, says=says)


def test_the_leak_price_says_what_to_run_first(refused: Refused, data: Path, oof: list[str]) -> None:
    words = ("evaluate", "strip-ai", "--data", data, *oof, "--leak-price")
    refused(*words, says=["the leak price needs the result of fold", "type: python -m kit fold"])


def test_compare_takes_two_files_wherever_they_stand(
    kit: Kit, data: Path, tmp_path: Path, oof: list[str]
) -> None:
    table = pd.read_csv(tmp_path / "oof.csv")
    table.assign(predictions=table["predictions"] ** 2).to_csv(tmp_path / "low.csv", index=False)
    first = kit("compare", "strip-ai", "oof.csv", "low.csv", "--data", data, *oof[4:])
    again = kit("compare", "strip-ai", "--data", data, *oof[4:], "--seed", 0, "oof.csv", "low.csv")
    assert first.code == 0, first.err
    assert first.out == again.out and "\nas they came: " in first.out
    content = json.loads((tmp_path / "work" / "strip-ai" / "compare" / "metrics.json").read_text())
    assert [row["name"] for row in content["rows"] if row["kind"] == "default"] == ["oof"]


def test_compare_needs_two_files_that_are_there(
    kit: Kit, refused: Refused, data: Path, oof: list[str]
) -> None:
    ended = kit("compare", "strip-ai", "oof.csv", "--data", data)
    assert ended.code == 2 and "required: B" in ended.err
    refused("compare", "strip-ai", "oof.csv", "no.csv", "--data", data, says=["no.csv is not there"])


@pytest.mark.parametrize("option", ["--oof", "--test", "--meta", "--weights", "--folds"])
def test_compare_offers_no_option_that_would_do_nothing(
    option: str, kit: Kit, data: Path, oof: list[str]
) -> None:
    ended = kit("compare", "strip-ai", "oof.csv", "oof.csv", "--data", data, option, "oof.csv")
    assert ended.code == 2 and f"unrecognized arguments: {option}" in ended.err
    shown = [f"\n  {option} " in kit(name, "--help").out for name in ("compare", "evaluate")]
    assert shown == [False, True]


def test_a_mistyped_command_is_told_apart_from_a_stage(refused: Refused) -> None:
    refused("evalute", "strip-ai", says=["there is no stage 'evalute'", "did you mean evaluate?"])
    refused("compar", "strip-ai", says=["did you mean compare?"])


@pytest.mark.parametrize("name", [name for name, one in COMMANDS.items() if isinstance(one, Command)])
def test_a_command_takes_the_options_of_every_stage(name: str, kit: Kit) -> None:
    files = {"compare": ["A", "B"], "detect": ["A"], "convert": ["--to", "A"]}.get(name, [])
    options = stage_parser().parse_args([name, "strip-ai", *files, "--seed", "3", "--threads", "2"])
    assert (options.stage, options.seed, options.threads) == (name, 3, 2)
    for group in COMMANDS[name].groups:
        assert f"{group}." in kit(name, "--help").out


def test_evaluate_and_compare_load_nothing_heavy(data: Path, tmp_path: Path, oof: list[str]) -> None:
    program = (
        "import json, sys\n"
        "from kit.__main__ import main\n"
        "words = json.loads(sys.argv[1])\n"
        "codes = [main(['evaluate', 'strip-ai', *words]),\n"
        "         main(['compare', 'strip-ai', 'oof.csv', 'oof.csv', *words[:2]])]\n"
        "print(json.dumps([codes, sorted(sys.modules)]))\n"
    )
    words = ["--data", str(data), *oof]
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(words)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    codes, modules = json.loads(done.stdout.splitlines()[-1])
    assert codes == [0, 0] and "kit.combine.compare" in modules
    assert {"torch", "timm", "openslide", "optuna"} & {name.split(".")[0] for name in modules} == set()
    assert [name for name in modules if name.startswith(("kit.read", "kit.learn", "kit.demo"))] == []


# --- options of single stages -----------------------------------------------------------------------


def other_module(monkeypatch: pytest.MonkeyPatch, name: str, **functions: Callable[..., Any]) -> None:
    """Put a module with these functions where one is imported from when it is asked for."""
    module = ModuleType(name)
    vars(module).update(functions)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.mark.parametrize(
    ("words", "module", "function", "given"),
    [
        (["--plan"], "kit.read.plan", "plan", ()),
        (["--pictures"], "kit.show.tiles", "pictures", ([],)),
        (["--pictures", "a", "b"], "kit.show.tiles", "pictures", (["a", "b"],)),
        (["--export", "out"], "kit.read.export", "export", (Path("out"),)),
    ],
)
def test_an_option_that_replaces_tiling_prints_what_it_found_and_tiles_nothing(
    kit: Callable[..., Any],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    module: str,
    function: str,
    given: tuple[Any, ...],
) -> None:
    def act(run: Run, *rest: Any) -> str:
        assert rest == given and run.name == "strip-ai"
        return f"done by {function}"

    other_module(monkeypatch, module, **{function: act})
    monkeypatch.setattr("kit.stage_options.finished", lambda run, stage: stage == "tile")
    ended = kit("tile", "strip-ai", "--data", data, *words)
    assert (ended.code, ended.out) == (0, f"done by {function}\n")
    assert not Path("work/strip-ai/state.json").exists()


@pytest.mark.parametrize("words", [["--pictures"], ["--export", "out"]])
def test_tiles_of_other_settings_are_neither_drawn_nor_exported(
    kit: Callable[..., Any], data: Path, words: list[str]
) -> None:
    ended = kit("tile", "strip-ai", "--data", data, *words)
    assert ended.code == 2 and "has not been finished with these options" in ended.err
    assert "type: python -m kit tile strip-ai" in ended.err


@pytest.mark.parametrize("code", [0, 1])
def test_the_check_of_tiles_decides_the_exit_code(
    kit: Callable[..., Any], data: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    other_module(monkeypatch, "kit.read.check", check=lambda run: ("checked", code))
    ended = kit("tile", "strip-ai", "--data", data, "--check")
    assert (ended.code, ended.out) == (code, "checked\n")


def test_two_things_instead_of_tiling_are_one_too_many(kit: Callable[..., Any], data: Path) -> None:
    ended = kit("tile", "strip-ai", "--data", data, "--plan", "--check")
    assert ended.code == 2 and "not allowed with" in ended.err


def test_a_stage_without_options_of_its_own_refuses_those_of_others(kit: Callable[..., Any]) -> None:
    for words in (["fold", "--check"], ["train", "--scheduler", "local"], ["tile", "--audit", "a.csv"]):
        assert kit(words[0], "strip-ai", *words[1:]).code == 2


def test_the_scheduler_reaches_the_run_and_is_in_no_key(data: Path) -> None:
    words = ["tile", "strip-ai", "--data", str(data)]
    runs = [make_run(stage_parser().parse_args([*words, *more]))
            for more in ([], ["--scheduler", "local"], ["--scheduler", "tcp://host:8786"])]  # fmt: skip
    assert [run.scheduler for run in runs] == ["", "local", "tcp://host:8786"]
    assert len({run.key("fold") for run in runs}) == 1


@pytest.mark.parametrize("address", ["locl", "host:8786", "tcp://host"])
def test_a_scheduler_that_is_no_address_is_refused_by_stage_and_flow(
    refused: Refused, data: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    refused("tile", "strip-ai", "--data", data, "--scheduler", address,
            says=[f"--scheduler cannot be '{address}'", "tcp://host:8786", "local"])  # fmt: skip
    assert guarded(lambda: run_flow(["strip-ai", "--data", str(data), "--scheduler", address])) == 2
    assert f"--scheduler cannot be '{address}'" in capsys.readouterr().err


def test_coordinates_made_elsewhere_are_a_folder_that_every_stage_takes(
    refused: Refused, data: Path, tmp_path: Path
) -> None:
    for stage in STAGES:
        words = [stage, "strip-ai", "--data", str(data), "--import", str(tmp_path)]
        assert make_run(stage_parser().parse_args(words)).coords == tmp_path
    refused("tile", "strip-ai", "--data", data, "--import", "none", says=["--import: none is not a folder"])


def test_the_help_of_tile_teaches_how_to_use_many_machines(kit: Callable[..., Any]) -> None:
    shown = " ".join(kit("tile", "--help").out.split())
    for words in ("instead of tiling:", "--plan", "--check", "--pictures", "--export DIR", "--import DIR",
                  "dask worker tcp://host:8786", "no result depends on it"):  # fmt: skip
        assert words in shown
    assert "--scheduler" not in kit("train", "--help").out


def test_every_stage_takes_the_same_options() -> None:
    for name in STAGES:
        options = stage_parser().parse_args([name, "strip-ai", "--seed", "3", "--threads", "2", "--force"])
        assert (options.stage, options.seed, options.threads, options.force) == (name, 3, 2, [name])


def test_the_storage_of_a_search_is_an_option_of_tune_alone_and_in_no_key(kit: Kit, data: Path) -> None:
    words = ["tune", "strip-ai", "--data", str(data)]
    url = "postgresql+psycopg://me:secret@host/db"
    runs = [make_run(stage_parser().parse_args([*words, *more]))
            for more in ([], ["--storage", url], ["--set", f"tune.storage={url}"],
                         ["--set", "tune.trials=6", "--storage", url])]  # fmt: skip
    assert [run.competition.tuning.storage for run in runs] == ["", url, url, url]
    assert len({json.dumps(run.ingredients("fold")) for run in runs}) == 1
    assert kit("train", "strip-ai", "--storage", url).code == 2
    assert kit("tune", "strip-ai", "--storage").code == 2


def test_only_fold_takes_out_for_its_table(data: Path) -> None:
    typed = {name: [name, "strip-ai", "--data", str(data), "--out", "there"] for name in ("fold", "bundle")}
    tables = {name: make_run(stage_parser().parse_args(words)).fold_table for name, words in typed.items()}
    assert tables == {"fold": Path("there"), "bundle": None}
