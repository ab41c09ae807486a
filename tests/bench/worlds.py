"""Simulated competitions whose best possible second level is known in closed form.

A world draws patients over centers as the real table has them, some slides a patient, and Gaussian
evidence of several models about each slide. What the models *report* is a distorted copy: every model
and every fold model has its own scale and bias, some have heavy tails, saturate or know nothing. The
distortions can be undone, so the posterior of the undistorted evidence is the limit for everybody who
does not look at the center; the distance to it is the *regret*.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from kit import seeds
from kit.metrics import Array

# Patients of each center of the STRIP AI table (center 1 to 11), and how many have 1, 2, ... 5 slides.
CENTERS = (48, 21, 38, 89, 30, 32, 68, 16, 15, 32, 243)
PATIENTS_WITH = (543, 68, 13, 4, 4)
ICC = 0.44  # share of the noise that two slides of a patient have in common
FOLDS = 5


@dataclass(frozen=True)
class Spec:
    """What the models of a world are like.

    shared: correlation of two models within a class.
    strength, strength_sd: d' of a model on a single slide, and how much models differ in it.
    tails: exponent of the reported logits; above 1 large ones are exaggerated.
    saturation: reported logits approach this bound; 0: none.
    flips: the chance that a patient of each class looks like one of the other (a label mixture).
    useless: models that know nothing.
    """

    models: int
    strength: float
    shared: float
    strength_sd: float = 0.06
    tails: float = 1.0
    saturation: float = 0.0
    flips: tuple[float, float] = (0.0, 0.0)
    useless: int = 0
    # Chosen so that three methods whose mean regret on A3 to B8 was known have about that regret here: a
    # calibrated mean .028, greedy + Platt .018, and a ridge pool of one strength, chosen, .012.
    model_scale: float = 0.25  # sd of the log of a model's scale
    fold_scale: float = 0.15  # ... and of a fold model's
    bias: float = 0.1  # sd of a model's bias, and of a fold model's


SPECS = {
    "A3": Spec(models=3, strength=0.51, shared=0.64),
    "A8": Spec(models=8, strength=0.51, shared=0.64),
    "A20": Spec(models=20, strength=0.51, shared=0.64),
    "B8": Spec(models=8, strength=1.3, shared=0.55, strength_sd=0.28),
    "C8": Spec(
        models=8, strength=1.3, shared=0.55, strength_sd=0.28, tails=1.6, flips=(0.05, 0.15), useless=1
    ),
    "D8": Spec(models=8, strength=1.3, shared=0.55, strength_sd=0.28, saturation=1.5),
    # As A8, with the scale and bias of fold models that ten real models were found to have.
    "E8": Spec(models=8, strength=0.51, shared=0.64, fold_scale=0.3, bias=0.14),
}


@dataclass(frozen=True)
class World:
    """One draw. Slides carry the index of their patient.

    logits: what each model reports of each slide, out of fold ``(slides, M)``.
    patient: patient of each slide ``(slides,)``.
    labels, sites, fold: of each patient ``(n,)``; ``fold`` is the first-level fold.
    posterior: P(class 1 | all evidence) of each patient under equal class shares ``(n,)``.
    """

    logits: Array
    patient: NDArray[np.int64]
    labels: NDArray[np.int64]
    sites: NDArray[np.int64]
    fold: NDArray[np.int64]
    posterior: Array


def draw(name: str, seed: int, size: int = 1) -> World:
    """The world of that name and seed, with ``size`` times 632 patients.

    The models (strengths, scales, biases, center rates) depend on name and seed alone, so that a large
    draw is a test set for the models of a small one.
    """
    spec = SPECS[name]
    models = seeds.rng(seed, "world models", name)
    strength = models.normal(spec.strength, spec.strength_sd, spec.models)
    strength[spec.models - spec.useless :] = 0.0
    rate = models.beta(20.9, 55.6, len(CENTERS))
    scale = np.exp(
        models.normal(0, spec.model_scale, spec.models)
        + models.normal(0, spec.fold_scale, (FOLDS, spec.models))
    )
    bias = models.normal(0, spec.bias, spec.models) + models.normal(0, spec.bias, (FOLDS, spec.models))
    generator = seeds.rng(seed, "world patients", name, size)
    sites = np.repeat(np.arange(len(CENTERS)), np.multiply(CENTERS, size))
    labels = (generator.random(len(sites)) < rate[sites]).astype(np.int64)
    slides = generator.permutation(np.repeat(np.arange(1, 6), np.multiply(PATIENTS_WITH, size)))
    patient = np.repeat(np.arange(len(sites)), slides)
    flipped = generator.random(len(sites)) < np.asarray(spec.flips)[labels]
    looks = np.where(flipped, 1 - labels, labels)
    noise = _noise(generator, patient, spec)
    evidence = strength * (looks[patient] - 0.5)[:, None] + noise
    fold = generator.permutation(len(sites)) % FOLDS
    slope = np.where(strength == 0, spec.strength, strength)  # a useless model is as loud as the others
    logits = scale[fold[patient]] * (slope * evidence + logit(rate @ CENTERS / sum(CENTERS)))
    logits = _distort(logits + bias[fold[patient]], spec)
    posterior = _posterior(evidence, patient, slides, strength, spec)
    return World(logits, patient, labels, sites, fold, posterior)


def _noise(generator: np.random.Generator, patient: NDArray[np.int64], spec: Spec) -> Array:
    """Noise of variance 1: shared by all models or of one, of the patient or of the slide.

    The noise of one fold's model is, out of fold, noise of its model like any other.
    """
    parts = []
    for share, columns in ((spec.shared, 1), (1 - spec.shared, spec.models)):
        of_patient = generator.normal(size=(patient[-1] + 1, columns))[patient]
        of_slide = generator.normal(size=(len(patient), columns))
        parts.append(np.sqrt(share) * (np.sqrt(ICC) * of_patient + np.sqrt(1 - ICC) * of_slide))
    return np.asarray(parts[0] + parts[1])


def _distort(logits: Array, spec: Spec) -> Array:
    if spec.saturation:
        return np.asarray(spec.saturation * np.tanh(logits / spec.saturation))
    return np.asarray(np.sign(logits) * np.abs(logits) ** spec.tails)


def _posterior(
    evidence: Array,
    patient: NDArray[np.int64],
    slides: NDArray[np.int64],
    strength: Array,
    spec: Spec,
) -> Array:
    """P(class 1) under equal class shares: two Gaussians of one covariance, then the label mixture."""
    covariance = spec.shared + (1 - spec.shared) * np.eye(spec.models)
    total = np.zeros((len(slides), spec.models))
    np.add.at(total, patient, evidence)
    ratio = total @ np.linalg.solve(covariance, strength) / (1 + (slides - 1) * ICC)
    looks = expit(ratio)
    one = (1 - spec.flips[1]) * looks + spec.flips[1] * (1 - looks)
    other = (1 - spec.flips[0]) * (1 - looks) + spec.flips[0] * looks
    return np.asarray(one / (one + other))
