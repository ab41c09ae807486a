"""The process that predicts on Kaggle: ``python -m kit.deliver.kernel --code DIR --weights DIR ...``.

It predicts the golden inputs first, then tiles the test images, and those alone, and ends with a submission
that was checked. Whatever is wrong is said in one line, ``FAULT <kind>: <sentence>``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
import resource
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kit import parallel
from kit.combine import baselines
from kit.combine.apply import posterior
from kit.deliver.declared import restored, without_training
from kit.deliver.submit import completed, write_checked
from kit.errors import DataError, KitError, StorageError, SubmissionError, WeightsError
from kit.files import digest, read_strings, write_json, write_table, write_text
from kit.learn import models, predict
from kit.learn.models import Model
from kit.read import tiles
from kit.read.tiler import Source, Tiler
from kit.state import Run

READ = ("ok", "empty")  # states of an image that could be read
TRIES = 2  # of an image that ends the process that reads it
FULL = re.compile("out of memory|n't allocate memory", re.IGNORECASE)  # as torch says it
SPOKEN = 20  # lines that tell how far tiling has come


class Faulty(Exception):
    """Why no prediction can be right, a sentence each with its kind before it."""


@dataclass
class Report:
    """What happened, for whoever reads the log, and for a rehearsal."""

    seconds: dict[str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def note(self, name: str) -> None:
        """What was not noted before went into this."""
        now = time.monotonic()
        self.seconds[name], self.began = round(now - self.began, 3), now
        say(f"{name}: {self.seconds[name]:.1f} s")


def main(arguments: Sequence[str] | None = None) -> int:
    """Predict; returns 0, or 1 after a fault."""
    parser = argparse.ArgumentParser(prog="python -m kit.deliver.kernel", description=__doc__)
    for name in ("code", "weights", "data", "out", "work"):
        parser.add_argument(f"--{name}", type=Path, required=True, metavar="DIR")
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logging.getLogger("kit").setLevel(logging.INFO)
    try:
        run_kernel(**vars(parser.parse_args(arguments)))
        return 0
    except Faulty as faulty:
        lines = [str(line) for line in faulty.args]
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if not isinstance(error, KitError):
            traceback.print_exc(file=sys.stdout)
        lines = [told(error)]
    for line in lines:
        say(f"FAULT {line}")
    return 1


def say(text: str) -> None:
    """Print one line at once."""
    print(" ".join(text.split()), flush=True)


def told(error: Exception) -> str:
    """The kind of whatever went wrong, and a sentence."""
    if isinstance(error, KitError):
        kinds = {WeightsError: "weights", StorageError: "disk", SubmissionError: "scoring"}
        kind = kinds.get(type(error), "exception")
        return f"{kind}: {error.message}" + (f" ({error.hint})" if error.hint else "")
    names = {kind.__name__ for kind in type(error).__mro__}
    if names & {"MemoryError", "OutOfMemoryError"} or FULL.search(str(error)):
        return f"memory: {error or 'there is not enough of it'}"
    kind = "library" if isinstance(error, ImportError) else "exception"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{kind}: {type(error).__name__}: {error} ({Path(place.filename).name} line {place.lineno})"


def run_kernel(code: Path, weights: Path, data: Path, out: Path, work: Path) -> None:
    """Everything, in order.

    Raises:
        Faulty: the golden inputs are not predicted as they were when the bundle was made, or not one image
            can be read.
        KitError: something is missing or cannot be written.
    """
    from kit.deliver import probe

    about = json.loads((code / "bundle.json").read_text())
    require_real(about)
    report = Report()
    run, ids = make_run(about, code, weights, data, work)
    report.note("start")
    if faults := probe.check(run, weights / "golden.npz"):
        raise Faulty(*faults)
    report.note("probe")
    images = tile(run)
    report.note("tile")
    require_readable(images)
    test, unpredicted = finite(run, predict.test_rows(run, models_of(run, about), about["folds"], say))
    write_table(run.folder("predict") / "test.csv", test)
    report.note("predict")
    second_level = json.loads((weights / "second_level.json").read_text())
    table, fallback = build(run, second_level, test, ids)
    write_checked(out / "submission.csv", table, run.competition, ids)
    report.note("combine")
    failed = [[row.image_id, row.status, row.reason] for row in images.itertuples() if row.status != "ok"]
    pixels = (images["width"].astype(float) * images["height"].astype(float)).sum()
    content = {
        "units": len(table),
        "images": len(images),
        "fallback": fallback,
        "failed": failed + unpredicted,
        "seconds": report.seconds,
        "megapixels": round(pixels / 1e6, 3),
        "tiles": int(images["tiles"].sum()),
        "peak_mib": peak_mib(),
    }
    write_json(out / "kit_report.json", content)
    some = f": {', '.join(fallback[:10])}" if fallback else ""
    say(f"submission.csv: {len(table)} units, {len(fallback)} of them with the prior{some}")


def require_real(about: Mapping[str, Any]) -> None:
    """The demo is rehearsed and never submitted.

    Raises:
        DataError: it is not a rehearsal.
    """
    if about["declared"]["demo"] and not os.environ.get("KIT_REHEARSAL"):
        raise DataError("this bundle is of the demo, and no submission", "bundle a run with --data")


def require_readable(images: pd.DataFrame) -> None:
    """At least one image, if there are any, could be read: else it is not the images that are wrong.

    Raises:
        Faulty: there is none. In the rerun, the priors that are there already stand.
    """
    if not len(images) or images["status"].isin(READ).any():
        return
    there = images[images["status"] != "missing"]
    kind, row = ("library", there.iloc[0]) if len(there) else ("exception", images.iloc[0])
    raise Faulty(f"{kind}: not one of {len(images)} images can be read; '{row['image_id']}': {row['reason']}")


def make_run(
    about: Mapping[str, Any], code: Path, weights: Path, data: Path, work: Path
) -> tuple[Run, list[str]]:
    """The run that was bundled, on the test images alone; and the units that are asked for, in order.

    Raises:
        DataError: there is no test table.
    """
    attached = {name: weights / place for name, place in about["attached"].items()}
    declaration = code / about["task"] if about["task"] else None
    run = restored(about["declared"], data, work, declaration, attached, parallel.cores())
    raw = run.competition.load(data)
    if raw.test is None:
        raise DataError(f"{run.name} has no test table", "there is nothing to predict")
    ids = [str(name) for name in raw.test[run.competition.unit]]
    ids = sorted(set(ids)) if raw.sample is None else [str(name) for name in raw.sample[run.competition.unit]]
    work.mkdir(parents=True, exist_ok=True)
    trained = run.folder("train")
    if not trained.is_symlink():
        trained.symlink_to((weights / "models").resolve(), target_is_directory=True)
    return replace(run, competition=without_training(run.competition)), ids


def models_of(run: Run, about: Mapping[str, Any]) -> list[Model]:
    """The models that were bundled."""
    training = run.competition.training
    return [replace(models.parse(m["text"], training), seed=m["seed"]) for m in about["models"]]


# -- tiles


class Careful:
    """Tiles one image after the other, and lets none of them end the work.

    While an image is read, a file of its own counts the attempts: one that has ended the whole process
    before is read once more, alone, and then left out.
    """

    def __init__(self, run: Run, count: int) -> None:
        self.tiler, self.trying, self.count = Tiler(run), run.work / "trying", count
        self.done, self.began = 0, time.monotonic()

    def tries(self, source: Source) -> int:
        """How often it was begun and not ended."""
        mark = self._mark(source)
        return int(mark.read_text()) if mark.is_file() else 0

    def __call__(self, source: Source) -> dict[str, Any]:
        """The row of an image in ``images.csv``."""
        mark, tries = self._mark(source), self.tries(source)
        if tries >= TRIES:
            return self.tiler.lost(source)
        write_text(mark, str(tries + 1))
        try:
            row = self.tiler.tile(source)
        except StorageError:
            raise
        except Exception as error:  # a bug of ours or of a library: the other images are as good as before
            row = self.tiler.lost(source) | {"reason": f"{type(error).__name__}: {error}"}
        mark.unlink()
        self._tell()
        return row

    def _mark(self, source: Source) -> Path:
        return self.trying / digest(source.image_id)[:16]

    def _tell(self) -> None:
        self.done += 1
        if self.done % max(1, self.count // SPOKEN) == 0 or self.done == self.count:
            each = (time.monotonic() - self.began) / self.done
            rest = each * (self.count - self.done) / 60
            say(f"tile: {self.done} of {self.count} images, {each:.1f} s each, about {rest:.0f} min to go")


def tile(run: Run) -> pd.DataFrame:
    """Tile the test images; ``images.csv``."""
    everything = tiles.sources(run)
    work = Careful(run, len(everything))
    once_fatal = [source for source in everything if work.tries(source)]
    rows = [work(source) for source in once_fatal]
    rest = [source for source in everything if source not in once_fatal]
    pool = ThreadPoolExecutor(max(1, run.workers))  # decoders release the GIL
    try:
        rows += pool.map(work, rest)
    finally:
        pool.shutdown(cancel_futures=True)
    return tiles.write_images(run, rows)


# -- the submission


def finite(run: Run, test: pd.DataFrame) -> tuple[pd.DataFrame, list[list[str]]]:
    """The rows of images of which every model says numbers; and the others, as the report lists them."""
    values = test[[f"p_{name}" for name in run.competition.classes]].to_numpy()
    bad = sorted(set(test["image_id"][~np.isfinite(values).all(axis=1)]))
    failed = [[str(name), "unpredicted", "a model says no number of it"] for name in bad]
    return test[~test["image_id"].isin(bad)], failed


def build(
    run: Run, second_level: Mapping[str, Any], test: pd.DataFrame, ids: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """The rows to submit, and the units that get the prior since none of their images was usable."""
    assert run.tables.test is not None, "it was there before"
    images, classes = run.tables.test, list(run.competition.classes)
    units = images.drop_duplicates("unit_id").set_index("unit_id")[["group_id", "site"]]
    # Through the same text as the stages', so that not even the last digit differs.
    write_table(run.folder("combine") / "asked.csv", test)
    rows = read_strings(run.folder("combine") / "asked.csv")
    found = posterior(run.competition, second_level, rows, units, metadata_of(run, second_level))
    values = found.set_index("unit_id").astype(float).set_axis(classes, axis=1)
    return completed(values, ids, second_level["scored_prior"], run.competition.unit)


def metadata_of(run: Run, second_level: Mapping[str, Any]) -> pd.DataFrame | None:
    """What the second level was given of units besides the models, where it was.

    Raises:
        DataError: it was of a file that cannot know a hidden test.
    """
    said = second_level["metadata"]
    if said is None:
        return None
    if said["given"]:
        raise DataError(
            "the second level fuses metadata of a file, which has nothing of a hidden test",
            "use --set combine.fusion=false, or fuse those of our own tiles",
        )
    assert run.tables.test is not None, "it was there before"
    table = baselines.tile_metadata(run.folder("tile") / tiles.IMAGES, ("test",))
    return baselines.by_unit(table, run.tables.test["unit_id"])


def peak_mib() -> int:
    """The most memory that was held at once, MiB."""
    whose = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(who).ru_maxrss for who in whose) // 1024


if __name__ == "__main__":
    sys.exit(main())
