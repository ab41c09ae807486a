"""What ``annotations`` prints: counts, readers, agreement and shortcuts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from kit.combine.sentences import number


def render(
    content: dict[str, Any], agreed: pd.DataFrame, shortcuts: list[dict[str, Any]], metric: str
) -> str:
    """The whole text.

    Args:
        content: of :func:`kit.combine.annotations.counts`, with ``labels`` by number of readers.
        agreed: of :func:`kit.combine.agreement.agreement`. shortcuts: rows of ``Giveaway``.
    """
    parts = [_overview(content), _who(content), _agreement(content, agreed)]
    parts.append(_shortcuts(shortcuts, metric) if shortcuts else [""])
    return "\n\n".join("\n".join(part) for part in parts)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows of text cells in columns, all of them: there are as many as readers or findings."""
    cells = [head, *rows]
    widths = [max(len(row[n]) for row in cells) for n in range(len(head))]
    return ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]


def _overview(content: dict[str, Any]) -> list[str]:
    low, high = content["panel"]
    panel = f"{low}" if low == high else f"{low} to {high}"
    images, nothing = content["images"], content["nothing"]
    lines = [
        f"{content['rows']:,} rows of {len(content['readers'])} readers on {images:,} images,"
        f" {panel} readers an image",
        f"{content['boxes']:,} boxes of {content['findings']} findings"
        + (f"; {content['rows'] - content['boxes']:,} rows of '{nothing}'" if nothing else ""),
        "classes: " + ", ".join(f"{n:,} {name} ({n / images:.1%})" for name, n in content["classes"].items()),
    ]
    if nothing:
        words = [f"{n} on {images:,} images" for n, images in content["words"].items()]
        lines += [f"readers who say '{nothing}': {', '.join(words)}", _of_two_minds(content["mixed"])]
    return lines


def _of_two_minds(images: int) -> str:
    if not images:
        return "no image is nothing to some readers and something to others"
    return f"{images:,} images are nothing to some readers and something to others; the declaration decides"


def _who(content: dict[str, Any]) -> list[str]:
    """The table of readers, who did most, and who never found anything."""
    readers, busiest = content["readers"], content["busiest"]
    head = ("reader", "rows", "images", "boxes")
    rows = [(name, *(f"{row[key]:,}" for key in head[1:])) for name, row in readers.items()]
    names = series(busiest["readers"])
    share = f"{busiest['rows']:.1%} of the rows and {busiest['boxes']:.1%} of the boxes"
    others = [name for name in readers if name not in busiest["readers"]]
    blind = sorted(name for name in others if not readers[name]["boxes"])
    lines = [*_table(head, rows), "", f"{names} made {share}"]
    if blind:
        lines.append(
            f"{len(blind)} of the other {len(others)} readers never drew a box: {series(blind)};"
            " who read an image tells what it is"
        )
    return lines


def series(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> series(["a"]), series(["a", "b", "c"])
    ('a', 'a, b and c')
    """
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def _agreement(content: dict[str, Any], agreed: pd.DataFrame) -> list[str]:
    head = ("finding", "any", "two", "three", "kappa", "95 % interval", "IoU", "95 % interval")
    rows = [
        (
            str(name),
            *(f"{row[key]:,.0f}" for key in ("any", "two", "three")),
            *(cell for key in ("kappa", "iou") for cell in _value(row, key)),
        )
        for name, row in agreed.iterrows()
    ]
    labels = ", ".join(f"{labels:,} by {n} or more" for n, labels in content["labels"].items())
    found = agreed[agreed.index != content["nothing"]]
    lines = [*_table(head, rows), ""]
    if found["kappa"].notna().any():
        kappas = f"{number(found['kappa'].min(), 2)} to {number(found['kappa'].max(), 2)}"
        lines.append(f"Fleiss' kappa of the findings: {kappas}; 1 is complete agreement, 0 is chance")
    if labels:
        lines.append(f"labels, an image and a finding each: {labels} readers")
    return lines


def _value(row: pd.Series[Any], key: str) -> tuple[str, str]:
    """A value and its interval, each empty where there is none."""
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    interval = "" if np.isnan(low) else f"{number(low, 3)} - {number(high, 3)}"
    return "" if np.isnan(row[key]) else number(row[key], 3), interval


def _shortcuts(shortcuts: list[dict[str, Any]], metric: str) -> list[str]:
    head = ("without a look at the picture", metric, "95 % interval", "AUC", "95 % interval")
    rows = [
        (
            row["name"],
            number(row["score"], 3),
            f"{number(row['low'], 3)} - {number(row['high'], 3)}",
            *_value(pd.Series(row), "auc"),
        )
        for row in shortcuts
    ]
    return [*_table(head, rows), "", "nested; a model of the pictures has to beat them"]
