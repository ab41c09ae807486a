"""How far a long stage is: a bar in a terminal, a line now and then in a log or a notebook."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

from tqdm.std import tqdm

SECONDS = 20.0  # between two lines of a log
log = logging.getLogger("kit")


class Bar(tqdm):  # type: ignore[misc]
    """A tqdm bar with rate and time left; where nobody sees it move, lines of the log in its place.

    A log gets its first line after `SECONDS`: what is done sooner needs none.
    """

    def __init__(self, *given: Any, file: TextIO | None = None, **options: Any) -> None:
        stream = file or sys.stderr
        self.plain, self.said = not stream.isatty(), 0.0
        if self.plain:
            options |= {"mininterval": SECONDS, "miniters": 1}
        super().__init__(*given, file=stream, dynamic_ncols=True, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or log it."""
        if not self.plain:
            return bool(super().display(msg, pos))
        now = self._time()
        if now - max(self.said, getattr(self, "start_t", now)) >= SECONDS:
            self.said = now
            log.info("%s", line(self.format_dict))
        return True

    def close(self) -> None:
        """Leave the bar as it is; of a log there is nothing to wipe."""
        if self.plain:
            self.disable = True
        super().close()


def line(state: dict[str, Any]) -> str:
    """What a bar says, as a line of a log.

    >>> line({"prefix": "tile", "n": 3, "total": 12, "unit": "image", "elapsed": 60.0, "rate": None})
    'tile: 3 of 12 images, 01:00 so far, about 03:00 left'
    """
    done, total, elapsed = state["n"], state["total"], state["elapsed"]
    counted = f"{done:,} of {total:,}" if total else f"{done:,}"
    said = [f"{counted} {state['unit']}s", f"{tqdm.format_interval(elapsed)} so far"]
    if total and done:
        rate = state["rate"] or done / elapsed
        said.append(f"about {tqdm.format_interval((total - done) / rate)} left")
    said += [state["postfix"]] if state.get("postfix") else []
    return f"{(state['prefix'] or '').removesuffix(': ')}: {', '.join(said)}"
