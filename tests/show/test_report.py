"""What the page says of a run follows from the run's own files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from kit import state
from kit.files import write_json, write_table
from kit.metrics import LogLoss
from kit.show import report
from kit.state import External, Run
from tests.show.reading import cells

Make = Callable[..., Run]
Finish = Callable[[Run], str]


def test_the_page_begins_with_the_score_that_combine_wrote(made: tuple[Run, str]) -> None:
    run, html = made
    rows = json.loads((run.folder("combine") / "metrics.json").read_text())["rows"]
    (default,) = [row for row in rows if row["kind"] == "default"]
    assert f'<p class="score">{default["score"]:.4f}</p>' in html
    assert html.index('class="score"') < html.index("<table")


def test_only_the_demo_is_called_a_demo(make_run: Make, finish: Finish, html: str) -> None:
    assert "embedded demo" not in html
    demo = replace(make_run(), name="toy-demo", demo=True)
    assert "This is the embedded demo" in finish(demo)


def test_the_table_of_scores_has_every_row_and_marks_what_is_submitted(
    made: tuple[Run, str],
) -> None:
    run, html = made
    rows = json.loads((run.folder("combine") / "metrics.json").read_text())["rows"]
    found = cells(html, "Out of fold")
    assert [row[:3] for row in found][-1] == ["constant", "baseline", "0.6931"]
    assert [row[0] for row in found] == [row["name"] for row in rows]
    assert [row[0] for row in found if row[1] == "submitted"] == ["ridge pool"]
    table = html.split("<caption>Out of fold</caption>")[1].split("</table>")[0]
    marked = re.findall(r'<tr class="strong"><th scope="row">([^<]*)', table)
    assert marked == ["ridge pool"]


def test_the_worst_units_come_worst_first_with_their_own_probabilities(
    made: tuple[Run, str],
) -> None:
    run, html = made
    worst = cells(html, "The units that were most wrong")
    losses = [float(row[4]) for row in worst]
    assert len(worst) == 10
    assert losses == sorted(losses, reverse=True)
    values = pd.read_csv(run.folder("combine") / "oof.csv", dtype={"unit_id": str})
    labels = run.tables.train.drop_duplicates("unit_id").set_index("unit_id")["label"]
    truth = values[["p_A", "p_B"]].to_numpy()[np.arange(60), (labels == "B").astype(int)]
    assert worst[0][0] == values["unit_id"][int(np.argmin(truth))]
    assert losses[0] == pytest.approx(-np.log(truth.min()), abs=1e-3)


def test_every_model_has_a_confusion_matrix_and_several_are_set_beside_each_other(
    make_run: Make, finish: Finish, html: str
) -> None:
    alone = cells(html, "net")
    assert [row[0] for row in alone] == ["A", "B"] and sum(int(row[3]) for row in alone) == 60
    assert "How alike are the models?" not in html
    run = make_run()
    copies = dict.fromkeys(("net", "twin <b>"), run.external.oof["net"])
    test = dict.fromkeys(copies, run.external.test["net"])
    both = finish(replace(run, external=External(copies, test)))
    assert cells(both, "Correlation of the models&#39; errors") == [
        ["1 net", "", "1.00"], ["2 twin &lt;b&gt;", "1.00", ""]]  # fmt: skip
    assert cells(both, "net") == cells(both, "twin &lt;b&gt;") == alone


def test_every_class_has_precision_recall_and_f1_and_the_share_that_is_right_its_interval(html: str) -> None:
    rows = cells(html, "Every class on its own")
    assert {row[0] for row in rows[-2:]} == {"A", "B"}
    assert all(0 <= float(row[1]) <= 1 for row in rows[-2:])
    assert "% are right, units weighted as the metric does (" in html
    assert "in 15 equal bins, weighted likewise" in html


def test_a_site_without_a_class_has_a_blank_score_and_not_a_number(html: str) -> None:
    by_site = {row[0]: row for row in cells(html, "By site")}
    assert by_site["lone"][1:] == ["2", "2", "0", "", ""]
    assert re.fullmatch(r"\d\.\d{4}", by_site["1"][4])


def test_a_part_of_a_handful_has_a_score_but_no_interval(make_run: Make, finish: Finish) -> None:
    found = cells(finish(make_run(n=24)), "By fold")
    assert all(int(row[1]) < 10 and row[4] and not row[5] for row in found)


def test_ids_stay_text(make_run: Make, finish: Finish) -> None:
    html = finish(make_run(skill=0.0, unit="{}e7"))
    worst = cells(html, "The units that were most wrong")
    assert all(re.fullmatch(r"\d{3}e7", row[0]) for row in worst)


def test_folds_add_up_to_all_units(html: str) -> None:
    found = cells(html, "By fold")
    assert sum(int(row[1]) for row in found) == 60
    assert all(int(row[1]) == int(row[2]) + int(row[3]) for row in found)


def test_a_plain_metric_is_said_to_count_every_unit_the_same(make_run: Make, finish: Finish) -> None:
    assert "counts every unit the same" in finish(make_run(metric=LogLoss()))


def test_a_weighted_metric_is_said_to_weigh_units(html: str) -> None:
    assert "(A 50\u00a0%, B 50\u00a0%), so units count" in html


def test_several_classes_have_a_chart_each_and_at_most_eight(make_run: Make, finish: Finish) -> None:
    classes = tuple(f"class {n}" for n in range(10))
    html = finish(make_run(classes=classes, n=400, metric=LogLoss()))
    assert len(re.findall(r'aria-label="Reliability of P\([^"]*"\s+style="max', html)) == 8
    assert html.count('aria-label="ROC curve of') == 8
    assert "Charts are of the commonest classes" in html
    # A table of units has no column a class where there are many.
    for row in cells(html, "The units that were most wrong"):
        assert row[1] in classes and row[2] in classes and float(row[3]) >= float(row[4]) and len(row) == 7
    fold = cells(html, "By fold")[0]
    assert re.fullmatch(r"\d\.\d{4}", fold[2]) and sum(map(int, fold[4:])) == int(fold[1])
    assert len(html) < 2_000_000


# -- what may be absent


def test_without_tiles_tuning_and_manifest_the_page_is_still_made(make_run: Make, finish: Finish) -> None:
    run = make_run()
    finish(run)
    (run.submission / "manifest.json").unlink()
    html = report.page(run)
    assert "the predictions were made elsewhere" in html
    assert 'id="tuning"' not in html
    assert 'id="times"' not in html
    assert "numpy" in html


def test_our_own_models_show_their_images_tuning_times_and_held_out_score(
    own_run: Run, finish: Finish
) -> None:
    run = own_run
    images = pd.DataFrame({"image_id": ["000_0", "001_0", "<2>"],
                           "split": ["train", "train", "test"], "width": 9, "height": 9,
                           "tissue": 0.5, "background": "#ffffff", "tiles": [4, 0, 0],
                           "status": ["ok", "unreadable", "missing"],
                           "reason": ["", "short <read>", "no file"]})  # fmt: skip
    write_table(run.folder("tile") / "images.csv", images)
    taken = {"settings": {"lr": 0.00213, "pool": "mean"}, "trial": 3, "trials": 6,
             "inner_loss": 0.61, "inner_loss_untuned": 0.66}  # fmt: skip
    kept = {"settings": {"lr": 0.001, "pool": "mean"}, "trial": None, "trials": 0}
    write_json(run.folder("tune") / "best.json", {"net": {"10": kept, "2": taken}})
    html = finish(run)
    assert cells(html, "Images by status")[1] == ["train", "0", "1", "1", "2", "4"]
    assert cells(html, "Images without tiles") == [
        ["001_0", "train", "unreadable", "short &lt;read&gt;"],
        ["&lt;2&gt;", "test", "missing", "no file"],
    ]
    assert cells(html, "Settings by backbone and fold") == [
        ["net", "2", "0.00213", "mean", "3", "6", "0.6100", "0.6600"],
        ["net", "10", "0.001", "mean", "", "0", "", ""],
    ]
    assert "1 of 2 fits use settings that the search found" in html
    assert cells(html, "Time and memory by stage")[0] == ["tile", "1 min 23 s", "1,234"]
    assert "On 10 held-out units" in html
    assert html.count("<figcaption>") == 6  # scores of two sets, differences, weights, time, memory
    assert "python run_all.py my_task.py --data DIR --folds folds.csv" in html


def test_our_own_models_without_tiles_and_tuning_are_survived(own_run: Run, finish: Finish) -> None:
    html = finish(own_run)
    assert "not recorded in the work folder" in html
    assert 'id="tuning"' not in html


def test_what_another_run_left_in_the_work_folder_is_not_shown(make_run: Make, finish: Finish) -> None:
    run = make_run()
    write_json(run.folder("tune") / "best.json", {"net": {"0": {"settings": {"lr": 1.0}}}})
    write_table(run.folder("tile") / "images.csv", pd.DataFrame({"image_id": ["stale"]}))
    html = finish(run)
    assert 'id="tuning"' not in html
    assert "stale" not in html


def test_a_unit_given_the_prior_is_named(own_run: Run, finish: Finish) -> None:
    html = finish(own_run)  # the fifth test unit has no prediction
    assert re.search(r"<strong>1</strong> submitted unit has no usable prediction.*004", html)


def test_the_page_does_not_tell_where_the_files_were(made: tuple[Run, str]) -> None:
    run, html = made
    assert str(run.data) not in html


def test_the_stage_is_recorded_and_knows_that_it_is_finished(make_run: Make, finish: Finish) -> None:
    run = make_run()
    for name in ("combine", "submit", "report"):
        state.execute(run, name)
    assert state.finished(run, "report")
    assert report.show(run) == f"report: {run.submission / 'report.html'}"
    html = (run.submission / "report.html").read_text()
    assert [row[0] for row in cells(html, "Stage keys")] == ["combine", "submit"]
    assert run.key("submit") in html
    (run.submission / "report.html").write_text("changed")
    assert not state.finished(run, "report")
