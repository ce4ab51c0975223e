"""An engine for tests: the fake API, and the real imageio daemon, of one authority."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.fakes.ovirt_engine import server
from tests.fakes.ovirt_engine.model import Model
from tests.imageio import imageio_daemon
from tests.places import reserved_port


class Engine:
    """`model` is what it knows, `requests` what it was asked; `start` and `stop` take it away."""

    def __init__(self, model: Model, folder: Path, port: int) -> None:
        self.model = model
        self.folder = folder
        self.port = port
        self._stack = ExitStack()
        (folder / "password").write_text(f"{model.password}\nnot this line\n")
        self.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/ovirt-engine/api"

    @property
    def cafile(self) -> Path:
        return self.model.daemon.cafile

    @property
    def requests(self) -> list[str]:
        return self._server.requests

    @property
    def words(self) -> dict[str, str]:
        """The options to reach it."""
        return {
            "-oc": self.url,
            "-op": str(self.folder / "password"),
            "-oo rhv-cafile": str(self.cafile),
        }

    def content(self, disk: str) -> Path:
        """The image of a disk."""
        return self.model.disks[disk].path

    def start(self) -> None:
        """Always on the same port."""
        certificate = self.model.daemon._certificate.file
        self._server = self._stack.enter_context(server.serve(self.model, certificate, self.port))

    def stop(self) -> None:
        self._stack.close()

    def recover(self) -> None:
        """As it was installed, whatever a test did."""
        self.stop()
        self.model.reset()
        self.model.daemon.stop()
        self.model.daemon.start()
        self.start()


@contextmanager
def ovirt_engine() -> Iterator[Engine]:
    with ExitStack() as stack:
        daemon = stack.enter_context(imageio_daemon())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="engine-")))
        (folder / "disks").mkdir()
        port = stack.enter_context(reserved_port())
        engine = Engine(Model(folder / "disks", daemon), folder, port)
        stack.callback(engine.stop)
        stack.callback(engine.model.reset)
        yield engine
