"""``python -m kit explore``: the page, and its tables as CSV, in ``WORK/<name>/explore/``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kit import boxes
from kit.command import Said
from kit.competition import Tables
from kit.files import write_table, write_text
from kit.progress import Bar
from kit.show.explore import (
    annotated,
    columns,
    dimensions,
    duplicates,
    examples,
    findings,
    folders,
    geometry,
    glossary,
    labels,
    preparation,
    shortcuts,
    sites,
    sizes,
    tsne,
)
from kit.show.explore.claims import checked
from kit.show.explore.content import Builder, Data, Fact, Section
from kit.show.page import render
from kit.show.verdict import count
from kit.state import Run

# In the order of the page; what does not apply to the data leaves itself out.
BUILDERS: tuple[Builder, ...] = (
    columns.section,
    labels.section,
    labels.units_section,
    labels.crosstabs_section,
    sizes.section,
    examples.first,
    examples.by_class,
    examples.largest,
    findings.section,
    geometry.section,
    annotated.section,
    tsne.section,
    preparation.section,
    folders.section,
    shortcuts.section,
    sites.section,
    duplicates.section,
    columns.numbers_section,
    columns.frequencies_section,
    glossary.section,
)
PAGE = "explore.html"
SLOW = 2.0  # seconds after which a bar is shown


def run(run: Run, options: argparse.Namespace) -> Said:
    """Explore, write, and say where.

    Raises:
        SettingError: a file of sizes is not there.
        DataError: a table breaks a rule.
        StorageError: the folder cannot be written.
    """
    folder: Path = options.out or run.folder("explore")
    run = loaded(run)
    sections = built(gathered(run, options))
    facts = {section.name: section.facts for section in sections}
    claims = () if run.demo else run.competition.claims  # they are about the real data
    sections += checked(claims, facts)
    facts = {section.name: section.facts for section in sections}
    tables = {
        f"{section.name}-{name}.csv": table for section in sections for name, table in section.files.items()
    }
    stale = written(folder / PAGE) - set(tables)
    for name, table in tables.items():
        write_table(folder / name, table)
    write_text(folder / PAGE, page(run, sections, facts))
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    return f"explore: {count(len(sections), 'section')} and {count(len(tables), 'table')}: {folder / PAGE}", 0


def written(page: Path) -> set[str]:
    """The names of the tables that an earlier page in its folder says were written beside it."""
    if not page.is_file():
        return set()
    return set(re.findall(r'data-table="([^"/\\]+\.csv)"', page.read_text(errors="replace")))


def loaded(run: Run) -> Run:
    """The same run, whose tables are read once: that takes long where every file is looked at."""
    tables = run.competition.load(run.data)

    def load(data: Path) -> Tables:
        return tables

    return replace(run, competition=replace(run.competition, load=load))


def gathered(run: Run, options: argparse.Namespace) -> Data:
    """Everything that is known before an image is opened.

    Raises:
        SettingError: a file of sizes is not there.
        DataError: a table breaks a rule.
    """
    task = run.competition
    tables, raw = run.tables, task.load(run.data).train  # in this order: the first checks what the second has
    found = None if task.boxes is None else boxes.found(task, run.data)
    sizes = dimensions.known(run, raw, found, options.sizes, look=options.images > 0)
    return Data(run, raw, tables, sizes, found, options.images, options.map)


def built(data: Data) -> list[Section]:
    """Every section that applies to the data, in the order of the page."""
    bar = Bar(BUILDERS, desc="explore", unit="section", delay=SLOW)
    return [section for builder in bar if (section := builder(data)) is not None]


def page(run: Run, sections: Sequence[Section], facts: Mapping[str, Mapping[str, Fact]]) -> str:
    """The whole page as text."""
    return render("explore.html.j2", run=run, sections=sections, facts=facts)
