"""Who is answered, and that nothing brings the server down."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest

from kit.errors import SettingError
from kit.show.view import server as served
from kit.show.view.pages import Answer, plain
from kit.show.view.server import Server


def raw(site: Any, words: bytes, wait: float = 5.0) -> bytes:
    """Send bytes as they are; what comes back until the connection is closed."""
    with socket.create_connection(("127.0.0.1", site.server.server_port), timeout=wait) as connection:
        connection.sendall(words)
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while part := connection.recv(65536):
                found += part
        return found


def asked(site: Any, path: str) -> bytes:
    """A request as bytes."""
    server = site.server
    return f"GET /{server.token}/{path} HTTP/1.1\r\nHost: localhost:{server.server_port}\r\n\r\n".encode()


def test_the_server_listens_on_this_machine_alone(site: Any) -> None:
    assert site.server.server_address[0] == "127.0.0.1"
    assert site.server.url.startswith("http://127.0.0.1:")
    assert len(site.server.token) >= 40


def test_a_token_is_new_each_time(serve: Callable[..., Any], slides_run: Any) -> None:
    assert serve(slides_run).server.token != serve(slides_run).server.token


@pytest.mark.parametrize("path", ["", "list.json", "static/view.css", "static/openseadragon.min.js"])
def test_pages_data_and_static_files_need_the_token(site: Any, path: str) -> None:
    token = site.server.token
    assert site.get(path).status == 200
    for wrong in ("", token[:-1], token + "x", token.swapcase(), "%s", "é", token[:-1] + "é"):
        address = f"/{wrong}/{path}".encode().decode("latin-1")
        found = raw(
            site,
            f"GET {address} HTTP/1.1\r\nHost: 127.0.0.1:{site.server.server_port}\r\n\r\n".encode("latin-1"),
        )
        assert found.startswith(b"HTTP/1.1 403 "), wrong
    assert site.get("/").status == site.get(f"/{token}").status == 403


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1", "127.0.0.1:1", "localhost", "", "[::1]:{port}", "evil.example:{port}",
        "127.0.0.1:{port}.evil.example", "127.0.0.1:{port}@evil",
    ],
)  # fmt: skip
def test_a_foreign_host_is_refused_whatever_it_knows(site: Any, host: str) -> None:
    assert site.get("list.json", host=host.format(port=site.server.server_port)).status == 403


def test_this_machine_has_two_names_and_they_are_told_once(site: Any) -> None:
    port = site.server.server_port
    assert site.get("list.json", host=f"localhost:{port}").status == 200
    ask = f"GET /{site.server.token}/list.json HTTP/1.1\r\n"
    assert raw(site, f"{ask}\r\n".encode()).startswith(b"HTTP/1.1 403 ")
    twice = f"{ask}Host: 127.0.0.1:{port}\r\nHost: evil.example\r\n\r\n"
    assert raw(site, twice.encode()).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "NONSENSE"]
)
def test_only_reading_is_allowed(site: Any, method: str) -> None:
    found = site.get("list.json", method=method)
    assert found.status == 405
    assert found.headers["Allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(site: Any) -> None:
    head, get = site.get("list.json", method="HEAD"), site.get("list.json")
    assert head.status == 200 and head.body == b""
    assert head.headers["Content-Length"] == str(len(get.body))


@pytest.mark.parametrize("path", ["", "static/view.css", "nothing", "/wrong/"])
def test_every_answer_forbids_to_frame_sniff_or_tell_the_address(site: Any, path: str) -> None:
    headers = site.get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"].startswith("private")
    assert "Python" not in str(headers) and headers["Set-Cookie"] is None


def test_a_bug_is_told_to_the_console_and_not_to_the_page(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(site.pages.slides, "state", lambda key: 1 / 0)
    with caplog.at_level(logging.ERROR, logger="kit"):
        found = site.get(f"image/{site.key('one')}/status.json")
    assert found.status == 500
    assert b"Traceback" not in found.body and b"Zero" not in found.body
    assert "ZeroDivisionError" in caplog.text


def test_two_hundred_requests_at_once_are_all_served_or_told_to_come_again(site: Any) -> None:
    key = site.key("one")
    paths = ["list.json", "static/style.css", f"image/{key}/tile/12/0_0.jpg", f"image/{key}/tile/11/1_1.jpg"]
    with ThreadPoolExecutor(200) as pool:
        found = list(pool.map(site.get, paths * 50))
    assert {answer.status for answer in found} <= {200, 503}
    assert all(answer.headers["Retry-After"] for answer in found if answer.status == 503)
    assert sum(answer.status == 200 for answer in found) >= 150
    assert site.get("list.json").status == 200


def test_where_all_are_at_work_the_next_one_is_told_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "WORKERS", 2)
    monkeypatch.setattr(served, "PATIENCE", 0.05)

    def slow(path: str) -> Answer:
        time.sleep(0.6)
        return plain(200, "late")

    with running(slow) as site, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: raw(site, asked(site, "")), range(4)))
    assert sorted(answer[9:12] for answer in found) == [b"200", b"200", b"503", b"503"]
    assert all(b"Retry-After: 1" in answer for answer in found if b" 503 " in answer)


def test_a_connection_that_sends_one_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "ARRIVAL", 0.3)
    with running(lambda path: plain(200, "")) as site:
        connection = socket.create_connection(("127.0.0.1", site.server.server_port), timeout=5)
        start = time.monotonic()
        with connection, contextlib.suppress(ConnectionError):
            while time.monotonic() - start < 4:
                connection.sendall(b"x")
                connection.settimeout(0.05)
                with contextlib.suppress(TimeoutError):
                    if connection.recv(1) == b"":
                        break
        assert time.monotonic() - start < 3


def test_silent_connections_give_way_to_one_that_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served, "WORKERS", 2)
    monkeypatch.setattr(served, "HURRY", 0.2)
    monkeypatch.setattr(served, "PATIENCE", 0.3)
    with running(lambda path: plain(200, "")) as site, contextlib.ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(socket.create_connection(("127.0.0.1", site.server.server_port), timeout=9))
        start = time.monotonic()
        assert raw(site, asked(site, ""), wait=9).startswith(b"HTTP/1.1 200 ")
        assert time.monotonic() - start < 5  # and not `SILENCE` a pair


def test_a_flood_of_headers_is_cut_off_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    readline = served._Head.readline

    def counted(head: Any, most: int) -> bytes:
        line = readline(head, most)
        read.append(len(line))
        return line

    monkeypatch.setattr(served._Head, "readline", counted)
    with running(lambda path: plain(200, "")) as site:
        flood = b"GET / HTTP/1.1\r\n" + (b"X: " + b"y" * 60000 + b"\r\n") * 90 + b"\r\n"
        with contextlib.suppress(ConnectionError):  # what is not read makes the system reset it
            assert raw(site, flood)[:13] in (b"", b"HTTP/1.1 431 ")
        assert sum(read) <= served.HEAD
        assert raw(site, asked(site, "")).startswith(b"HTTP/1.1 200 ")


def test_a_browser_leaves_the_port_of_http_out() -> None:
    assert served.hosts(80) == {"127.0.0.1", "localhost", "127.0.0.1:80", "localhost:80"}
    assert served.hosts(8080) == {"127.0.0.1:8080", "localhost:8080"}


def test_a_client_that_goes_away_leaves_no_word(
    site: Any, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    with caplog.at_level(logging.DEBUG, logger="kit"):
        for _ in range(10):
            connection = socket.create_connection(("127.0.0.1", site.server.server_port))
            connection.sendall(asked(site, "static/openseadragon.min.js"))
            # Closed with a reset, at once: what is written meets a broken pipe.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
        assert site.get("list.json").status == 200
    assert caplog.text == "" and capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (b"\r\n\r\n", b""),
        (b"nonsense\r\n\r\n", b"40"),
        (b"GET / HTTP/9.9\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n\r\n", b"414"),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n", b"431"),
        (b"\x00\xff\xfe\r\n\r\n", b"40"),
    ],
)
def test_what_is_no_request_gets_an_error_and_no_echo(site: Any, words: bytes, status: bytes) -> None:
    found = raw(site, words)
    assert status in found[:40]
    assert b"aaaa" not in found and b"nonsense" not in found and b"Traceback" not in found
    assert site.get("list.json").status == 200


def test_a_port_that_is_taken_is_said_with_what_to_type(site: Any) -> None:
    with pytest.raises(SettingError, match="cannot be used") as caught:
        Server(site.pages.answer, site.server.server_port)
    assert "--port" in caught.value.hint


def test_a_connection_that_ctrl_c_has_closed_is_no_bug(caplog: pytest.LogCaptureFixture) -> None:
    with running(lambda path: plain(200, "")) as site:
        try:
            raise OSError(errno.EBADF, "Bad file descriptor")
        except OSError:
            site.server.handle_error(None, None)
        assert caplog.text == ""
        try:
            raise KeyError("a bug")
        except KeyError:
            site.server.handle_error(None, None)
        assert "a bug" in caplog.text


@contextlib.contextmanager
def running(answer: Callable[[str], Answer]) -> Any:
    """A server of its own answer."""
    with Server(answer) as found:
        thread = Thread(target=found.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield SimpleNamespace(server=found)
        finally:
            found.shutdown()
            thread.join(10)
