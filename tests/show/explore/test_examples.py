"""Images on the page: the first ones, one of every class, the largest; and those that cannot be read."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.show.explore import examples, pictures
from kit.show.pictures import Picture
from kit.show.tiles import HEAVY
from tests.show.explore.findings_made import SIZE, draw_images, galleries, read
from tests.show.explore.tables_made import cohort, made, words


def pixels_of(one: Picture) -> np.ndarray:
    """A picture of the page, decoded."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(one.source.split(",")[1]))).convert("RGB"))


def test_the_first_images_stand_in_the_order_of_the_table_with_label_and_size(tmp_path: Path) -> None:
    table = {"image_id": ["z<b>", "b", "a"], "label": ["A", "B", "A"]}
    draw_images(tmp_path, ["z<b>", "b"], (600, 300))
    section = examples.first(made(tmp_path, table, images=2))
    (gallery,) = galleries(section)
    assert [one.caption for one in gallery.pictures] == ["A · z<b> · 600 × 300 px", "B · b · 600 × 300 px"]
    assert [one.size for one in gallery.pictures] == [(288, 144)] * 2
    assert pixels_of(gallery.pictures[0]).shape == (144, 288, 3)


def test_a_picture_is_light_even_of_noise(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3)).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "i000.png")
    (gallery,) = galleries(examples.first(made(tmp_path, cohort(2), images=1)))
    assert len(gallery.pictures[0].source) < 4 / 3 * HEAVY + 40


def test_an_image_that_cannot_be_read_is_said_and_the_others_are_shown(tmp_path: Path) -> None:
    draw_images(tmp_path, ["i000"])
    (tmp_path / "i001.png").write_bytes(b"no picture")
    section = examples.first(made(tmp_path, cohort(6), images=4))
    assert section is not None and section.facts["shown"] == 1
    assert "i002, and 1 more: missing" in words(section) and "i001: unreadable" in words(section)


def test_where_the_first_are_not_at_hand_the_first_that_are_stand_for_them(tmp_path: Path) -> None:
    draw_images(tmp_path, ["i004", "i005"])
    (gallery,) = galleries(examples.first(made(tmp_path, cohort(6), images=1)))
    assert [one.caption.split(" · ")[1] for one in gallery.pictures] == ["i004"]
    assert "at hand" in gallery.caption


def test_where_no_image_is_at_hand_it_is_said_what_to_type(tmp_path: Path) -> None:
    data = made(tmp_path, cohort(6), images=4)
    for section in (examples.first(data), examples.by_class(data)):
        assert section is not None and "give --data the folder" in words(section)
    assert examples.largest(data) is None


def test_no_image_is_read_where_none_is_asked_for(tmp_path: Path) -> None:
    draw_images(tmp_path, ["i000"])
    data = made(tmp_path, cohort(6), images=0)
    assert examples.first(data) is examples.by_class(data) is examples.largest(data) is None


def test_every_class_has_an_example_that_is_at_hand_and_the_same_again(tmp_path: Path) -> None:
    draw_images(tmp_path, ["i004", "i037"])
    sections = [examples.by_class(made(tmp_path, cohort(40), images=1)) for _ in range(2)]
    assert sections[0] == sections[1] is not None
    assert sections[0].facts["images"] == {"A": "i004", "B": "i037"}
    assert [one.caption.split(" · ")[0] for one in galleries(sections[0])[0].pictures] == ["A", "B"]


def test_every_finding_has_an_example_with_its_boxes_and_its_readers(tmp_path: Path) -> None:
    draw_images(tmp_path, ["a", "b", "c"])
    (gallery,) = galleries(examples.by_class(read(tmp_path, images=1)))
    captions = [one.caption for one in gallery.pictures]
    assert captions[2] == f"Nodule · a · R1 and R2 · {SIZE[0]} × {SIZE[1]} px"
    assert captions[1].startswith("No finding")
    nothing, nodule = (pixels_of(gallery.pictures[n]).astype(int) for n in (1, 2))
    coloured = [(found.max(axis=2) - found.min(axis=2) > 60) for found in (nothing, nodule)]
    assert not coloured[0].any()
    rows, columns = np.nonzero(coloured[1])
    assert (columns.min(), columns.max()) == pytest.approx((10, 32), abs=3)
    assert (rows.min(), rows.max()) == pytest.approx((20, 60), abs=3)


def test_the_largest_image_is_shown_where_sizes_differ(tmp_path: Path) -> None:
    draw_images(tmp_path, ["i000"], (60, 40))
    draw_images(tmp_path, ["i001"], (90, 30))
    section = examples.largest(made(tmp_path, cohort(2), images=2))
    assert section is not None and section.facts["image_id"] == "i001" and section.facts["size"] == [90, 30]
    draw_images(tmp_path, ["i000"], (90, 30))
    assert examples.largest(made(tmp_path, cohort(2), images=2)) is None


def test_an_image_that_takes_too_long_to_read_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slide:
        """As large as any."""

        size, kind, shown = (100_000, 100_000), "deflate", 1.0

        def decoded(self, factor: float, area: int | None = None) -> float:
            return 1e10

    with pytest.raises(pictures.ImageRefused, match="takes about 91 s"):
        pictures.check_quick(Slide(), tmp_path)  # type: ignore[arg-type]
