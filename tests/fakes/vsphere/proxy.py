"""What stands before the simulator: TLS, sessions that end, /folder, answers for libvirt."""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.fakes.http_server import QuietServer
from tests.fakes.vsphere.folder import COOKIE, Folder

UPSTREAM_SECONDS = 60.0
LEFT_SECONDS = 120.0
ARRAY = re.compile(rb'XMLSchema-instance:type="ArrayOf([A-Z]\w*)">(.*?)</val>', re.DOTALL)
NOT_PASSED_ON = ("connection", "content-length", "transfer-encoding", "host", "accept-encoding")


class Front(QuietServer):
    """An HTTPS server: what asks for /folder is answered here, all else by the simulator."""

    request_queue_size = 128

    def __init__(self, folder: Folder, certificate: ssl.SSLContext, upstream: int) -> None:
        super().__init__(_Handler)
        self.folder = folder
        self.upstream = upstream  # the port of the simulator
        self.certificate = certificate  # a test may put another in its place
        # What the simulator cannot say: (request, its answer) to the answer that is given.
        self.rewrite: Callable[[bytes, bytes], bytes] = lambda request, answer: answer
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        """The handshake is for the connection's own thread: nobody waits for another one's."""
        plain, address = self.socket.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wrapped = self.certificate.wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        )
        self._connections.add(wrapped)
        return wrapped, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """Break those that there are, in whatever they are; new ones are taken."""
        for one in list(self._connections):
            with suppress(OSError):
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    def connections(self) -> set[socket.socket]:
        return set(self._connections)

    def wait_until_left(self, *, since: set[socket.socket]) -> None:
        """Until all is done that those asked for who have connected since, and they are gone."""
        deadline = time.monotonic() + LEFT_SECONDS
        with socket.create_connection(self.server_address) as last:  # taken after the others
            while last.getsockname() not in self._peers():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        while self.connections() - since:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def _peers(self) -> set[object]:
        found = set()
        for one in self.connections():
            with suppress(OSError):  # it has just left
                found.add(one.getpeername())
        return found

    def end(self) -> None:
        """Take no connection any more, and break those that there are."""
        self.shutdown()
        self.server_close()
        self.drop_connections()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Front

    def do_GET(self) -> None:
        if self.path.startswith("/folder/"):
            self.server.folder.answer(self)
        else:
            self._pass_on()

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        content = self.rfile.read(length)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in NOT_PASSED_ON}
        if not self._is_known():
            headers.pop("Cookie", None)
        upstream = http.client.HTTPConnection(
            "127.0.0.1", self.server.upstream, timeout=UPSTREAM_SECONDS
        )
        upstream.request(self.command, self.path, content, headers)
        answer = upstream.getresponse()
        self._send(answer, self.server.rewrite(content, with_types(answer.read())))
        upstream.close()

    def _is_known(self) -> bool:
        found = COOKIE.search(self.headers.get("Cookie") or "")
        return found is not None and found[1] in self.server.folder.sessions

    def _send(self, answer: http.client.HTTPResponse, content: bytes) -> None:
        self.send_response(500 if b":Fault>" in content else answer.status)
        for name, value in answer.getheaders():
            if name.lower() in NOT_PASSED_ON:
                continue
            if found := COOKIE.match(value):
                self.server.folder.sessions.add(found[1])
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


def with_types(answer: bytes) -> bytes:
    """The elements of each ArrayOfX say that they are X, as those of a real server do.

    libvirt's driver takes nothing else for one.
    """

    def one(found: re.Match[bytes]) -> bytes:
        name, elements = found[1], found[2]
        bare = rb"<" + name + rb"(?=[ >])(?![^>]*instance:type)"
        elements = re.sub(bare, b"<" + name + b' xsi:type="' + name + b'"', elements)
        return b'XMLSchema-instance:type="ArrayOf' + name + b'">' + elements + b"</val>"

    return ARRAY.sub(one, answer) if answer.startswith(b"<?xml") else answer


@contextmanager
def serve_front(folder: Folder, certificate: ssl.SSLContext, upstream: int = 0) -> Iterator[Front]:
    """Serve on a free port until the block ends."""
    front = Front(folder, certificate, upstream)
    thread = threading.Thread(target=front.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield front
    finally:
        folder.ended.set()
        front.end()
        thread.join()
