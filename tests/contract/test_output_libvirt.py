"""-o libvirt against the suite: volumes that are files here, and volumes that are sent."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.output_suite import SIZES, OutputSuite
from tests.contract.test_outputs import FolderSuite, make
from tests.libvirtd import Libvirtd, libvirtd
from v2v.output import Output
from v2v.types import TargetDisk

__all__ = ["libvirtd"]


class LibvirtSuite(OutputSuite):
    words: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def folder(self, libvirtd: Libvirtd, tmp_path: Path) -> Iterator[Path]:
        """The folder of a pool; domains are gone afterwards."""
        folder = tmp_path / "target"
        folder.mkdir()
        self.server = libvirtd
        self.pool = f"pool-{uuid.uuid4()}"
        with libvirtd.pool(self.pool, folder):
            yield folder
            with libvirtd.connected() as connection:
                for domain in connection.listAllDomains():
                    domain.undefineFlags(4)  # VIR_DOMAIN_UNDEFINE_NVRAM

    def make(self, folder: Path, **more: str) -> Output:
        return make("libvirt", {"-oc": self.server.uri, "-os": self.pool, **self.words, **more})

    def content(self, disk: TargetDisk) -> bytes:
        return FolderSuite.content(self, disk)  # type: ignore[arg-type]

    def test_libvirt_has_the_domain_and_its_volumes(self, output, source, folder, run) -> None:
        ref = self.migrated(output, source, run)
        assert sorted(path.name for path in folder.iterdir()) == ["Guest 1_2-sda", "Guest 1_2-sdb"]
        with self.server.connected() as connection:
            domain = connection.lookupByName("Guest 1_2")
            assert domain.UUIDString() == ref.metadata
            pool = connection.storagePoolLookupByName(self.pool)
            assert sorted(pool.listVolumes()) == ["Guest 1_2-sda", "Guest 1_2-sdb"]
            for volume, size in zip(sorted(pool.listVolumes()), SIZES, strict=True):
                assert pool.storageVolLookupByName(volume).info()[1] == size
            xml = domain.XMLDesc()
            assert all(f"file='{disk.location}'" in xml for disk in ref.disks)
        assert list(run.folder.glob(".disk*")) == []


class TestFiles(LibvirtSuite):
    """Files in the folder of the pool."""


class TestQcow2Files(LibvirtSuite):
    words: ClassVar[dict[str, str]] = {"-of": "qcow2"}


class UploadSuite(LibvirtSuite):
    """libvirt renames no volumes: they have their final names from the beginning."""

    renames = False


class TestUpload(UploadSuite):
    words: ClassVar[dict[str, str]] = {"-oo upload": ""}


class TestStaged(UploadSuite):
    """qcow2 images of the job's own, sent when they are complete."""

    words: ClassVar[dict[str, str]] = {"-oo upload": "", "-of": "qcow2"}
