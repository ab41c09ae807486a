"""The steps of one fit, frozen or fine-tuned: the same bytes however often it is stopped.

Every draw is a function of the seed, the purpose, the epoch and the step or image; nothing is carried along
that a checkpoint does not hold. A batch may go through the network in parts, or be shared among processes:
dropout and mixing are drawn for whole bags of the whole batch, so that the gradient is that of one pass.
There are two exceptions: batch norm in batch mode has the statistics of a part (and of a process, on CPUs),
and what an encoder drops by itself is drawn for a part. Such a network has as many parts as
``train.accumulate`` says, and more only where the memory runs out, which is said and recorded: see
`kit.learn.memory`.

``train.stop=inner`` measures every epoch on a part of the training fold that nothing is learned from, and
keeps the best one. It is never the validation fold: the best of many epochs on a fold looks better there than
it is anywhere else, and the second level would learn from such out-of-fold rows to trust the model too much.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kit import seeds
from kit.errors import SettingError
from kit.learn import averages, losses, memory, optimise, ranks
from kit.learn.bags import BagModel, Mix, Packed
from kit.learn.checkpoint import Keeper, Progress
from kit.learn.fit import Fit
from kit.learn.masks import BagDropout, partners
from kit.learn.memory import cut, spans
from kit.learn.monitor import STEPS, Monitor
from kit.learn.sources import Batch, Source

PRECISION = {"bf16": torch.bfloat16, "fp16": torch.float16}
SKIPS = 30  # steps in a row that fp16 may leave out: its scale has fallen from 65536 to nothing
AfterEpoch = Callable[[int, BagModel], bool]
log = logging.getLogger("kit")


class Diverged(SettingError):
    """The loss of a fit is not finite: it must begin again with a lower rate."""


def beginning(source: Source, place: tuple[int, int]) -> Iterator[Batch]:
    """The batches from an epoch and step on."""
    return source.batches(*place)


class Loop:
    """One fit: what learns, what it learns from, and where it is.

    Args:
        network: on the device, as it begins.
        retries: how often the fit was begun before, each time with a tenth of the rate.
    """

    def __init__(
        self, fit: Fit, network: BagModel, source: Source, keeper: Keeper, monitor: Monitor, retries: int = 0
    ) -> None:
        rate = float(fit.model.get("lr")) * 0.1**retries
        self.fit, self.source, self.keeper, self.monitor = fit, source, keeper, monitor
        self.model = fit.model.having({"lr": rate}) if retries else fit.model
        self.training, self.network, self.retries = self.model.training, network, retries
        self.steps, self.device = len(source.sizes), network.head.weight.device
        y = source.shown(self.training.undersample, self.training.oversample)
        counts = np.bincount(y[y >= 0].numpy(), minlength=len(fit.run.competition.classes))
        self.loss = losses.make(self.training, counts, fit.run.competition.metric)
        losses.start_at_prior(network.head, self.loss, y)
        self.drop = BagDropout(self.training.drop)
        network.drop = self.drop  # type: ignore[assignment]
        half = PRECISION.get(self.training.precision) if network.encoder is not None else None
        self.half = half  # a frozen model has nothing to win
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=half is torch.float16)
        self.optimiser = optimise.make(optimise.groups(network, self.model), self.model)
        self.schedule = optimise.Schedule(self.model, self.steps * self.model.epochs)
        self.average = averages.make(self.model, network)
        self.least = self.training.accumulate if network.encoder is not None else 1  # parts of a batch
        self.progress = Progress(parts=self.least)
        self.best: dict[str, Tensor] = {}
        self.waiting: list[Tensor] = []  # losses that may still be on their way from a GPU
        self.unit = 2 if self.training.mixup else 1  # bags that stay together
        self.last: Packed | None = None  # bags of the last step

    def run(self, after_epoch: AfterEpoch | None = None) -> BagModel:
        """Fit to the end, or until ``after_epoch`` says that it is enough; the network is ready to predict.

        Raises:
            Diverged: the loss or the weights are not finite, or fp16 left out most of the steps.
            SettingError: the memory is too small for one bag, or for a batch that may not be cut.
        """
        for _ in self.steps_made(after_epoch):
            pass
        return self._result()

    def steps_made(self, after_epoch: AfterEpoch | None = None) -> Iterator[int]:
        """Make steps to the end; each item is the number of one that was made, of its epoch."""
        self._resume()
        now = self.progress
        before = now.epoch * sum(self.source.sizes) + sum(self.source.sizes[: now.step])
        place, ready = (now.epoch, now.step), -1
        self.monitor.begin(place, sum(self.source.sizes) * self.model.epochs, before)
        batches = iter(()) if now.done else beginning(self.source, place)
        for packed, rows in self.monitor.waiting(batches):
            if ready != now.epoch:
                optimise.freeze(self.network, self.model, now.epoch)
                ready = now.epoch
            self._step(packed if self.device.type == "cpu" else packed.to(self.device), rows)
            now.step += 1
            yield now.step
            if now.step % STEPS == 0 and now.step < self.steps:
                self._row()
            if now.step == self.steps and self._end_epoch(after_epoch):
                break
            if ranks.from_first(self.keeper.due()) if self._shared else self.keeper.due():
                self._keep()

    @property
    def _shared(self) -> bool:
        return self.source.shared and ranks.active()

    def _seed(self, purpose: str, *more: object) -> int:
        now = self.progress
        return seeds.number(self.fit.run.seed, self.fit.purpose, purpose, now.epoch, now.step, *more)

    # -- a step

    def _step(self, packed: Packed, rows: Tensor) -> None:
        """One batch: gradients of all its parts, on all processes, then one step of the optimiser."""
        now = self.progress
        done = now.epoch * self.steps + now.step
        if done == 0 or (now.step == 0 and now.epoch == self.model.freeze):
            with self._autocast():
                now.parts = memory.parts_for(self.network, packed, self.least, self.unit)
            if now.parts > 1:
                log.info("%s: a batch goes through in %d parts", self.fit.purpose, now.parts)
        optimise.set_rate(self.optimiser, self.model, self.schedule.rate(done))
        while True:
            statistics = memory.statistics(self.network)
            try:
                loss = self._gradients(packed, rows)
                break
            except RuntimeError as error:
                if not memory.is_short(error):
                    raise
                memory.restore(self.network, statistics)
            except ValueError as error:
                memory.refuse_statistics(error, packed.bags, now.parts, self.model)
                raise
            self._halve(packed)
        learners = [p.grad for p in self.network.parameters() if p.grad is not None]
        if self._shared:
            ranks.add_up([loss, *learners])
        self.last = cut(packed, *spans(packed.bags, now.parts, self.unit)[0])
        made = self._apply(statistics)
        if self.average is not None:
            self.average.update(done, self.steps * self.model.epochs, made)
        self.waiting.append(loss)
        self.monitor.step(self.source.sizes[now.step], len(packed.tiles))

    def _gradients(self, packed: Packed, rows: Tensor) -> Tensor:
        """Add up the gradients of a batch, part by part; returns this process's share of its mean loss."""
        self.optimiser.zero_grad(set_to_none=True)
        bags = self.source.sizes[self.progress.step]
        first, end = self._mine(bags)
        target = self.loss.targets(self.source.y[rows].to(self.device))
        mask = self.drop.draw(self._seed("dropout"), bags, self.network.head.in_features)
        share = self._shares(bags)
        total = torch.zeros((), device=self.device)
        for n, (a, b) in enumerate(spans(packed.bags, self.progress.parts, self.unit)):
            if self.network.encoder is not None:  # what an encoder drops by itself
                torch.manual_seed(self._seed("encoder", first, n))
            part = cut(packed, a, b)
            here = slice(first + a, first + b)
            self.drop.mask = None if mask is None else mask[here].to(self.device)
            self.drop.bag = part.bag
            mix = None if share is None else Mix(partners(b - a), share[here]).to(self.device)
            mine = target[a:b] if mix is None else losses.mixed(target[a:b], mix.partner, mix.share)
            with self._autocast():
                logits = self.source.logits(self.network, part, mix)
            # A process without a share of a small batch has one bag that does not count.
            loss = self.loss(logits.float(), mine) * ((b - a) / bags if end > first else 0.0)
            total += loss.detach()
            if b == packed.bags:
                loss = loss + optimise.ridge(self.network, self.model, len(self.fit.images))
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return total

    def _mine(self, bags: int) -> tuple[int, int]:
        """Which bags of a batch are this process's."""
        return ranks.span(bags, self.unit) if self._shared else (0, bags)

    def _shares(self, bags: int) -> Tensor | None:
        """How much of itself each bag of a batch keeps in mixing ``(B,)``."""
        if not self.training.mixup:
            return None
        draw = np.random.default_rng(self._seed("mix"))
        return losses.draw_mix(draw, bags, self.training.mixup)

    def _autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.half is None else torch.autocast(self.device.type, dtype=self.half)

    def _halve(self, packed: Packed) -> None:
        """Go on with twice as many parts."""
        size = packed.tiles.shape[-1] if packed.tiles.ndim == 4 else 0
        parts = memory.more_parts(self.progress.parts, packed.bags, self.unit, self.training.bag, size)
        self.optimiser.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        said = memory.consequence(self.network, parts)
        log.warning(
            "%s: the memory is short, so a batch goes through in %d parts%s", self.fit.purpose, parts, said
        )
        self.progress.parts = parts

    def _apply(self, statistics: dict[str, Tensor]) -> bool:
        """Let the optimiser make its step, and say whether it did: fp16 leaves out what is not finite.

        Of a step that is left out nothing stays: batch norm has the statistics that it had before.
        """
        now, scale = self.progress, self.scaler.get_scale()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.scaler.get_scale() >= scale:
            now.skipped = 0
            return True
        memory.restore(self.network, statistics)
        now.skipped, now.left_out = now.skipped + 1, now.left_out + 1
        if now.skipped > SKIPS:
            self._refuse(f"every gradient of {self.fit.purpose} in {now.skipped} steps is", now.step + 1)
        return False

    # -- what is measured

    def _settle(self) -> None:
        """Take note of the losses since the last time.

        Raises:
            Diverged: one is not finite.
        """
        now = self.progress
        values = torch.stack(self.waiting).tolist() if self.waiting else []
        self.waiting.clear()
        for value in values:
            now.losses.append(value)
            if not (math.isfinite(value) or self.half is torch.float16):
                self._refuse(f"the loss of {self.fit.purpose} is", len(now.losses))

    def _check(self) -> None:
        """Look at an epoch that is over.

        Raises:
            Diverged: it has no finite loss, or left weights that are not finite.
        """
        if not any(math.isfinite(value) for value in self.progress.losses):
            self._refuse(f"the loss of {self.fit.purpose} is")
        # At the end no further loss will tell of weights that are finite, but too large.
        self._check_weights(self._candidate(), self.last if self.progress.done else None)

    def _check_weights(self, network: BagModel, bags: Packed | None = None) -> None:
        """Weights, statistics and the logits of bags are finite, in all processes: some differ there."""
        with torch.inference_mode():
            logits = [] if bags is None else [self.source.logits(network.eval(), bags, None)]
        wrong = torch.tensor(
            [not optimise.is_finite(network, *logits)], dtype=torch.float32, device=self.device
        )
        if self._shared:
            ranks.add_up([wrong])
        if wrong.any():
            self._refuse(f"the weights of {self.fit.purpose} are")

    def _refuse(self, what: str, step: int | None = None) -> None:
        rate, now = float(self.model.get("lr")), self.progress
        epoch, step = min(now.epoch + 1, self.model.epochs), step or now.step or self.steps
        raise Diverged(
            f"{what} not finite: epoch {epoch}, step {step}, learning rate {rate:g}",
            f"lower the rate of this model: write '; lr={rate / 10:g}' behind it in train.backbones"
            + ("; or use train.precision=bf16" if self.half is torch.float16 else ""),
        )

    def _row(self, inner: float | None = None) -> None:
        """One row of the log: the steps since the last one."""
        self._settle()
        now = self.progress
        mine = now.losses[(now.step - 1) // STEPS * STEPS :]
        numbers = {
            "epoch": now.epoch,
            "step": now.step,
            "loss": _mean(mine),
            "inner_loss": "" if inner is None else inner,
            "rate": float(self.optimiser.param_groups[-1]["lr"]),
            "bags": sum(self.source.sizes[now.step - len(mine) : now.step]),
        }
        self.monitor.row(numbers)

    def _end_epoch(self, after_epoch: AfterEpoch | None) -> bool:
        """Measure the epoch, and say whether it was the last one."""
        now = self.progress
        self._settle()
        now.done = now.epoch + 1 == self.model.epochs
        self._check()
        if self.average is not None and (self.source.judged or after_epoch):
            self.average.refresh(self.source.bags(now.epoch))
        inner = ranks.from_first(self._judge()) if self._shared else self._judge()
        if inner is not None and not math.isfinite(inner):
            self._refuse(f"the loss of {self.fit.purpose} on what was set aside is")
        self._row(inner)
        watched = _mean(now.losses) if inner is None else inner
        self.schedule.observe(now.epoch, watched)
        if inner is not None:
            self._compare(inner)
        if after_epoch is not None and after_epoch(now.epoch, self._candidate().eval()):
            now.done = True
        now.epoch, now.step, now.losses = now.epoch + 1, 0, []
        self._keep()
        return now.done

    def _judge(self) -> float | None:
        """The log loss of what was set aside; ``None`` where nothing was."""
        if self.source.judged is None or (self._shared and ranks.rank()):
            return None
        network, found = self._candidate(), []
        network.eval()
        with torch.inference_mode():
            for packed, y in self.source.judged():
                logits = self.source.logits(network, packed.to(self.device), None).float().cpu().numpy()
                p = losses.probabilities(logits, self.training.loss, len(self.loss.weights))
                found.append(-np.log(np.maximum(p[np.arange(len(y)), y.numpy()], 1e-7)))
        return float(np.concatenate(found).mean())

    def _compare(self, inner: float) -> None:
        """Keep the best epoch's weights; give up after three times the patience without a better one."""
        now = self.progress
        if inner < now.best:
            now.best, now.best_epoch = inner, now.epoch
            self.best = {k: v.detach().cpu().clone() for k, v in self._candidate().state_dict().items()}
        if now.epoch - now.best_epoch >= 3 * self.model.patience:
            now.done = True

    def _candidate(self) -> BagModel:
        """What would be the model if this were the end."""
        return self.network if self.average is None else self.average.network()

    def _result(self) -> BagModel:
        """The network to predict with, on the CPU."""
        out = self.progress.left_out
        if 2 * out > self.progress.epoch * self.steps:
            self._refuse(f"most gradients of {self.fit.purpose} ({out} steps) are")
        if self.average is not None and not self.best:
            self.average.refresh(self.source.bags(self.model.epochs - 1))
        network = self._candidate()
        if self.best:
            network.load_state_dict(self.best)
        self._check_weights(network)
        network.drop = nn.Dropout(self.training.drop)
        return network.requires_grad_(True).cpu().eval()

    # -- going on

    def _keep(self) -> None:
        """Keep everything that the rest depends on."""
        self._settle()
        if self.keeper.path is None or (self._shared and ranks.rank()):
            return
        self.monitor.flush()
        parts: dict[str, Any] = {
            "optimiser": self.optimiser,
            "schedule": self.schedule,
            "average": self.average,
        }
        content: dict[str, Any] = {k: part.state_dict() for k, part in parts.items() if part is not None}
        content |= {"network": self.network.state_dict(), "scaler": self.scaler.state_dict()}
        content |= {"progress": asdict(self.progress), "best": self.best, "retries": self.retries}
        self.keeper.save(content)

    def _resume(self) -> None:
        """Go on where this fit was, if it was begun."""
        content = self.keeper.load()
        if content is None or content["retries"] != self.retries:
            return
        self.progress = Progress(**content["progress"])
        self.network.load_state_dict(content["network"])
        self.optimiser.load_state_dict(content["optimiser"])
        self.schedule.load_state_dict(content["schedule"])
        self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.best = content["best"]


def _mean(values: list[float]) -> float:
    """The mean of the finite ones; fp16 leaves the others out."""
    finite = [value for value in values if math.isfinite(value)]
    return math.fsum(finite) / len(finite) if finite else math.nan
