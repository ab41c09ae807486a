"""Small runs to walk through, and the server that shows them."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from kit.competition import Competition, Tables, TileGrid
from kit.metrics import WeightedLogLoss
from kit.show.view import listing
from kit.show.view.pages import Pages
from kit.show.view.server import Server
from kit.state import Run

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Got:
    """What came back."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes


@dataclass(frozen=True)
class Site:
    """A server that runs, and how it is asked."""

    server: Server
    pages: Pages
    table: pd.DataFrame

    def get(self, path: str, method: str = "GET", host: str | None = None) -> Got:
        """Ask for an address as it is written, below the token unless it starts with a slash."""
        parts = urlsplit(self.server.url)
        connection = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=20)
        whole = path if path.startswith("/") else parts.path + path
        try:
            connection.putrequest(method, whole, skip_host=True)
            connection.putheader("Host", parts.netloc if host is None else host)
            connection.endheaders()
            answer = connection.getresponse()
            return Got(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def key(self, image_id: str) -> str:
        """The key of an image."""
        return str(self.table.index[self.table["image_id"] == image_id][0])


def texture(width: int, height: int) -> Pixels:
    """Something of every scale, the same each time."""
    y, x = np.ogrid[:height, :width]
    waves = [x * 7 + y * 3, x + 2 * y, 3 * x - y + 5 * (y // 40)]
    return np.stack([np.abs(wave % 510 - 255) for wave in waves], axis=-1).astype(np.uint8)


def write_slide(path: Path, pixels: Pixels) -> None:
    """As the competition's slides are: one level, tiles of 128, Deflate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(128, 128), compression="deflate", predictor=2)


def task(rows: list[tuple[str, str]], reader: str = "slide", **fields: object) -> Competition:
    """A competition of images in files: ``(image_id, file)``, labelled a and b in turn."""
    table = pd.DataFrame(rows, columns=["image_id", "file"], dtype=object)
    table["label"] = ["ab"[n % 2] for n in range(len(rows))]
    test = pd.DataFrame({"image_id": ["t"], "file": ["t.tif"]}, dtype=object)
    settings: dict[str, object] = {"tiles": TileGrid(), "load": lambda data: Tables(table, test)}
    return Competition(
        name="made", classes=("a", "b"), metric=WeightedLogLoss((0.5, 0.5)), files="{file}", reader=reader,
        **(settings | fields),  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="session")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of a ragged size, a second one, one that is no image, and a file that is nobody's."""
    folder = tmp_path_factory.mktemp("slides")
    write_slide(folder / "data" / "one.tif", texture(1333, 2100))
    write_slide(folder / "data" / "t.tif", texture(700, 500))
    (folder / "data" / "bad.tif").write_text("no slide")
    (folder / "secret.txt").write_text("secret")
    return folder


def slides_of(folder: Path, work: Path) -> Run:
    """A run over them; the id of one image is a path, and the file of one is not there."""
    rows = [("one", "one.tif"), ("bad", "bad.tif"), ("../secret.txt", "one.tif"), ("gone", "gone.tif")]
    return Run(task(rows), "made", folder / "data", work, fold_table=work / "folds.csv")


@pytest.fixture
def slides_run(slides: Path, tmp_path: Path) -> Run:
    return slides_of(slides, tmp_path / "work")


@pytest.fixture
def photos_run(tmp_path: Path) -> Run:
    """Two photographs."""
    data = tmp_path / "data"
    data.mkdir()
    for name, size in (("p.png", (300, 200)), ("q.png", (40, 30))):
        Image.fromarray(texture(*size)).save(data / name)
    return Run(task([("p", "p.png"), ("q", "q.png")], "photo"), "made", data, tmp_path / "work",
               fold_table=tmp_path / "folds.csv")  # fmt: skip


@contextmanager
def serving(run: Run, splits: Sequence[str] = ("train", "test")) -> Iterator[Site]:
    """The pages of a run on a free port."""
    found = listing.gather(run, splits)
    pages = Pages(run, found)
    try:
        with Server(pages.answer) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
            thread.start()
            try:
                yield Site(server, pages, found.table)
            finally:
                server.shutdown()
                thread.join(20)
    finally:
        pages.close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Site]]:
    """``serve(run)``: see `serving`; until the test ends."""
    with ExitStack() as stack:
        yield lambda *given: stack.enter_context(serving(*given))


@pytest.fixture(scope="module")
def site(slides: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The slides, served to all tests of a module."""
    with serving(slides_of(slides, tmp_path_factory.mktemp("site") / "work")) as found:
        yield found
