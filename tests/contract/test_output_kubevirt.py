"""-o kubevirt against the suite of outputs: files in a folder, and into a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.contract.output_suite import GUEST, SIZES, OutputSuite
from tests.contract.test_outputs import FolderSuite, NamesSuite, make
from tests.kubernetes import Fake, kubernetes, words
from v2v.output import Output
from v2v.types import MiB, TargetDisk


class TestFiles(NamesSuite):
    mode = "kubevirt"
    last = "Guest 1_2.yaml"


class TestQcow2Files(FolderSuite):
    mode = "kubevirt"
    last = "Guest 1_2.yaml"
    words: ClassVar[dict[str, str]] = {"-of": "qcow2", "-oo compressed": ""}


class TestCluster(OutputSuite):
    """What the job has beside its folder is in the cluster."""

    @pytest.fixture(autouse=True)
    def _cluster(self, tmp_path: Path, folder: Path) -> Iterator[None]:
        with kubernetes(tmp_path / "cluster") as self.fake:
            self.folder = folder
            yield

    fake: Fake
    folder: Path

    def make(self, folder: Path) -> Output:
        return make("kubevirt", words(self.fake, self.folder))

    def content(self, disk: TargetDisk) -> bytes:
        """A volume is a whole number of MiB: what lies behind the disk is zero."""
        namespace, _, name = disk.location.partition("/")
        whole = self.fake.image(name, namespace).read_bytes()
        assert len(whole) == -(-disk.size // MiB) * MiB
        assert not any(whole[disk.size :])
        return whole[: disk.size]

    def test_the_vm_is_there_when_the_disks_are(self, output, source, run) -> None:
        ref = self.migrated(output, source, run)
        assert ref.metadata == "default/guest-1-2"
        assert self.fake.names("virtualmachines") == ["guest-1-2"]
        assert self.fake.names("datavolumes") == ["guest-1-2-sda", "guest-1-2-sdb"]
        assert list(self.folder.iterdir()) == []

    def test_discard_removes_the_volumes_of_this_job_alone(self, output, source, run) -> None:
        other = {"labels": {"v2v-job": "other"}}
        self.fake.put("datavolumes", "default", "theirs", metadata=other)
        self.fake.put("persistentvolumeclaims", "default", "theirs", metadata=other)
        self.fake.put("datavolumes", "default", "guest-1-2")
        disks = self.create(output, source, run)
        assert len(self.fake.names("datavolumes")) == 4
        for _ in range(2):
            output.discard(disks, run)
            assert self.fake.names("datavolumes") == ["guest-1-2", "theirs"]
            assert self.fake.names("persistentvolumeclaims") == ["theirs"]

    def test_discard_finds_volumes_that_were_not_journaled(self, output, source, run) -> None:
        output.create_disks(source, SIZES, run)
        output.discard((), run)
        assert self.fake.names("datavolumes") == []
        assert list(self.folder.iterdir()) == []

    def test_discard_leaves_the_volumes_of_a_vm(self, output, source, run) -> None:
        """The job was killed when the VM was there, and before it could write that down."""
        disks = self.create(output, source, run)
        self.copy(output, source, disks, run)
        output.finalize(source, GUEST, disks, run)
        run.journal.drop(["kubevirt-vm"])
        output.discard(disks, run)
        assert len(self.fake.names("datavolumes")) == 2
