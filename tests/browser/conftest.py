"""A browser, and pages that must be silent: no error on the console, and nothing asked of the network."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SHOTS = Path(os.environ.get("KIT_SCREENSHOTS", ROOT / "work" / "screenshots"))
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
Visit = Callable[..., Any]  # visit(url, width=1280, dark=False, name="") -> playwright.sync_api.Page


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium, without a window."""
    api = pytest.importorskip("playwright.sync_api", reason="tests/browser/requirements.txt is not installed")
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium is installed")
    with api.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=[*QUIET])
        yield opened
        opened.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """``visit(url, width, dark, name)``: a page that is open; with a name its picture is kept.

    At the end no page may have had an error, or have asked for anything but what ``url`` is on.
    """
    troubles: list[str] = []
    contexts = []

    def go(url: str, width: int = 1280, dark: bool = False, name: str = "") -> Any:
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.append(f"{said.type}: {said.text}"))
        page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
        origin = url[: url.find("/", url.find("//") + 2)]

        def asked(request: Any) -> None:
            if not request.url.startswith((origin, "data:", "blob:")):
                troubles.append(f"it asked for {request.url}")

        page.on("request", asked)
        page.goto(url)
        if name:
            SHOTS.mkdir(parents=True, exist_ok=True)
            kind = f"{name}-{width}{'-dark' if dark else ''}"
            page.screenshot(path=SHOTS / f"{kind}.png", full_page=True)
        return page

    yield go
    for context in contexts:
        context.close()
    assert troubles == []


@pytest.fixture(scope="session")
def kit(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``kit(name, *stages)``: the folder in which these were run on a small demo, each once."""
    done: set[tuple[str, str]] = set()
    folders: dict[str, Path] = {}

    def work(name: str, *stages: str) -> Path:
        folder = folders.setdefault(name, tmp_path_factory.mktemp(name))
        for stage in stages:
            if (name, stage) in done:
                continue
            command = [str(ROOT / "run_all.py")] if stage == "flow" else ["-m", "kit", *stage.split()]
            small = ["--set", "demo.largest=0"] if name == "strip-ai" else []
            ended = subprocess.run(
                [sys.executable, command[0], *command[1:], name, *small],
                cwd=folder, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
            )  # fmt: skip
            assert ended.returncode == 0, ended.stderr
            done.add((name, stage))
        return folder

    return work
