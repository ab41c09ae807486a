"""What every pool and calibrator is: a scikit-learn classifier whose fit is a few numbers."""

from __future__ import annotations

from functools import reduce
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted

from kit.combine.inner import names_by_content
from kit.errors import DataError
from kit.metrics import Array

CLIP = 12.0  # log-odds are clipped here: one certain model must not decide a blend
Labels = NDArray[np.int64]
METHODS: dict[str, type[Method]] = {}
EVERY = ("classes_", "prior_", "shape_")  # what every fit leaves, beside its numbers


def to_logits(probabilities: Array) -> Array:
    """Probabilities ``(..., K)`` as log-probabilities centred over classes, each pair within +-12.

    >>> np.round(to_logits(np.array([[0.5, 0.5], [0.0, 1.0]])), 6).tolist()
    [[0.0, 0.0], [-6.0, 6.0]]
    """
    with np.errstate(divide="ignore"):
        logs = np.log(np.asarray(probabilities, dtype=np.float64))
    classes = np.moveaxis(logs, -1, 0)  # reducing over a short last axis is several times slower
    np.maximum(classes, reduce(np.maximum, classes) - CLIP, out=classes)
    classes -= reduce(np.add, classes) / len(classes)
    return logs


def class_shares(labels: Labels, classes: int, weight: Array | None = None) -> Array:
    """Class shares, with half a unit added to each so that an absent class stays possible."""
    counts = np.bincount(labels, weights=weight, minlength=classes) + 0.5
    return np.asarray(counts / counts.sum())


class Method(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A pool of models or a calibrator of one.

    It is fitted, unweighted by class, under the class shares of its training data, and predicts under
    ``scored_prior``: the posterior is multiplied by the ratio of the two (Saerens et al. 2002, "Adjusting
    the outputs of a classifier to new a priori probabilities"). A subclass has ``_fit``, ``_scores`` and
    the names of the ``numbers`` that a fit leaves.

    Args:
        scored_prior: class shares that the metric acts as if it saw; ``None``: those of the data.
    """

    numbers: ClassVar[tuple[str, ...]] = ()
    dimensions: ClassVar[int] = 2  # of X: 2 for a calibrator (n, K), 3 for a pool (n, M, K)

    def __init__(self, scored_prior: tuple[float, ...] | None = None) -> None:
        self.scored_prior = scored_prior

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if not cls.__name__.startswith("_"):  # what methods share is none
            METHODS[cls.__name__] = cls

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Fit on out-of-fold probabilities.

        Args:
            X: ``(n, K)`` probabilities of one model, or ``(n, M, K)`` of M models.
            y: class of each row; sorted, its values are the K columns.
            sample_weight: how often each row counts ``(n,)``.
            groups: rows of one group are kept together by inner cross-validation ``(n,)``.

        Raises:
            DataError: X is no table of probabilities, y has not one label a row and K classes, weights or
                groups do not fit the rows, or the scored prior does not fit the classes.
        """
        values = self._checked(X)
        self.classes_, labels = np.unique(np.asarray(y), return_inverse=True)
        if len(labels) != len(values) or len(self.classes_) != values.shape[-1]:
            raise DataError(
                f"{len(values)} rows of {values.shape[-1]} classes do not fit {len(labels)} labels"
                f" of {len(self.classes_)} classes",
                "give one label a row; every class needs one",
            )
        weight = _weights(sample_weight, len(labels))
        names = names_by_content(values, labels, weight) if groups is None else _names(groups, len(labels))
        _check_prior(self.scored_prior, len(self.classes_))
        self.shape_ = values.shape[1:]
        self.prior_ = class_shares(labels, len(self.classes_), weight)
        kept = weight != 0  # a row that does not count is as good as absent
        _, group = np.unique(names[kept], return_inverse=True)
        self._fit(values[kept], labels[kept].astype(np.int64), weight[kept], group)
        return self

    def predict_proba(self, X: ArrayLike) -> Array:
        """Probabilities ``(n, K)`` under the scored prior."""
        return np.asarray(softmax(self.log_posterior(X) + self.shift(), axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest class of each row."""
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def log_posterior(self, X: ArrayLike) -> Array:
        """Log-probabilities under the training prior ``(n, K)``, up to a constant a row."""
        check_is_fitted(self, "prior_")
        values = self._checked(X)
        seen, given = tuple(self.shape_), values.shape[1:]
        if given != seen:
            raise DataError(
                f"{type(self).__name__} was fitted on {_sizes(seen)}, and got {_sizes(given)}",
                "give the same models and classes in the same order, or fit it again",
            )
        return self._scores(values)

    def shift(self) -> Array:
        """What moves the training prior to the scored one: log scored - log training ``(K,)``."""
        if self.scored_prior is None:
            return np.zeros(len(self.prior_))
        _check_prior(self.scored_prior, len(self.prior_))
        return np.asarray(np.log(self.scored_prior) - np.log(self.prior_))

    def to_json(self) -> dict[str, Any]:
        """The fit as plain numbers: no pickle is ever needed to predict."""
        names = (*EVERY, *self.numbers) if hasattr(self, "prior_") else ()
        fitted = {name: _plain(getattr(self, name)) for name in names}
        return {"method": type(self).__name__, "settings": _plain(self.get_params(deep=False)), **fitted}

    def _checked(self, X: ArrayLike) -> Array:
        values = np.asarray(X, dtype=np.float64)
        if values.ndim != self.dimensions:
            shape = {2: "(n, K)", 3: "(n, M, K)"}[self.dimensions]
            raise DataError(
                f"{type(self).__name__} takes probabilities {shape}, and got the shape {values.shape}",
                "pool several models before a calibrator; give a pool X[:, None] for one model",
            )
        if not (np.isfinite(values).all() and (values >= 0).all() and (values.sum(-1) > 0).all()):
            bad = ~(np.isfinite(values) & (values >= 0)).all(axis=-1) | ~(values.sum(-1) > 0)
            row = tuple(int(n) for n in np.argwhere(bad)[0])
            raise DataError(
                f"row {row[0]} has {values[row].tolist()}, no probability",
                "every row needs numbers from 0 to 1 with a positive sum",
            )
        return values

    def _fit(self, X: Array, labels: Labels, weight: Array, groups: Labels) -> None:
        """Find the numbers."""

    def _scores(self, X: Array) -> Array:
        raise NotImplementedError


def _weights(weight: ArrayLike | None, rows: int) -> Array:
    """The weight of each row ``(n,)``; 1 where none is given."""
    found = np.ones(rows) if weight is None else np.asarray(weight, dtype=np.float64)
    if found.shape != (rows,):
        raise DataError(
            f"sample_weight has the shape {found.shape}, and X {rows} rows", "give one number a row"
        )
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= 0)))
    if len(bad):
        raise DataError(
            f"sample_weight of row {bad[0]} is {found[bad[0]]}", "a weight is a number of 0 or more"
        )
    if not found.any():
        raise DataError("sample_weight is 0 in every row", "give the rows that count a positive weight")
    return found


def _names(groups: ArrayLike, rows: int) -> NDArray[Any]:
    """The name of each row's group ``(n,)``."""
    found = np.asarray(groups)
    if found.shape != (rows,):
        raise DataError(f"groups has the shape {found.shape}, and X {rows} rows", "give one name a row")
    return found


def _check_prior(prior: tuple[float, ...] | None, classes: int) -> None:
    """That a scored prior is a positive share for each class."""
    if prior is None:
        return
    shares = np.asarray(prior, dtype=np.float64)
    if shares.shape != (classes,) or not (shares > 0).all() or abs(shares.sum() - 1) > 1e-6:
        raise DataError(
            f"scored_prior is {shares.tolist()}, for {classes} classes",
            "give one positive share a class, in the order of the sorted classes; they sum to 1",
        )


def _sizes(shape: tuple[int, ...]) -> str:
    """What a row holds, in words.

    >>> _sizes((3, 2))
    '3 models of 2 classes'
    """
    return f"{shape[0]} models of {shape[1]} classes" if len(shape) == 2 else f"{shape[0]} classes"


def from_json(content: dict[str, Any]) -> Method:
    """The method that :meth:`Method.to_json` wrote, ready to predict if it was fitted."""
    kind = METHODS[content["method"]]
    settings = {k: _restored(v) for k, v in content["settings"].items()}
    method = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})
    for name in (*EVERY, *kind.numbers) if "prior_" in content else ():
        value = _restored(content[name])
        setattr(method, name, np.asarray(value) if isinstance(value, list) else value)
    return method


def _plain(value: Any) -> Any:
    if isinstance(value, Method):
        return value.to_json()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def _restored(value: Any) -> Any:
    return from_json(value) if isinstance(value, dict) and "method" in value else value
