"""Predictions made elsewhere: every usual layout is read, and every fault named by line and value."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from kit.combine.aggregate import UnitLogits
from kit.combine.predictions import Source, plain, read_external, read_own
from kit.competition import Competition, Tables
from kit.errors import DataError
from kit.metrics import LogLoss

UNITS = pd.Series({"i1": "u", "i2": "u", "i3": "v", "i4": "w"})
TWO = Source(UNITS, "patient", "image", ("CE", "LAA"))
FOUR = Source(UNITS, "patient", "image", ("a", "b", "c", "d"))


@pytest.fixture
def task() -> Competition:
    """Whose images are called image, and whose units are called patient."""
    return Competition(
        "t", ("CE", "LAA"), LogLoss(), lambda data: Tables(pd.DataFrame()), "patient", image="image"
    )


def read(tmp_path: Path, text: str, source: Source = TWO) -> UnitLogits:
    path = tmp_path / "oof.csv"
    path.write_text(text)
    return read_external(path, source)


@pytest.mark.parametrize(
    "text",
    [
        "image,p_CE,p_LAA\ni1,.2,.8\ni2,.4,.6\ni3,.9,.1\n",
        "image_id,CE,LAA\ni1,.2,.8\ni2,.4,.6\ni3,.9,.1\n",
        "image,LAA,fold,CE\ni3,.1,0,.9\ni1,.8,1,.2\ni2,.6,1,.4\n",
        "image,predictions\ni1,.8\ni2,.6\ni3,.1\n",
        "image,p_CE,p_LAA\ni1,.1,.4\ni2,.2,.3\ni3,.45,.05\n",
        "\ufeffimage,predictions\r\ni1,0.8\r\ni2,6e-1\r\ni3,.1\r\n",
    ],
)
def test_every_usual_layout_by_image_says_the_same(text: str, tmp_path: Path) -> None:
    found = read(tmp_path, text)
    assert list(found.logits.index) == ["u", "v"] and found.images.to_dict() == {"u": 2, "v": 1}
    np.testing.assert_allclose(found.plain["LAA"], [0.7, 0.1])
    np.testing.assert_allclose(
        found.logits["LAA"] - found.logits["CE"], [(np.log(4) + np.log(1.5)) / 2, -np.log(9)]
    )


@pytest.mark.parametrize("column", ["patient", "unit_id"])
def test_a_file_by_unit_is_read_as_one_image_each(column: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"{column},predictions\nw,.3\nu,.8\n")
    assert found.plain["LAA"].to_dict() == pytest.approx({"u": 0.8, "w": 0.3})
    assert found.images.to_dict() == {"u": 1, "w": 1}


@pytest.mark.parametrize("column", ["predictions", "LAA", "p_LAA"])
def test_a_single_column_is_the_probability_of_the_last_class(column: str, tmp_path: Path) -> None:
    found = read(tmp_path, f"image,{column},fold\ni4,.9,3\n")
    assert found.plain.loc["w"].to_dict() == pytest.approx({"CE": 0.1, "LAA": 0.9})


def test_one_file_holds_several_models_each_a_column_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "oof.csv.gz"
    table = pd.DataFrame({"image": ["i4", "i3"], "fold": [0, 1], "LAA": [0.5, 0.5], "net": [0.9, 0.2]})
    table.to_csv(path, index=False)
    assert read_external(path, TWO).plain["LAA"].to_dict() == pytest.approx({"v": 0.5, "w": 0.5})
    asked = read_external(Path(f"{path}:net"), TWO)
    assert asked.plain["LAA"].to_dict() == pytest.approx({"v": 0.2, "w": 0.9})
    with pytest.raises(DataError, match="has no column 'nett'") as caught:
        read_external(Path(f"{path}:nett"), TWO)
    assert "did you mean net?" in caught.value.hint
    with pytest.raises(DataError, match="one column, and there are 4 classes"):
        read_external(Path(f"{path}:net"), FOUR)
    with pytest.raises(DataError, match="csv:net is not there"):
        read_external(Path("no such.csv:net"), TWO)


@pytest.mark.parametrize("column", ["CE", "p_CE"])
def test_a_column_that_is_asked_for_by_the_name_of_the_first_class_has_its_probability(
    column: str, tmp_path: Path, task: Competition
) -> None:
    path, kept = tmp_path / "oof.csv", tmp_path / "kept.csv"
    path.write_text(f"image,{column},LAA\ni4,0.9,.1\ni3,0.3,.7\n")
    found = read_external(Path(f"{path}:{column}"), TWO)
    assert found.plain["CE"].to_dict() == pytest.approx({"v": 0.3, "w": 0.9})
    kept.write_bytes(
        plain(Path(f"{path}:{column}"), task)
    )  # what a run is known by says the same, to the bit
    pd.testing.assert_frame_equal(read_external(kept, TWO).logits, found.logits, check_exact=True)


def test_what_is_kept_of_a_column_or_a_packed_file_is_a_plain_table_that_says_the_same(
    tmp_path: Path, task: Competition
) -> None:
    text = "image,net,LAA\ni4,0.9,.1\n"
    (tmp_path / "a.csv").write_text(text)
    with gzip.open(tmp_path / "b.csv.gz", "wt") as stream:
        stream.write(text)
    assert plain(tmp_path / "a.csv", task) == plain(tmp_path / "b.csv.gz", task) == text.encode()
    kept = tmp_path / "kept.csv"
    kept.write_bytes(plain(Path(f"{tmp_path / 'b.csv.gz'}:net"), task))
    assert kept.read_text() == "image,predictions\ni4,0.9\n"
    assert read_external(kept, TWO).plain["LAA"].to_dict() == pytest.approx({"w": 0.9})
    with pytest.raises(DataError, match="has no column 'nett'"):
        plain(Path(f"{tmp_path / 'a.csv'}:nett"), task)


def test_the_name_of_an_image_file_stands_for_its_id(tmp_path: Path) -> None:
    found = read(tmp_path, "image,predictions\ntrain/i1.tif,.8\ni2.PNG,.6\ni3,.1\n")
    assert found.plain["LAA"].to_dict() == pytest.approx({"u": 0.7, "v": 0.1})
    units = pd.Series({"a.tif": "u", "a": "v"})  # ids that have endings of their own are kept
    own = read(tmp_path, "image,predictions\na.tif,.8\na,.2\n", Source(units, "patient", "image", ("x", "y")))
    assert own.plain["y"].to_dict() == pytest.approx({"u": 0.8, "v": 0.2})


def test_ids_that_look_like_numbers_stay_text(tmp_path: Path) -> None:
    units = pd.Series({"006388_0": "006388", "2e3749_0": "2e3749", "1.10": "1"})
    found = read(
        tmp_path, "patient,predictions\n006388,.9\n2e3749,.2\n", Source(units, "patient", "image", ("a", "b"))
    )
    assert list(found.logits.index) == ["006388", "2e3749"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("image,predictions\ni1,.5\ni9,.5\n", ["line 3: image 'i9'", "ids that the tables do not have"]),
        ("patient,predictions\nu,.5\nx,.5\n", ["line 3: patient 'x'"]),
        ("image,predictions\ni1,.5\ni2,.5\ni1,.4\n", ["line 4: image 'i1' is repeated"]),
        ("image,predictions\ni1,.5\ni2,\n", ["line 3: image 'i2' has predictions '', no probability"]),
        ("image,predictions\ni1,NaN\n", ["line 2: image 'i1' has", "'NaN'"]),
        ("image,predictions\ni1,high\n", ["line 2: image 'i1' has", "'high'"]),
        ("image,predictions\ni1,80\n", ["line 2: image 'i1' has predictions '80', no probability"]),
        ("image,CE,LAA\ni1,19.5,80.5\n", ["line 2: image 'i1' has CE '19.5', LAA '80.5'"]),
        ("image,predictions\ni1,.5\ni1.tif,.4\n", ["line 3: image 'i1' is repeated"]),
        ("image,predictions\ni1,.5\ni9.tif,.4\n", ["line 3: image 'i9.tif'"]),
        ("image,p_CE,LAA\ni1,.5,.5\n", ["no probabilities", "image, p_CE, LAA"]),
        ("image,predictions\ni1,inf\n", ["line 2: image 'i1' has", "inf"]),
        ("image,predictions\ni1,.5\ni2,1.5\n", ["line 3: image 'i2' has", "1.5"]),
        ("image,predictions\ni1,-0.25\n", ["line 2: image 'i1' has", "-0.25"]),
        ("image,p_CE,p_LAA\ni1,3,1\n", ["line 2: image 'i1' has p_CE '3', p_LAA '1'"]),
        ("image,p_CE,p_LAA\ni1,0,0\n", ["line 2: image 'i1' has p_CE '0', p_LAA '0'"]),
        ("image,p_CE,p_LAA\ni1,.5,.5\ni2,.5,-.1\n", ["line 3: image 'i2' has p_CE '.5', p_LAA '-.1'"]),
        ("name,predictions\ni1,.5\n", ["no id column", "it has name, predictions"]),
        ("image,p_CE,other\ni1,.5,.5\n", ["no probabilities", "image, p_CE, other"]),
    ],
)
def test_a_fault_is_named_with_its_file_line_and_value(text: str, parts: list[str], tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, text)
    for part in [str(tmp_path / "oof.csv"), *parts]:
        assert part in caught.value.message
    assert caught.value.hint


def test_many_unknown_ids_are_counted_and_not_all_listed(tmp_path: Path) -> None:
    rows = "".join(f"x{n},.5\n" for n in range(100))
    with pytest.raises(DataError, match="and 95 more") as caught:
        read(tmp_path, "image,predictions\n" + rows)
    assert "line 2: image 'x0'" in caught.value.message


def test_an_unknown_id_brings_the_nearest_known_one_to_mind(tmp_path: Path) -> None:
    units = pd.Series({f"slide_{n:03d}": "u" for n in range(200)})
    with pytest.raises(DataError) as caught:
        read(tmp_path, "image,predictions\nslide-150,.5\n", Source(units, "patient", "image", ("a", "b")))
    assert "did you mean slide_150?" in caught.value.hint and len(caught.value.hint) < 200


def test_the_hint_of_a_missing_column_is_in_the_words_of_the_competition(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, "name,predictions\ni1,.5\n")
    assert "image or patient" in caught.value.hint
    with pytest.raises(DataError) as caught:
        read(tmp_path, "image,CE\ni1,.5\n")
    assert "p_CE, p_LAA" in caught.value.hint and "predictions or LAA" in caught.value.hint


def test_four_classes_need_four_columns(tmp_path: Path) -> None:
    found = read(tmp_path, "image,p_d,p_c,p_b,p_a\ni1,.4,.3,.2,.1\n", FOUR)
    assert found.plain.loc["u"].to_dict() == pytest.approx({"a": 0.1, "b": 0.2, "c": 0.3, "d": 0.4})
    with pytest.raises(DataError, match="no probabilities"):
        read(tmp_path, "image,predictions\ni1,.4\n", FOUR)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\x00binary", b'image,predictions\n"i1,.5\n'])
def test_a_file_that_is_no_table_is_the_users_error(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "oof.csv").write_bytes(data)
    with pytest.raises(DataError, match=r"oof\.csv"):
        read_external(tmp_path / "oof.csv", TWO)
    with pytest.raises(DataError, match="not there"):
        read_external(tmp_path / "none.csv", TWO)


def test_a_table_without_rows_covers_no_unit(tmp_path: Path) -> None:
    found = read(tmp_path, "image,predictions\n")
    assert len(found.logits) == len(found.plain) == len(found.images) == 0


@pytest.mark.parametrize("cell", ["", "nan", "inf", "x"])
def test_a_cell_of_our_own_table_that_is_no_number_is_refused_by_its_line(cell: str, tmp_path: Path) -> None:
    path = tmp_path / "oof.csv"
    path.write_text(f"image_id,unit_id,model,seed,fold,p_CE,p_LAA\ni1,u,a,0,0,.2,.8\ni2,u,a,0,3,{cell},.6\n")
    with pytest.raises(DataError, match=r"line 3: model 'a' without fold 3 has no probability of image 'i2'"):
        read_own(path, ("CE", "LAA"))


def test_our_own_table_gives_every_model_with_its_folds_averaged(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text(
        "image_id,unit_id,model,seed,fold,p_CE,p_LAA\n"
        "i1,u,a,0,0,.2,.8\ni1,u,a,0,1,.4,.6\ni2,u,a,0,0,.5,.5\ni2,u,a,0,1,.5,.5\n"
        "i1,u,b,0,0,.9,.1\ni3,v,b,0,0,.3,.7\n"
    )
    found = read_own(path, ("CE", "LAA"))
    assert list(found) == ["a", "b"]
    np.testing.assert_allclose(found["a"].plain["LAA"], [(0.7 + 0.5) / 2])
    logits = found["a"].logits.loc["u"]
    assert logits["LAA"] - logits["CE"] == pytest.approx((np.log(4) + np.log(1.5)) / 4)
    assert found["a"].images.to_dict() == {"u": 2} and found["b"].images.to_dict() == {"u": 1, "v": 1}
    path.write_text("image_id,unit_id,model,seed,fold,p_CE,p_LAA\n")
    assert read_own(path, ("CE", "LAA")) == {}
