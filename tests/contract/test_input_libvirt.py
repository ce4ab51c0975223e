"""-i libvirt against the contract: domains of a real libvirtd, and of libvirt's test driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.input_suite import InputCase, InputSuite
from tests.contract.test_inputs import make
from tests.fakes.disks import disk_content
from tests.libvirtd import Libvirtd, domain_xml, file_disk, libvirtd, volume_disk
from v2v.inputs.libvirt import LibvirtInput, LibvirtOptions
from v2v.types import MiB

__all__ = ["libvirtd"]


@pytest.fixture
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit"):
        need_tool(tool)


def libvirt_case(uri: str, folders: list[Path], *, vcpus: int = 2) -> InputCase:
    return InputCase(
        LibvirtInput(LibvirtOptions(uri=uri), ["web"]),
        [disk_content(1), disk_content(2)],
        name="web",
        sources=folders,
        expect={"memory": 32 * MiB, "vcpus": vcpus, "nics": ()},
    )


class TestFileAndVolume(InputSuite):
    """A file of which the domain says no format, and a volume of a pool."""

    @pytest.fixture
    def case(self, tmp_path: Path, tools: None, libvirtd: Libvirtd) -> Iterator[InputCase]:
        file = make(tmp_path / "a", "qcow2", disk_content(1))
        volume = make(tmp_path / "b", "qcow2", disk_content(2))
        disks = file_disk(file), volume_disk("images", volume.name, target="vdb")
        with (
            libvirtd.pool("images", volume.parent),
            libvirtd.defined(domain_xml("web", *disks)),
        ):
            yield libvirt_case(libvirtd.uri, [file.parent, volume.parent])


class TestTestDriver(InputSuite):
    @pytest.fixture
    def case(self, tmp_path: Path, tools: None) -> InputCase:
        first = make(tmp_path / "a", "raw", disk_content(1))
        second = make(tmp_path / "b", "qcow2", disk_content(2))
        disks = file_disk(first, None), file_disk(second, target="vdb")
        uuid = "<uuid>b5f5a4a0-24b4-4c3c-9d2e-6a2cf0f1c0de</uuid>"  # else a new one each time
        xml = domain_xml("web", *disks, kind="test", extra=uuid)
        node = tmp_path / "node.xml"
        node.write_text(f"<node>{xml}</node>")
        return libvirt_case(f"test://{node}", [first.parent, second.parent])
