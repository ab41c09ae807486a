"""What second levels are compared on: simulated worlds with a known limit, and real models' predictions.

Every problem is a table of unit-level out-of-fold probabilities ``(n, M, K)``, laid out as the kit's own
combine stage does it, with labels and outer folds. Each unit is a group of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit
from sklearn import datasets
from sklearn.base import ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from kit import seeds
from kit.combine.aggregate import UnitLogits, side_by_side, unit_logits
from kit.combine.predictions import Source, read_external
from kit.competition import find
from kit.metrics import Array, LogLoss, Metric, WeightedLogLoss
from tests.bench import worlds

Labels = NDArray[np.int64]
REAL = Path(__file__).parents[2] / ".." / "shared" / "data"
EQUAL_CLASSES = WeightedLogLoss((0.5, 0.5))
OUTER = 10
CLASSIC = {
    "digits": datasets.load_digits,
    "breast cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
}


@dataclass(frozen=True)
class Problem:
    """One second level to fit, nested.

    probabilities: of units, models and classes ``(n, M, K)``, out of fold.
    labels: class of each unit ``(n,)``.
    outer: outer fold of each unit ``(n,)``.
    posterior: the best possible prediction ``(n, K)``, where it is known.
    """

    case: str
    probabilities: Array
    labels: Labels
    outer: Labels
    metric: Metric
    posterior: Array | None = None

    @property
    def weights(self) -> Array:
        """The class weights of the metric ``(K,)``; none for the plain log loss."""
        return np.asarray(self.metric.weights if isinstance(self.metric, WeightedLogLoss) else ())

    def __str__(self) -> str:
        units, models, classes = self.probabilities.shape
        return f"{units} units, {models} models, {classes} classes"


def deal(labels: Labels, k: int, seed: int) -> Labels:
    """A fold from 0 to k - 1 of each unit, even within each class.

    It knows labels alone. Folds that are even within site x class cells as well make features of the site
    look better than they are.
    """
    order = seeds.rng(seed, "bench folds", k).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), dtype=np.int64)
    fold[order] = np.arange(len(labels)) % k
    return fold


def two_classes(last: Array) -> Array:
    """P(last class) ``(...)`` as probabilities of both ``(..., 2)``."""
    return np.stack([1 - last, last], axis=-1)


def of_units(models: dict[str, UnitLogits], units: pd.Index) -> Array:
    """Probabilities of units ``(n, M, K)`` as the kit makes them of those of images."""
    reference = {name: model.logits.loc[units].mean().tolist() for name, model in models.items()}
    return side_by_side(models, units, reference, find("strip-ai").second_level.icc)


def world(name: str, seed: int) -> Problem:
    """A simulated competition of `worlds`, scored under equal class shares."""
    drawn = worlds.draw(name, seed)
    units = [f"{n:06d}" for n in range(len(drawn.labels))]
    images = pd.Series([units[n] for n in drawn.patient], [f"{n:07d}" for n in range(len(drawn.patient))])
    models = {
        f"{m:02d}": unit_logits(two_classes(expit(logits)), images, ("0", "1"))
        for m, logits in enumerate(drawn.logits.T)
    }
    probabilities = of_units(models, pd.Index(units))
    outer = deal(drawn.labels, OUTER, seed)
    return Problem(name, probabilities, drawn.labels, outer, EQUAL_CLASSES, two_classes(drawn.posterior))


def many_units(n: int, models: int = 20) -> Problem:
    """A draw like world A20 of one slide a unit, in five outer folds: for the cost of very many units."""
    draw = seeds.rng(0, "bench units", n, models)
    spec = worlds.SPECS["A20"]
    labels = (draw.random(n) < 0.28).astype(np.int64)
    strength = draw.normal(spec.strength, spec.strength_sd, models)
    scale, bias = np.exp(draw.normal(0, spec.model_scale, models)), draw.normal(0, spec.bias, models)
    common = np.sqrt(spec.shared) * draw.normal(size=n)
    weight = np.linalg.solve(spec.shared + (1 - spec.shared) * np.eye(models), strength)
    probabilities, ratio = np.empty((n, models, 2)), np.zeros(n)
    for m in range(models):
        evidence = strength[m] * (labels - 0.5) + common + np.sqrt(1 - spec.shared) * draw.normal(size=n)
        probabilities[:, m, 1] = expit(scale[m] * (strength[m] * evidence - 0.94) + bias[m])
        ratio += weight[m] * evidence
    np.subtract(1, probabilities[:, :, 1], out=probabilities[:, :, 0])
    case = f"{n:,} x {models}"
    return Problem(case, probabilities, labels, deal(labels, 5, 0), EQUAL_CLASSES, two_classes(expit(ratio)))


def strip_ai(splits: int) -> Iterator[Problem]:
    """Ten real models of the STRIP AI competition, by patient; one problem an outer split.

    Raises:
        FileNotFoundError: the competition's tables and the files of the models are not there.
    """
    folder = present(REAL / "strip-ai" / "oof").parent
    task = find("strip-ai")
    train = task.tables(folder).train
    source = Source(train["unit_id"], task.unit, task.image, task.classes)
    models = {path.stem: read_external(path, source) for path in sorted((folder / "oof").glob("*.csv"))}
    patients = train.drop_duplicates("unit_id").set_index("unit_id").sort_index()
    labels = np.asarray(patients["label"] == task.classes[1], dtype=np.int64)
    probabilities = of_units(models, patients.index)
    for split in range(splits):
        yield Problem("STRIP AI", probabilities, labels, deal(labels, OUTER, split), task.metric)


def vinbigdata() -> Problem:
    """Three real models of "no finding" on radiographs, in the folds that they were trained in.

    Raises:
        FileNotFoundError: the file of their predictions is not there.
    """
    path = present(REAL / "vinbigdata" / "class14-train-preds.csv.gz")
    table = pd.read_csv(path, dtype={"image_id": str})
    probabilities = two_classes(table[["effnet", "resnext", "densenet"]].to_numpy(dtype=np.float64))
    labels, outer = (table[name].to_numpy(dtype=np.int64) for name in ("class_14", "fold"))
    return Problem("VinBigData", probabilities, labels, outer, LogLoss())


def present(path: Path) -> Path:
    """The path, if it is there."""
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there")
    return path


def learners() -> list[ClassifierMixin]:
    """Eight models as different as scikit-learn has them."""
    fixed = {"random_state": 0}
    plain = [GaussianNB(), RandomForestClassifier(200, **fixed), ExtraTreesClassifier(200, **fixed)]
    scaled = [
        LogisticRegression(max_iter=2000),
        CalibratedClassifierCV(SVC(**fixed), ensemble=False),
        KNeighborsClassifier(7),
        MLPClassifier(max_iter=500, **fixed),
    ]
    boosted = HistGradientBoostingClassifier(max_iter=60, **fixed)
    return plain + [boosted] + [make_pipeline(StandardScaler(), model) for model in scaled]


def classic(name: str) -> Problem:
    """A data set that scikit-learn brings, predicted by eight models."""
    features, labels = CLASSIC[name](return_X_y=True)
    labels = labels.astype(np.int64)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    found = [
        cross_val_predict(model, features, labels, cv=folds, method="predict_proba") for model in learners()
    ]
    return Problem(name, np.stack(found, axis=1), labels, deal(labels, OUTER, 0), LogLoss())
