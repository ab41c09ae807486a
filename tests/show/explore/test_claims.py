"""Claims are held against the facts of the page."""

from __future__ import annotations

import math

import pytest

from kit.competition import Claim
from kit.show.explore.claims import checked, found, judged

FACTS = {"a": {"n": 754, "deep": {"x.y": {"z": 0.5}, "x": {"y": 1}}, "flag": True, "none": None},
         "shut": {"reason": "class B has 1 group"}}  # fmt: skip


@pytest.mark.parametrize(
    ("claim", "said", "verdict"),
    [
        (Claim("", "a.n", 1001, math.inf), "754", "false"),
        (Claim("", "a.n", 754, 754), "754", "true"),
        (Claim("", "a.deep.x.y.z", 0.5, 1), "0.5", "true"),
        (Claim("", "a.deep.x", 0, 1), "", "not computed here"),
        (Claim("", "a.none", 0, 1), "", "not computed here"),
        (Claim("", "a.flag", 0, 1), "", "not computed here"),
        (Claim("", "b.n", 0, 1), "", "not computed here"),
    ],
)
def test_a_claim_is_true_false_or_not_computed(claim: Claim, said: str, verdict: str) -> None:
    assert judged(claim, FACTS)[:2] == (said, verdict)


def test_what_is_not_computed_says_why() -> None:
    assert judged(Claim("", "b.n", 0, 1), FACTS)[2] == "the page has no section b"
    assert judged(Claim("", "shut.scores.x.auc", 0, 1), FACTS)[2] == "class B has 1 group"


def test_a_key_may_have_dots_of_its_own() -> None:
    assert found(FACTS["a"], "deep.x.y") == {"z": 0.5} and found(FACTS["a"], "deep.x.q") is None


def test_without_a_claim_there_is_no_section_and_with_some_they_are_counted() -> None:
    assert checked((), FACTS) == []
    (section,) = checked([Claim("few", "a.n", 0, 9), Claim("many", "a.n", 9, 999)], FACTS)
    assert (section.facts["true"], section.facts["false"], section.facts["unknown"]) == (1, 1, 0)
