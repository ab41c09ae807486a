"""The viewer's server: for this machine alone, and only for who knows its token.

The token is the first part of every address and not a cookie: a browser sends cookies of 127.0.0.1 to every
port of it, so to any other server of this machine, whoever runs it. No page of ours tells its address to
another (``no-referrer``), and none can be framed or loaded by one.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any

from kit.errors import SettingError
from kit.show.view.pages import Answer, plain

HOME = "127.0.0.1"
WORKERS = 32  # connections that are answered at once
PATIENCE = 2.0  # seconds that one more waits for its turn
SILENCE = 10.0  # seconds without a byte, after which a connection is given up
ARRIVAL = 15.0  # seconds that a request may take to come
HURRY = 2.0  # ... where others wait for their turn
HEAD = 2**16  # bytes of the lines after the first: a browser sends the cookies of every port of this machine
KEEP = 300  # seconds that a browser keeps tiles
EMPTY = "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"  # of a style that says nothing
POLICY = (
    f"default-src 'none'; img-src 'self' data: blob:; script-src 'self'; style-src 'self' {EMPTY};"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Connection": "close",
}
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

log = logging.getLogger("kit")


class Server(ThreadingHTTPServer):
    """Answers from ``answer(path)``, which is given what follows the token.

    Args:
        port: of 127.0.0.1; 0: a free one.

    Raises:
        SettingError: the port is taken, or may not be used.
    """

    request_queue_size = 256
    daemon_threads = False  # none may be inside of a decoder when the interpreter ends

    def __init__(self, answer: Callable[[str], Answer], port: int = 0) -> None:
        self.answer, self.token = answer, secrets.token_urlsafe(32)
        self._slots = threading.BoundedSemaphore(WORKERS)
        self._lock = threading.Lock()
        self._awaited: dict[socket.socket, float] = {}  # connections without a request yet, and until when
        try:
            super().__init__((HOME, port), _Handler)
        except OSError as error:
            hint = "leave --port out: a free one is taken"
            raise SettingError(f"port {port} of {HOME} cannot be used: {error.strerror}", hint) from error
        self.hosts = hosts(self.server_port)

    @property
    def url(self) -> str:
        """Where the page is, token and all."""
        return f"http://{HOME}:{self.server_port}/{self.token}/"

    def server_bind(self) -> None:
        """Without the look-up of a name that `HTTPServer` makes."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOME, self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        """Give a connection to a thread of its own, or send it away where all are at work."""
        if not self._slots.acquire(blocking=False):
            self._give_up(time.monotonic() + ARRIVAL - HURRY)  # silent ones are in the way of this one
            if not self._slots.acquire(timeout=PATIENCE):
                self._send_away(request)
                return
        with self._lock:
            self._awaited[request] = time.monotonic() + ARRIVAL
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system gives no more threads
            self._slots.release()
            self._send_away(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base class; the next one may come."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.arrived(request)
            self._slots.release()

    def arrived(self, request: Any) -> None:
        """The request of a connection is there."""
        with self._lock:
            self._awaited.pop(request, None)

    def service_actions(self) -> None:
        """Give up connections that send their request too slowly: one byte at a time would never end."""
        self._give_up(time.monotonic())

    def server_close(self) -> None:
        """Wait for what is being answered, and not for connections that a browser keeps in store."""
        self._give_up(float("inf"))
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Of who went away, or was sent away by Ctrl-C, nothing is said; anything else is a bug."""
        if not isinstance(sys.exc_info()[1], OSError):  # of the connection: `answer` raises nothing
            log.exception("view: a request failed")

    def _give_up(self, now: float) -> None:
        """End the connections whose request should have come by ``now``."""
        with self._lock:
            late = [request for request, until in self._awaited.items() if until < now]
        for request in late:
            self.arrived(request)
            with contextlib.suppress(OSError):  # it has gone away by itself
                request.shutdown(socket.SHUT_RDWR)

    def _send_away(self, request: Any) -> None:
        with contextlib.suppress(OSError):
            request.settimeout(0.2)
            request.recv(65536)  # what is not read would make the system cut the answer off
            request.sendall(BUSY)
        self.shutdown_request(request)


def hosts(port: int) -> set[str]:
    """What a browser may call this machine: the port of HTTP itself it leaves out.

    >>> sorted(hosts(8000))
    ['127.0.0.1:8000', 'localhost:8000']
    """
    names = {HOME, "localhost"}
    return {f"{name}:{port}" for name in names} | (names if port == 80 else set())


class _Head:
    """The lines of a request as they come, and no more of them than a bound: floods would fill the memory."""

    def __init__(self, stream: BufferedIOBase) -> None:
        self._stream, self._left = stream, HEAD
        self.close = stream.close

    def readline(self, most: int) -> bytes:
        """As of a file.

        Raises:
            LineTooLong: the bound is passed; the base class answers 431.
        """
        line = self._stream.readline(min(most, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("header")
        return line


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer; the connection is closed after it."""

    server: Server
    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # of what says none: it gets headers too
    timeout = SILENCE

    def parse_request(self) -> bool:
        """As the base class, within bounds."""
        self.rfile = _Head(self.rfile)  # type: ignore[assignment]
        return super().parse_request()

    def do_GET(self) -> None:
        self.server.arrived(self.connection)
        self._send(self._answer())

    do_HEAD = do_GET

    def _answer(self) -> Answer:
        """Who asks is checked before what is asked for."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            return plain(403, "this page is for this machine alone: use the address that the command printed")
        token, slash, rest = self.path.removeprefix("/").partition("/")
        # As bytes: of other characters it would raise.
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()) or not slash:
            return plain(403, "the token is missing or wrong: use the address that the command printed")
        return self.server.answer("/" + rest)

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.code)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if answer.code != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", answer.kind)
            self.send_header("Content-Length", str(len(answer.body)))
        self.send_header("Cache-Control", f"private, max-age={KEEP}" if answer.keep else "private, no-store")
        if answer.again:
            self.send_header("Retry-After", str(answer.again))
        if answer.code == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class finds wrong with a request, without a word of it in the answer."""
        self.server.arrived(self.connection)
        if code == HTTPStatus.NOT_IMPLEMENTED:  # so it calls every method that has no function
            code = HTTPStatus.METHOD_NOT_ALLOWED
        self.close_connection = True
        self.request_version = self.request_version or "HTTP/1.1"
        self._send(plain(code, HTTPStatus(code).phrase))

    def version_string(self) -> str:
        """Nobody has to know which Python this is."""
        return "kit"

    def log_message(self, format: str, *words: Any) -> None:
        """Nothing: addresses hold the token."""
