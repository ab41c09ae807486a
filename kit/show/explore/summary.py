"""What numbers amount to: quartiles, spread and outliers, as numbers of the page and as rows of a table."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from kit.metrics import Array
from kit.show.explore.content import Fact
from kit.show.tables import Table
from kit.show.verdict import percent

WHISKER = 1.5  # interquartile ranges beyond the quartiles, where outliers begin: Tukey, 1977
SMALL, LARGE = 1e-3, 1e15  # numbers that are smaller or larger are written with an exponent
HEAD = ("count", "mean", "sd", "least", "25 %", "median", "75 %", "most", "IQR", "outliers")


@dataclass(frozen=True)
class Summary:
    """Finite numbers, counted; NaN where there are too few of them.

    sd: with n - 1. q1, q3: quartiles, linear between two numbers. iqr: their distance.
    outliers: how many lie more than 1.5 IQR beyond a quartile; outlier_share: of all.
    """

    count: int
    mean: float
    sd: float
    min: float
    q1: float
    median: float
    q3: float
    max: float
    iqr: float
    outliers: int
    outlier_share: float

    def facts(self) -> dict[str, Fact]:
        """The same as the page's own data."""
        return {name: plain(value) for name, value in asdict(self).items()}


NONE = math.nan
NOTHING = Summary(0, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, 0, NONE)


def summary(values: pd.Series[float]) -> Summary:
    """What the finite ones of these numbers amount to."""
    found = finite(values)
    if not len(found):
        return NOTHING
    low, q1, median, q3, high = (float(value) for value in np.quantile(found, (0, 0.25, 0.5, 0.75, 1)))
    # Of equal numbers the formula leaves the last bits of their mean.
    spread = 0.0 if low == high else float(found.std(ddof=1))
    spread = spread if len(found) > 1 else math.nan
    far = outlying(found, q1, q3)
    mean = float(found.mean())
    return Summary(
        len(found), mean, spread, low, q1, median, q3, high, q3 - q1, int(far.sum()), float(far.mean())
    )


def finite(values: pd.Series[float]) -> Array:
    """The finite numbers among these, in their order."""
    found = values.to_numpy(dtype=np.float64)
    return np.asarray(found[np.isfinite(found)])


def outlying(values: Array, q1: float, q3: float) -> NDArray[np.bool_]:
    """Which values are outliers of these quartiles."""
    reach = WHISKER * (q3 - q1)
    return np.asarray((values < q1 - reach) | (values > q3 + reach))


def plain(value: object) -> Fact:
    """A number that JSON can hold: none where it is not finite."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return int(value) if isinstance(value, int | np.integer) and not isinstance(value, bool) else str(value)


def table(caption: str, what: str, found: Mapping[str, Summary]) -> Table:
    """One row a column of numbers."""
    rows = [(name, *_cells(one)) for name, one in found.items()]
    return Table(caption, (what, *HEAD), rows)


def frame(what: str, found: Mapping[str, Summary]) -> pd.DataFrame:
    """The same as it is written beside the page."""
    return pd.DataFrame([{what: name} | asdict(one) for name, one in found.items()])


def _cells(one: Summary) -> tuple[str, ...]:
    numbers = (one.mean, one.sd, one.min, one.q1, one.median, one.q3, one.max, one.iqr)
    far = f"{one.outliers:,} ({percent(one.outlier_share, 2)})" if one.count else ""
    return (f"{one.count:,}", *map(shown, numbers), far)


def shown(value: float | None) -> str:
    """A number for reading: as many digits as say something.

    >>> shown(22988.594164), shown(4417.0), shown(0.22679), shown(-0.5), shown(float("nan"))
    ('22,988.6', '4,417', '0.2268', '\u22120.5', '')
    >>> shown(0.0000123), shown(1e30)
    ('1.23e\u221205', '1e+30')
    """
    if value is None or not math.isfinite(value):
        return ""
    if value and not SMALL <= abs(value) < LARGE:
        return f"{value:.3g}".replace("-", "\u2212")
    digits = 0 if float(value).is_integer() else 1 if abs(value) >= 1000 else 2 if abs(value) >= 10 else 4
    text = f"{value:,.{digits}f}"
    return (text.rstrip("0").rstrip(".") if digits == 4 else text).replace("-", "\u2212")
