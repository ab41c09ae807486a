"""``kit view``: serve the images of a run on this machine until Ctrl-C."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path

from kit.command import Said
from kit.files import sweep
from kit.show.view import listing
from kit.show.view.pages import Pages
from kit.show.view.server import Server
from kit.state import Run

log = logging.getLogger("kit")


def run(run: Run, options: argparse.Namespace) -> Said:
    """Serve until Ctrl-C; the address, with its token, is printed.

    Raises:
        SettingError: there is nothing to list, or the port cannot be used.
        DataError: a table breaks a rule.
    """
    found = listing.gather(run, options.split)
    for note in found.notes:
        log.info("view: %s", note)
    sweep(run.folder("view"))
    pages, before = Pages(run, found), signal.getsignal(signal.SIGINT)
    try:
        with Server(pages.answer, options.port) as server, opened(server.url if options.open else ""):
            print(f"view: {len(found.table):,} images of {run.name}: {server.url}", flush=True)
            print("view: the address is for you alone; Ctrl-C ends it", flush=True)
            with suppress(KeyboardInterrupt):
                server.serve_forever(poll_interval=0.25)
            # An exception now would leave threads inside of a decoder. Nothing is lost: overviews are kept in
            # one step, and what is left of one is swept away next time.
            signal.signal(signal.SIGINT, lambda *_: os._exit(130))
            log.info("\nview: it ends when what is being read is done; Ctrl-C again ends it at once")
    finally:
        pages.close()
        signal.signal(signal.SIGINT, before)
    return "view: goodbye", 0


@contextmanager
def opened(url: str) -> Iterator[None]:
    """Open an address in the browser, if there is one: by a file that only its owner can read.

    On a command line every user of the machine could see the token.
    """
    if not url:
        yield
        return
    handle, name = tempfile.mkstemp(prefix="kit-view-", suffix=".html")
    with os.fdopen(handle, "w") as stream:
        stream.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(url)}">\n')
    try:
        if not webbrowser.open(Path(name).as_uri()):
            log.info("view: no browser was found; copy the address")
        yield
    finally:
        Path(name).unlink(missing_ok=True)
