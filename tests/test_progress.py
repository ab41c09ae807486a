"""Progress: a bar where somebody looks, lines in a log where nobody does."""

from __future__ import annotations

import io
import logging

import pytest

from kit import progress
from kit.progress import Bar, line


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar_with_rate_and_time_left(caplog: pytest.LogCaptureFixture) -> None:
    screen = Terminal()
    with caplog.at_level(logging.INFO, "kit"):
        assert list(Bar(range(3), desc="tile", unit="image", file=screen, mininterval=0)) == [0, 1, 2]
    assert "3/3" in screen.getvalue() and "image/s" in screen.getvalue()
    assert caplog.messages == []


def test_a_log_gets_a_line_now_and_then_and_no_control_characters(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    file = io.StringIO()
    with caplog.at_level(logging.INFO, "kit"), Bar(total=4, desc="tile", unit="image", file=file) as bar:
        bar.update(3)
    assert file.getvalue() == ""
    assert any(message.startswith("tile: 3 of 4 images, ") for message in caplog.messages)


def test_a_log_is_not_told_of_what_is_quickly_done(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "kit"):
        list(Bar(range(1000), desc="tile", unit="image", file=io.StringIO()))
    assert caplog.messages == []


def test_a_line_says_what_is_done_and_what_is_left() -> None:
    state = {"prefix": "fit: ", "n": 1200, "total": 2400, "unit": "bag", "elapsed": 90.0, "rate": 20.0}
    assert (
        line(state | {"postfix": "epoch 2"})
        == "fit: 1,200 of 2,400 bags, 01:30 so far, about 01:00 left, epoch 2"
    )
    assert line(state | {"total": None}) == "fit: 1,200 bags, 01:30 so far"
    assert line(state | {"n": 0}) == "fit: 0 of 2,400 bags, 01:30 so far"
