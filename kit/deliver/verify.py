"""``kit verify``: does a submission folder prove what it claims? Five levels, each with those below it.

What a stranger sends is a folder and words. Level 0 says that the folder is whole, which its own sender can
arrange; levels 1 and 2 compute every number and the submission again; 3 and 4 the predictions behind them.
"""

from __future__ import annotations

import json
import logging
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from kit.data import open_data
from kit.deliver import origin
from kit.deliver.case import Case
from kit.deliver.evidence import DECLARATION
from kit.deliver.findings import WIDTH, Finding, Unchecked, failed
from kit.deliver.integrity import check_folder, read_manifest
from kit.deliver.recombine import recombine
from kit.deliver.rescore import rescore
from kit.errors import KitError, SettingError, StorageError

NAMES = ("integrity", "re-score", "re-combine", "re-infer", "re-train")
CHEAP = 2  # the last level that takes seconds and no torch
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Options:
    """How far a submission is checked, and with what.

    level: 0 to 4. data: the competition's data. bundle: where trained weights are. work: what is computed
    is kept there, and weights may lie there; ``None``: a temporary folder. weights: ``NAME=FILE`` of the
    attached ones. trust: run the declaration that came with it. task: run this copy of it instead. every:
    all training images are predicted again, not a sample.
    """

    level: int = 2
    data: Path | None = None
    bundle: Path | None = None
    weights: Sequence[str] = ()
    work: Path | None = None
    trust: bool = False
    task: Path | None = None
    every: bool = False


@dataclass
class Verdict:
    """What was found so far, level by level.

    stopped: the last level that could not be tried, and why.
    """

    found: dict[int, list[Finding]]
    stopped: tuple[int, Unchecked] | None = None

    @property
    def faults(self) -> int:
        """How many checks have found that something is not as claimed."""
        return sum(finding.state == "FAILED" for level in self.found.values() for finding in level)

    @property
    def holds(self) -> int:
        """The level up to which nothing was found; -1: none."""
        sound = (level for level in self.found if failed(self.found[level]))
        return next(sound, max(self.found) + 1) - 1

    @property
    def short(self) -> bool:
        """Whether it stopped before the level that was asked: a later one may have needed less."""
        return self.stopped is not None and self.stopped[0] > max(self.found)

    @property
    def unchecked(self) -> list[str]:
        """What was tried and could not be checked."""
        lines = (finding for level in self.found.values() for finding in level)
        return [finding.what for finding in lines if finding.state == "not checked"]

    @property
    def code(self) -> int:
        """0: it holds as far as was asked, 1: something is not as claimed, 2: it cannot be checked here."""
        return 1 if self.faults else 2 * self.short


def verify(folder: Path, options: Options) -> tuple[str, int]:
    """Check a submission folder; the verdict, and the exit code of `Verdict.code`.

    Raises:
        DataError: it is no submission folder, or one of another version.
    """
    content, first = read_manifest(folder)
    verdict = Verdict({0: [first]})
    with ExitStack() as stack:
        if content is not None:
            place = _place(options, content["run"], stack).resolve()
            case = Case(folder.resolve(), content, place, trust=options.trust, task=options.task)
            _go(verdict, case, options)
    return told(folder, content, verdict, options), verdict.code


def _place(options: Options, run: str, stack: ExitStack) -> Path:
    """Where things are computed: a folder of its own, so that no file of a work folder is touched."""
    if options.work is not None:
        return options.work / "verify" / run[:12]
    return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kit-verify-")))


def _go(verdict: Verdict, case: Case, options: Options) -> None:
    """Every level until one cannot be tried or, at what takes long or trusts the files, one has failed."""
    if options.data is not None:
        open_data(options.data, case.place)  # what is wrong with it is the user's to mend
    with _survived(verdict.found[0]):
        found, case = check_folder(case, options.data)
        verdict.found[0] += found
    for level in range(1, options.level + 1):
        if verdict.faults and (level == 1 or level > CHEAP):
            return
        found = []
        try:
            with _survived(found):
                found += _level(level, case, options)
            verdict.found[level] = found
        except Unchecked as error:
            verdict.stopped = (level, error)
            if level != len(NAMES) - 2:  # whoever trains again needs no trained weights
                return


@contextmanager
def _survived(found: list[Finding]) -> Iterator[None]:
    """Files of a stranger may hold anything, and break whatever reads them: that is a finding, too."""
    try:
        yield
    except (Unchecked, SettingError, StorageError, MemoryError):
        raise
    except Exception as error:
        log.debug("the check ended with", exc_info=True)
        said = error.message if isinstance(error, KitError) else repr(error)
        found.append(Finding("FAILED", "contents", f"something is not as the kit writes it: {said}"))


def _level(level: int, case: Case, options: Options) -> list[Finding]:
    """One level above 0; what takes long, or torch, is imported when it is asked for."""
    if level == 1:
        return rescore(case)
    if level == 2:
        return recombine(case)
    room = import_module("kit.deliver.reinfer" if level == 3 else "kit.deliver.retrain")
    found: list[Finding] = room.check(case, options)
    return found


# --- in words -----------------------------------------------------------------------------------------


def told(folder: Path, content: Mapping[str, Any] | None, verdict: Verdict, options: Options) -> str:
    """The verdict as the console prints it, in 100 columns."""
    lines = [] if content is None else [*_about(folder, content), ""]
    for level, findings in verdict.found.items():
        lines += [f"level {level}, {NAMES[level]}", *(finding.line() for finding in findings)]
    said = f"{_sentence(verdict, options)}{_program(content, verdict, options)}"
    return "\n".join([*lines, "", *_wrapped(said), *_next(folder, content, verdict, options)])


def _program(content: Mapping[str, Any] | None, verdict: Verdict, options: Options) -> str:
    """Whose program has run with the checks, if any."""
    if content is None or DECLARATION not in content["files"] or max(verdict.found) == 0:
        return ""
    if options.task is not None:
        return f" Your own {options.task.name}, which is its {DECLARATION}, was run."
    return (
        f" BUT the sender's own program {DECLARATION} was run, and can make any check say anything: this"
        " is worth no more than your reading of it."
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def _about(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """What is claimed, and how it was made."""
    declared, code = content["declared"], content["code"]
    data = "the embedded demo" if declared.get("demo") else f"the data in {content['data'].get('folder')}"
    version = f"version {code.get('version')} of the kit{', changed' if code.get('dirty') else ''}"
    made = (
        f"made from {data} by {version},"
        f" seed {declared.get('seed')}, {declared.get('threads')} threads,"
        f" on {content['machine'].get('class')}, as it says"
    )
    return [*_wrapped(f"{folder}: {made}"), *_wrapped(f"claim: {_claim(folder, content['claim'])}")]


def _claim(folder: Path, claim: Mapping[str, Any]) -> str:
    """The claim in a sentence, beside what a constant scores."""
    try:
        found = json.loads((folder / "metrics.json").read_text())
        constant = [
            f"; a constant scores {row['score']:.4f}"
            for row in found["rows"]
            if row["name"] == "constant" and row["set"] == claim["set"]
        ]
        lost = f", {found['uncovered']} more not covered" if found["uncovered"] else ""
        how = "nested: no unit was scored by a fit that had seen it" if claim["nested"] else "NOT nested"
        return (
            f"{claim['name']} scores {claim['score']:.4f} ({claim['metric']}, 95 % interval"
            f" {claim['low']:.4f} to {claim['high']:.4f}) on {claim['units']} units out of fold{lost}; {how}"
            f"{''.join(constant)}"
        )
    except (OSError, ValueError, KeyError, TypeError):
        return "it cannot be read"


def _sentence(verdict: Verdict, options: Options) -> str:
    """The verdict in one sentence."""
    if verdict.faults:
        first = min(level for level in verdict.found if failed(verdict.found[level]))
        checks = "1 check has" if verdict.faults == 1 else f"{verdict.faults} checks have"
        rest = (
            ""
            if max(verdict.found) == options.level
            else f"; nothing above level {max(verdict.found)} was tried"
        )
        return f"The claim does NOT hold: {checks} failed, the first at level {first} ({NAMES[first]}){rest}."
    held = f"The claim holds up to level {verdict.holds}"
    if verdict.unchecked:
        held += f", as far as it was checked (not: {', '.join(verdict.unchecked)})"
    if verdict.stopped is not None:
        level, error = verdict.stopped
        how = "cannot be" if verdict.short else "was not"
        return f"{held}; level {level} ({NAMES[level]}) {how} checked: {error.reason}."
    return f"{held}."


def _next(folder: Path, content: Mapping[str, Any] | None, verdict: Verdict, options: Options) -> list[str]:
    """What to type for the next level, or to get this one done."""
    if verdict.faults and content is not None and content["code"].get("digest") != origin.code()["digest"]:
        commit = str(content["code"].get("commit"))[:12]
        which = f"version {content['code'].get('version')}, commit {commit}"
        return _wrapped(f"hint: it was made by other code of the kit ({which}); that one may say otherwise")
    if verdict.faults:
        return []
    if verdict.stopped is not None and verdict.short:
        return [f"hint: {verdict.stopped[1].hint}"] if verdict.stopped[1].hint else []
    if verdict.holds == len(NAMES) - 1:
        return []
    words = ["python -m kit verify", str(folder), f"--level {verdict.holds + 1}"]
    words += [f"--data {options.data}"] if options.data else []
    words += [f"--bundle {options.bundle or 'DIR'}"] if verdict.holds == CHEAP else []
    words += [f"--weights {' '.join(options.weights)}"] if options.weights else []
    words += ["--trust"] if options.trust else []
    words += [f"--task {options.task}"] if options.task else []
    # The command stays on one line, however long its paths are: it is to be copied.
    return [f"for the next level, {NAMES[verdict.holds + 1]}, type:", f"  {' '.join(words)}"]
