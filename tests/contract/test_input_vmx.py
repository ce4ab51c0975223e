"""The input vmx against the contract, in a folder of this host and of one reached over SSH."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from fixtures.vmdk import write_vmdk
from fixtures.vmfs import add_datastore, make_volumes
from fixtures.vmx import disk, nic, vmx_text, write_chain, write_vm
from tests.contract.input_suite import ContentSuite, InputCase, InputSuite
from tests.fakes.disks import disk_content
from tests.sshd import Sshd, sshd
from v2v.inputs._ssh.place import SshReader
from v2v.inputs.vmx import VmxInput, VmxOptions
from v2v.types import Firmware, GiB, Nic

CHAIN = [disk_content(1), disk_content(2), disk_content(1)[: 3 << 20] + disk_content(3)[3 << 20 :]]
MAC = "00:50:56:01:02:03"
SNAPSHOTS = [("clean", {"scsi0:0": "web.vmdk"}), ("updated", {"scsi0:0": "web-000001.vmdk"})]


@pytest.fixture
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit"):
        need_tool(tool)


def vmx_case(folder: Path, kind: str) -> InputCase:
    """A VM with one disk of a type, or a chain of three."""
    vm, (base, _, delta) = folder / "vm", kind.partition("+")
    if delta:
        files = write_chain(vm, CHAIN, kind=delta, base=base)
    else:
        files = [write_vmdk(vm, "web", CHAIN[0], kind=base, extents=3)]
    path = write_vm(vm, {"displayName": "Web", **disk("scsi0:0", files[-1].name)})
    return InputCase(
        VmxInput(VmxOptions(), [str(path)]),
        [CHAIN[2] if delta else CHAIN[0]],
        name="Web",
        sources=[vm],
        expect={"memory": GiB, "hypervisor": "vmware", "firmware": Firmware.BIOS, "nics": ()},
    )


class TestVmx(InputSuite):
    @pytest.fixture(params=["vmfs", "vmfs+seSparse"])
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        return vmx_case(tmp_path, request.param)


class TestVmxDisks(ContentSuite):
    @pytest.fixture(
        params=[
            "monolithicFlat",
            "monolithicSparse",
            "twoGbMaxExtentSparse",
            "twoGbMaxExtentFlat",
            "vmfs+vmfsSparse",
            "monolithicSparse+monolithicSparse",
            "twoGbMaxExtentSparse+twoGbMaxExtentSparse",
        ]
    )
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        return vmx_case(tmp_path, request.param)


class TestVmxSnapshot(InputSuite):
    """The VM's second disk is in no snapshot."""

    @pytest.fixture(params=["clean", "updated"])
    def case(self, request: pytest.FixtureRequest, tmp_path: Path, tools: None) -> InputCase:
        vm, data = tmp_path / "vm", disk_content(7)
        write_chain(vm, CHAIN)
        write_vmdk(vm, "data", data)
        entries = disk("scsi0:0", "web-000002.vmdk")
        entries |= disk("sata0:1", "data.vmdk", mode="independent-persistent") | nic(0, MAC)
        path = write_vm(vm, entries, snapshots=SNAPSHOTS)
        return InputCase(
            VmxInput(VmxOptions(snapshot=request.param), [str(path)]),
            [CHAIN[["clean", "updated"].index(request.param)], data],
            name="web",
            sources=[vm],
            expect={
                "snapshots": ("clean", "updated"),
                "nics": (Nic(mac=MAC, kind="bridge", network="bridged"),),
            },
        )


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


def ssh_case(folder: Path, host: Sshd, kind: str, reader: str) -> InputCase:
    """The VM of vmx_case on a datastore, with a second disk."""
    datastore = add_datastore(make_volumes(folder), "my [1] ds%")
    case = vmx_case(datastore, kind)
    path = next((datastore / "vm").glob("*.vmx"))
    write_vmdk(path.parent, "data", disk_content(7))
    path.write_text(path.read_text() + vmx_text(disk("scsi0:1", "data.vmdk")))
    options = VmxOptions(
        known_hosts=host.known_hosts, identity=host.identity, reader=SshReader(reader)
    )
    return replace(
        case,
        input=VmxInput(options, [host.uri(quote(str(path)))]),
        contents=[*case.contents, disk_content(7)],
    )


class TestVmxOverSsh(InputSuite):
    @pytest.fixture(params=["helper"])
    def case(
        self, request: pytest.FixtureRequest, tmp_path: Path, tools: None, host: Sshd
    ) -> InputCase:
        return ssh_case(tmp_path, host, "vmfs+vmfsSparse", request.param)


class TestVmxOverSshDisks(ContentSuite):
    @pytest.fixture(params=[("vmfs", "sftp"), ("vmfs+seSparse", "dd")])
    def case(
        self, request: pytest.FixtureRequest, tmp_path: Path, tools: None, host: Sshd
    ) -> InputCase:
        return ssh_case(tmp_path, host, *request.param)
