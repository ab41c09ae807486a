"""Who drew what: classes, readers, what is nothing, and how far the readers of one image agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from kit.boxes import has_box
from kit.combine.agreement import agreement, labels_by
from kit.combine.annotations import counts
from kit.combine.annotations_text import series
from kit.show.explore import drawn
from kit.show.explore.content import Chart, Charts, Data, Fact, Section, Words
from kit.show.explore.summary import plain
from kit.show.tables import Table
from kit.show.verdict import count, number, percent


def section(data: Data) -> Section | None:
    """Counts of the annotations and the agreement of their readers; ``None``: there are none."""
    table = data.findings
    if table is None:
        return None
    found = counts(data.run, table) | {"all_nothing": all_nothing(table)}
    labels = labels_by(table)
    agreed = agreement(table, data.run.competition.second_level.resamples, data.run.seed)
    classes, readers, both = by_class(table), by_reader(found), crossed(table)
    blocks = (
        Words(_overview(found, len(classes))),
        _charts(classes, readers),
        class_table(classes, len(table)),
        Words(_who(found)),
        reader_table(readers),
        crossed_table(both),
        *((Words(_alike(found)), nothing_table(found)) if found["nothing"] else ()),
        Words(_agreement(agreed, labels, found)),
        agreement_table(agreed),
    )
    files = {
        "classes": classes.reset_index(),
        "readers": readers.reset_index(),
        "classes-by-reader": both.reset_index(),
        "agreement": agreed.reset_index(),
    }
    return Section("findings", "Findings and who drew them", blocks,
                   facts(found, classes, readers, agreed, labels), files)  # fmt: skip


def by_class(table: pd.DataFrame) -> pd.DataFrame:
    """rows, boxes, images and readers of each class, most rows first.

    Args:
        table: findings as :func:`kit.boxes.check` gives them.
    """
    grouped = table.assign(box=has_box(table)).groupby("finding")
    found = pd.DataFrame(
        {
            "rows": grouped.size(),
            "boxes": grouped["box"].sum(),
            "images": grouped["image_id"].nunique(),
            "readers": grouped["reader"].nunique(),
        }
    )
    return found.sort_index().sort_values("rows", ascending=False, kind="stable").rename_axis("class")


def by_reader(found: Mapping[str, Any]) -> pd.DataFrame:
    """rows, boxes and images of each reader and their shares of all, most rows first.

    Args:
        found: of :func:`kit.combine.annotations.counts`.
    """
    table = pd.DataFrame.from_dict(found["readers"], orient="index").rename_axis("reader")
    table.insert(1, "row_share", table["rows"] / found["rows"])
    table["box_share"] = table["boxes"] / max(1, found["boxes"])
    return table


def crossed(table: pd.DataFrame) -> pd.DataFrame:
    """How many rows of each class each reader has made: classes by name, readers by their rows."""
    busy = table["reader"].value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    found = pd.crosstab(table["finding"], table["reader"]).reindex(columns=list(busy)).sort_index()
    return found.rename_axis(index="class", columns=None)


def _overview(found: Mapping[str, Any], classes: int) -> str:
    low, high = found["panel"]
    panel = f"{low}" if low == high else f"{low} to {high}"
    nothing = found["rows"] - found["boxes"]
    rest = f" The other {nothing:,} rows say “{found['nothing']}”." if found["nothing"] else ""
    return (
        f"{count(found['rows'], 'row')} of {count(len(found['readers']), 'reader')} on"
        f" {count(found['images'], 'image')}, {panel} readers an image. {found['boxes']:,} of them are boxes,"
        f" of {count(found['findings'], 'finding')}.{rest} {classes} classes in all."
    )


def _who(found: Mapping[str, Any]) -> str:
    """Who did most, and who never drew anything."""
    busiest, readers = found["busiest"], found["readers"]
    others = [name for name in readers if name not in busiest["readers"]]
    never = never_drew(found)
    text = (
        f"{series(busiest['readers'])} made {percent(busiest['rows'], 1)} of all rows and"
        f" {percent(busiest['boxes'], 1)} of all boxes; there are {count(len(others), 'other reader')}."
    )
    if not never:
        return f"{text} Every reader has drawn a box."
    few = [f"{name} ({readers[name]['boxes']})" for name in fewest(found)]
    least = f" The fewest boxes of those who drew any: {series(few)}." if few else ""
    return (
        f"{text} {count(len(never), 'reader')} never drew a box: {series(never)}.{least} So who read an image"
        " tells something about it, which no model of the picture may use."
    )


def never_drew(found: Mapping[str, Any]) -> list[str]:
    """The readers without a box, by name."""
    return sorted(name for name, row in found["readers"].items() if not row["boxes"])


def fewest(found: Mapping[str, Any]) -> list[str]:
    """Those with the fewest boxes, of the readers who have any."""
    drawn = {name: row["boxes"] for name, row in found["readers"].items() if row["boxes"]}
    return sorted(name for name, boxes in drawn.items() if boxes == min(drawn.values()))


def _alike(found: Mapping[str, Any]) -> str:
    """Whether some readers find nothing where others find something."""
    mixed, nothing = found["mixed"], found["nothing"]
    if not mixed:
        return f"On no image do some readers say “{nothing}” and others something else."
    return f"On {count(mixed, 'image')} some readers say “{nothing}” and others something else."


def _agreement(agreed: pd.DataFrame, labels: Mapping[int, int], found: Mapping[str, Any]) -> str:
    """How many labels so many readers give, and the range of kappa over the findings."""
    given = ", ".join(f"{many:,} by {n} or more" for n, many in labels.items())
    kappa = of_findings(agreed, found)["kappa"].dropna()
    text = f"Labels, an image and a finding each, by how many readers give them: {given}." if labels else ""
    if not kappa.empty:
        text += (
            " Fleiss’ kappa, the agreement beyond chance on whether a finding is there (1: complete, 0: as by"
            f" chance), goes from {number(kappa.min(), 2)} ({kappa.idxmin()}) to"
            f" {number(kappa.max(), 2)} ({kappa.idxmax()}). IoU is how well the boxes of two readers lie on"
            " each other."
        )
    return text.strip() or "No image was read by two readers who found something: nothing can agree."


def of_findings(agreed: pd.DataFrame, found: Mapping[str, Any]) -> pd.DataFrame:
    """The agreement without the row of nothing."""
    kept: pd.DataFrame = agreed.loc[agreed.index != found["nothing"]]
    return kept


def class_table(classes: pd.DataFrame, rows: int) -> Table:
    """Rows, boxes, images and readers of each class."""
    cells = [
        (str(name), f"{row['rows']:,}", percent(row["rows"] / rows, 1), f"{row['boxes']:,}",
         f"{row['images']:,}", str(row["readers"]))
        for name, row in classes.iterrows()
    ]  # fmt: skip
    head = ("class", "rows", "share of rows", "boxes", "images", "readers")
    return Table(f"Classes: {len(classes)}, by number of rows", head, cells)


def reader_table(readers: pd.DataFrame) -> Table:
    """Rows and boxes of each reader, and their shares."""
    cells = [
        (str(name), f"{int(row['rows']):,}", percent(row["row_share"], 1), f"{int(row['images']):,}",
         f"{int(row['boxes']):,}", percent(row["box_share"], 1))
        for name, row in readers.iterrows()
    ]  # fmt: skip
    head = ("reader", "rows", "share of rows", "images", "boxes", "share of boxes")
    return Table(f"Readers: {len(readers)}, by number of rows", head, cells)


def crossed_table(both: pd.DataFrame) -> Table:
    """Rows of each class by each reader, shaded by the share that the reader has of the class."""
    cells = [
        (str(name), *(f"{n:,}" for n in row)) for name, row in zip(both.index, both.to_numpy(), strict=True)
    ]
    shares = both.div(both.sum(axis=1), axis=0).to_numpy()
    caption = "Rows by class and reader, shaded by the reader’s share of the class"
    return Table(caption, ("class", *map(str, both)), cells, shares=tuple(map(tuple, shares.tolist())))


def nothing_table(found: Mapping[str, Any]) -> Table:
    """Images by how many of their readers found nothing."""
    cells = [
        (str(many), f"{images:,}", percent(images / found["images"], 1))
        for many, images in found["words"].items()
    ]
    head = (f"readers who say “{found['nothing']}”", "images", "share")
    return Table("Images by the readers who found nothing", head, cells)


def agreement_table(agreed: pd.DataFrame) -> Table:
    """Images by how many readers name a finding, and how far they agree on it and on its place."""
    cells = [
        (str(name), *(f"{int(row[key]):,}" for key in ("any", "two", "three")),
         *(cell for key in ("kappa", "iou") for cell in (_finite(row[key]), _interval(row, key))))
        for name, row in agreed.iterrows()
    ]  # fmt: skip
    head = ("class", "images, any reader", "two or more", "three or more", "kappa", "95 % interval", "IoU",
            "95 % interval")  # fmt: skip
    return Table("Agreement of the readers of one image", head, cells)


def _finite(value: float) -> str:
    return number(None if np.isnan(value) else value, 3)


def _interval(row: pd.Series[float], key: str) -> str:
    low, high = row[f"{key}_low"], row[f"{key}_high"]
    return "" if np.isnan(low) else f"{number(low, 3)} to {number(high, 3)}"


def _charts(classes: pd.DataFrame, readers: pd.DataFrame) -> Charts:
    """Rows of each class and of each reader."""
    found = []
    for name, table in (("class", classes), ("reader", readers)):
        counts = {str(key): int(n) for key, n in table["rows"].items()}
        label = f"Rows of each {name} (n = {sum(counts.values()):,})"
        found.append(Chart(label, drawn.bars(f"findings-{name}", label, counts, "", "rows")))
    return Charts(tuple(found))


def facts(
    found: Mapping[str, Any],
    classes: pd.DataFrame,
    readers: pd.DataFrame,
    agreed: pd.DataFrame,
    labels: Mapping[int, int],
) -> dict[str, Fact]:
    """Every number of the section."""
    never = never_drew(found)
    return {
        "rows": found["rows"],
        "images": found["images"],
        "boxes": found["boxes"],
        "class_names": sorted(map(str, classes.index)),
        "classes": len(classes),
        "findings": found["findings"],
        "readers": len(readers),
        "fewest_readers_an_image": found["panel"][0],
        "most_readers_an_image": found["panel"][1],
        "rows_by_class": _plain(classes["rows"]),
        "boxes_by_class": _plain(classes["boxes"]),
        "rows_by_reader": _plain(readers["rows"]),
        "boxes_by_reader": _plain(readers["boxes"]),
        "busiest": list(found["busiest"]["readers"]),
        "busiest_rows": found["busiest"]["rows"],
        "busiest_boxes": found["busiest"]["boxes"],
        "other_readers": len(readers) - len(found["busiest"]["readers"]),
        "never_drew": list(never),
        "never_drew_count": len(never),
        "images_by_nothing": {str(n): images for n, images in found["words"].items()}
        if found["nothing"]
        else {},
        "nothing_share": found["all_nothing"],
        "something_share": 1 - found["all_nothing"],
        "mixed": found["mixed"],
        "labels_by_votes": {str(n): many for n, many in labels.items()},
        "kappa": _plain(agreed["kappa"]),
        "kappa_least": plain(of_findings(agreed, found)["kappa"].min()),
        "kappa_most": plain(of_findings(agreed, found)["kappa"].max()),
        "iou": _plain(agreed["iou"]),
    }


def all_nothing(table: pd.DataFrame) -> float:
    """The share of images on which no reader found anything."""
    return float((~has_box(table)).groupby(table["image_id"]).all().mean())


def _plain(values: pd.Series[Any]) -> dict[str, Fact]:
    """Numbers by name, as JSON can hold them."""
    return {str(name): plain(value) for name, value in values.items()}
