"""Where the sizes of images are known from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kit.errors import DataError, SettingError
from kit.files import write_text
from kit.show.explore import sizes
from kit.show.explore.dimensions import given_sizes
from tests.show.explore.tables_made import captions, cells, cohort, made, words


def size_file(path: Path, head: str, *rows: str) -> Path:
    write_text(path, "\n".join([head, *rows]) + "\n")
    return path


def test_a_size_is_taken_from_the_first_place_that_has_it(tmp_path: Path) -> None:
    first = size_file(tmp_path / "a.csv", "image_id,width,height", "i000,1,2", "other,9,9")
    second = size_file(tmp_path / "b.csv", "image_id,width_approx,height_approx", "i000,5,5", "i001,3,4")
    tiled = ["i001,train,8,8", "i002,test,5,5", "i002,train,6,7", "i003,train,0,0", "i003,test,5,5"]
    size_file(tmp_path / "work" / "tile" / "images.csv", "image_id,split,width,height", *tiled)
    Image.fromarray(np.zeros((11, 10), np.uint8)).save(tmp_path / "i003.png")
    found = made(tmp_path, cohort(5), sizes=[first, second], images=1).sizes
    assert found.to_numpy().tolist() == [[1, 2], [3, 4], [6, 7], [10, 11]]
    assert found.index.tolist() == ["i000", "i001", "i002", "i003"]
    assert dict(found.attrs["sources"]) == {
        "a.csv": 1, "b.csv": 1, "stage tile": 1, "headers of the images": 1,
    }  # fmt: skip
    assert found.attrs["lost"] == (("not there", 1),) and found.attrs["approximate"]


def test_columns_of_the_training_table_are_sizes(tmp_path: Path) -> None:
    table = cohort(3) | {"width": ["10", "", "x"], "height": ["20", "5", "5"]}
    assert made(tmp_path, table).sizes.to_numpy().tolist() == [[10, 20]]


def test_sizes_are_not_approximate_for_a_file_of_other_images(tmp_path: Path) -> None:
    other = size_file(tmp_path / "other.csv", "image_id,width_approx,height_approx", "z,5,5")
    mine = size_file(tmp_path / "mine.csv", "image_id,width,height", "i000,1,2")
    assert not made(tmp_path, cohort(2), sizes=[mine, other]).sizes.attrs["approximate"]


def test_no_header_is_read_where_no_image_is_to_be(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((11, 10), np.uint8)).save(tmp_path / "i000.png")
    assert made(tmp_path, cohort(2), images=0).sizes.empty
    assert len(made(tmp_path, cohort(2), images=1).sizes) == 1


@pytest.mark.parametrize(
    ("head", "rows", "said"),
    [
        ("image_id,size", ["a,1"], "it has image_id, size"),
        ("image_id,width,height", ["a,1,2", "b,0,2"], "line 3: '0 x 2' is no size"),
        ("image_id,width,height", ["a,1,"], "line 2: '1 x ' is no size"),
        ("image_id,width,height", ["a,1,2", "a,1,3"], "'a' has two sizes"),
    ],
)
def test_a_file_of_sizes_that_breaks_a_rule_is_named(
    head: str, rows: list[str], said: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=said):
        given_sizes(size_file(tmp_path / "a.csv", head, *rows), "image_id")


def test_a_file_of_sizes_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=r"gone\.csv is not a file"):
        given_sizes(tmp_path / "gone.csv", "image_id")


def test_where_no_size_is_known_the_page_says_what_to_type(tmp_path: Path) -> None:
    for images, why in ((0, "were not read (--images 0)"), (1, "no image is at hand (2 not there)")):
        section = sizes.section(made(tmp_path, cohort(2), images=images))
        assert why in words(section) and "--sizes FILE" in words(section)
        assert section.facts == {"known": 0, "of": 2, "files": 0}


def test_sizes_are_summed_up_with_the_largest_image(tmp_path: Path) -> None:
    table = cohort(30) | {"width": [100 + k for k in range(30)], "height": [200] * 29 + [900]}
    section = sizes.section(made(tmp_path, table))
    assert section.facts["largest"] == {"image_id": "i029", "width": 129, "height": 900, "megapixels": 0.1161}
    assert section.facts["height"]["outliers"] == 1  # type: ignore[index,call-overload]
    assert len(captions(section)) == 6 and all("30 image" in caption for caption in captions(section))
    assert ("label", "B") in cells(section, "The largest image")


def test_images_of_one_size_have_no_charts(tmp_path: Path) -> None:
    section = sizes.section(made(tmp_path, cohort(3) | {"width": [64] * 3, "height": [32] * 3}))
    assert "All are 64 px wide and 32 px high" in words(section) and not captions(section)


def test_the_bytes_of_files_that_are_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "i000.png").write_bytes(b"x" * 1000)
    section = sizes.section(made(tmp_path, cohort(2)))
    assert section.facts["files"] == 1 and section.facts["gigabytes"] == 1e-6
