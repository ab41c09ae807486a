"""Words of the field, as the competition declares them."""

from __future__ import annotations

from kit.show.explore.content import Data, Section
from kit.show.tables import Table


def section(data: Data) -> Section | None:
    """The glossary; ``None``: the competition has none."""
    words = data.run.competition.glossary
    if not words:
        return None
    table = Table("Words of the field", ("word", "what it means"), words, frozenset({1}))
    return Section("glossary", "What the words mean", (table,), {"words": len(words)})
