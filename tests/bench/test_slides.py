"""Made slides are what their truth says, in real TIFF; the rows say who has read what at what cost."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openslide
import pytest
import tifffile
from scipy import ndimage

from tests.bench import environment, slide_files, slides
from tests.bench.environment import PeerError
from tests.bench.harness import Row
from tests.bench.slide_files import Made, Spec, made
from tests.bench.slides import Look, Plan

SMALL = Spec(1500, 1830, 0.3)  # multiples of nothing
GREEN = (196, 211, 192)


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Spec], Made]:
    """Slides of one folder, so that each is written once for all tests."""
    folder = tmp_path_factory.mktemp("slides")
    return lambda spec: made(spec, folder)


@pytest.fixture(autouse=True, scope="module")
def small_texture() -> Iterator[None]:
    """A texture that is drawn in a moment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slide_files, "PERIOD", 512)
        slide_files.texture.cache_clear()
        yield
    slide_files.texture.cache_clear()


def pixels(slide: Made) -> np.ndarray:
    """The whole level as OpenSlide reads it."""
    with openslide.OpenSlide(slide.path) as opened:
        return np.asarray(opened.read_region((0, 0), 0, opened.dimensions))[:, :, :3]


@pytest.mark.parametrize("compression", ["Deflate", "LZW"])
def test_the_truth_counts_every_pixel_of_tissue(make: Callable[[Spec], Made], compression: Any) -> None:
    slide = make(Spec(1500, 1830, 0.3, compression))
    seen = pixels(slide)
    assert seen.shape == (1830, 1500, 3)
    tissue = seen[:, :, 1] < seen[:, :, 0]  # all dyes take more green than red; glass and specks are grey
    padded = np.pad(tissue, ((0, 26), (0, 4)))  # to whole cells
    counts = padded.reshape(58, 32, 47, 32).sum(axis=(1, 3))
    np.testing.assert_array_equal(slide.truth.counts, counts)
    assert slide.truth.share == tissue.mean() == pytest.approx(0.3, abs=0.03)
    specks, count = ndimage.label((seen != 255).any(axis=2) & ~tissue)
    assert count == 2 and np.bincount(specks.ravel())[1:].min() > 3 * 4**2 and seen[specks > 0].min() > 190
    np.testing.assert_array_equal(slide.truth.mask[:-1, :-1], counts[:-1, :-1] >= 512)


def test_squares_have_the_tissue_share_of_their_pixels(make: Callable[[Spec], Made]) -> None:
    slide = make(SMALL)
    tissue = np.diff(pixels(slide)[:, :, :2].astype(int))[:, :, 0] < 0
    x, y, share = slide.truth.squares(256)
    assert len(x) == 5 * 7 and 0 < (share >= 0.25).sum() < len(x)
    expected = [tissue[top : top + 256, left : left + 256].mean() for left, top in zip(x, y, strict=True)]
    np.testing.assert_allclose(share, expected, atol=1e-12)


@pytest.mark.parametrize(
    ("spec", "tile", "tags"),
    [
        (SMALL, 128, {"Compression": 8, "Predictor": 2, "PhotometricInterpretation": 2}),
        (Spec(1500, 1830, 0.3, "LZW"), 128, {"Compression": 5, "Predictor": 2}),
        (Spec(1500, 1830, 0.3, "JPEG"), 256, {"Compression": 7, "YCbCrSubSampling": (2, 2)}),
        (Spec(1500, 1830, 0.3, big=True), 128, {"Compression": 8}),
    ],
)
def test_the_file_is_of_the_kind_that_is_asked_for(
    make: Callable[[Spec], Made], spec: Spec, tile: int, tags: dict[str, Any]
) -> None:
    slide = make(spec)
    with tifffile.TiffFile(slide.path) as file:
        assert file.is_bigtiff == spec.big and len(file.pages) == 1
        page: Any = file.pages[0]
        assert (page.imagewidth, page.imagelength) == (1500, 1830)
        assert (page.tilewidth, page.tilelength) == (tile, tile)
        assert {name: page.tags[name].value for name in tags} == tags
        assert ("JPEGTables" in page.tags) == (spec.compression == "JPEG")
        np.testing.assert_allclose(page.asarray().astype(int), pixels(slide), atol=3 * (tile == 256))


def test_a_jpeg_shows_what_the_lossless_slide_shows(make: Callable[[Spec], Made]) -> None:
    # The same number of cells, so that both have one outline.
    lossless, lossy = (make(Spec(1536, 1792, 0.3, name)) for name in ("Deflate", "JPEG"))
    np.testing.assert_array_equal(lossless.truth.counts, lossy.truth.counts)
    tissue = lossless.truth.mask.repeat(32, axis=0).repeat(32, axis=1)
    difference = np.abs(pixels(lossless).astype(int) - pixels(lossy))
    assert 0.5 < difference[tissue].mean() < 8 > 20 * np.median(difference[~tissue])


def test_tissue_is_as_hard_to_compress_as_that_of_real_slides_and_glass_is_nothing(
    make: Callable[[Spec], Made],
) -> None:
    slide = make(SMALL)
    with tifffile.TiffFile(slide.path) as file:
        page: Any = file.pages[0]
        sizes = np.array(page.databytecounts) / 128**2
    assert 1.25 < np.median(sizes[sizes > 1]) < 1.5 and sizes.min() < 0.02


def test_glass_has_one_colour_and_tints_the_tissue(make: Callable[[Spec], Made]) -> None:
    clear, green = make(SMALL), make(Spec(1500, 1830, 0.3, background=GREEN))
    np.testing.assert_array_equal(clear.truth.counts, green.truth.counts)
    empty, full = (green.truth.counts == number for number in (0, 1024))
    seen, before = (pixels(slide)[:1824, :1472].reshape(57, 32, 46, 32, 3) for slide in (green, clear))
    colours, counts = np.unique(
        seen.swapaxes(1, 2)[empty[:57, :46]].reshape(-1, 3), axis=0, return_counts=True
    )
    assert colours[counts.argmax()].tolist() == list(GREEN) and counts.max() > 0.95 * counts.sum()
    tinted = before.swapaxes(1, 2)[full[:57, :46]] * (np.array(GREEN) / 255)
    np.testing.assert_array_equal(seen.swapaxes(1, 2)[full[:57, :46]], tinted.round())


def test_a_slide_is_made_once_and_anew_when_its_making_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = Spec(600, 600, 0.3)
    first = made(spec, tmp_path)
    written: list[Path] = []
    write = slide_files.write_slide
    monkeypatch.setattr(slide_files, "write_slide", lambda *given: written.append(given[0]) or write(*given))
    again = made(spec, tmp_path)
    assert not written and again.path == first.path
    np.testing.assert_array_equal(again.truth.counts, first.truth.counts)
    first.path.with_suffix(".npz").unlink()  # as if the making was interrupted
    assert made(spec, tmp_path).path == first.path and len(written) == 1
    monkeypatch.setattr(slide_files, "file_digest", lambda path: "another")
    other = made(spec, tmp_path)
    assert other.path != first.path and len(written) == 2
    assert sorted(tmp_path.iterdir()) == [other.path.with_suffix(".npz"), other.path]


# -- the report

TINY = Plan(SMALL, Spec(2000, 1500, 0.2, big=True), repeats=1, quick=True)


@pytest.fixture
def stand(make: Callable[[Spec], Made], monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Peers that take four times the kit's time and answer as the kit does; their questions, as they come."""
    asked: list[dict[str, Any]] = []

    def ask(script: Path, question: dict[str, Any], *_: Path) -> dict[str, float]:
        asked.append(json.loads(json.dumps(question)))
        path = Path(question["path"])
        if question["save"] and question["task"] == "overview":
            np.save(question["save"], slides.kit_overview(path, question["factor"]))
        elif question["save"]:
            np.save(question["save"], slides.kit_tiles(path, np.array(question["corners"]), slides.checksum))
        return {"wall_s": 2.0, "cpu_s": 3.0, "peak_mib": 400.0}

    monkeypatch.setattr(slides, "made", make)
    monkeypatch.setattr(slides, "ask", ask)
    monkeypatch.setattr(slides, "measure", lambda function: (function(), 0.5, 0.75, 100.0))
    return asked


def values(rows: list[Row], unit: str) -> dict[str, float]:
    return {row.system: row.value for row in rows if row.unit == unit}


def test_the_mask_rows_give_how_many_times_longer_a_peer_takes(stand: list[dict[str, Any]]) -> None:
    rows = list(slides.mask_rows(TINY))
    middle = [row for row in rows if row.case == "mask, 3 Mpx Deflate 30 %"]
    times = values(middle, "x the kit's time")
    assert times == {"kit": 1.0, **dict.fromkeys([*slides.WHOLE, *slides.BLOCKS], 4.0)}
    large = {row.system for row in rows} - {row.system for row in rows if row not in middle}
    assert large == set(slides.WHOLE), "what holds a whole level is not asked for the largest slide"
    assert {row.wall_s for row in middle} == {0.5, 2.0} and {row.peak_mib for row in middle} == {100, 400}


def test_the_overview_rows_give_speed_and_error(stand: list[dict[str, Any]]) -> None:
    rows = list(slides.overview_rows(TINY))
    assert len({row.case for row in rows}) == 3
    jpeg = [row for row in rows if "JPEG" in row.case]
    mpx = 1500 * 1830 / 1e6
    assert values(jpeg, "Mpx/s") == {"kit": mpx / 0.5, "openslide by blocks": mpx / 2, "pyvips": mpx / 2}
    assert values(jpeg, "grey levels from the mean of all pixels") == {"kit": 0.0}


def test_the_tile_rows_count_the_pixels_of_the_tissue_squares(
    stand: list[dict[str, Any]], make: Callable[[Spec], Made]
) -> None:
    speeds = values(list(slides.tile_rows(TINY)), "Mpx/s")
    corners = slides.tissue_squares(make(SMALL))
    assert set(speeds) == {"kit", "limit", "openslide", "pyvips", "tifffile"}
    assert (
        speeds["kit"] == pytest.approx(len(corners) * 65536 / 1e6 / 0.5)
        and speeds["limit"] == speeds["kit"] / 4
    )
    assert all(question["corners"] == corners.tolist() for question in stand)


def test_a_square_with_other_pixels_stops_the_benchmark() -> None:
    corners = np.array([(0, 0), (256, 0), (0, 256)])
    slides.check_same("peer", corners, [1, 2, 3], [1, 2, 3])
    with pytest.raises(AssertionError, match=r"1 squares differ from peer's, the first at \[256, 0\]"):
        slides.check_same("peer", corners, [1, 2, 3], [1, 9, 3])


def test_the_kit_reads_the_pixels_that_openslide_reads(make: Callable[[Spec], Made]) -> None:
    slide = make(SMALL)
    whole, corners = pixels(slide), slides.tissue_squares(slide)
    theirs = [slides.checksum(whole[y : y + 256, x : x + 256]) for x, y in corners]
    assert len(corners) > 3 and slides.kit_tiles(slide.path, corners, slides.checksum) == theirs


def test_accuracy_is_that_of_what_was_found(make: Callable[[Spec], Made]) -> None:
    slide = make(SMALL)
    mask = slide.truth.mask
    look = slides.kit_look(slide.path)

    def found(kinds: np.ndarray, factor: int) -> dict[str, float]:
        tissue = slides.tissue.Tissue(look.tissue.background, kinds.astype(np.uint8), ())
        return slides.accuracy(slide, Look(factor, tissue, look.corners))

    recall, precision = (f"{name} of tissue squares" for name in ("recall", "precision"))
    points = "points of tissue share too much"
    exact, full, none = found(mask, 32), found(np.ones_like(mask), 32), found(np.zeros_like(mask), 32)
    assert abs(exact[points]) < 1 and exact[recall] > 0.9 < exact[precision]
    x, _, shares = slide.truth.squares()
    assert full[recall] == 1 and full[precision] == (shares >= 0.25).sum() / len(x)
    assert none[recall] == 0 and none[points] == pytest.approx(-100 * slide.truth.share)


def test_more_tissue_is_more_tiles(stand: list[dict[str, Any]]) -> None:
    rows = list(slides.area_rows(TINY))
    assert len(rows) == len(slides.SHARES) and not stand
    assert [row.value for row in rows] == sorted({row.value for row in rows})


def test_the_report_is_written_with_the_machine(
    stand: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(slides, "QUICK", TINY)
    monkeypatch.setattr(slides, "peers_python", lambda *_: None)
    monkeypatch.setattr(slides.os, "sched_setaffinity", lambda *_: None, raising=False)
    monkeypatch.setattr(
        sys, "argv", ["slides", "--quick", "--case", "tiles", "--json", str(tmp_path / "rows.json")]
    )
    slides.main()
    content = json.loads((tmp_path / "rows.json").read_text())
    assert content["machine"] and {row["system"] for row in content["rows"]} >= {"kit", "limit", "openslide"}
    assert set(content["rows"][0]) == {"case", "system", "wall_s", "cpu_s", "peak_mib", "value", "unit"}
    assert "tiles, 3 Mpx Deflate 30 %" in capsys.readouterr().out


def test_a_peer_that_ends_with_an_error_says_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "peers_python", lambda *_: sys.executable)
    script = tmp_path / "peer.py"
    script.write_text("import json, sys\nprint(json.load(sys.stdin)['a'] + 1)")
    assert environment.ask(script, {"a": 1}, tmp_path, tmp_path) == 2
    with pytest.raises(PeerError, match=r"(?s)peer.py ended with code 1: .*KeyError: 'a'"):
        environment.ask(script, {}, tmp_path, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("system", ["limit", "openslide", "pyvips", "tifffile"])
def test_every_peer_reads_the_same_squares(make: Callable[[Spec], Made], system: str) -> None:
    slide = make(SMALL)
    corners = slides.tissue_squares(slide)
    theirs = slides.answer(system, slide, task="tiles", corners=corners.tolist()).tolist()
    slides.check_same(system, corners, slides.kit_tiles(slide.path, corners, slides.checksum), theirs)


@pytest.mark.slow
@pytest.mark.parametrize("system", slides.BLOCKS)
def test_every_overview_is_the_mean_of_the_pixels(make: Callable[[Spec], Made], system: str) -> None:
    slide = make(SMALL)
    seen = pixels(slide)[:1824, :1488].reshape(114, 16, 93, 16, 3).mean(axis=(1, 3))
    overview = slides.answer(system, slide, task="overview", factor=16)
    assert overview.shape == (115, 94, 3)
    np.testing.assert_allclose(overview[:114, :93], seen, atol=1)
