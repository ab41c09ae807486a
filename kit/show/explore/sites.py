"""How well an image tells where it was acquired, and the colour of the background there.

Where sites differ in their shares of the classes, a model that knows the site knows something of the label,
and nothing that would hold at another site.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from kit.boxes import SIZES
from kit.combine import baselines
from kit.combine.inner import inner_folds
from kit.combine.reliability import wilson
from kit.metrics import LogLoss
from kit.show.explore import drawn
from kit.show.explore.content import Block, Chart, Charts, Data, Fact, Section, Words
from kit.show.explore.kinds import ordered
from kit.show.explore.shortcuts import LOOK, SIZE
from kit.show.explore.summary import plain
from kit.show.tables import Table
from kit.show.verdict import count, percent

FEWEST = 2  # groups of a site: one to learn from, one to be scored
COLOUR = "background colour"
TOP = 3  # colours of a site that are listed
COARSE = 8  # grey levels within which two colours are one
Row = dict[str, float]  # accuracy, low, high, features


def section(data: Data) -> Section | None:
    """The site from size and colour, nested; ``None`` where fewer than two sites are known."""
    train = data.tables.train
    known = train[train["site"] != ""]
    if known["site"].nunique() < 2:
        return None
    groups = known.groupby("site")["group_id"].nunique()
    frame = known[known["site"].isin(groups.index[groups >= FEWEST])]
    blocks: list[Block] = []
    facts: dict[str, Fact] = {"sites": int(known["site"].nunique()), "images": len(frame)}
    files = {}
    rows = predicted(data, frame) if frame["site"].nunique() > 1 else {}
    if rows:
        majority = float(frame["site"].value_counts().iloc[0] / len(frame))
        facts |= {"majority": majority, "accuracy": {name: _plain(row) for name, row in rows.items()}}
        blocks += [Words(_told(data, rows, majority, len(known) - len(frame))), _table(rows, majority)]
        files["accuracy"] = pd.DataFrame([{"known": name, **row} for name, row in rows.items()])
    else:
        blocks.append(Words(_nothing(data)))
    colours = backgrounds(data)
    if colours is None and rows:
        blocks.append(Words(f"For the colour of the background by site, type: {_tile(data)}"))
    if colours is not None:
        shares = {site: _shares(colours[colours["site"] == site]) for site in ordered(colours["site"])}
        facts["backgrounds"] = {site: _plain(found) for site, found in shares.items()}
        blocks += _drawn(shares, colours)
        files["backgrounds"] = colours.reset_index(names="image_id")
    return Section("sites", "Can the site be told?", tuple(blocks), facts, files)


def predicted(data: Data, frame: pd.DataFrame) -> dict[str, Row]:
    """Accuracy of the most probable site, nested by group, with Wilson's interval, from each set of numbers.

    Args:
        frame: images with a site, by image_id.
    """
    labels = np.unique(frame["site"].to_numpy(dtype=str), return_inverse=True)[1]
    outer = inner_folds(labels, frame["group_id"].to_numpy(dtype=object), 10, data.run.seed)
    groups, found = frame["group_id"].nunique(), {}
    for name, table in measured(data).items():
        mine = table.reindex(frame.index)
        if mine.isna().any(axis=1).mean() > baselines.MOST_MISSING:
            continue
        matrix = baselines.features(mine, None).to_numpy(dtype=np.float64)
        p = baselines.nested(matrix, labels, outer, LogLoss(), baselines.LOOSE)
        right = float((p.argmax(axis=1) == labels).mean())
        low, high = wilson(right, groups)
        found[name] = {"accuracy": right, "low": low, "high": high, "features": float(matrix.shape[1])}
    return found


def measured(data: Data) -> dict[str, pd.DataFrame]:
    """Numbers of an image that do not say what its tissue looks like, by image_id; one table a set."""
    found = {}
    if not data.sizes.empty:
        sizes = data.sizes[list(SIZES)].astype(float)
        found[SIZE] = sizes.assign(
            ratio=sizes["width"] / sizes["height"], area=sizes["width"] * sizes["height"]
        )
    images = data.run.folder("tile") / "images.csv"
    if images.is_file():
        tiled = baselines.tile_metadata(images)
        found |= {COLOUR: tiled[["red", "green", "blue"]], LOOK: tiled}
    return found


def _plain(row: Mapping[str, float]) -> dict[str, Fact]:
    return {name: plain(value) for name, value in row.items()}


def _told(data: Data, rows: Mapping[str, Row], majority: float, left: int) -> str:
    best = max(rows, key=lambda name: rows[name]["accuracy"])
    name, right = data.run.competition.site, percent(rows[best]["accuracy"], 1)
    out = f" Left out: {count(left, 'image')} of sites with one group." if left else ""
    if rows[best]["low"] <= majority:
        return f"The site ({name}) is told no better than by always naming the commonest one.{out}"
    return (
        f"The site ({name}) is told by {best} alone in {right} of the images; the commonest one is that of"
        f" {percent(majority, 1)}. A network sees more than that: validate across sites too.{out}"
    )


def _nothing(data: Data) -> str:
    return (
        "Whether size and colour tell the site is not tested: neither is known of enough images of two sites."
        f" Give --sizes FILE, or type: {_tile(data)}"
    )


def _tile(data: Data) -> str:
    return f"python -m kit tile {data.run.asked or data.run.name}"


def _table(rows: Mapping[str, Row], majority: float) -> Table:
    cells = [
        (name, f"{row['features']:.0f}", percent(row["accuracy"], 1),
         f"{percent(row['low'], 1)} to {percent(row['high'], 1)}")
        for name, row in rows.items()
    ]  # fmt: skip
    cells.append(("the commonest site", "0", percent(majority, 1), ""))
    head = ("what is known", "numbers", "accuracy", "95 % interval")
    return Table(
        "The site from what is no look at the tissue, nested by group; intervals (Wilson) by groups",
        head,
        cells,
    )


# --- background -----------------------------------------------------------------------------------------


def backgrounds(data: Data) -> pd.DataFrame | None:
    """site, background of each training image that stage `tile` has read; ``None`` where it has not run."""
    path = data.run.folder("tile") / "images.csv"
    if not path.is_file():
        return None
    table = baselines.images(path)
    table = table[table["background"].str.fullmatch("#[0-9a-f]{6}")]
    sites = data.tables.train["site"]
    table = table[table.index.isin(sites.index[sites != ""])]
    return (
        None
        if table.empty
        else pd.DataFrame({"site": sites.loc[table.index], "background": table["background"]})
    )


def _shares(colours: pd.DataFrame) -> dict[str, float]:
    """The backgrounds of a site by how common they are; near-equal ones count as the commonest of them."""
    counts = colours["background"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    kept: dict[str, int] = {}
    for text, n in counts.items():
        near = next((other for other in kept if _apart(str(text), other) <= COARSE), str(text))
        kept[near] = kept.get(near, 0) + int(n)
    total = sum(kept.values())
    return {text: n / total for text, n in sorted(kept.items(), key=lambda pair: -pair[1])}


def _apart(one: str, other: str) -> float:
    """The largest distance of two colours over red, green and blue, in grey levels."""
    return float(np.abs(np.subtract(baselines.rgb(one), baselines.rgb(other))).max())


def _drawn(shares: Mapping[str, Mapping[str, float]], colours: pd.DataFrame) -> list[Block]:
    n = count(len(colours), "image")
    rows = []
    for site, found in shares.items():
        listed = ", ".join(f"{text} {percent(share)}" for text, share in list(found.items())[:TOP])
        rows.append((site, f"{int((colours['site'] == site).sum()):,}", f"{len(found):,}", listed))
    head = ("site", "images", "colours", "the commonest")
    caption = f"Background by site, {n}; colours within {COARSE} grey levels are one"
    svg = drawn.swatches("sites-backgrounds", caption, shares)
    return [
        Table(caption, head, rows, frozenset({3})),
        Charts((Chart(f"Background colours by site, {n}", svg),)),
    ]
