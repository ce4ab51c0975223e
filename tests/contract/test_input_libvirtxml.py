"""-i libvirtxml against the contract of inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from fixtures.domain_xml import Disk, FileDisk, NbdDisk, WebDisk, write_domain
from tests.contract.input_suite import ContentSuite, InputCase, InputSuite
from tests.contract.test_inputs import FORMATS, detached_nbdkit, make
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from v2v.inputs.libvirtxml import LibvirtXmlInput, LibvirtXmlOptions
from v2v.types import Firmware, GiB, MiB, Nic

KINDS = {"raw": "raw", "qcow2": "qcow2", "backing": "qcow2", "vdi": "vdi"}  # to libvirt's name
EXPECT = {
    "memory": GiB,
    "vcpus": 2,
    "firmware": Firmware.BIOS,
    "hypervisor": "kvm",
    "nics": (Nic(mac="52:54:00:12:34:56", model="virtio"),),
}


@pytest.fixture
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit"):
        need_tool(tool)


def xml_case(folder: Path, disks: Sequence[Disk], contents: Sequence[bytes]) -> InputCase:
    """The XML is in `folder`, which holds the disks too."""
    path = write_domain(folder / "guest.xml", disks)
    return InputCase(
        LibvirtXmlInput(LibvirtXmlOptions(), [str(path)]),
        contents,
        name="web",
        sources=[folder],
        expect=EXPECT,
    )


class TestFiles(InputSuite):
    @pytest.fixture(params=["raw", "qcow2", "backing"])
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        disk = make(tmp_path / "vm", request.param, disk_content())
        return xml_case(tmp_path / "vm", [FileDisk(disk, KINDS[request.param])], [disk_content()])


class TestFormatsNotTold(ContentSuite):
    @pytest.fixture(params=["raw", "vdi"])
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        assert request.param in FORMATS
        disk = make(tmp_path / "vm", request.param, disk_content())
        return xml_case(tmp_path / "vm", [FileDisk(disk.name, None)], [disk_content()])


class TestTwoDisks(InputSuite):
    @pytest.fixture
    def case(self, tmp_path: Path, tools: None) -> InputCase:
        (tmp_path / "vm").mkdir()
        make(tmp_path / "vm" / "a", "qcow2", disk_content(1))
        make(tmp_path / "vm" / "b", "raw", disk_content(2))
        disks = [FileDisk("a/guest.img", "qcow2"), FileDisk("b/guest.img")]
        return xml_case(tmp_path / "vm", disks, [disk_content(1), disk_content(2)])


class TestNbd(InputSuite):
    """The server is no process of the input's."""

    @pytest.fixture(params=["raw", "qcow2"])
    def case(
        self, request: pytest.FixtureRequest, tmp_path: Path, tools: None
    ) -> Iterator[InputCase]:
        disk = make(tmp_path / "vm", request.param, disk_content())
        with detached_nbdkit(disk, tmp_path / "s"):
            disks = [NbdDisk(str(tmp_path / "s"), format=request.param)]
            yield xml_case(tmp_path / "vm", disks, [disk_content()])


class TestWeb(InputSuite):
    @pytest.fixture(params=["raw", "qcow2"])
    def case(
        self, request: pytest.FixtureRequest, tmp_path: Path, tools: None
    ) -> Iterator[InputCase]:
        disk = make(tmp_path / "vm", request.param, disk_content())
        with web_disk(disk, request.param) as served:
            yield xml_case(tmp_path / "vm", [served], [disk_content()])


@contextmanager
def web_disk(path: Path, format: str) -> Iterator[WebDisk]:
    with serve_folder(path.parent) as address:
        yield WebDisk("127.0.0.1", urlsplit(address).port or 0, f"/{path.name}", format)


class TestSlice(InputSuite):
    """The disk is a part of a file, behind what is no disk."""

    @pytest.fixture(params=["raw", "qcow2"])
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        disk = make(tmp_path / "vm", request.param, disk_content())
        image = disk.read_bytes()
        disk.write_bytes(b"before" * 1024 + bytes(2048) + image + b"behind" * 1024)
        part = FileDisk(disk, request.param, slice=(8 * 1024, len(image)))
        return xml_case(tmp_path / "vm", [part], [disk_content()])


def test_the_content_is_larger_than_what_is_read_at_once() -> None:
    """Else the cases above would show little."""
    assert len(disk_content()) > MiB
