"""``kit explore`` as it is typed, and the page as a document."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from kit.competition import Claim
from kit.show.explore import command
from tests.conftest import as_csv
from tests.show.explore.tables_made import cohort, made, options
from tests.show.test_page import Page

Kit = Callable[..., Any]
OWN = """
from kit.competition import Competition, Tables
from kit.metrics import LogLoss
from kit.tables import read_table

MINE = Competition(
    name="mine", classes=("benign", "malignant"), metric=LogLoss(), group="patient", files="{image_id}.png",
    load=lambda data: Tables(read_table(data / "labels.csv", ("image_id", "patient", "label"))),
)
"""


def facts_of(html: str) -> dict[str, Any]:
    """The page's own data, as a browser would read them."""
    (text,) = re.findall(r'<script type="application/json" id="facts">(.*?)</script>', html, re.DOTALL)
    found: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return found


@pytest.fixture
def explored(kit: Kit, data: Path, tmp_path: Path) -> tuple[Any, str, Path]:
    """What the command said of the small cohort, the page, and its folder."""
    ended = kit("explore", "strip-ai", "--data", data, "--images", 0)
    folder = tmp_path / "work" / "strip-ai" / "explore"
    return ended, (folder / "explore.html").read_text(), folder


def test_it_says_one_line_and_writes_page_and_tables(explored: tuple[Any, str, Path]) -> None:
    ended, html, folder = explored
    assert ended.code == 0, ended.err
    assert re.fullmatch(r"explore: \d+ sections and \d+ tables: .*explore\.html\n", ended.out)
    counts = pd.read_csv(folder / "labels-counts.csv", index_col="label")["images"].to_dict()
    assert counts == facts_of(html)["labels"]["images"]
    assert facts_of(html)["table"]["rows"] == sum(counts.values())


def test_the_page_stands_alone_and_is_well_formed(explored: tuple[Any, str, Path]) -> None:
    page = Page(explored[1])
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:] for a in page.all("a")} <= set(ids) and len(page.all("a")) > 5
    assert not re.search(r"https?://|@import|url\((?!#)", explored[1])
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.all("svg"))


def test_claims_are_checked_but_not_on_made_data(tmp_path: Path) -> None:
    found = made(tmp_path, cohort(), claims=(Claim("few", "table.rows", 0, 9),))
    page = tmp_path / "work" / "explore" / "explore.html"
    command.run(found.run, options())
    assert facts_of(page.read_text())["claims"]["rows"] == [["few", "table.rows", "40", "false"]]
    command.run(replace(found.run, demo=True), options())
    assert "claims" not in facts_of(page.read_text()) and "This is the embedded demo" in page.read_text()


def test_a_users_own_competition_is_explored(kit: Kit, tmp_path: Path) -> None:
    (tmp_path / "my_task.py").write_text(OWN)
    rows = [(f"{n:03d}", f"p{n % 20}", ("benign", "malignant")[n % 2]) for n in range(40)]
    (tmp_path / "data").mkdir()
    as_csv(tmp_path / "data" / "labels.csv", pd.DataFrame(rows, columns=["image_id", "patient", "label"]))
    ended = kit("explore", "my_task.py", "--data", tmp_path / "data")
    assert ended.code == 0, ended.err
    facts = facts_of((tmp_path / "work" / "mine" / "explore" / "explore.html").read_text())
    assert facts["units"]["groups"] == 20 and facts["sizes"]["known"] == 0
    assert "claims" not in facts and "sites" not in facts


def test_a_file_of_sizes_that_is_none_is_refused(refused: Callable[..., str], data: Path) -> None:
    words = ("explore", "strip-ai", "--data", data, "--sizes")
    refused(*words, "none.csv", says=["--sizes: none.csv is not a file", "check the path"])
    refused(*words, data / "train.csv", says=["no table of sizes: it has image_id, center_id"])


def page_of(folder: Path, columns: dict[str, Any], **declared: Any) -> str:
    """The page about a made table."""
    found = made(folder, columns, **declared)
    command.run(found.run, options())
    return (folder / "work" / "explore" / "explore.html").read_text()


def test_tables_of_an_earlier_page_do_not_stay_and_files_of_others_do(tmp_path: Path) -> None:
    table = {"image_id": list("abcdefgh"), "label": list("ABABABAB")}
    page_of(tmp_path, table | {"x": range(8)})
    folder = tmp_path / "work" / "explore"
    (folder / "numbers-mine.csv").write_text("mine")
    assert (folder / "numbers-summary.csv").is_file()
    page_of(tmp_path, table)
    assert not (folder / "numbers-summary.csv").exists() and (folder / "numbers-mine.csv").is_file()
    assert (folder / "labels-counts.csv").is_file()


def test_no_page_names_a_table_outside_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "explore.html").write_text(
        '<i data-table="../a.csv"></i><i data-table="b.txt"></i><i data-table="c.csv"></i>'
    )
    assert command.written(tmp_path / "explore.html") == {"c.csv"}
    assert command.written(tmp_path / "none.html") == set()


@pytest.mark.parametrize(
    "columns",
    [
        {"image_id": [], "label": []},
        {"image_id": ["a"], "label": ["A"]},
        {"image_id": list("abcd"), "label": ["A"] * 4},
        {"image_id": list("abcd"), "label": list("ABAB"), "x": [1] * 4, "width": [5] * 4, "height": [5] * 4},
        {"image_id": list("abcd"), "label": list("ABAB"), "x": [""] * 4, "y": ["inf", "nan", "-1e9", "0"]},
        {"image_id": list("abcd"), "label": list("ABAB"), "x": [1e308, -1e308, 1e308, 0.5]},
        {"image_id": list("abcd"), "label": list("ABAB"), "width": [10**6] * 4, "height": [1, 2, 3, 10**6]},
    ],
    ids=["no row", "one row", "one class", "equal numbers", "bad numbers", "huge numbers", "huge images"],
)  # fmt: skip
def test_odd_tables_are_explored_too(columns: dict[str, Any], tmp_path: Path) -> None:
    html = page_of(tmp_path, columns)
    assert facts_of(html)["table"]["rows"] == len(columns["image_id"])
    Page(html)


def test_ids_classes_and_columns_are_escaped(tmp_path: Path) -> None:
    classes = ("<i>x", 'a & "b"')
    table = {
        "image_id": [f"<b>{k}" for k in range(24)],
        "label": [classes[k % 2] for k in range(24)],
        "</script>": [f"<u>{k % 3}" for k in range(24)],
        "width": range(10, 34),
        "height": [7] * 24,
    }
    html = page_of(tmp_path, table, classes=classes, site="</script>")
    page = Page(html)
    assert not re.search(r"<b>|<i>|<u>", html)
    assert html.count("</script>") == 2
    for name in ("<b>0", "<i>x", 'a & "b"', "</script>", "<u>0"):
        assert name in page.text
    assert facts_of(html)["labels"]["images"] == dict.fromkeys(classes, 12)


def test_the_same_data_give_the_same_page(tmp_path: Path) -> None:
    table = {"image_id": list("abcdefgh"), "label": list("ABABABAB"), "x": range(8)}
    assert page_of(tmp_path, table) == page_of(tmp_path, table)
