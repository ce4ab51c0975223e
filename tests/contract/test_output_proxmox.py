"""-o proxmox against the suite: the real client library speaks to a small Proxmox VE."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.output_suite import OutputSuite
from tests.proxmox_host import Host, proxmox_host
from v2v.output import Output
from v2v.types import TargetDisk


class ProxmoxSuite(OutputSuite):
    words: ClassVar[dict[str, str]] = {}

    @pytest.fixture(autouse=True)
    def host(self, tmp_path: Path, monkeypatch) -> Iterator[Host]:
        with proxmox_host(tmp_path / "host", monkeypatch) as self._host:
            self._host.server.bridges.append("default")
            yield self._host

    def make(self, folder: Path) -> Output:
        return self._host.output(**{"-oo staging": str(folder), **self.words})

    def content(self, disk: TargetDisk) -> bytes:
        storage, _, path = disk.location.partition(":")
        image = self._host.server.storages[storage].folder / "images" / path
        raw = image.with_suffix(".content")
        subprocess.run(
            ["qemu-img", "convert", "-f", disk.format, "-O", "raw", image, raw], check=True
        )
        return raw.read_bytes()

    def test_nothing_but_the_vm_is_left(self, output, source, folder, run) -> None:
        ref = self.migrated(output, source, run)
        server = self._host.server
        assert ref.metadata == "100 on pve1"
        assert list(server.vms) == [100]
        assert list(server.folder.rglob("*v2v-*")) == []
        assert list(server.folder.glob("pveupload-*")) == []
        assert list(folder.iterdir()) == []


class TestProxmoxQcow2(ProxmoxSuite):
    pass


class TestProxmoxRaw(ProxmoxSuite):
    words: ClassVar[dict[str, str]] = {"-of": "raw"}
