"""What is known of a unit besides its models: its site and its metadata. Both are off by default.

They can help where the test comes from the same sites, and mislead where it does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.base import clone

from kit.combine.baselines import MetadataModel
from kit.combine.inner import inner_count, inner_folds
from kit.combine.method import Labels, Method, from_json
from kit.combine.solve import maximise
from kit.errors import SettingError
from kit.metrics import Array

# Strength that holds a site's offset near 0, in units: the inverse variance of the log-odds of sites'
# class shares, if those are drawn from Beta(20.9, 55.6) as the eleven centers of STRIP AI seem to be.
SITE_RIDGE = 15.0
FIXED = 1e6  # strength at which a coefficient keeps its target


@dataclass(frozen=True)
class Rows:
    """What is known of some units.

    X: probabilities of the models ``(n, M, K)``.
    groups, sites: names ``(n,)``; an empty site is not known.
    metadata: numbers ``(n, F)``, or ``None``.
    """

    X: Array
    groups: NDArray[np.object_]
    sites: NDArray[np.object_]
    metadata: Array | None = None

    def take(self, rows: NDArray[Any]) -> Rows:
        """Some of the rows."""
        metadata = None if self.metadata is None else self.metadata[rows]
        return Rows(self.X[rows], self.groups[rows], self.sites[rows], metadata)


@dataclass
class Informed:
    """A method with a site prior, with metadata as one more model, with both or with neither.

    What they are fitted on is cross-fitted inside the training rows, so that neither is believed for
    what it has learned by heart.
    """

    method: Method
    site_prior: bool = False
    fusion: bool = False

    def fit(self, rows: Rows, labels: Labels) -> Self:
        """Fit on out-of-fold rows.

        Args:
            labels: class of each row ``(n,)``, from 0 to K - 1.
        """
        groups = np.unique(rows.groups.astype(str), return_inverse=True)[1]
        inner = inner_folds(labels, groups, inner_count(labels, groups), seed=1)
        X, classes = rows.X, rows.X.shape[2]
        if self.fusion:
            table = _metadata(rows)

            def learned(train: Rows, truth: Labels, test: Rows) -> Array:
                return MetadataModel.fit(_metadata(train), truth, classes).posterior(_metadata(test))

            X = _beside(X, cross_fit(learned, rows, labels, inner))
            self.metadata_ = MetadataModel.fit(table, labels, classes)
        self.fitted_: Method = clone(self.method).fit(X, labels, groups=rows.groups)
        if self.site_prior:

            def pooled(train: Rows, truth: Labels, test: Rows) -> Array:
                fitted = clone(self.method).fit(train.X, truth, groups=train.groups)
                return np.asarray(softmax(fitted.log_posterior(test.X), axis=1))

            held = cross_fit(pooled, replace(rows, X=X), labels, inner)
            self.offsets_ = site_offsets(np.log(held), labels, rows.sites)
        return self

    def predict_proba(self, rows: Rows) -> Array:
        """Probabilities ``(n, K)`` under the scored prior."""
        X = rows.X
        if self.fusion:
            X = _beside(X, self.metadata_.posterior(_metadata(rows)))
        scores = self.fitted_.log_posterior(X) + self.fitted_.shift()
        if self.site_prior:
            none = np.zeros(scores.shape[1])
            scores = scores + np.array([self.offsets_.get(site, none) for site in rows.sites])
        return np.asarray(softmax(scores, axis=1))

    def to_json(self) -> dict[str, Any]:
        """The fit as plain numbers."""
        found = self.fitted_.to_json()
        if self.fusion:
            model = self.metadata_
            found["metadata"] = {"weights": model.weights.tolist(), "biases": model.biases.tolist()}
        if self.site_prior:
            found["sites"] = {site: offsets.tolist() for site, offsets in self.offsets_.items()}
        return found

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """The fit that `to_json` wrote, ready to predict."""
        fitted = from_json(dict(content))
        found = cls(fitted, site_prior="sites" in content, fusion="metadata" in content)
        found.fitted_ = fitted
        if found.fusion:
            numbers = content["metadata"]
            found.metadata_ = MetadataModel(np.array(numbers["weights"]), np.array(numbers["biases"]))
        if found.site_prior:
            found.offsets_ = {site: np.array(offsets) for site, offsets in content["sites"].items()}
        return found


def nested(informed: Informed, rows: Rows, labels: Labels, outer: NDArray[Any]) -> Array:
    """Predict each outer fold by what was fitted on the others: probabilities ``(n, K)``."""

    def fitted(train: Rows, truth: Labels, test: Rows) -> Array:
        mine = Informed(informed.method, informed.site_prior, informed.fusion)
        return mine.fit(train, truth).predict_proba(test)

    return cross_fit(fitted, rows, labels, outer)


def cross_fit(
    fitted: Callable[[Rows, Labels, Rows], Array], rows: Rows, labels: Labels, fold: NDArray[Any]
) -> Array:
    """``fitted(train, labels, test)`` for each fold ``(n, K)``."""
    found = np.zeros((len(labels), rows.X.shape[2]))
    for name in np.unique(fold):
        train, test = fold != name, fold == name
        found[test] = fitted(rows.take(train), labels[train], rows.take(test))
    return found


def site_offsets(scores: Array, labels: Labels, sites: NDArray[np.object_]) -> dict[str, Array]:
    """How much likelier than elsewhere each class is at each site, shrunk towards not at all.

    Args:
        scores: log-probabilities that have not seen the labels of their rows ``(n, K)``.
        sites: the site of each row ``(n,)``; an empty one is not known and gets no offset.

    Returns:
        Log-odds to add to the scores of a site's units ``(K,)``, by site.
    """
    names = sorted(set(sites) - {""})
    others = scores.shape[1] - 1
    member = (sites[:, None] == np.array(names, dtype=object)[None]).astype(np.float64)
    base = (scores[:, 1:] - scores[:, :1])[:, :, None]
    columns = member[:, None, None, :] * np.eye(others)[None, :, :, None]
    features = np.concatenate([base, columns.reshape(len(scores), others, -1)], axis=2)
    penalty = np.r_[FIXED, np.full(others * len(names), SITE_RIDGE)]
    theta = maximise(features, labels, np.ones(len(labels)), penalty, np.eye(len(penalty))[0])
    offsets = np.concatenate([np.zeros((1, len(names))), theta[1:].reshape(others, -1)])
    return {name: offsets[:, n] for n, name in enumerate(names)}


def _beside(X: Array, probabilities: Array) -> Array:
    """One more model beside the others."""
    return np.concatenate([X, probabilities[:, None]], axis=1)


def _metadata(rows: Rows) -> Array:
    if rows.metadata is None:
        raise SettingError("combine.fusion=true needs metadata", "give --meta FILE, or run tile first")
    return rows.metadata
