"""Many processes at work on one search, with no trial lost or done twice.

A search has a fixed number of slots, and a trial fills one. A process claims a slot by adding a running
trial to the study. Trials get their numbers one by one, in the journal as in a database; of the trials of
one slot that have not failed, the one with the lowest number holds it, and all processes agree on that.
The trial of a process that died is marked as failed, and the next claim of its slot has its parameters.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from kit import processes
from kit.processes import Process
from kit.progress import Bar

BEAT = 15.0  # seconds from one sign of life to the next
STALE = 60.0  # seconds without one after which a process of another machine is taken for dead
POLL = 0.5  # seconds from one look at the trials of others to the next
STARTUP = 4  # trials that are drawn at random before a model of the losses is fitted to them
Trials = list[FrozenTrial]
Space = dict[str, optuna.distributions.BaseDistribution]
log = logging.getLogger("kit")


@dataclass(frozen=True)
class Proposal:
    """What a trial is to try.

    settings: all of them, by name; what JSON can hold.
    params, space: those that were drawn, and from what.
    """

    settings: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    space: Mapping[str, optuna.distributions.BaseDistribution] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """How a trial did.

    losses: of every unit, by split; a pruned trial has seen the first splits only.
    curves: by split, the loss at some moments of a fit.
    diverged: why a fit of it came to nothing, if one did; such a trial counts as pruned.
    """

    losses: list[list[float]]
    pruned: bool = False
    curves: list[list[float]] = field(default_factory=list)
    diverged: str = ""

    @property
    def value(self) -> float:
        """The mean loss over all units."""
        return float(np.mean(np.concatenate(self.losses)))


@dataclass(frozen=True)
class Search:
    """One study to finish.

    slots: how many trials it gets.
    propose: what the trial of a slot tries, given the trials so far in the order of their slots.
    score: fits and judges; gets the slot, the settings and the trials so far.
    """

    name: str
    slots: int
    propose: Callable[[int, Trials], Proposal]
    score: Callable[[int, dict[str, Any], Trials], Score]


def losses(trial: FrozenTrial) -> NDArray[np.float64]:
    """The loss of every unit that a trial has seen ``(n,)``, split by split."""
    return np.concatenate([np.asarray(part, float) for part in trial.user_attrs["losses"]])


def slot_of(trial: FrozenTrial) -> int:
    """The slot that a trial fills."""
    return int(trial.user_attrs["slot"])


def diverged(trial: FrozenTrial) -> str:
    """Why a fit of a trial came to nothing; empty if none did."""
    return str(trial.user_attrs.get("diverged", ""))


def draw(sampler: str, seed: int, choices: Space, trials: Trials) -> dict[str, Any]:
    """Settings to try next in view of some trials, without a word to the study that they are from.

    Args:
        sampler: ``tpe`` (Bergstra et al. 2011) or ``random``.
    """
    # The liar: trials of other processes that still run count as bad, so that no two try the same.
    drawing: optuna.samplers.BaseSampler = (
        optuna.samplers.RandomSampler(seed)
        if sampler == "random"
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
    )
    study = optuna.create_study(sampler=drawing)
    for trial in trials:
        seen = create_trial(
            state=trial.state,
            values=trial.values,
            params=trial.params,
            distributions=trial.distributions,
            intermediate_values=trial.intermediate_values,
        )
        study.add_trial(seen)
    return study.ask(choices).params


def finished(storage: BaseStorage, search: Search) -> Trials:
    """The finished trials of a search, by slot."""
    return [trial for trial in _holders(_read(storage, search)) if trial.state.is_finished()]


def forget(storage: BaseStorage, names: list[str]) -> list[Process]:
    """Delete studies; where another process is at work on one, none is, and those processes are returned."""
    known = {study.study_name for study in storage.get_all_studies()}
    ids = [storage.get_study_id_from_name(name) for name in names if name in known]
    owners = {
        owner
        for n in ids
        for trial in storage.get_all_trials(n, deepcopy=False, states=(TrialState.RUNNING,))
        if (owner := _owner(trial)) is not None and owner != processes.mine() and not owner.is_dead
    }
    for n in [] if owners else ids:
        storage.delete_study(n)
    return sorted(owners, key=str)


def work(storage: BaseStorage, searches: list[Search], bar: Bar) -> None:
    """Fill the free slots of all searches, together with any other processes; returns when none is left.

    Alone, it fills them in order. With others, it goes first where nobody else is: a trial that is drawn
    while others run knows less.
    """
    watch, left, ended = _Watch(), list(searches), 0
    while True:
        looks = [_Look(search, _read(storage, search), watch) for search in left]
        ended += sum(look.search.slots for look in looks if look.is_finished)
        looks = [look for look in looks if not look.is_finished]
        left = [look.search for look in looks]
        bar.update(ended + sum(look.finished for look in looks) - bar.n)
        if not left:
            return
        free = [look for look in looks if look.free]
        if not free:
            others = sum(look.running for look in looks)
            bar.set_postfix_str(f"waiting for {others} of other processes")
            time.sleep(POLL)
            continue
        bar.set_postfix_str("")
        look = min(free, key=lambda look: look.running)
        claim = _claim(storage, look, look.free[0])
        if claim is not None:
            _fill(storage, look, claim)


class _Look:
    """A search as it is at one moment."""

    def __init__(self, search: Search, trials: Trials, watch: _Watch) -> None:
        self.search, self.every = search, trials
        held = {slot_of(trial): trial for trial in _holders(trials)}
        self.trials = list(held.values())
        self.stale = {slot: trial for slot, trial in held.items() if watch.is_stale(trial)}
        self.free = [slot for slot in range(search.slots) if slot not in held or slot in self.stale]
        self.finished = sum(trial.state.is_finished() for trial in self.trials)
        self.running = len(self.trials) - self.finished - len(self.stale)

    @property
    def is_finished(self) -> bool:
        return self.finished == self.search.slots


class _Watch:
    """Tells which running trials nobody is at work on.

    Machines' clocks differ: what counts is how long we have seen no sign of life, not when the last was.
    """

    def __init__(self) -> None:
        self._seen: dict[int, tuple[int, float]] = {}

    def is_stale(self, trial: FrozenTrial) -> bool:
        if trial.state.is_finished():
            return False
        owner = _owner(trial)
        if owner == processes.mine():  # it looks for work, so it has left that behind
            return True
        if owner is not None and owner.is_here:
            return owner.is_dead
        beat, now = trial.user_attrs.get("beat", 0), time.monotonic()
        before, since = self._seen.get(trial._trial_id, (None, now))
        if beat != before:
            self._seen[trial._trial_id] = beat, now
            return False
        return now - since > STALE


def _owner(trial: FrozenTrial) -> Process | None:
    return Process.parse(trial.user_attrs.get("owner", ""))


def _read(storage: BaseStorage, search: Search) -> Trials:
    """All trials of a study, by number; the study is made if it is not there."""
    try:
        study = storage.get_study_id_from_name(search.name)
    except KeyError:
        optuna.create_study(storage=storage, study_name=search.name, load_if_exists=True)
        study = storage.get_study_id_from_name(search.name)
    return storage.get_all_trials(study, deepcopy=False)


def _holders(trials: Trials) -> Trials:
    """The trial that holds each slot, by slot; a trial that somebody else added holds none."""
    held: dict[int, FrozenTrial] = {}
    for trial in trials:
        if trial.state != TrialState.FAIL and "slot" in trial.user_attrs:
            held.setdefault(slot_of(trial), trial)
    return [held[slot] for slot in sorted(held)]


def _claim(storage: BaseStorage, look: _Look, slot: int) -> FrozenTrial | None:
    """A running trial of ours in this slot; ``None`` if another process was faster."""
    if slot in look.stale:
        _fail(storage, look.stale[slot])
    others = [trial for trial in look.trials if slot_of(trial) != slot or trial.state.is_finished()]
    before = next((trial for trial in look.every if trial.user_attrs.get("slot") == slot), None)
    if before is not None:
        proposal = Proposal(before.user_attrs["settings"], before.params, before.distributions)
    else:
        proposal = look.search.propose(slot, others)
    owned = {"slot": slot, "settings": dict(proposal.settings), "owner": str(processes.mine())}
    template = create_trial(
        state=TrialState.RUNNING,
        params=dict(proposal.params),
        distributions=dict(proposal.space),
        user_attrs=owned,
    )
    mine = storage.create_new_trial(storage.get_study_id_from_name(look.search.name), template)
    holders = _holders(_read(storage, look.search))
    claimed = next((trial for trial in holders if trial._trial_id == mine), None)
    if claimed is None:
        _fail(storage, storage.get_trial(mine))
    return claimed


def _fill(storage: BaseStorage, look: _Look, claim: FrozenTrial) -> None:
    """Score a trial of ours, and write down how it did."""
    slot, number = slot_of(claim), claim._trial_id
    others = [trial for trial in look.trials if slot_of(trial) != slot and trial.state.is_finished()]
    try:
        with _pulse(storage, number):
            score = look.search.score(slot, dict(claim.user_attrs["settings"]), others)
    except BaseException:
        _fail(storage, claim)
        raise
    try:
        storage.set_trial_user_attr(number, "losses", score.losses)
        if score.curves:
            storage.set_trial_user_attr(number, "curves", score.curves)
        if score.diverged:
            storage.set_trial_user_attr(number, "diverged", score.diverged)
        # A sampler takes a trial that was pruned later for a better one: of one that diverged nothing is.
        step = 0 if score.diverged else len(score.losses)
        storage.set_trial_intermediate_value(number, step, score.value)
        is_complete = not (score.pruned or score.diverged)
        state = TrialState.COMPLETE if is_complete else TrialState.PRUNED
        storage.set_trial_state_values(number, state, [score.value])
    except UpdateFinishedTrialError:
        log.warning(
            "a trial of %s was taken over by another process: is this one very slow?", look.search.name
        )


def _fail(storage: BaseStorage, trial: FrozenTrial) -> None:
    """Give a slot back; where the trial was finished just now, it keeps its slot."""
    try:
        storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
    except UpdateFinishedTrialError:
        return


@contextmanager
def _pulse(storage: BaseStorage, number: int) -> Iterator[None]:
    """Show other machines that this trial is at work."""
    stop = threading.Event()

    def beat() -> None:
        count = 0
        while not stop.wait(BEAT):
            count += 1
            try:
                storage.set_trial_user_attr(number, "beat", count)
            except UpdateFinishedTrialError:
                return
            except optuna.exceptions.StorageInternalError:  # a server may be away for a moment
                continue

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
