"""Running the kit on Kaggle, and stopping it in time: what the kernel's script hands over to.

Only the standard library is used: packages may be what is wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HOUR = float(os.environ.get("KIT_HOUR_SECONDS", "3600"))  # seconds; tests have shorter ones
REPORT, SESSION, FOLDS = "kit_report.json", "kit-session.json", "folds.csv"
MARGIN = 1 / 6  # hours before the limit at which it stops: the clock of Kaggle began before ours
RESTARTS = 5  # of a kernel that a slide has killed
FULL = 0.95  # of the space, from where on a session is stopped
KEPT = 40  # last lines of what is said
TILES = "*/tile/*/*.npz"  # in the work folder


class Fault(Exception):
    """Why it cannot go on, in our words; an empty sentence: the kit has said it."""

    def __init__(self, kind: str, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


@dataclass(frozen=True)
class Place:
    """Where everything is. temporary has ``code`` and ``site``, packages that were installed."""

    inputs: Path
    working: Path
    temporary: Path
    data: Path
    code: Path
    weights: Path | None


@dataclass(frozen=True)
class Watch:
    """Until when something may run, and how large a folder may become.

    end: on the clock of `time.monotonic`. grace: seconds that it then has to keep what is done. folder, most:
    None, or a folder and its bytes.
    """

    end: float
    grace: float
    folder: Path | None = None
    most: float = 0.0

    def broken(self, look: bool) -> str:
        """What it has run out of: time, disk, or nothing yet; ``look`` whether to look at the folder too."""
        if time.monotonic() >= self.end:
            return "time"
        return "disk" if look and self.folder is not None and size_of(self.folder) > self.most else ""


@dataclass(frozen=True)
class Ended:
    """How a process ended: exit code, what it was stopped for, its own faults, and its last lines."""

    code: int
    stopped: str
    faults: list[str]
    last: list[str]


def predict(place: Place, limits: Mapping[str, float], began: float, seconds: Mapping[str, float]) -> None:
    """Predict the test images in a process of its own; a slide that kills it is left out.

    Args:
        began: on the clock of `time.monotonic`. seconds: what was used before.

    Raises:
        Fault: it did not work.
    """
    assert place.weights is not None, "a bundle that predicts has weights"
    work = place.temporary / "work"
    named = {"code": place.code, "weights": place.weights, "data": place.data, "out": place.working}
    command = ["-m", "kit.deliver.kernel", *(f"--{name}={path}" for name, path in named.items())]
    watch = Watch(began + (limits["hours"] - MARGIN) * HOUR, HOUR / 120)
    for left in reversed(range(RESTARTS + 1)):
        ended = run([*command, f"--work={work}"], place, place.temporary, watch)
        if not (left and killed(ended) and any((work / "trying").glob("*"))):
            break
        print(f"killed by signal {-ended.code} while a slide was read: once more, more carefully", flush=True)
    judge(ended, limits)
    report = json.loads((place.working / REPORT).read_text())
    mine = report["seconds"]
    report["seconds"] = mine | {name: mine.get(name, 0) + spent for name, spent in seconds.items()}
    (place.working / REPORT).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")


def session(
    place: Place,
    limits: Mapping[str, float],
    began: float,
    about: Mapping[str, Any],
    kernel: str,
    inputs: Sequence[Path],
) -> None:
    """Run stages of the kit, from where the last session was stopped until the hours are nearly over.

    Args:
        about: the content of ``bundle.json``. inputs: the folders among which the last session's output is.

    Raises:
        Fault: a stage did not work.
    """
    said = {"kit": 1, "name": about["declared"]["name"], "kernel": kernel, "number": 1, "finished": []}
    said |= resume(inputs, place.working, said["name"], kernel)
    end, most = began + limits["hours"] * HOUR - HOUR / 3, limits["disk_gib"] * 2**30 * FULL
    watch = Watch(end, HOUR / 12, place.working, most)
    for stage in about["stages"]:
        print(f"== {stage}", flush=True)
        ended = run(["-m", "kit", stage, *options(place, about)], place, place.working, watch)
        if ended.code == 0 and stage not in said["finished"]:
            said["finished"].append(stage)
        (place.working / SESSION).write_text(json.dumps(said, indent=1) + "\n")
        if ended.stopped == "time":
            print(f"stopped in {stage}, since the {limits['hours']:g} hours are nearly over", flush=True)
            print("go on: push the next version of this kernel; it begins where this one ended", flush=True)
            return
        try:
            judge(ended, limits)
        except Fault as fault:
            if not (said["finished"] or any((place.working / "work").glob(TILES))):
                raise
            # Kaggle attaches the output of the last version that did not fail.
            if str(fault):
                print("FAULT", f"{fault.kind}: {' '.join(str(fault).split())}", flush=True)
            print("what is done is kept: mend that, and push the next version", flush=True)
            return
    print(f"finished: {', '.join(about['stages'])}; the results are this kernel's output", flush=True)
    print(f"to have them, type: kaggle kernels output OWNER/{kernel or 'KERNEL'} -p DIR", flush=True)


def resume(inputs: Sequence[Path], working: Path, name: str, kernel: str) -> dict[str, Any]:
    """Bring what the latest session of this run has left; what it noted, or nothing.

    What this very kernel has left goes before what another has, as that which has tiled.
    """
    found = {folder: session_note(folder / SESSION) for folder in inputs}
    notes = {folder: note for folder, note in found.items() if note is not None and note["name"] == name}
    if not notes:
        print("no earlier session of this run is attached: it begins", flush=True)
        return {}
    latest = max(notes, key=lambda at: (notes[at]["kernel"] == kernel, notes[at]["number"], str(at)))
    note = notes[latest]
    shutil.copytree(latest, working, dirs_exist_ok=True, copy_function=shutil.copyfile)
    print(f"going on from session {note['number']}, {latest}", flush=True)
    return {"number": note["number"] + 1, "finished": note["finished"]}


def session_note(path: Path) -> dict[str, Any] | None:
    """What a session has noted; ``None`` where there is no note, or it is none of ours."""
    try:
        note = json.loads(path.read_text())
        numbered = note["kit"] == 1 and type(note["number"]) is int and {"name", "kernel"} <= note.keys()
        whole = numbered and all(isinstance(stage, str) for stage in note["finished"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return note if whole and isinstance(note["finished"], list) else None


def options(place: Place, about: Mapping[str, Any]) -> list[str]:
    """The options of every stage, as the run was declared; the work folder is the kernel's output."""
    declared = about["declared"]
    task = str(place.code / about["task"]) if about["task"] else declared["asked"]
    found = [task, f"--data={place.data}", "--work=work", f"--seed={declared['seed']}"]
    found += [f"--threads={declared['threads']}", f"--workers={os.cpu_count() or 1}"]
    found += [f"--set={key}={value}" for key, value in declared["settings"].items()]
    if place.weights is not None:
        found += [f"--weights={name}={place.weights / file}" for name, file in about["attached"].items()]
    return found + ([f"--folds={place.code / FOLDS}"] if about.get("folds_file") else [])


# -- a process, and how it ended


def run(words: Sequence[str], place: Place, folder: Path, watch: Watch) -> Ended:
    """Run Python with these words; what it says passes through. It is stopped when the watch says so."""
    paths = [place.temporary / "site", place.code]
    more = {
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
    }
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=os.environ | more, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True,
    )  # fmt: skip
    faults: list[str] = []
    last: deque[str] = deque(maxlen=KEPT)
    listener = threading.Thread(target=_listen, args=(process, faults, last), daemon=True)
    listener.start()
    stopped = _wait(process, watch)
    listener.join(timeout=HOUR / 60)
    return Ended(process.returncode, stopped, faults, list(last))


def _listen(process: subprocess.Popen[str], faults: list[str], last: deque[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        if line.startswith("FAULT "):
            faults.append(line)
        if line.strip():
            last.append(line.strip())


def _wait(process: subprocess.Popen[str], watch: Watch) -> str:
    """Wait for the end of a process, or bring it about; returns what it was stopped for."""
    every, looked = min(1.0, HOUR / 3600), time.monotonic()
    while process.poll() is None:
        look = time.monotonic() - looked >= HOUR / 120
        looked = time.monotonic() if look else looked
        if stopped := watch.broken(look):
            _stop(process, watch.grace)
            return stopped
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=every)
    return ""


def _stop(process: subprocess.Popen[str], grace: float) -> None:
    """As Ctrl-C does it, so that work that is done is kept; then by force."""
    for number, seconds in ((signal.SIGINT, grace), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=seconds)
            return


def killed(ended: Ended) -> bool:
    """Whether a signal has ended it that we did not send."""
    return ended.code < 0 and not ended.stopped


def judge(ended: Ended, limits: Mapping[str, float]) -> None:
    """Say why a process failed, if it did.

    Raises:
        Fault: it did.
    """
    if ended.stopped == "time":
        raise Fault("time", f"it was stopped, since the {limits['hours']:g} hours are nearly over")
    if ended.stopped == "disk":
        raise Fault("disk", f"the output has {limits['disk_gib'] * FULL:.1f} GiB or more: lower tile.count")
    if ended.code == 0:
        return
    if ended.faults:
        raise Fault("exception", "")
    text = "\n".join(ended.last)
    if ended.code == -signal.SIGKILL or "MemoryError" in text:
        raise Fault("memory", f"the memory was too small; {limits['memory_gib']:g} GiB were expected")
    if "No space left on device" in text:
        raise Fault("disk", "no space is left on the disk")
    how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
    # A hint comes after the error of the kit.
    errors = [line for line in ended.last if line.startswith("error: ")]
    raise Fault("exception", f"{how}: {(errors or ended.last or ['it said nothing'])[-1]}")


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder; what vanishes meanwhile counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total
