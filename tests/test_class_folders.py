"""Class folders as tables: what is an image, what is skipped, what is equal."""

from __future__ import annotations

import io
import logging
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from kit import class_folders
from kit.errors import DataError

KINDS = ("ig", "platelet")


def picture(seed: int, kind: str = "JPEG") -> bytes:
    """A small picture of noise, encoded."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def put(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files below a folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


PLAIN = {"ig/IG_1.jpg": picture(1), "ig/IG_2.jpg": picture(2), "platelet/PLT_1.jpg": picture(3)}


def test_every_image_is_a_row_with_its_folder_as_label(tmp_path: Path) -> None:
    images = class_folders.table(put(tmp_path, PLAIN), KINDS)
    assert images["image_id"].tolist() == ["IG_1", "IG_2", "PLT_1"]
    assert images["label"].tolist() == ["ig", "ig", "platelet"]
    assert images["file"].tolist() == list(PLAIN)
    assert images["cluster"].tolist() == images["image_id"].tolist()


def test_a_zip_of_class_folders_gives_the_rows_of_the_folders(tmp_path: Path) -> None:
    data = put(tmp_path / "zipped", {})
    data.mkdir()
    with zipfile.ZipFile(data / "cells.zip", "w") as archive:
        for name, content in PLAIN.items():
            archive.writestr(f"PBC/{name}", content)
        archive.writestr("__MACOSX/PBC/ig/._IG_1.jpg", b"x")
    plain = class_folders.read(put(tmp_path / "plain", PLAIN), KINDS)
    zipped = class_folders.read(data, KINDS)
    assert zipped.root == "cells.zip/PBC"
    assert zipped.images["file"].tolist() == [f"cells.zip/PBC/{name}" for name in PLAIN]
    columns = ["image_id", "label", "cluster"]
    assert zipped.images[columns].equals(plain.images[columns])


def test_of_several_places_the_one_with_the_most_files_is_taken(tmp_path: Path) -> None:
    few = {f"sample/{name}": content for name, content in PLAIN.items() if name != "ig/IG_2.jpg"}
    found = class_folders.read(put(tmp_path, few | {f"all/{n}": c for n, c in PLAIN.items()}), KINDS)
    assert found.root == "all"


def test_a_zip_with_more_files_is_taken_before_folders_beside_it(tmp_path: Path) -> None:
    data = put(tmp_path, {f"native/{name}": content for name, content in PLAIN.items()})
    with zipfile.ZipFile(data / "all.zip", "w") as archive:
        for name, content in (PLAIN | {"ig/IG_7.jpg": picture(7)}).items():
            archive.writestr(name, content)
    assert class_folders.read(data, KINDS).root == "all.zip"


def zipped(path: Path, files: dict[str, bytes]) -> None:
    """Write files as the members of a zip."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("above", ["", "set/"])
def test_a_preferred_folder_in_a_zip_is_taken_before_one_with_as_many_or_more_files(
    tmp_path: Path, above: str
) -> None:
    other = {f"{above}Segmented/{n}": c + b"0" for n, c in PLAIN.items()} | {
        f"{above}Segmented/ig/IG_8.jpg": picture(8)
    }
    zipped(tmp_path / "all.zip", {f"{above}Original/{n}": c for n, c in PLAIN.items()} | other)
    assert class_folders.read(tmp_path, KINDS, prefer="Original").root == f"all.zip/{above}Original"
    assert class_folders.read(tmp_path, KINDS).root == f"all.zip/{above}Segmented"


def test_two_places_with_as_many_other_files_are_refused_and_with_the_same_ones_are_not(
    tmp_path: Path,
) -> None:
    put(tmp_path, {f"a/{name}": content for name, content in PLAIN.items()})
    zipped(tmp_path / "b.zip", PLAIN)
    assert class_folders.read(tmp_path, KINDS).root == "b.zip"
    zipped(tmp_path / "b.zip", {name: content + b"0" for name, content in PLAIN.items()})
    with pytest.raises(DataError, match=r"both in a and in b\.zip"):
        class_folders.read(tmp_path, KINDS)


def test_a_link_to_nothing_and_a_damaged_zip_are_skipped_with_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, PLAIN)
    (tmp_path / "ig" / "IG_9.jpg").symlink_to(tmp_path / "gone.jpg")
    zipped(tmp_path / "more.zip", PLAIN)
    content = bytearray((tmp_path / "more.zip").read_bytes())
    where = content.index(b"PK\x01\x02")
    content[where : where + 4] = b"XXXX"  # the list of members
    (tmp_path / "more.zip").write_bytes(content)
    found = class_folders.read(tmp_path, KINDS)
    reasons = dict(found.skipped.itertuples(index=False))
    assert reasons["ig/IG_9.jpg"] == "a link to a file that is not there"
    assert "more.zip" in reasons and "more.zip is no zip that can be opened" in caplog.text
    assert len(found.images) == 3


def test_a_data_folder_with_a_damaged_zip_alone_names_it(tmp_path: Path) -> None:
    (tmp_path / "cells.zip").write_bytes(b"PK and no more")
    with pytest.raises(DataError, match=r"cells\.zip is a damaged zip"):
        class_folders.read(tmp_path, KINDS)


def test_tables_of_class_folders_can_be_joined(tmp_path: Path) -> None:
    data = put(tmp_path, PLAIN | {"readme.txt": b"hello"})
    both = pd.concat([class_folders.table(data, KINDS), class_folders.table(data, KINDS)])
    assert len(both) == 6


def test_what_is_no_image_of_a_class_is_listed_with_its_reason(tmp_path: Path) -> None:
    strays = {
        "ig/.DS_169665.jpg": picture(9),
        "ig/IG_9.jpg": b"counted twice\n",
        "readme.txt": b"hello",
        "unsure/U_1.jpg": picture(8),
    }
    found = class_folders.read(put(tmp_path, PLAIN | strays), KINDS)
    reasons = dict(found.skipped.itertuples(index=False))
    assert set(reasons) == set(strays)
    assert reasons["ig/.DS_169665.jpg"] == "a hidden file"
    assert "no image" in reasons["ig/IG_9.jpg"]
    assert "beside" in reasons["readme.txt"]
    assert "'unsure' is no class" in reasons["unsure/U_1.jpg"]
    assert len(found.images) == 3


def test_the_jfif_rule_refuses_a_sound_png_and_takes_a_text_that_says_jfif(tmp_path: Path) -> None:
    liar = b"......JFIF and nothing else"
    data = put(tmp_path, PLAIN | {"ig/IG_3.png": picture(4, "PNG"), "ig/IG_4.jpg": liar})
    sound, seed = (class_folders.read(data, KINDS, rule) for rule in ("sound", "jfif"))
    assert {"IG_3"} == set(sound.images["image_id"]) - set(seed.images["image_id"])
    assert {"IG_4"} == set(seed.images["image_id"]) - set(sound.images["image_id"])
    (data / "ig" / "IG_5.jpg").write_bytes(liar)
    assert class_folders.read(data, KINDS).accepted == {"sound": 4, "jfif": 5}


def test_equal_files_share_a_cluster_and_equal_sizes_alone_do_not(tmp_path: Path) -> None:
    other = bytearray(PLAIN["ig/IG_1.jpg"])
    other[-5] ^= 1
    extra = {"ig/IG_5.jpg": PLAIN["ig/IG_1.jpg"], "ig/IG_6.jpg": bytes(other)}
    images = class_folders.table(put(tmp_path, PLAIN | extra), KINDS).set_index("image_id")
    assert images.loc["IG_5", "cluster"] == images.loc["IG_1", "cluster"] == "IG_1"
    assert images.loc["IG_6", "cluster"] == "IG_6"


def test_equal_files_in_folders_of_two_classes_are_listed_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "kit")
    images = class_folders.table(put(tmp_path, PLAIN | {"platelet/P_9.jpg": PLAIN["ig/IG_2.jpg"]}), KINDS)
    conflicts = images.attrs["conflicts"]
    assert [row[1:] for row in conflicts] == [("IG_2", "ig"), ("P_9", "platelet")]
    assert "2 equal images of several classes" in caplog.text


def test_a_stem_that_comes_twice_is_told_apart_by_its_folder_and_then_by_its_ending(tmp_path: Path) -> None:
    more = {"platelet/IG_1.jpg": picture(5), "ig/IG_2.png": picture(6, "PNG")}
    images = class_folders.table(put(tmp_path, PLAIN | more), KINDS)
    assert images["image_id"].tolist() == ["ig/IG_1", "ig/IG_2.jpg", "ig/IG_2.png", "platelet/IG_1", "PLT_1"]


def test_what_changed_between_two_calls_is_seen(tmp_path: Path) -> None:
    data = put(tmp_path, PLAIN)
    before = class_folders.table(data, KINDS)
    (data / "ig" / "IG_2.jpg").write_bytes(PLAIN["ig/IG_1.jpg"])
    after = class_folders.table(data, KINDS)
    assert before["cluster"].nunique() == 3
    assert after["cluster"].nunique() == 2


def test_without_the_folders_the_message_names_the_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ig, platelet"):
        class_folders.read(put(tmp_path, {"ig/IG_1.jpg": picture(1)}), KINDS)


def test_a_class_without_one_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="class platelet has no image"):
        class_folders.read(put(tmp_path, {"ig/IG_1.jpg": picture(1), "platelet/P.jpg": b"text"}), KINDS)
