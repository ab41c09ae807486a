"""What is at which address: an image by its key alone, and nothing anywhere else."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from kit.competition import TileGrid
from kit.read.slide import open_image
from kit.show.view import overviews
from kit.show.view.pyramid import SIDE, Pyramid
from kit.state import Run


def ready(site: Any, image_id: str) -> dict[str, Any]:
    """Wait for the overview of an image."""
    for _ in range(500):
        state = json.loads(site.get(f"image/{site.key(image_id)}/status.json").body)
        if state["state"] != "making":
            return dict(state)
        time.sleep(0.02)
    raise AssertionError("the overview is never made")


def decoded(body: bytes) -> np.ndarray:
    return np.asarray(cv2.imdecode(np.frombuffer(body, np.uint8), cv2.IMREAD_COLOR)[..., ::-1])


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    """Pixels as they come out of JPEG again."""
    return decoded(cv2.imencode(".jpg", pixels[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))[1].tobytes())


def tile(site: Any, image_id: str, level: int, column: int, row: int) -> Any:
    return site.get(f"image/{site.key(image_id)}/tile/{level}/{column}_{row}.jpg")


@pytest.mark.parametrize(
    "path",
    [
        "..", "../", "../secret.txt", "%2e%2e/secret.txt", "..%2fsecret.txt", "%252e%252e%252fsecret.txt",
        "static/../../secret.txt", "static/..%2f..%2fsecret.txt", "static/../view.css", "static//etc/passwd",
        "static/%00", "static/view.css%00", "static/./view.css", "static/", "static", "static/__init__.py",
        "static/openseadragon.min.js.map", "//etc/passwd", "/etc/passwd", "file:///etc/passwd",
        "list.json/", "list.json?x=1",
        "image/../list.json", "image/../../secret.txt/", "image/..%2f..%2fsecret.txt/status.json",
        "image/0123456789abcdef/", "image/0123456789abcdef/tile/0/0_0.jpg", "image/one/",
        "image/one/status.json",
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file(site: Any, path: str) -> None:
    found = site.get(path)
    assert found.status in (403, 404)
    assert b"secret" not in found.body and b"root:" not in found.body


@pytest.mark.parametrize(
    "numbers",
    [
        ("-1", "0", "0"), ("99", "0", "0"), ("13", "0", "0"), ("12", "-1", "0"), ("12", "6", "0"),
        ("12", "0", "9"), ("12", "999999", "999999"), ("12", "9" * 20, "0"), ("12", "9" * 250, "0"),
        ("012", "0", "0"), ("12", "0.5", "0"), ("12", "1e3", "0"), ("12", "0x1", "0"), ("12", "%d9%a3", "0"),
        ("12", "+1", "0"), ("12", "nan", "0"), ("", "0", "0"),
    ],
)  # fmt: skip
def test_there_is_no_tile_of_absurd_numbers(site: Any, numbers: tuple[str, str, str]) -> None:
    level, column, row = numbers
    assert site.get(f"image/{site.key('one')}/tile/{level}/{column}_{row}.jpg").status in (404, 414)


def test_a_long_address_is_refused_before_anything_looks_at_it(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(site.pages, "_routes", None)
    assert site.get("x" * 5000).status == 414


def test_every_tile_of_every_level_is_served_in_its_size(site: Any) -> None:
    state = ready(site, "one")
    pyramid = Pyramid(1333, 2100)
    assert (state["width"], state["height"], state["top"], state["bottom"]) == (1333, 2100, 12, 8)
    for level in range(13):
        width, height = pyramid.size(level)
        for column in range(-(-width // SIDE)):
            for row in range(-(-height // SIDE)):
                found = decoded(tile(site, "one", level, column, row).body)
                assert found.shape == (min(SIDE, height - row * SIDE), min(SIDE, width - column * SIDE), 3)


def test_a_tile_of_the_file_as_it_was_is_not_taken_from_the_file_as_it_is(site: Any) -> None:
    version = ready(site, "one")["version"]
    path = f"image/{site.key('one')}/tile/12/0_0.jpg"
    assert site.get(f"{path}?{version}").body == site.get(path).body
    assert site.get(f"{path}?{'0' * 16}").status == 404
    assert site.get(f"{path}?").status == site.get(f"{path}?{version}x").status == 404


def test_why_a_tile_cannot_be_shown_is_on_the_console(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("WARNING", logger="kit"):
        assert tile(site, "bad", 0, 0, 0).status == 422
    assert "bad.tif" in caplog.text


def test_fine_tiles_are_the_squares_of_the_reader_to_the_quality_of_jpeg(site: Any, slides: Path) -> None:
    with open_image(slides / "data" / "one.tif", TileGrid()) as slide:
        for level, column, row in ((12, 2, 3), (11, 1, 2), (10, 0, 1), (9, 0, 0), (12, 5, 8)):
            side = SIDE << (12 - level)
            want = slide.region(column * side, row * side, side, SIDE)
            found = decoded(tile(site, "one", level, column, row).body)
            want = want[: found.shape[0], : found.shape[1]]
            np.testing.assert_array_equal(found, as_jpeg(want))


def test_a_bad_slide_says_why_and_what_to_type_and_the_others_go_on(site: Any) -> None:
    state = ready(site, "bad")
    assert state["state"] == "failed" and "bad.tif" in state["message"] and state["hint"]
    assert ready(site, "gone")["state"] == "failed"
    assert site.get(f"image/{site.key('bad')}/").status == 200
    assert tile(site, "bad", 0, 0, 0).status == 422
    assert site.get(f"image/{site.key('bad')}/small.jpg").status == 204
    assert ready(site, "one")["state"] == "ready"


def test_an_id_that_is_a_path_is_an_image_like_any_other(site: Any, tmp_path: Path) -> None:
    assert ready(site, "../secret.txt")["state"] == "ready"
    assert b"../secret.txt" in site.get(f"image/{site.key('../secret.txt')}/").body


def test_coarse_tiles_before_the_overview_are_refused_and_fine_ones_served(
    serve: Any, slides_run: Run
) -> None:
    site = serve(slides_run)
    assert tile(site, "one", 12, 0, 0).status == 200
    assert tile(site, "one", 0, 0, 0).status == 422
    assert site.get(f"image/{site.key('one')}/small.jpg").status == 204
    ready(site, "one")
    assert tile(site, "one", 0, 0, 0).status == 200
    assert decoded(site.get(f"image/{site.key('one')}/small.jpg").body).shape[0] <= 256


def test_photographs_are_shown_as_they_are(serve: Any, photos_run: Run) -> None:
    site = serve(photos_run, ("train",))
    state = ready(site, "p")
    assert (state["width"], state["height"], state["top"], state["bottom"]) == (300, 200, 9, 8)
    assert decoded(tile(site, "p", 9, 0, 0).body).shape == (200, 256, 3)
    assert decoded(tile(site, "p", 9, 1, 0).body).shape == (200, 44, 3)
    assert decoded(site.get(f"image/{site.key('q')}/small.jpg").body).shape == (30, 40, 3)
    assert not photos_run.folder("view").exists()


def test_the_viewer_writes_nothing_but_its_overviews(serve: Any, slides_run: Run) -> None:
    site = serve(slides_run)
    ready(site, "one")
    for path in ("", "list.json", f"image/{site.key('one')}/", f"image/{site.key('one')}/layers.json"):
        assert site.get(path).status == 200
    written = [path for path in slides_run.work.rglob("*") if path.is_file()]
    (only,) = written
    assert only.parent.parent == slides_run.folder("view") / "train" and only.suffix == ".npy"
    assert overviews.find(only, (1333, 2100)) is not None


def test_words_of_a_table_are_text_on_a_page(serve: Any, slides_run: Run) -> None:
    script = "<script>alert(1)</script>"
    slides_run.tables.train.rename(index={"bad": script}, inplace=True)
    site = serve(slides_run)
    found = site.get(f"image/{site.key(script)}/").body.decode()
    assert script not in found and "&lt;script&gt;" in found


def test_every_file_that_a_page_names_is_served(site: Any) -> None:
    import re

    for page, root in (("", ""), (f"image/{site.key('one')}/", "../../")):
        html = site.get(page).body.decode()
        named = re.findall(rf'(?:src|href)="{re.escape(root)}(static/[^"]+)"', html)
        assert len(named) >= 3
        assert {site.get(path).status for path in named} == {200}
        assert not re.search(r"<script>|<script [^>]*>[^<]|\son\w+=|\sstyle=|//[a-z]", html)


def test_openseadragon_is_the_file_that_its_licence_names(site: Any) -> None:
    import hashlib

    licence = site.get("static/OPENSEADRAGON-LICENSE.txt").body.decode()
    script = site.get("static/openseadragon.min.js").body
    assert "6.1.1" in licence and "BSD-3-Clause" in licence
    assert hashlib.sha256(script).hexdigest() in licence
