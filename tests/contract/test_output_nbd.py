"""-o nbd against the suite: qemu-nbd, and nbdkit with TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.existing_suite import ROOM, ExistingSuite
from tests.places import nbd_servers


def blank(path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(ROOM)
    return path


class TestNbd(ExistingSuite):
    mode = "nbd"

    def places(self, folder: Path) -> Iterator[list[tuple[str, Path]]]:
        with nbd_servers(folder) as servers:
            files = [blank(folder / f"disk-{number}") for number in range(2)]
            yield [(servers.qemu_nbd(file), file) for file in files]


class TestNbdTls(ExistingSuite):
    mode = "nbd"

    @pytest.fixture(autouse=True)
    def keys(self, tmp_path: Path) -> None:
        self.key_file = tmp_path / "keys.psk"
        self.key_file.write_text(f"v2v:{'5a' * 32}\n")

    def places(self, folder: Path) -> Iterator[list[tuple[str, Path]]]:
        with nbd_servers(folder) as servers:
            found = []
            for number in range(2):
                file = blank(folder / f"disk-{number}")
                tls = ["--tls=require", f"--tls-psk={self.key_file}"]
                socket = servers.nbdkit(*tls, "file", f"file={file}")
                uri = f"nbds+unix://v2v@/?socket={socket}&tls-psk-file={self.key_file}"
                found.append((uri, file))
            yield found
