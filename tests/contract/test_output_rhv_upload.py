"""-o rhv-upload against the suite: through a fake engine, and the real imageio daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.output_suite import OutputSuite
from tests.contract.test_outputs import make
from tests.ovirt_engine import Engine, ovirt_engine
from v2v.output import Output
from v2v.types import TargetDisk


@pytest.fixture(scope="module")
def installed() -> Iterator[Engine]:
    with ovirt_engine() as engine:
        yield engine


class RhvUploadSuite(OutputSuite):
    words: ClassVar[dict[str, str]]

    @pytest.fixture(autouse=True)
    def engine(self, installed: Engine) -> None:
        installed.model.reset()
        self._engine = installed

    def make(self, folder: Path) -> Output:
        return make("rhv-upload", {**self._engine.words, **self.words})

    def content(self, disk: TargetDisk) -> bytes:
        model = self._engine.model
        uuid = disk.location.rpartition("/")[2]
        assert model.disks[uuid].status == "ok"
        raw = model.folder / "raw"
        argv = ["qemu-img", "convert", "-f", disk.format, "-O", "raw", model.disks[uuid].path, raw]
        subprocess.run(argv, check=True)
        content = raw.read_bytes()
        raw.unlink()
        assert not any(content[disk.size :])  # the engine had made a larger one
        return content[: disk.size]

    def test_nothing_is_left_locked_or_open(self, output, source, run) -> None:
        self.migrated(output, source, run)
        model = self._engine.model
        assert {disk.status for disk in model.disks.values()} == {"ok"}
        assert {one.phase for one in model.transfers.values()} == {"finished_success"}
        assert [vm.name for vm in model.vms.values()] == ["Guest_1_2"]


class TestRaw(RhvUploadSuite):
    words: ClassVar[dict[str, str]] = {"-os": "data"}


class TestQcow2OnBlocks(RhvUploadSuite):
    words: ClassVar[dict[str, str]] = {"-os": "blocks", "-of": "qcow2"}
