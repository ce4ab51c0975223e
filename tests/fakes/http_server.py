"""Web servers for tests: what all of them are made from, and one of a folder, with or without
support for Range, or a password."""

from __future__ import annotations

import base64
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TypeVar

CHUNK = 256 * 1024  # bytes; files may be larger than memory


class QuietServer(ThreadingHTTPServer):
    """On a free port of this machine, or the one that is given; HTTPS with a `context`."""

    def __init__(
        self,
        handler: type[BaseHTTPRequestHandler],
        context: ssl.SSLContext | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), handler)
        if context is not None:  # shaking hands is for the connection's own thread
            self.socket = context.wrap_socket(
                self.socket, server_side=True, do_handshake_on_connect=False
            )

    def handle_error(self, *args: object) -> None:
        """A client that goes away, or does not trust us, is nothing to print."""


class QuietHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: object) -> None:
        """The test's output is not the place."""


AnyServer = TypeVar("AnyServer", bound=QuietServer)


@contextmanager
def running(server: AnyServer) -> Iterator[AnyServer]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_folder(
    folder: Path,
    *,
    ranges: bool = True,
    login: tuple[str, str] | None = None,
    cut: int | None = None,
    moved: str = "",
    shift: int = 0,
) -> Iterator[str]:
    """Serve the files of `folder`; gives the address, http://127.0.0.1:PORT.

    `cut` is after how many bytes of an answer the connection is closed. Parts that do not begin
    with the first byte are sent from `shift` bytes behind it. Who asks for /moved/FILE is sent on
    to FILE of the address `moved`, or of this one.
    """

    class Handler(QuietHandler):
        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def _answer(self, *, send_body: bool) -> None:
            path = folder / self.path.lstrip("/")
            if login and self.headers.get("Authorization") != _basic(*login):
                self._head(401, {"WWW-Authenticate": 'Basic realm="test"'}, 0)
            elif self.path.startswith("/moved/"):
                self._head(302, {"Location": moved + self.path.removeprefix("/moved")}, 0)
            elif not path.is_file():
                self._head(404, {}, 0)
            else:
                self._send(path, send_body=send_body)

        def _send(self, path: Path, *, send_body: bool) -> None:
            size = path.stat().st_size
            modified = formatdate(path.stat().st_mtime, usegmt=True)
            start, end, status, extra = 0, size, 200, {"Last-Modified": modified}
            if ranges:
                extra["Accept-Ranges"] = "bytes"
                if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
                    start = int(match[1])
                    start += shift if start else 0
                    end = min(int(match[2] or size) + 1, size)
                    status = 206
                    extra["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            self._head(status, extra, end - start)
            if send_body:
                self._send_body(path, start, end)

        def _send_body(self, path: Path, start: int, end: int) -> None:
            stop = end if cut is None else min(end, start + cut)
            with path.open("rb") as file:
                file.seek(start)
                for at in range(start, stop, CHUNK):
                    self.wfile.write(file.read(min(CHUNK, stop - at)))
            self.close_connection = stop < end

        def _head(self, status: int, extra: dict[str, str], length: int) -> None:
            self.send_response(status)
            for name, value in extra.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

    with running(QuietServer(Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
