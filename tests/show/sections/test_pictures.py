"""Pictures of units are of the right ones, by the model that never saw them; what is missing is said."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from kit.errors import SettingError
from kit.files import read_strings
from kit.learn.gradcam import Cam, Explainer
from kit.show import report
from kit.show.results import Results
from kit.show.sections import pictures
from kit.show.tiles import HEAVY
from kit.state import Run


def shown(section: dict[str, Any]) -> list[Any]:
    return [card for kind in section["kinds"] for card in kind["cards"]]


def test_twelve_units_are_explained_and_none_twice_the_most_wrong_first(results: Results) -> None:
    section, scored = pictures.section(results), results.scored
    cards = shown(section)
    assert [len(kind["cards"]) for kind in section["kinds"]] == [pictures.EACH] * 3
    assert len({card.unit for card in cards}) == 12
    order = np.argsort(-scored.losses, kind="stable")[: pictures.EACH]
    assert [card.unit for card in cards[: pictures.EACH]] == scored.frame.index[order].tolist()
    least = cards[-pictures.EACH :]
    assert float(least[0].loss) == pytest.approx(scored.losses.min(), abs=1e-3)


def test_each_is_explained_by_the_fold_model_that_never_saw_it(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int]] = []

    def explain(self: Explainer, fold: str, tile: np.ndarray, label: int) -> Cam:
        asked.append((fold, label))
        return Cam(np.ones((2, 2), np.float32), np.zeros(2, np.float32))

    monkeypatch.setattr(Explainer, "explain", explain)
    cards = shown(pictures.section(results))
    folds = read_strings(results.run.folds).set_index("image_id")["fold"]
    assert [fold for fold, _ in asked] == [folds[card.image] for card in cards]
    classes = results.run.competition.classes
    assert [classes[label] for _, label in asked] == [card.called for card in cards]


def test_the_pictures_are_inside_of_the_page_and_light(results: Results) -> None:
    html = report.page(results.run)
    found = re.findall(r'src="data:image/webp;base64,([^"]+)"', html)
    assert len(found) >= 24  # a picture and a heat map of each
    assert all(len(base64.b64decode(one)) <= HEAVY for one in found)
    assert "<img" in html and 'src="http' not in html
    assert all(re.search(r'alt="[^"]+"', tag) for tag in re.findall(r"<img[^>]*>", html))
    assert html == report.page(results.run)


def test_a_photograph_is_shown_once_and_beside_it_what_speaks_for_its_class(results: Results) -> None:
    card = shown(pictures.section(results))[0]
    assert card.pictures[0].size == card.pictures[1].size
    assert [one.caption for one in card.pictures] == [
        "the picture",
        f"Grad-CAM for {card.called}, 2\u00a0×\u00a02 places",
    ]


def test_the_gallery_has_the_misclassified_units_by_loss(results: Results) -> None:
    scored = results.scored
    labels = scored.labels.copy()
    labels[[2, 5, 7]] = 1 - labels[[2, 5, 7]]
    losses = -np.log(scored.probabilities[np.arange(len(labels)), labels])
    results.__dict__["scored"] = replace(scored, labels=labels, losses=losses)
    section = pictures.section(results)
    wrong = np.flatnonzero(scored.probabilities.argmax(axis=1) != labels)
    assert section["wrong"] == len(wrong) == 3
    expected = wrong[np.argsort(-losses[wrong], kind="stable")]
    assert [card.unit for card in section["mistakes"]] == scored.frame.index[expected].tolist()
    assert all(card.label != card.called and len(card.pictures) == 1 for card in section["mistakes"])


def test_where_all_are_right_the_gallery_says_so(results: Results) -> None:
    html = report.page(results.run)
    assert "None: the most probable class of every unit is its own." in html


def test_without_the_weights_there_is_no_grad_cam_and_one_sentence_says_so(
    results: Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kit.show.explained.weights_path", lambda *_: tmp_path / "none.safetensors")
    section = pictures.section(results)
    assert len(section["notes"]) == 1 and "the weights of the fold models are not" in section["notes"][0]
    assert all(len(card.pictures) == 1 for card in shown(section))


def test_an_encoder_without_maps_is_said_once_and_the_pictures_stay(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explain(*_: object) -> Cam:
        raise SettingError("it ends in tokens", "")

    monkeypatch.setattr(Explainer, "explain", explain)
    section = pictures.section(results)
    assert section["notes"] == ["there is no Grad-CAM: it ends in tokens"]
    assert all(card.pictures for card in shown(section))


def test_a_damaged_store_costs_one_picture(results: Results, tmp_path: Path) -> None:
    card = shown(pictures.section(results))[0]
    path = results.run.folder("tile") / "train" / f"{card.image}.npz"
    shutil.copy(path, tmp_path)
    try:
        path.write_bytes(path.read_bytes()[:200])
        bad = shown(pictures.section(Results(results.run)))
    finally:
        shutil.copy(tmp_path / path.name, path)
    assert not bad[0].pictures and "damaged" in bad[0].note
    assert all(one.pictures for one in bad[1:])


def test_predictions_made_elsewhere_have_no_pictures_and_the_page_says_so(
    make_run: Callable[..., Run], finish: Callable[[Run], str]
) -> None:
    html = finish(make_run())
    assert "There are no pictures: the predictions were made elsewhere" in html
    assert "<img" not in html


def test_tiles_that_are_gone_are_said(own_run: Run, finish: Callable[[Run], str]) -> None:
    assert "the tiles are not in the work folder any more" in finish(own_run)


def test_of_several_images_of_a_unit_the_one_that_speaks_loudest_is_shown() -> None:
    units = {"unit_id": ["u", "u", "v"], "p_A": ["0.2", "0.9", "1.0"], "p_B": ["0.8", "0.1", "0.0"]}
    looks: Any = SimpleNamespace(rows=pd.DataFrame(units, index=["i", "j", "k"]))
    nothing: Any = None
    album = pictures.Album(nothing, looks)
    assert album._image("u", "A") == ("j", 2) and album._image("u", "B") == ("i", 2)
    assert album._image("all its images failed", "A") == ("", 0)


def test_of_many_classes_the_likeliest_three_are_said() -> None:
    values = np.array([0.1, 0.5, 0.05, 0.35])
    assert pictures.said(("a", "b", "c", "d"), values) == "p(b) 0.500, p(d) 0.350, p(a) 0.100"
