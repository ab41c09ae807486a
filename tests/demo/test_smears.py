"""The made smears: what is known of them is what a reader of their pixels can know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import competition
from kit.class_folders import read
from kit.demo import smears
from kit.errors import SettingError
from kit.read import appearance, steps


def test_the_same_seed_makes_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for n, seed in enumerate((0, 0, 1)):
        smears.make(tmp_path / str(n), seed, 160)
    one, again, other = (
        {p.relative_to(tmp_path / str(n)): p.read_bytes() for p in sorted((tmp_path / str(n)).rglob("*.*"))}
        for n in range(3)
    )
    assert one == again and len(one) == 161
    assert sum(one[name] == other.get(name) for name in one) == 0


def test_the_declaration_reads_them_with_equal_neighbours_in_one_block(tmp_path: Path) -> None:
    smears.make(tmp_path, 0, 160)
    found = read(tmp_path, smears.CLASSES)
    assert len(found.images) == 160 and found.conflicts.empty
    twice = found.images[found.images["cluster"].duplicated(keep=False)]
    assert set(twice["label"]) == {"Pro"} and len(twice) == 4
    train = competition.find("leukemia").tables(tmp_path).train
    assert train.groupby("label").size().tolist() == [40] * 4
    assert train.groupby("group_id").size().tolist() == [smears.PERSON] * 16, "a person is a block"


def test_the_posterior_is_calibrated_and_no_more_than_known() -> None:
    many = smears.cohort(3, 8000)
    values = np.array([smear.posterior for smear in many])
    labels = np.array([smear.kind for smear in many])
    np.testing.assert_allclose(values.sum(axis=1), 1)
    for kind in range(4):
        sure = values[:, kind].round(1)
        for level in (0.1, 0.3, 0.5, 0.7, 0.9):
            right = (labels == kind)[sure == level]
            # Persons share a stain: errors are larger than those of single images.
            assert right.mean() == pytest.approx(level, abs=0.08), (kind, level)
    assert 0.84 < (values.argmax(axis=1) == labels).mean() < 0.90


def test_the_stain_follows_the_class_in_seven_of_ten_persons() -> None:
    table = pd.DataFrame([(s.kind, s.stain) for s in smears.cohort(1, 8000)], columns=["kind", "stain"])
    assert (table["kind"] == table["stain"]).mean() == pytest.approx(smears.STAINED, abs=0.04)


def test_latents_and_stain_can_be_read_from_the_pixels() -> None:
    size = [_nuclei(smears.Smear("a", 0, 1, (latent, 0.0)))[0] for latent in (-3.0, 0.0, 3.0)]
    pink = [_nuclei(smears.Smear("a", 0, 1, (0.0, latent)))[1] for latent in (-3.0, 0.0, 3.0)]
    assert size == sorted(size) and size[2] > 2 * size[0]
    assert pink == sorted(pink) and pink[2] > pink[0] + 50
    glass = [appearance.measure(smears.draw(0, smears.Smear("a", 0, n, (0.0, 0.0)))) for n in range(4)]
    red = [found["background_red"] for found in glass]
    assert red == pytest.approx([colour[0] for colour in smears.GLASS], abs=12)


def test_a_scale_bar_shows_the_camera_and_is_in_the_corner_that_is_masked() -> None:
    pictures = [smears.draw(0, smears.Smear("a", 0, n, (0.0, 0.0))) for n in range(4)]
    assert len({picture[-8:, -18:].tobytes() for picture in pictures}) == 4
    for picture in pictures:
        masked = steps.mask_bar(picture)
        assert np.ptp(masked[-15:, -19:].reshape(-1, 3), axis=0).tolist() == [0, 0, 0]


def test_what_is_there_is_left_alone_and_too_few_are_refused(tmp_path: Path) -> None:
    smears.make(tmp_path, 0, 160)
    kept = tmp_path / "Pre" / "WBC-Malignant-Pre-000.jpg"
    Image.new("RGB", (9, 9)).save(kept)
    before = kept.read_bytes()
    smears.make(tmp_path, 0, 160)
    assert kept.read_bytes() == before
    with pytest.raises(SettingError, match="too small"):
        smears.make(tmp_path, 0, 100)


def _nuclei(smear: smears.Smear) -> tuple[int, float]:
    """How many pixels are of nuclei, and how red these are."""
    picture = smears.draw(0, smear).astype(int)
    nuclei = picture[:, :, 1] < 120
    nuclei[-12:] = False
    return int(nuclei.sum()), float(picture[nuclei][:, 0].mean())
