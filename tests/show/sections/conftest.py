"""A run of real stages on a few photographs, and its page."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from kit import state
from kit.show.results import Results
from kit.state import STAGES, Run
from tests.learn.conftest import photo_run, photographs, weights

__all__ = ["photo_run", "photographs", "weights"]


@pytest.fixture(scope="session")
def photos(photo_run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Finished, from the embeddings of an encoder that no training made, at a size that leaves it maps."""
    folder = tmp_path_factory.mktemp("photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run = photo_run(folder, "test_efficientnet:frozen:64", views=2)
        for stage in STAGES:
            if not state.finished(run, stage):
                state.execute(run, stage)
    return run


@pytest.fixture
def results(photos: Run, monkeypatch: pytest.MonkeyPatch) -> Results:
    """The files of that run, from where it was made."""
    monkeypatch.chdir(photos.work.parent)
    return Results(photos)
