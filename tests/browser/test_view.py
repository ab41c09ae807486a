"""The viewer as people use it: the list, and a slide that is zoomed and panned, by mouse and by keys."""

from __future__ import annotations

import base64
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
import pytest
import tifffile

from kit.competition import Competition, Tables, TileGrid
from kit.files import write_arrays, write_table
from kit.learn import attention
from kit.metrics import WeightedLogLoss
from kit.read import store, tiles
from kit.show.view import listing
from kit.show.view.pages import Pages
from kit.show.view.server import Server
from kit.state import Run

pytestmark = pytest.mark.slow
Visit = Callable[..., Any]
IMAGES = 70  # more than one page of cards
LABELS = ("A", "B")


def tissue(width: int, height: int) -> np.ndarray:
    """Two clots of texture on glass."""
    y, x = np.ogrid[:height, :width]
    inside = np.hypot(x / width - 0.3, (y / height - 0.3) * height / width) < 0.2
    inside |= np.hypot(x / width - 0.7, (y / height - 0.7) * height / width) < 0.15
    grain = (np.abs((x * 5 + y * 3) % 160 - 80) // 2 + np.abs((x - 2 * y) % 90 - 45)).astype(np.int16)
    stained = np.stack([190 - grain, 90 - grain // 2, 140 - grain], axis=-1)
    return np.where(inside[..., None], stained, 245).astype(np.uint8)


def write_slide(path: Path, pixels: np.ndarray, **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, Any] = {"tile": (128, 128), "compression": "deflate", "predictor": 2, **options}
    tifffile.imwrite(path, pixels, photometric="rgb", **wanted)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Slides of which the first is large, has a resolution and attention, and the last is cut short."""
    folder = tmp_path_factory.mktemp("view")
    names = [f"s{n:03d}" for n in range(IMAGES)]
    for n, name in enumerate(names):
        side = (6000, 4500) if n == 0 else (500, 400)
        told = {"resolution": (40000, 40000), "resolutionunit": "CENTIMETER"} if n == 0 else {}
        write_slide(folder / "data" / f"{name}.tif", tissue(*side), **told)
    (folder / "data" / f"{names[-1]}.tif").write_bytes(b"II*\0 cut short")
    labels = [LABELS[n % 3 == 0] for n in range(IMAGES)]
    table = pd.DataFrame(
        {"image_id": names, "label": labels, "site": [str(n % 4) for n in range(IMAGES)]}, dtype=object
    )
    task = Competition(
        name="slides", classes=LABELS, metric=WeightedLogLoss((0.5, 0.5)), site="site", reader="slide",
        load=lambda data: Tables(table), files="{image_id}.tif",
        tiles=TileGrid(size=64, scale=4, count=9, overview=8),
    )  # fmt: skip
    made = Run(task, "slides", folder / "data", folder / "work", fold_table=folder / "folds.csv")
    tiles.run(made)
    first = np.linspace(0.02, 0.98, IMAGES)
    write_table(
        made.folder("combine") / "oof.csv", pd.DataFrame({"unit_id": names, "p_A": first, "p_B": 1 - first})
    )
    count = len(store.read(store.path_of(made.folder("tile"), "train", names[0])))
    shares = np.arange(1, count + 1, dtype=np.float32)
    write_arrays(
        attention.folder(made) / "net" / "train.npz",
        {"ids": np.array(names[:1]), "counts": np.array([count]), "shares": shares / shares.sum()},
    )
    return made


@pytest.fixture(scope="module")
def site(run: Run) -> Iterator[tuple[str, pd.DataFrame]]:
    """The address of the list, and the images by key."""
    found = listing.gather(run, ["train"])
    pages = Pages(run, found)
    with Server(pages.answer) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server.url, found.table
        server.shutdown()
        thread.join(20)
    pages.close()


@pytest.fixture
def slide(site: tuple[str, pd.DataFrame], visit: Visit) -> Callable[..., Any]:
    """``slide(n, width, dark, name)``: the page of the n-th image, when it can be walked through."""

    def opened(n: int = 0, width: int = 1280, dark: bool = False, name: str = "") -> Any:
        page = visit(f"{site[0]}image/{site[1].index[n]}/", width, dark)
        until(page, "window.view && view.viewer.world.getItemAt(0)?.getFullyLoaded()")
        until(page, "!document.getElementById('layers').hidden || view.overlay.layers.length === 0")
        if name:
            shoot(page, f"{name}-{width}{'-dark' if dark else ''}")
        return page

    return opened


def shoot(page: Any, name: str) -> None:
    """Keep a picture beside those of the other pages."""
    folder = Path(os.environ.get("KIT_SCREENSHOTS", Path(__file__).parents[2] / "work" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png", full_page=True)


def severe(page: Any) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:150]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
    ]


def until(page: Any, expression: str, most: float = 30.0) -> None:
    """Wait until something is so; Playwright's own way lets the page evaluate text, which it forbids."""
    end = time.monotonic() + most
    while not so(page, expression):
        assert time.monotonic() < end, f"it never is: {expression}"
        page.wait_for_timeout(30)


def so(page: Any, expression: str) -> bool:
    """Whether something is so now; it is not while another page is loaded."""
    try:
        return bool(page.evaluate(f"Boolean({expression})"))
    except Exception as error:
        if "context was destroyed" not in str(error):
            raise
        return False


def zoom(page: Any) -> float:
    return float(page.evaluate("view.viewer.viewport.getZoom(false)"))


def centre(page: Any) -> tuple[float, float]:
    found = page.evaluate("(p => [p.x, p.y])(view.viewer.viewport.getCenter(false))")
    return float(found[0]), float(found[1])


def levels(asked: list[str]) -> set[int]:
    """The levels of the tiles that were asked for."""
    return {int(found[1]) for url in asked if (found := re.search(r"/tile/(\d+)/", url))}


def pixels_of(page: Any, canvas: str) -> np.ndarray:
    """What a canvas of the page shows: uint8 (height, width, 4). A copy is read: reading makes it slow."""
    read = """canvas => {
        const copy = document.createElement('canvas');
        Object.assign(copy, { width: canvas.width, height: canvas.height });
        const context = copy.getContext('2d', { willReadFrequently: true });
        context.drawImage(canvas, 0, 0);
        return copy.toDataURL('image/png');
    }"""
    url = page.evaluate(f"({read})({canvas})")
    stream = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    return np.asarray(cv2.imdecode(stream, cv2.IMREAD_UNCHANGED)[..., [2, 1, 0, 3]])


def painted(page: Any) -> int:
    """Pixels of the overlay that are not clear."""
    return int(np.count_nonzero(pixels_of(page, "view.overlay.canvas")[..., 3]))


def test_the_list_shows_every_image_and_only_the_thumbnails_that_are_seen(site: Any, visit: Visit) -> None:
    page = visit(site[0], name="view-list")
    assert page.locator("#cards li").count() == 60
    assert page.locator("#count").text_content() == f"1 to 60 of {IMAGES} images"
    page.get_by_role("button", name="Next page").click()
    assert page.locator("#cards li").count() == IMAGES - 60
    assert (
        page.locator("#cards li").last.text_content().endswith("again")
        or page.locator("#cards li .bad").count() >= 1
    )


def test_the_list_sorts_filters_and_searches(site: Any, visit: Visit) -> None:
    page = visit(site[0])
    ids = "nodes => nodes.map(node => node.textContent)"
    names = page.locator("#cards strong")
    page.get_by_label("Sort by").select_option("loss")
    table = site[1].sort_values("loss", ascending=False)
    assert names.evaluate_all(ids)[:5] == table["image_id"].tolist()[:5]
    page.get_by_role("button", name="Descending").click()
    assert names.evaluate_all(ids)[:5] == table["image_id"].tolist()[::-1][:5]
    page.get_by_label("Label").select_option("B")
    wanted = set(site[1].query("label == 'B'")["image_id"])
    assert set(names.evaluate_all(ids)) == wanted
    page.get_by_label("Prediction").select_option("wrong")
    wanted = set(site[1].query("label == 'B' and p_A > p_B")["image_id"])
    assert set(names.evaluate_all(ids)) == wanted
    assert page.locator("#count").text_content() == f"{len(wanted)} of {IMAGES} images"
    page.get_by_label("Search").fill("s069")
    assert names.evaluate_all(ids) == ["s069"]


def test_the_next_image_is_the_next_of_the_list_as_it_was_sorted(site: Any, visit: Visit) -> None:
    page = visit(site[0])
    page.get_by_label("Sort by").select_option("doubt")
    first, second = page.locator("#cards strong").evaluate_all(
        "nodes => nodes.slice(0, 2).map(n => n.textContent)"
    )
    page.locator("#cards a").first.click()
    until(page, "window.view")
    assert page.locator("h1").text_content() == first
    page.keyboard.press("n")
    until(page, f"document.querySelector('h1').textContent === '{second}' && window.view")
    page.get_by_role("link", name="All images").click()
    page.wait_for_selector("#cards li")
    assert page.get_by_label("Sort by").input_value() == "doubt"  # as it was left


def test_the_wheel_and_a_drag_move_the_view_and_fetch_finer_tiles(slide: Callable[..., Any]) -> None:
    page = slide()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    before = zoom(page)
    page.mouse.move(400, 400)
    for _ in range(12):
        page.mouse.wheel(0, -400)
        page.wait_for_timeout(40)
    until(page, "view.viewer.world.getItemAt(0).getFullyLoaded()")
    assert zoom(page) > 4 * before
    top = int(page.evaluate("view.viewer.world.getItemAt(0).source.maxLevel"))
    assert top in levels(asked)
    at = centre(page)
    page.mouse.move(500, 500)
    page.mouse.down()
    page.mouse.move(300, 350, steps=5)
    page.mouse.up()
    page.wait_for_timeout(300)
    assert centre(page)[0] > at[0] and centre(page)[1] > at[1]


def test_what_is_on_the_screen_is_the_slide(slide: Callable[..., Any], run: Run) -> None:
    page = slide()
    page.evaluate("view.overlay.layers.forEach(layer => layer.on = false); view.overlay.draw()")
    screen, place = pixels_of(page, "view.viewer.drawer.canvas"), page.evaluate("view.overlay.place")
    dense = screen.shape[1] / page.evaluate("view.viewer.canvas.clientWidth")
    pixels = tissue(6000, 4500)
    for x, y in ((100, 100), (1800, 1350), (4200, 3150), (5900, 4400)):
        left, top = (int((place[axis] + at * place["scale"]) * dense) for axis, at in (("x", x), ("y", y)))
        shown = screen[top - 2 : top + 3, left - 2 : left + 3, :3].mean(axis=(0, 1))
        reach = round(2.5 / place["scale"] / dense)
        want = pixels[y - reach : y + reach, x - reach : x + reach].mean(axis=(0, 1))
        assert np.abs(shown - want).max() < 8, (x, y)


@pytest.mark.parametrize("times", [1, 4])
def test_tiles_and_sections_are_drawn_where_the_store_has_them(
    slide: Callable[..., Any], run: Run, times: int
) -> None:
    kept = store.read(store.path_of(run.folder("tile"), "train", "s000"))
    x, y, size = (int(values[0]) for values in (kept.x, kept.y, kept.size))
    number = kept.section[0] + 1
    rows, columns = np.nonzero(kept.sections_map() == number)
    step = 6000 / kept.sections_map().shape[1]
    top = ((columns[rows.argmin()] + 0.5) * step, (rows.min() + 0.5) * step)
    edges = [(x + size / 2, y), (x, y + size / 2), (x + size, y + size / 2), (x + size / 2, y + size)]
    page = slide()
    page.evaluate("view.overlay.layers.forEach(layer => layer.on = false)")
    for index, places in ((-1, edges), (-2, [top])):
        page.evaluate(f"""(view => {{
            view.overlay.layers.at({index}).on = true;
            view.overlay.layers.at({-3 - index}).on = false;
            const viewport = view.viewer.viewport, image = view.viewer.world.getItemAt(0);
            viewport.zoomTo({times} * viewport.getHomeZoom(), null, true);
            viewport.panTo(image.imageToViewportCoordinates({places[0][0]}, {places[0][1]}), true);
            view.overlay.draw();
        }})(view)""")
        page.wait_for_timeout(100)
        drawn = pixels_of(page, "view.overlay.canvas")[..., 3] > 0
        for place in places:
            left, above = page.evaluate(
                "(([x, y]) => (p => [p.x, p.y])(view.viewer.world.getItemAt(0)"
                f".imageToViewerElementCoordinates(new OpenSeadragon.Point(x, y))))([{place[0]}, {place[1]}])"
            )
            row, column = round(above), round(left)
            assert drawn[row - 1 : row + 2, column - 1 : column + 2].any(), place
            if index == -1:
                inward = size * page.evaluate("view.overlay.place.scale") / 2
                across, down = np.sign([x + size / 2 - place[0], y + size / 2 - place[1]]) * min(inward, 9)
                assert not drawn[round(above + down), round(left + across)], place


def test_layers_switch_and_stay_switched_on_the_next_slide(slide: Callable[..., Any]) -> None:
    page = slide(name="view-slide")
    boxes = page.locator("#switches input[type=checkbox]")
    labels = page.locator("#switches label").evaluate_all("nodes => nodes.map(node => node.textContent)")
    assert labels[:2] == ["tissue", "attention: net"] and "chosen tile" in labels[-1]
    for n in range(boxes.count()):
        boxes.nth(n).set_checked(False)
    assert painted(page) == 0
    counts = []
    for n in range(boxes.count()):
        boxes.nth(n).set_checked(True)
        counts.append(painted(page))
        boxes.nth(n).set_checked(False)
    assert min(counts) > 200, dict(zip(labels, counts, strict=True))
    page.get_by_label("attention: net", exact=True).set_checked(True)
    page.locator("#next").click()
    until(page, "window.view && document.querySelector('#switches label')")
    assert not page.get_by_label("tissue", exact=True).is_checked()


def test_everything_can_be_done_with_keys_alone(slide: Callable[..., Any]) -> None:
    page = slide()
    home, middle = zoom(page), centre(page)
    page.keyboard.press("+")
    page.keyboard.press("+")
    assert zoom(page) > 2 * home
    page.keyboard.press("ArrowRight")
    page.keyboard.press("s")
    assert centre(page)[0] > middle[0] and centre(page)[1] > middle[1]
    page.keyboard.press("0")
    assert zoom(page) == pytest.approx(home)
    state = page.locator("#switches input[type=checkbox]").first.is_checked()
    page.keyboard.press("1")
    assert page.locator("#switches input[type=checkbox]").first.is_checked() is not state
    seen = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.add(
            page.evaluate("document.activeElement.textContent.trim() || document.activeElement.className")
        )
    assert {"+Zoom in", "−Zoom out", "All images", "Next", "openseadragon-canvas"} <= seen


def test_buttons_do_what_the_keys_do_and_the_scale_bar_follows(slide: Callable[..., Any]) -> None:
    page = slide()
    before, length = zoom(page), page.locator("#length").text_content()
    assert re.fullmatch(r"[125]0* (µm|mm)", length)
    for _ in range(4):
        page.get_by_role("button", name="Zoom in").click()
    page.wait_for_timeout(800)
    assert zoom(page) == pytest.approx(before * 1.6**4, rel=0.01)
    assert page.locator("#length").text_content() != length
    bar = float(page.evaluate("parseFloat(document.getElementById('bar').style.width)"))
    scale = float(page.evaluate("view.overlay.place.scale"))
    said = page.locator("#length").text_content().split()
    micrometres = float(said[0]) * (1000 if said[1] == "mm" else 1)
    assert bar == pytest.approx(micrometres / 0.25 * scale, rel=0.02)


def test_a_bad_slide_has_a_panel_that_says_why_and_the_next_one_opens(site: Any, visit: Visit) -> None:
    page = visit(f"{site[0]}image/{site[1].index[IMAGES - 1]}/")
    page.wait_for_selector("#trouble:not([hidden])")
    assert "s069.tif" in page.locator("#reason").text_content()
    assert page.locator("#hint").text_content()
    page.keyboard.press("p")
    until(page, "window.view && document.querySelector('h1').textContent === 's068'")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, False), (1280, True), (390, True)])
def test_pages_fit_the_window_and_have_no_serious_finding(
    slide: Callable[..., Any], site: Any, visit: Visit, width: int, dark: bool
) -> None:
    wide = "document.documentElement.scrollWidth"
    page = visit(site[0], width, dark, "view-list")
    page.wait_for_selector("#cards li")
    assert page.evaluate(wide) <= width
    assert severe(page) == []
    page = slide(0, width, dark, "view-slide")
    assert page.evaluate(wide) <= width
    assert severe(page) == []
