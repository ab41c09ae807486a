"""What the check of class folders found: images, and entries that are none."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from kit.show.explore.content import Block, Data, Fact, Section, Words
from kit.show.tables import MOST, Table
from kit.show.verdict import count


def section(data: Data) -> Section | None:
    """Images and skipped entries; ``None``: the images are not in class folders."""
    raw = data.raw
    if "skipped" not in raw.attrs:
        return None
    skipped = pd.DataFrame(raw.attrs["skipped"], columns=["file", "reason"])
    reasons = Counter(skipped["reason"])
    rows = [tuple(map(str, row)) for row in skipped.head(MOST).to_numpy()]
    table = Table("Entries that are no image of a class", ("file", "reason"), rows, frozenset({1}),
                  left_out=len(skipped) - len(rows))  # fmt: skip
    blocks: tuple[Block, ...] = (Words(_said(raw, reasons)), *([table] if rows else []))
    facts: dict[str, Fact] = {
        "images": len(raw),
        "accepted": {str(rule): int(many) for rule, many in raw.attrs.get("accepted", ())},
        "skipped": len(skipped),
        "skipped_by_reason": {str(reason): n for reason, n in reasons.most_common()},
        "broken": sum(many for reason, many in reasons.items() if reason.startswith("no image")),
    }
    return Section("folders", "What is in the folders", blocks, facts, {"skipped": skipped} if rows else {})


def _said(raw: pd.DataFrame, reasons: Counter[str]) -> str:
    said = f"{count(len(raw), 'image')} in {count(raw['label'].nunique(), 'class folder')}."
    if not reasons:
        return f"{said} No entry was skipped."
    many = sum(reasons.values())
    was = "entry was" if many == 1 else "entries were"
    return (
        f"{said} {many:,} other {was} skipped: "
        + "; ".join(f"{n:,} × {reason}" for reason, n in reasons.most_common())
        + "."
    )
