"""CDI's upload proxy, and the pod behind it, which converts what it gets with qemu-img."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.fakes.kubernetes.server import Handler

if TYPE_CHECKING:
    from tests.fakes.kubernetes.cluster import Fake

SYNC = "/v1beta1/upload"
BEARER = re.compile(r"Bearer\s+([A-Za-z0-9\-._~+/]+)")


def proxy_handler(fake: Fake) -> type[Handler]:
    class Proxy(Handler):
        def do_GET(self) -> None:
            fake.silence.wait(60)
            self.answer(200 if self.path == "/healthz" else 404, "OK")

        def do_HEAD(self) -> None:
            self.answer(self._refusal() or 200)

        def do_POST(self) -> None:
            self.close_connection = True
            if refusal := self._refusal():
                self.answer(refusal, "")
                return
            namespace, name = fake.tokens.pop(self._token())
            fake.uploads.append(name)
            if fake.answers:
                self.answer(*fake.answers.pop(0))
                return
            sent = fake.folder / f"sent-{uuid4()}"  # one whose client died may still be there
            try:
                if self._take(sent):
                    with fake.lock:
                        self.answer(*fake.fill(namespace, name, sent))
            finally:
                sent.unlink(missing_ok=True)

        def _token(self) -> str:
            match = BEARER.fullmatch(self.headers.get("Authorization", ""))
            return match[1] if match else ""

        def _refusal(self) -> int:
            """Of CDI's pkg/uploadproxy; 0 is none."""
            if self.path != SYNC and not (fake.asynchronous and self.path == f"{SYNC}-async"):
                return 404
            if not self._token():
                return 400
            if self._token() not in fake.tokens:
                return 401
            volume = fake.objects.get(("datavolumes", *fake.tokens[self._token()]))
            ready = volume is not None and volume["status"]["phase"] == "UploadReady"
            return 0 if ready else 503

        def _take(self, sent: Path) -> bool:
            """Whether all of it came."""
            left = int(self.headers["Content-Length"])
            cut = left - fake.cut.pop(0) if fake.cut else -1
            with sent.open("wb") as file:
                while left > max(cut, 0):
                    data = self.rfile.read(min(left, 65536))
                    if not data:
                        return False
                    file.write(data)
                    left -= len(data)
            return left == 0

    return Proxy
