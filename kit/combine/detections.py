"""Detection submissions: their prediction strings read, judged rule by rule, and written.

A row of a file is an image and a string, six numbers a box: ``class confidence x_min y_min x_max y_max``.
Here it is a table of one row a box: image_id, class_id, score, x_min, y_min, x_max, y_max (pixels of the
original). An image without a finding has the box ``0 0 1 1`` of a class of its own: ``14 1 0 0 1 1``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.boxes import CORNERS, has_box, nothing_class
from kit.errors import DataError, SubmissionError, did_you_mean
from kit.files import read_strings, write_table
from kit.metrics import Array

IMAGE, STRING = "image_id", "PredictionString"
COLUMNS = (IMAGE, "class_id", "score", *CORNERS)
DOT = (0.0, 0.0, 1.0, 1.0)  # the box of an image without a finding
WORDS = 6  # numbers a box
PLAIN = re.compile(r"[0-9eE+\-. ]+")  # what a sound string is made of
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
ROUNDING = 1.0  # pixels beyond an image that whole numbers may add
DIGITS = 12  # decimals of a confidence that are written


@dataclass(frozen=True)
class Rules:
    """What the boxes of a task may be.

    classes: the name of each class, by number.
    nothing: the class of an image without a finding.
    sizes: width and height of images, by image_id; of others a box may reach as far as it likes.
    """

    classes: Mapping[int, str]
    nothing: int
    sizes: pd.DataFrame

    @property
    def empty(self) -> str:
        """The string of an image without a finding."""
        return f"{self.nothing} 1 0 0 1 1"


def rules_of(boxes: pd.DataFrame) -> Rules:
    """The rules of a task, from a checked table of findings (see `kit.boxes`).

    Raises:
        DataError: no reader ever found nothing, so that the class of that is not known.
    """
    if not nothing_class(boxes):
        source = boxes.attrs.get("source", "the table of findings")
        raise DataError(f"{source} has no image without a finding", "the class of 'nothing' is not known")
    named = boxes.drop_duplicates("class_id").sort_values("class_id")
    classes = dict(zip(named["class_id"].astype(int), named["finding"].astype(str), strict=True))
    sizes = boxes.reindex(columns=["image_id", "width", "height"]).dropna().drop_duplicates("image_id")
    nothing = int(boxes.loc[~has_box(boxes), "class_id"].iloc[0])
    return Rules(classes, nothing, sizes.set_index("image_id").astype(float))


# --- reading ----------------------------------------------------------------------------------------


def read(path: Path, rules: Rules, expected: Sequence[str] | None = None, clip: bool = False) -> pd.DataFrame:
    """The boxes of a sound submission.

    Args:
        expected: the ids that it must have, in any order; ``None``: whichever it has.
        clip: cut boxes off at the edges of their image first; of no other fault is made so little.

    Returns:
        One row a box, in the order of the file.

    Raises:
        SubmissionError: names the first row that breaks a rule, and how to mend it.
    """
    try:
        table = read_strings(path)
    except DataError as error:
        raise SubmissionError(error.message, error.hint) from error
    _check_columns(path, table)
    _check_ids(path, table[IMAGE].tolist(), expected)
    sheet = _Sheet(path, table[IMAGE].tolist(), table[STRING].tolist(), rules)
    found = sheet.boxes()
    if clip:
        cut = sheet.clipped(found)
        sheet.refuse_beside(found, cut)
        found[list(CORNERS)] = cut
    sheet.check(found)
    return found


def sample_ids(path: Path) -> list[str]:
    """The ids of a sample submission.

    Raises:
        DataError: it cannot be read, or has other columns, no row or a repeated id.
    """
    table = read_strings(path)
    if list(table.columns) != [IMAGE, STRING] or not len(table) or table[IMAGE].duplicated().any():
        raise DataError(
            f"{path} is no sample of detections: its columns are {', '.join(map(str, table.columns))},"
            f" with {len(table)} rows of {table.iloc[:, 0].nunique()} ids",
            f"give the sample_submission.csv as it was shipped: {IMAGE},{STRING} and one row an image",
        )
    return table[IMAGE].tolist()


def _check_columns(path: Path, table: pd.DataFrame) -> None:
    header = [str(name) for name in table.columns]
    if header == [IMAGE, STRING]:
        return
    slip = ""
    if header[0] in ("", "Unnamed: 0", "index") and header[1:] == [IMAGE, STRING]:
        slip = f"; '{header[0]}' is the index of a data frame: write it with to_csv(path, index=False)"
    elif [name.strip().casefold() for name in header] == [IMAGE.casefold(), STRING.casefold()]:
        slip = "; spaces, upper and lower case count"
    raise SubmissionError(
        f"{path} line 1: the columns are {', '.join(header)}", f"they must be {IMAGE}, {STRING}{slip}"
    )


def _check_ids(path: Path, ids: list[str], expected: Sequence[str] | None) -> None:
    """Every expected id once, and no other."""
    lines: dict[str, int] = {}
    wanted = None if expected is None else set(expected)
    for line, name in enumerate(ids, 2):
        if not name.strip():
            raise SubmissionError(f"{path} line {line}: the {IMAGE} is empty", "give every row its id")
        if name in lines:
            message = f"{path} line {line}: {IMAGE} '{name}' is already in line {lines[name]}"
            raise SubmissionError(message, "write all boxes of an image in one row")
        if wanted is not None and name not in wanted:
            raise SubmissionError(
                f"{path} line {line}: {IMAGE} '{name}' is not in the sample", _stranger(name, wanted)
            )
        lines[name] = line
    if missing := sorted((wanted or set()) - set(lines)):
        raise SubmissionError(
            f"{path}: {len(missing)} ids of the sample are missing, first '{missing[0]}'",
            "give each a row; one without a finding says so, see the sample",
        )
    if not ids:
        raise SubmissionError(f"{path} has no row", "write one row an image")


def _stranger(name: str, wanted: set[str]) -> str:
    """What an id that is not expected may have been."""
    close = [right for right in wanted if right.casefold() == name.strip().casefold()]
    if close:
        return f"write '{close[0]}': spaces, upper and lower case count"
    if name.rpartition(".")[0] in wanted:
        return f"write '{name.rpartition('.')[0]}', without the ending of the file"
    return "take the ids of the sample, and leave out other rows"


@dataclass(frozen=True)
class _Sheet:
    """A file as it is: an id and a string a row."""

    path: Path
    ids: list[str]
    strings: list[str]
    rules: Rules

    def boxes(self) -> pd.DataFrame:
        """Its boxes, as yet of any value."""
        rows = [text.split() for text in self.strings]
        for n, (text, words) in enumerate(zip(self.strings, rows, strict=True)):
            if not words or len(words) % WORDS or not PLAIN.fullmatch(text):
                self._refuse_string(n, words)
        try:
            flat = np.array([float(word) for word in chain.from_iterable(rows)]).reshape(-1, WORDS)
        except ValueError:  # of characters that are sound, but not in this order
            self._refuse_words(rows)
        for n, words in enumerate(rows):
            if not all(map(str.isdigit, words[::WORDS])):
                self._refuse_class(n, words)
        counts = [len(words) // WORDS for words in rows]
        found = pd.DataFrame(flat[:, 1:], columns=list(COLUMNS[2:]))
        found.insert(0, IMAGE, np.repeat(np.array(self.ids, dtype=object), counts))
        # A class of twenty digits is refused later on; as a float it still is a number.
        found.insert(1, "class_id", np.minimum(flat[:, 0], 2**31).astype(np.int64))
        return found

    def check(self, found: pd.DataFrame) -> None:
        """Every box keeps every rule."""
        faults = self._faults(found)
        first = [(int(bad.argmax()), rank) for rank, (bad, _, _) in enumerate(faults) if bad.any()]
        if not first:
            return
        box, rank = min(first)
        _, said, hint = faults[rank]
        raise self._of_box(found, box, said, hint)

    def _of_box(self, found: pd.DataFrame, box: int, said: str, hint: str) -> SubmissionError:
        """What is wrong with a box."""
        name = found[IMAGE].iloc[box]
        n = self.ids.index(name)
        number = box - int((found[IMAGE] == name).to_numpy().argmax())
        words = self.strings[n].split()[WORDS * number : WORDS * (number + 1)]
        return self.fault(n, f"box {number + 1}, '{' '.join(words)}', {said}", hint)

    def _faults(self, found: pd.DataFrame) -> list[tuple[NDArray[np.bool_], str, str]]:
        """Which boxes break which rule, and how to mend it."""
        rules, kind = self.rules, found["class_id"].to_numpy()
        score, corners = found["score"].to_numpy(), found[list(CORNERS)].to_numpy()
        nothing = kind == rules.nothing
        known = f"{min(rules.classes)} to {max(rules.classes)}"
        inside = corners[:, 2:] <= self._sizes(found) + ROUNDING
        clip = "clip it (--clip does); boxes are in pixels of the original image, not of a resized one"
        with np.errstate(invalid="ignore"):  # a number of too many digits is infinite
            flat = ~(corners[:, 2:] > corners[:, :2]).all(axis=1)
        return [
            (~np.isin(kind, list(rules.classes)), "is of no class", f"the classes are {known}"),
            (~((score >= 0) & (score <= 1)), "has no confidence from 0 to 1", "divide percents by 100"),
            (
                nothing & ~(corners == DOT).all(axis=1),
                f"says '{rules.classes[rules.nothing]}' with a box",
                f"write {rules.nothing} CONFIDENCE 0 0 1 1",
            ),
            (flat, "is upside down or has no area", "write x_min y_min x_max y_max, not a width and height"),
            ((corners < 0).any(axis=1), "begins left of or above the image", clip),
            (~nothing & ~inside.all(axis=1), "reaches beyond the image", clip),
            (~np.isfinite(corners).all(axis=1), "has no finite box", clip),
        ]

    def clipped(self, found: pd.DataFrame) -> Array:
        """The corners ``(n, 4)``, none outside of its image."""
        corners, most = found[list(CORNERS)].to_numpy(), np.tile(self._sizes(found), 2)
        return np.asarray(np.clip(corners, 0, most))

    def refuse_beside(self, found: pd.DataFrame, cut: Array) -> None:
        """Name the first box that is one, and of which nothing is left inside of its image."""
        whole, left = (corners[:, 2:] > corners[:, :2] for corners in (found[list(CORNERS)].to_numpy(), cut))
        beside = whole.all(axis=1) & ~left.all(axis=1)
        if beside.any():
            said = "lies wholly outside of its image"
            hint = "leave it out; boxes are in pixels of the original image, not of a resized one"
            raise self._of_box(found, int(beside.argmax()), said, hint)

    def _sizes(self, found: pd.DataFrame) -> Array:
        """Width and height of the image of each box; infinite where not known."""
        sizes = self.rules.sizes.reindex(found[IMAGE]).to_numpy(dtype=np.float64)
        return np.asarray(np.where(np.isnan(sizes), np.inf, sizes))

    def fault(self, n: int, said: str, hint: str) -> SubmissionError:
        """What is wrong with row ``n``."""
        return SubmissionError(f"{self.path} line {n + 2}: {IMAGE} '{self.ids[n]}': {said}", hint)

    def _refuse_string(self, n: int, words: list[str]) -> NoReturn:
        if not words:
            raise self.fault(n, "its string is empty", f"where nothing is found, write {self.rules.empty}")
        self._refuse_word(n, words)
        if len(words) % WORDS:
            raise self.fault(
                n,
                f"{len(words)} values are no whole number of boxes: the last one has {len(words) % WORDS} of"
                f" six, '{' '.join(words[-(len(words) % WORDS) :])}'",
                "write class confidence x_min y_min x_max y_max for every box",
            )
        raise self.fault(n, "its values are parted by something else than spaces", "part them by one space")

    def _refuse_words(self, rows: list[list[str]]) -> NoReturn:
        for n, words in enumerate(rows):
            self._refuse_word(n, words)
        raise AssertionError("a word that is no number has to be found")

    def _refuse_word(self, n: int, words: list[str]) -> None:
        """Name the first word that is no number, if there is one."""
        for number, word in enumerate(words):
            if not NUMBER.fullmatch(word):
                said = f"value {number + 1}, '{word}', is no number"
                raise self.fault(n, said, _no_number(word, self.rules))

    def _refuse_class(self, n: int, words: list[str]) -> NoReturn:
        number, word = next((k, w) for k, w in enumerate(words[::WORDS]) if not w.isdigit())
        hint = f"write a whole number, as in {self.rules.empty}"
        raise self.fault(n, f"box {number + 1} has the class '{word}'", hint)


def _no_number(word: str, rules: Rules) -> str:
    """What to write instead of a word that is no number."""
    if word.casefold().lstrip("+-") in ("nan", "inf", "infinity", "none", "null"):
        return "leave the box out; it has no value there"
    if not word.isascii():
        return "write the digits 0 to 9, a minus and a point of plain ASCII"
    if "," in word or ";" in word:
        return "part values by spaces, and write a decimal point"
    if word in rules.classes.values():
        return f"write the number of the class: {did_you_mean(word, rules.classes.values())}"
    return "write numbers such as 0.5 and 1024, parted by spaces"


# --- writing ----------------------------------------------------------------------------------------


def strings(found: pd.DataFrame) -> pd.DataFrame:
    """A submission: one row an image, in the order in which they come.

    Confidences are rounded to 12 decimals, corners to 3.
    """
    words = [found["class_id"].astype(int).astype(str).tolist(), _plain(found["score"], DIGITS)]
    words += [_plain(found[name], 3) for name in CORNERS]
    boxes = pd.Series([" ".join(row) for row in zip(*words, strict=True)], dtype=object)
    joined = boxes.groupby(found[IMAGE].to_numpy(), sort=False).agg(" ".join)
    return pd.DataFrame({IMAGE: joined.index.to_numpy(), STRING: joined.to_numpy()}, dtype=object)


def write(path: Path, found: pd.DataFrame) -> None:
    """Write boxes as a submission."""
    write_table(path, strings(found))


def _plain(values: pd.Series[float], digits: int) -> list[str]:
    """Numbers without an exponent and without zeros at their end."""
    texts = (f"{value:.{digits}f}" for value in values)
    return [text.rstrip("0").rstrip(".") for text in texts]
