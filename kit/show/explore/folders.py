"""What the check of class folders found: what is no image, and how much is there twice."""

from __future__ import annotations

from collections import Counter

import pandas as pd

from kit.show.explore.content import Block, Data, Fact, Section, Words
from kit.show.tables import MOST, Table
from kit.show.verdict import count


def section(data: Data) -> Section | None:
    """Skipped entries, and counts of copies; ``None``: the images are not in class folders."""
    raw = data.raw
    if "skipped" not in raw.attrs or "cluster" not in raw:
        return None
    skipped = pd.DataFrame(raw.attrs["skipped"], columns=["file", "reason"])
    conflicts = pd.DataFrame(raw.attrs["conflicts"], columns=["cluster", "image_id", "label"])
    equal = copies(raw)
    reasons = Counter(skipped["reason"])
    rows = [tuple(map(str, row)) for row in skipped.head(MOST).to_numpy()]
    table = Table("Entries that are no image of a class", ("file", "reason"), rows, frozenset({1}),
                  left_out=len(skipped) - len(rows))  # fmt: skip
    blocks: tuple[Block, ...] = (Words(_said(raw, skipped, equal, conflicts)), *([table] if rows else []))
    facts: dict[str, Fact] = {
        "images": len(raw),
        "accepted": {str(rule): int(many) for rule, many in raw.attrs.get("accepted", ())},
        "skipped": len(skipped),
        "skipped_by_reason": {str(reason): n for reason, n in reasons.most_common()},
        "broken": sum(many for reason, many in reasons.items() if reason.startswith("no image")),
        "equal_groups": equal["cluster"].nunique(),
        "equal_images": len(equal),
        "equal_by_label": {str(k): int(n) for k, n in _groups(equal).items()},
        "conflicts": conflicts["cluster"].nunique(),
        "conflicting": [*sorted(map(str, conflicts["image_id"]))],
    }
    return Section("folders", "What is in the folders", blocks, facts, {"skipped": skipped} if rows else {})


def copies(raw: pd.DataFrame) -> pd.DataFrame:
    """The images of which there is another with the same bytes: cluster, image_id, label, by cluster."""
    found = raw.loc[raw["cluster"].duplicated(keep=False), ["cluster", "image_id", "label"]]
    return found.sort_values(["cluster", "image_id"]).reset_index(drop=True)


def _groups(equal: pd.DataFrame) -> pd.Series[int]:
    """How many groups of equal files have an image of each label."""
    return equal.groupby("label")["cluster"].nunique()


def _said(raw: pd.DataFrame, skipped: pd.DataFrame, equal: pd.DataFrame, conflicts: pd.DataFrame) -> str:
    many = equal["cluster"].nunique()
    words = [f"{count(len(raw), 'image')} in {count(raw['label'].nunique(), 'class folder')}."]
    reasons = "; ".join(f"{n:,} × {reason}" for reason, n in Counter(skipped["reason"]).most_common())
    words.append(
        f"{len(skipped):,} other entries were skipped: {reasons}." if reasons else "No entry was skipped."
    )
    if many:
        words.append(
            f"{count(many, 'group')} of files with equal bytes, {len(equal):,} images: what is equal is kept"
            " in one fold, else a model is scored on what it has learned by heart."
        )
    else:
        words.append("No two files are equal.")
    if len(conflicts):
        words.append(
            f"In {count(conflicts['cluster'].nunique(), 'group')} equal images have different labels:"
            " at least one of them is wrong."
        )
    return " ".join(words)
