"""The page tells how the run was made: its settings, its files, its time; and no password."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kit import state
from kit.competition import SecondLevel, TileGrid, Tuning
from kit.files import file_digest
from kit.show.results import Results
from kit.show.sections import reproduce
from kit.state import Run
from tests.show.reading import cells


def test_every_file_of_the_manifest_is_listed_with_its_size_and_digest(made: tuple[Run, str]) -> None:
    run, html = made
    rows = cells(html, "Files of the submission")
    assert {"submission.csv", "metrics.json", "second_level.json"} <= {row[0] for row in rows}
    folder = run.work.parent / run.submission
    for name, size, digest in rows:
        assert int(size.replace(",", "")) == (folder / name).stat().st_size
        assert digest == file_digest(folder / name)


def test_a_file_that_is_gone_is_said_and_not_fatal(
    make_run: Callable[..., Run], finish: Callable[[Run], str]
) -> None:
    run = make_run()
    finish(run)
    (run.submission / "submission_bold.csv").unlink(missing_ok=True)
    (run.submission / "oof_combined.csv").unlink()
    section = reproduce.section(Results(run))
    assert ("oof_combined.csv", "not there") in {row[:2] for row in section["manifest"]["files"].rows}


def test_settings_that_were_changed_stand_out(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = replace(run.competition, tiles=TileGrid(size=96), second_level=SecondLevel(resamples=77))
    table = reproduce.settings_table(replace(run, competition=task))
    marked = {row[0]: row[1] for n, row in enumerate(table.rows) if n in table.strong}
    assert marked == {"tile.size": "96", "combine.resamples": "77"}
    assert len(table.rows) > 50 and not any(row[0].startswith("demo.") for row in table.rows)


def test_the_password_of_a_database_is_nowhere(make_run: Callable[..., Run]) -> None:
    run = make_run()
    secret = Tuning(storage="postgresql+psycopg://me:hunter2@host/db")
    run = replace(run, competition=replace(run.competition, tuning=secret))
    text = reproduce.command(run) + str(reproduce.settings_table(run))
    assert "hunter2" not in text and "me:***@host" in text


def test_no_folder_of_this_machine_is_named(make_run: Callable[..., Run]) -> None:
    run = make_run()
    task = replace(
        run.competition,
        folds=replace(run.competition.folds, duplicates="/home/someone/work/clusters.csv"),
        tuning=Tuning(storage="sqlite:////home/someone/study.db"),
    )
    run = replace(run, competition=task)
    text = reproduce.command(run) + str(reproduce.settings_table(run))
    assert "someone" not in text and "fold.duplicates=clusters.csv" in text and "study.db" in text


def test_every_stage_has_a_bar_for_its_time_and_its_memory(results: Results) -> None:
    times = reproduce.times(results)
    assert times is not None
    time, memory = times["charts"]
    record = state.read_state(results.run.work)
    for name in results.stages:
        assert f"<title>{name}: " in time["svg"]
        assert f"<title>{name}: {record[name]['peak_mib']:,} MiB</title>" in memory["svg"]
    assert reproduce.times(Results(replace(results.run, work=results.run.work / "none"))) is None
