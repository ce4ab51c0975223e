"""HTTPS servers in a thread, for the fakes of Kubernetes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.fakes.vsphere.certificates import Certificate


class Handler(QuietHandler):
    def answer(self, status: int, content: Any = None) -> None:
        body = content.encode() if isinstance(content, str) else json.dumps(content or {}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))


@contextmanager
def serve(handler: type[Handler], certificate: Certificate) -> Iterator[str]:
    """Gives the address: https://127.0.0.1:PORT."""
    with running(QuietServer(handler, certificate.context)) as server:
        yield f"https://127.0.0.1:{server.server_port}"
