"""Errors that a user can mend, and the hints that go with them."""

from __future__ import annotations

import re

import pytest

from kit import errors
from kit.errors import KitError, did_you_mean, listed


def subclasses() -> list[type[KitError]]:
    return [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, KitError)]


def test_the_docstring_draws_every_error_there_is() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    assert sorted(drawn) == sorted(c.__name__ for c in subclasses() if c is not KitError)


@pytest.mark.parametrize("kind", subclasses())
def test_an_error_keeps_its_message_and_hint_apart(kind: type[KitError]) -> None:
    error = kind("what is wrong", "what to type")
    assert (error.message, error.hint, str(error)) == ("what is wrong", "what to type", "what is wrong")
    assert kind("alone").hint == ""


def test_the_closest_name_is_suggested_and_all_are_listed_in_order() -> None:
    assert did_you_mean("tran", ["train", "tile"]) == "did you mean train? Known: tile, train"


def test_case_does_not_count_for_the_closest_name() -> None:
    assert did_you_mean("TRAIN", ["tile", "Train"]) == "did you mean Train? Known: Train, tile"


def test_nothing_is_suggested_for_a_name_like_no_other() -> None:
    assert did_you_mean("xyz", ["train", "tile"]) == "Known: tile, train"


def test_a_long_list_of_findings_is_cut_and_counted() -> None:
    assert listed(["a", "b", "c"], most=2) == "  a\n  b\n  ... and 1 more"


def test_a_short_list_of_findings_is_whole() -> None:
    assert listed(["a", "b"], most=2) == "  a\n  b"
