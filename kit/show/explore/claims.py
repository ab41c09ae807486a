"""What was said of the data elsewhere, held against what they say here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from kit.competition import Claim
from kit.show.explore.content import Fact, Section, Words
from kit.show.explore.summary import shown
from kit.show.tables import Table
from kit.show.verdict import count

TRUE, FALSE, UNKNOWN = "true", "false", "not computed here"
HEAD = ("said elsewhere", "the data say", "true if", "true?", "fact")


def checked(claims: Sequence[Claim], facts: Mapping[str, Mapping[str, Fact]]) -> list[Section]:
    """One section with a row for each claim; none where there is no claim.

    Args:
        facts: the facts of every section by its name.
    """
    if not claims:
        return []
    rows = [(claim, *judged(claim, facts)) for claim in claims]
    cells = [
        (claim.said, said, wanted(claim), verdict if not why else f"{verdict}: {why}", claim.fact)
        for claim, said, verdict, why in rows
    ]
    verdicts = [verdict for _, _, verdict, _ in rows]
    strong = frozenset(n for n, verdict in enumerate(verdicts) if verdict == FALSE)
    table = Table("Claims and data", HEAD, cells, frozenset({1, 2, 3, 4}), strong)
    counts = {name: verdicts.count(name) for name in (TRUE, FALSE, UNKNOWN)}
    text = Words(
        f"Of {count(len(claims), 'claim')} about these data, {counts[TRUE]:,} hold, {counts[FALSE]:,} do not,"
        f" and {counts[UNKNOWN]:,} could not be computed from what is here."
    )
    made: dict[str, Fact] = {
        "true": counts[TRUE],
        "false": counts[FALSE],
        "unknown": counts[UNKNOWN],
        "rows": [[claim.said, claim.fact, said, verdict] for claim, said, verdict, _ in rows],
    }
    columns = ["said", "fact", "data", "verdict"]
    file = pd.DataFrame([(c.said, c.fact, said, verdict) for c, said, verdict, _ in rows], columns=columns)
    return [Section("claims", "Said elsewhere", (text, table), made, {"all": file})]


def judged(claim: Claim, facts: Mapping[str, Mapping[str, Fact]]) -> tuple[str, str, str]:
    """What the data say, the verdict, and why there is none."""
    section, _, rest = claim.fact.partition(".")
    if section not in facts:
        return "", UNKNOWN, f"the page has no section {section}"
    value = found(facts[section], rest)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        reason = facts[section].get("reason")
        return "", UNKNOWN, str(reason) if reason else f"{claim.fact} is not known"
    true = claim.low <= value <= claim.high
    return shown(value), TRUE if true else FALSE, ""


def wanted(claim: Claim) -> str:
    """Between what the fact would have to be.

    >>> wanted(Claim("", "", 4, 4)), wanted(Claim("", "", 1001, math.inf)), wanted(Claim("", "", 0.7, 1))
    ('4', '1,001 or more', '0.7 to 1')
    """
    if claim.low == claim.high:
        return shown(claim.low)
    if not math.isfinite(claim.high):
        return f"{shown(claim.low)} or more"
    return (
        f"{shown(claim.low)} to {shown(claim.high)}"
        if math.isfinite(claim.low)
        else f"{shown(claim.high)} or less"
    )


def found(facts: Fact, path: str) -> Fact:
    """The fact at a dotted path, whose keys may have dots of their own; ``None``: there is none."""
    if not path:
        return facts
    if not isinstance(facts, Mapping):
        return None
    for key in sorted(facts, key=len, reverse=True):
        if path == key or path.startswith(f"{key}."):
            value = found(facts[key], path[len(key) + 1 :])
            if value is not None:
                return value
    return None
