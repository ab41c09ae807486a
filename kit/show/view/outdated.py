"""Whether what a stage has written still belongs to what the stages before it have written since."""

from __future__ import annotations

from pathlib import Path

from kit.state import read_state


def run_again(work: Path, name: str) -> str:
    """The first stage under a finished one that has another result by now; empty: none is known to have.

    The viewer takes no settings of training: it shows what lies in the folder, and each stage may have been
    run with others.

    Args:
        work: ``WORK/<name>``.
        name: of the stage.
    """
    state = read_state(work)
    if name not in state:
        return ""
    for before, key in state[name]["ingredients"]["after"].items():
        if below := run_again(work, before):
            return below
        if state.get(before, {}).get("key") != key:
            return str(before)
    return ""
