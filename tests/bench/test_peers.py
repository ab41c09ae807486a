"""The peers' environment says what it lacks; the peers predict held-out folds under the scored prior."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit, logit, softmax
from sklearn.linear_model import LogisticRegression

from tests.bench import environment
from tests.bench.environment import PeerError, peers_python, run_peers

SYSTEMS = ["AutoGluon", "greedy + Platt", "hillclimbers"]
SYSTEMS += [f"scikit-learn {name}" for name in ("stacking", "sigmoid", "isotonic")]
Problem = dict[str, np.ndarray]


def problem(units: int, models: int, classes: int, seed: int, weights: list[float]) -> Problem:
    """Models that know something, over-confident, under a prior that falls by half a class."""
    draw = np.random.default_rng(seed)
    prior = 0.5 ** np.arange(classes)
    labels = draw.choice(classes, units, p=prior / prior.sum())
    known = np.eye(classes)[labels][:, None] + draw.normal(0, 1.2, (units, models, classes))
    return {
        "probabilities": softmax(1.5 * known + np.log(prior), axis=2),
        "labels": labels,
        "outer": np.arange(units) % 4,
        "weights": np.array(weights),
    }


def answers(folder: Path, *problems: Problem) -> dict[str, np.ndarray]:
    """What the peers predict, in their own environment."""
    given = {f"p{i}_{name}": value for i, one in enumerate(problems) for name, value in one.items()}
    np.savez(folder / "in.npz", count=np.array(len(problems)), **given)
    run_peers(folder / "in.npz", folder / "out.npz")
    with np.load(folder / "out.npz") as out:
        return {name: out[name] for name in out.files}


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, str], list[str]]:
    """``pip(code, errors)``: from now on pip ends so, and nothing is made; returns its calls as they come."""

    def ends(code: int, errors: str) -> list[str]:
        calls: list[str] = []

        def run(words: list[str | Path], **_: object) -> subprocess.CompletedProcess[str]:
            calls.append(" ".join(map(str, words)))
            return subprocess.CompletedProcess(words, code, "", errors)

        def create(self: object, folder: Path) -> None:
            (folder / "bin").mkdir(parents=True, exist_ok=True)
            (folder / "pyvenv.cfg").touch()
            (folder / "bin" / "python").touch()

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(venv.EnvBuilder, "create", create)
        return calls

    return ends


def test_the_environment_is_made_once_and_again_when_a_pin_changes(
    tmp_path: Path, pip: Callable[[int, str], list[str]]
) -> None:
    calls, pins = pip(0, ""), tmp_path / "pins.txt"
    pins.write_text("some==1\n")
    python = peers_python(tmp_path / "env", pins)
    assert peers_python(tmp_path / "env", pins) == python and len(calls) == 1
    pins.write_text("some==2\n")
    peers_python(tmp_path / "env", pins)
    assert len(calls) == 2


def test_a_package_that_pip_cannot_find_is_named_and_the_next_call_tries_again(
    tmp_path: Path, pip: Callable[[int, str], list[str]]
) -> None:
    calls = pip(1, "WARNING: other\nERROR: No matching distribution found for hillclimbers==9\n")
    for _ in range(2):
        with pytest.raises(PeerError, match="the peers need hillclimbers==9"):
            peers_python(tmp_path / "env")
    assert len(calls) == 2


def test_a_folder_of_something_else_is_not_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(PeerError, match="is not an environment"):
        peers_python(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_peers_that_end_with_an_error_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "peers_python", lambda folder: sys.executable)
    with pytest.raises(PeerError, match="ended with code 1"):
        run_peers(tmp_path / "absent.npz", tmp_path / "out.npz")


@pytest.mark.slow
def test_every_peer_predicts_every_unit_and_the_same_again(tmp_path: Path) -> None:
    given = [problem(120, 3, 2, 0, [0.5, 0.5]), problem(160, 4, 3, 1, [])]
    given[1]["probabilities"][:5, 0] = np.eye(3)[0]  # a model that is certain
    first, second = answers(tmp_path, *given), answers(tmp_path, *given)
    for i, one in enumerate(given):
        shape = (len(one["labels"]), one["probabilities"].shape[2])
        for system in SYSTEMS:
            found = first[f"p{i}_{system}"]
            assert found.shape == shape and np.isfinite(found).all()
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-9)
            np.testing.assert_array_equal(found, second[f"p{i}_{system}"])
            assert first[f"p{i}_{system}_seconds"] > 0 and first[f"p{i}_{system}_cpu"] > 0


@pytest.mark.slow
def test_the_labels_of_an_outer_fold_do_not_move_its_own_predictions(tmp_path: Path) -> None:
    one = problem(120, 3, 2, 2, [0.5, 0.5])
    inside = one["outer"] == 1
    other = one | {"labels": np.where(inside, 1 - one["labels"], one["labels"])}
    found = answers(tmp_path, one, other)
    for system in SYSTEMS:
        before, after = found[f"p0_{system}"], found[f"p1_{system}"]
        np.testing.assert_array_equal(before[inside], after[inside])
        assert (before[~inside] != after[~inside]).any()


@pytest.mark.slow
def test_models_that_know_nothing_are_moved_to_the_scored_prior(tmp_path: Path) -> None:
    one = problem(400, 3, 2, 3, [0.25, 0.75])
    share = np.bincount(one["labels"]) / 400
    one["probabilities"] = np.broadcast_to(share, (400, 3, 2)).copy()
    plain = one | {"weights": np.array([])}
    found = answers(tmp_path, one, plain)
    for system in SYSTEMS:
        # The shares of the other folds differ a little from fold to fold.
        np.testing.assert_allclose(found[f"p0_{system}"].mean(axis=0), [0.25, 0.75], atol=0.02)
        np.testing.assert_allclose(found[f"p1_{system}"].mean(axis=0), share, atol=0.02)


@pytest.mark.slow
def test_greedy_and_platt_of_one_model_is_a_logistic_regression_and_a_prior_shift(tmp_path: Path) -> None:
    one = problem(200, 1, 2, 4, [0.5, 0.5])
    found = answers(tmp_path, one)["p0_greedy + Platt"]
    scores, inside = logit(one["probabilities"][:, 0, 1])[:, None], one["outer"] == 0
    labels = one["labels"][~inside]
    fitted = LogisticRegression(C=np.inf, tol=1e-9).fit(scores[~inside], labels)
    expected = expit(fitted.decision_function(scores[inside]) - logit(labels.mean()))
    np.testing.assert_allclose(found[inside, 1], expected, atol=1e-5)


@pytest.mark.slow
def test_a_class_that_only_one_outer_fold_has_is_an_error(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    one = problem(120, 3, 2, 5, [])
    one["outer"] = one["labels"]
    with pytest.raises(PeerError, match="ended with code 1"):
        answers(tmp_path, one)
    assert "outer fold 0 holds every unit of class 0" in capfd.readouterr().err
