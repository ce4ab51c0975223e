"""Daemons of older oVirt, which can less and say so, or say nothing: what they do is known from
ovirt-imageio's client, which tells how each kind answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.fakes.http_server import QuietHandler, QuietServer, running
from tests.outputs.ovirt.uploads import copied, holey, sink_to, source
from v2v.outputs._ovirt.places import Transfer
from v2v.types import MiB

SIZE = 8 * MiB
SAYS: dict[str, tuple[int, dict[str, object]]] = {
    "no OPTIONS": (405, {}),
    "a proxy without content": (204, {}),
    "no features": (200, {"features": []}),
    "no extents, one writer": (200, {"features": ["zero", "flush"], "max_writers": 1}),
    "no number of writers": (200, {"features": ["zero", "flush", "extents"]}),
}


@pytest.mark.parametrize("says", SAYS)
@pytest.mark.parametrize("is_zero", [True, False])
def test_what_a_daemon_cannot_do_is_done_otherwise(says: str, is_zero: bool) -> None:
    content, disk = holey(SIZE, seed=21), bytearray(SIZE if is_zero else b"x" * SIZE)
    asked: list[str] = []
    with source(content) as server, older(disk, *SAYS[says], asked) as port:
        transfer = Transfer(url=f"http://127.0.0.1:{port}/images/t", size=SIZE)
        with sink_to(transfer, is_zero=is_zero) as sink:
            assert sink.workers == 1
            result, _ = copied(server.endpoint(), sink, verify=1.0)
            extents = list(sink.extents())
    assert disk == content
    assert result.verified == 1.0
    assert (extents[0].offset, extents[-1].end) == (0, SIZE)
    features = SAYS[says][1].get("features", [])
    assert ("PATCH" in asked) is bool(features)


@contextmanager
def older(
    disk: bytearray, status: int, options: dict[str, object], asked: list[str]
) -> Iterator[int]:
    """A daemon whose answer to OPTIONS is this; it does not know what it does not name."""
    features = options.get("features", [])
    assert isinstance(features, list)

    class Handler(QuietHandler):
        def do_OPTIONS(self) -> None:
            self._answer(status, b"" if status != 200 else json.dumps(options).encode())

        def do_PUT(self) -> None:
            asked.append("PUT")
            assert ("flush" in features) is self.path.endswith("flush=n")
            start = int(self.headers["Content-Range"].split()[1].split("-")[0])
            length = int(self.headers["Content-Length"])
            disk[start : start + length] = self.rfile.read(length)
            self._answer(200)

        def do_PATCH(self) -> None:
            asked.append("PATCH")
            order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert order["op"] in features
            if order["op"] == "zero":
                start, length = order["offset"], order["size"]
                disk[start : start + length] = bytes(length)
            self._answer(200)

        def do_GET(self) -> None:
            if "/extents" in self.path:
                everything = [{"start": 0, "length": len(disk), "zero": False, "hole": False}]
                return self._answer(200, json.dumps(everything).encode())
            if "Range" not in self.headers:
                return self._answer(200, bytes(disk))
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            return self._answer(206, bytes(disk[first : last + 1]))

        def _answer(self, status: int, content: bytes = b"") -> None:
            self.send_response(status)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    with running(QuietServer(Handler)) as server:
        yield server.server_port
