"""The page as a document: it stands alone, escapes what it is given, and can be heard."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

from kit.show import report
from kit.state import Run

Make = Callable[..., Run]
Finish = Callable[[Run], str]
VOID = {"meta", "br", "path", "use", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; closing tags must match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_needs_no_network_and_forbids_itself_any(html: str) -> None:
    page = Page(html)
    assert "http" not in html.replace("http-equiv", "")
    assert not re.search(r"@import|url\((?!#)|\bon[a-z]+=", html)
    (policy,) = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv")]
    assert str(policy).startswith("default-src 'none';") and "img-src data:;" in str(policy)
    assert len(page.all("script")) == 1
    for _, attrs in page.tags:
        assert "src" not in attrs
        assert (attrs.get("href") or "#").startswith("#")


def test_the_page_is_well_formed_and_its_links_lead_somewhere(html: str) -> None:
    page = Page(html)
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    targets = {str(attrs["href"])[1:] for attrs in page.all("a")}
    assert targets
    assert targets <= set(ids)


def test_tables_and_charts_can_be_heard(html: str) -> None:
    page = Page(html)
    assert len(page.all("caption")) == len(page.all("table")) > 4
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.all("th"))
    # Scores, differences, reliability, ROC, precision and recall, and the weights of the models.
    assert len(page.all("svg")) == 6
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in page.all("svg"))
    assert len(page.all("h1")) == 1


def test_the_page_follows_the_readers_dark_mode_and_width(html: str) -> None:
    assert "(prefers-color-scheme: dark)" in html
    assert 'name="viewport"' in html


def test_ids_names_and_classes_are_escaped(make_run: Make, finish: Finish) -> None:
    html = finish(make_run(classes=("<i>x", "a & b"), unit="<b>{}", site="</table>{}",
                           model='<script>alert("1")'))  # fmt: skip
    page = Page(html)
    assert not re.search(r"<b>|<i>|<script>alert|</table>\d", html)
    for name in ("<b>0", "<i>x", "a & b", "</table>1", '<script>alert("1")'):
        assert name in page.text


def test_the_same_run_gives_the_same_page(make_run: Make, finish: Finish) -> None:
    run = make_run()
    finish(run)
    assert report.page(run) == report.page(run)
