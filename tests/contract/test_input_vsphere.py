"""The input vsphere against the contract: VMs of a simulated vCenter, read in each way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures.vmx import write_chain
from tests.contract.input_suite import ContentSuite, InputCase, InputSuite, read_all
from tests.fakes.disks import disk_content
from tests.fakes.vddk.host import THUMBPRINT, vddk_host
from tests.inputs.vsphere.esxi_ssh import esxi_ssh
from tests.sshd import Sshd
from tests.vcsim import Disk, Nic, Vcsim, vcsim
from v2v import nbdkit, password
from v2v.inputs._vsphere.options import VsphereOptions
from v2v.inputs.vsphere import VsphereInput
from v2v.run import Run
from v2v.types import Firmware, MiB
from v2v.types import Nic as SourceNic

CONTENTS = [disk_content(1), disk_content(2)]
CHAIN = [disk_content(1), disk_content(2), disk_content(1)[: 3 << 20] + disk_content(3)[3 << 20 :]]
MAC = "00:50:56:01:02:03"
NAME = "web [1] 100% ü"
FACTS = {
    "firmware": Firmware.UEFI,
    "secure_boot": True,
    "memory": 1024 * MiB,
    "vcpus": 2,
    "hypervisor": "vmware",
    "osinfo": "debian10_64Guest",
    "nics": (SourceNic(mac=MAC, network="VM Network", model="vmxnet3"),),
}


@pytest.fixture(scope="module")
def vc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vc")) as vc:
        disks = [Disk(content=CONTENTS[0]), Disk(content=CONTENTS[1], controller="sata")]
        vc.create_vm(NAME, disks=disks, nics=[Nic(mac=MAC)], firmware="efi", secure_boot=True)
        yield vc


@pytest.fixture(scope="module")
def ssh(vc: Vcsim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with esxi_ssh(tmp_path_factory.mktemp("ssh"), vc) as ssh:
        yield ssh


@pytest.fixture(scope="module", params=["vmfsSparse", "seSparse"])
def chained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Vcsim]:
    """A VM with two snapshots."""
    with vcsim(tmp_path_factory.mktemp("vc")) as vc:
        vm = vc.create_vm("web", disks=[Disk(content=CHAIN[0])])
        vm.snapshot("clean")
        vm.snapshot("updated")
        write_chain(vm.folder, CHAIN, kind=request.param)
        yield vc


@pytest.fixture
def tools(need_tool) -> None:
    need_tool("nbdkit")


def made(vc: Vcsim, guest: str, **options: Any) -> VsphereInput:
    told = {"uri": vc.uri(), "password_file": vc.password_file, "cafile": vc.cafile, **options}
    return VsphereInput(VsphereOptions(**told), [guest])


def case_of(vc: Vcsim, **options: Any) -> InputCase:
    folder = vc.datastore() / NAME
    return InputCase(made(vc, NAME, **options), CONTENTS, NAME, [folder], expect=FACTS)


class TestHttps(InputSuite):
    @pytest.fixture
    def case(self, vc: Vcsim, tools: None) -> InputCase:
        return case_of(vc)


class TestSsh(ContentSuite):
    """What the VM is, the vCenter says; its disks are fetched from the ESXi host."""

    @pytest.fixture
    def case(self, vc: Vcsim, ssh: Sshd, tools: None) -> InputCase:
        return case_of(
            vc,
            transport="ssh",
            ssh_host=f"{ssh.user}@127.0.0.1:{ssh.port}",
            known_hosts=ssh.known_hosts,
            identity=ssh.identity,
        )


class TestVddk(ContentSuite):
    """VMware's library itself is not here: another plugin stands for nbdkit's."""

    @pytest.fixture
    def case(
        self, vc: Vcsim, tools: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[InputCase]:
        folder = vc.datastore() / NAME
        names = [f"{NAME}.vmdk", f"{NAME}_1.vmdk"]
        disks = {
            f"[datastore1] {NAME}/{name}": folder / name.replace(".vmdk", "-flat.vmdk")
            for name in names
        }
        host = vddk_host(tmp_path / "vddk", disks, user=vc.user, password=vc.password)
        monkeypatch.setenv("PATH", host.folder.as_posix(), prepend=":")
        monkeypatch.setenv("VDDK_FAKE", str(host.world))
        nbdkit._config.cache_clear()
        yield case_of(vc, transport="vddk", vddk_libdir=host.libdir, vddk_thumbprint=THUMBPRINT)
        nbdkit._config.cache_clear()


class TestPlugin(ContentSuite):
    """Any plugin of nbdkit, here one for files, which is told where each disk is."""

    @pytest.fixture
    def case(self, vc: Vcsim, tools: None, tmp_path: Path) -> InputCase:
        links = tmp_path / "links"
        for number, name in enumerate([f"{NAME}-flat.vmdk", f"{NAME}_1-flat.vmdk"]):
            link = links / vc.user / str(number)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(vc.datastore() / NAME / name)
        parameters = (("file", f"{links}/{{user}}/{{disk}}"),)
        return case_of(vc, transport="nbdkit:file", parameters=parameters)


class TestChain(ContentSuite):
    """A VM with two snapshots: as it is, and as it was."""

    @pytest.fixture(params=["clean", "updated", None])
    def case(self, request: pytest.FixtureRequest, chained: Vcsim, tools: None) -> InputCase:
        content = CHAIN[["clean", "updated", None].index(request.param)]
        return InputCase(
            made(chained, "web", snapshot=request.param),
            [content],
            "web",
            [chained.datastore() / "web"],
            expect={"snapshots": ("clean", "updated")},
        )


def test_a_password_that_can_be_read_once(
    vc: Vcsim, tools: None, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """-ip <(pass show vcenter): also nbdkit's processes get it."""
    monkeypatch.setattr(password, "_streams", {})
    ours, theirs = os.pipe()
    os.write(theirs, f"{vc.password}\n".encode())
    os.close(theirs)
    input = made(vc, NAME, password_file=Path(f"/dev/fd/{ours}"))
    source = input.read_source(run)
    with input.serve(source, run) as endpoints:
        assert [read_all(one) for one in endpoints] == CONTENTS
    os.close(ours)
