"""What the page is made of: sections of words, tables, charts and pictures, and the numbers behind them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import pandas as pd

from kit.boxes import SIZES
from kit.competition import Tables
from kit.show.pictures import Picture
from kit.show.tables import Table
from kit.state import Run


@dataclass(frozen=True)
class Data:
    """What there is to explore.

    raw: the training table as shipped: text, its own columns, one row an image.
    tables: the same under the kit's names, and the other tables.
    sizes: width and height of training images in px, indexed by image_id; empty where nobody knows them.
    findings: see `kit.boxes`; None where the competition has none.
    images: how many pictures of a kind may be shown; 0: no image is to be read.
    boxes: how many boxes may be on the map of boxes.
    """

    run: Run
    raw: pd.DataFrame
    tables: Tables
    sizes: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=list(SIZES), dtype=float))
    findings: pd.DataFrame | None = None
    images: int = 0
    boxes: int = 0


@dataclass(frozen=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True)
class Chart:
    """A drawing, as an ``<svg>`` element of `kit.show.plots`; its caption says n and what is counted."""

    caption: str
    svg: str


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side."""

    caption: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Charts:
    """Drawings side by side."""

    charts: tuple[Chart, ...]


Block: TypeAlias = Words | Table | Charts | Gallery
Fact: TypeAlias = "int | float | str | bool | list[Fact] | Mapping[str, Fact] | None"


@dataclass(frozen=True)
class Section:
    """One part of the page.

    name: its place on the page, in ``facts`` and in the names of its files.
    facts: every number that it says, as the page's own data (`section.name` where a claim asks for one).
    files: tables that are written beside the page as ``<section>-<name>.csv``, cells as they are.
    """

    name: str
    title: str
    blocks: tuple[Block, ...]
    facts: Mapping[str, Fact] = field(default_factory=dict)
    files: Mapping[str, pd.DataFrame] = field(default_factory=dict)


Builder: TypeAlias = Callable[[Data], Section | None]  # None: it does not apply to these data
