"""The pages of every competition, as people meet them: on a wide and a narrow window, in light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit.competition import names

pytestmark = pytest.mark.slow
Kit = Callable[..., Path]
Visit = Callable[..., Any]
SEVERE = ("serious", "critical")


def address(kit: Kit, name: str, kind: str) -> str:
    """Where the report, or the page about the data, of a competition's demo is."""
    folder = kit(name, "flow", *(["explore"] if kind == "explore" else []))
    places = {
        "report": f"submissions/{name}-demo/*/report.html",
        "explore": f"work/{name}-demo/explore/*.html",
    }
    (path,) = folder.glob(places[kind])
    return path.as_uri()


def severe(page: Any) -> list[str]:
    """What axe finds that keeps people from reading a page."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {rule['help']}: {node['html'][:120]}"
        for rule in found
        if rule["impact"] in SEVERE
        for node in rule["nodes"][:3]
    ]


@pytest.mark.parametrize("kind", ["report", "explore"])
@pytest.mark.parametrize("name", names())
def test_a_page_fits_every_window_and_has_no_serious_finding(
    kit: Kit, visit: Visit, name: str, kind: str
) -> None:
    url = address(kit, name, kind)
    for width, dark in ((1280, False), (390, False), (1280, True), (390, True)):
        page = visit(url, width, dark, f"{name}-{kind}")
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"the page is {wide} px wide in a window of {width}"
        assert severe(page) == []


@pytest.mark.parametrize("kind", ["report", "explore"])
def test_a_table_is_sorted_by_its_heads_with_the_keyboard(kit: Kit, visit: Visit, kind: str) -> None:
    page = visit(address(kit, "blood-cells", kind))
    table = page.locator("table[data-sort]", has=page.locator("th.n")).first
    head = table.locator("thead th.n").first
    column = head.evaluate("head => head.cellIndex")

    def numbers() -> list[float]:
        cells = table.locator("tbody tr").evaluate_all(
            "(rows, column) => rows.map(row => row.cells[column].textContent.trim())", column
        )
        return [float(cell.split()[0].replace(",", "").rstrip("%")) for cell in cells if cell]

    before = numbers()
    head.locator("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending" and numbers() == sorted(before)
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending" and numbers() == sorted(before)[::-1]
    assert len(set(before)) > 1


def test_every_part_of_a_page_is_reached_by_its_link(kit: Kit, visit: Visit) -> None:
    page = visit(address(kit, "strip-ai", "report"))
    for link in page.locator("nav a").all():
        link.click()
        target = str(link.get_attribute("href"))
        assert page.locator(target).is_visible()
        assert page.url.endswith(target)
