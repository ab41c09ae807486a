"""One model to fit: which model, on which images, under which name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import pandas as pd

from kit import seeds
from kit.competition import Training
from kit.errors import DataError, SettingError
from kit.learn import extra
from kit.learn.dataset import turned_copies, with_copies
from kit.learn.models import Model
from kit.state import Run

INNER = 5  # one part in so many is set aside for early stopping
DRAWS = 100  # of that part, until it has every class


@dataclass(frozen=True)
class Fit:
    """One model to fit.

    images: what it learns from, indexed by image_id, with y and group_id.
    purpose: names the fit; all its draws depend on it.
    """

    run: Run
    model: Model
    images: pd.DataFrame
    purpose: str

    @property
    def training(self) -> Training:
        """How it learns."""
        return self.model.training

    @cached_property
    def samples(self) -> pd.DataFrame:
        """What epochs show: every image, and turned copies of it or images without a label if asked for."""
        shown = self.images
        if self.training.extra in ("negative", "class"):
            shown = pd.concat([shown, extra.unlabelled(self.run, self.images.index)])
        return with_copies(shown, turned_copies(self.run))

    def need_all_classes(self) -> None:
        """There is an image of every class to learn from.

        Raises:
            DataError: there is none of one; says of which, and in which fit.
        """
        classes = self.run.competition.classes
        for n, name in enumerate(classes):
            if not (self.images["y"] == n).any():
                raise DataError(
                    f"{self.purpose}: no image of class {name} is left to learn from",
                    "all of them are in the fold that is left out: make fewer folds (--set fold.k=...), or"
                    " choose another fold.scheme, and repeat from fold on",
                )

    def aside(self) -> tuple[Fit, pd.DataFrame]:
        """The fit without a fifth of its groups, and the images of these: what early stopping looks at.

        Both parts have every class.

        Raises:
            SettingError: there are too few groups for that.
        """
        classes = len(self.run.competition.classes)
        for n in range(DRAWS):
            taken = self.images["group_id"].isin(self._some_groups(n))
            rest, inner = self.images[~taken], self.images[taken]
            if rest["y"].nunique() == inner["y"].nunique() == classes:
                return replace(self, images=rest), inner
        raise SettingError(
            f"{self.purpose}: no fifth of the groups has every class and leaves every class",
            "use --set train.stop=fixed",
        )

    def _some_groups(self, n: int) -> set[str]:
        """A fifth of the groups of each class, at least one; the ``n``-th draw."""
        draw = seeds.rng(self.run.seed, self.purpose, "inner", n)
        taken: set[str] = set()
        for _, mine in self.images.groupby("y"):
            groups = draw.permutation(sorted(set(mine["group_id"]))).tolist()
            missing = max(1, round(len(groups) / INNER)) - len(taken & set(groups))
            taken |= set([group for group in groups if group not in taken][: max(0, missing)])
        return taken
