"""The input vsphere against the contract: disks of a simulated vCenter."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.input_suite import InputCase, InputSuite
from tests.fakes.disks import disk_content
from tests.vcsim import Disk, Nic, Vcsim, vcsim
from v2v.inputs.vsphere import VsphereInput, VsphereOptions
from v2v.types import Firmware, MiB
from v2v.types import Nic as SourceNic

CONTENTS = [disk_content(1), disk_content(2)]
MAC = "00:50:56:01:02:03"
NAME = "web [1] 100% ü"


@pytest.fixture(scope="module")
def vc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vc")) as vc:
        disks = [Disk(content=CONTENTS[0]), Disk(content=CONTENTS[1], controller="sata")]
        vc.create_vm(NAME, disks=disks, nics=[Nic(mac=MAC)], firmware="efi", secure_boot=True)
        yield vc


@pytest.fixture
def tools(need_tool) -> None:
    need_tool("nbdkit")


def made(vc: Vcsim, guest: str, **options: object) -> VsphereInput:
    told = {"uri": vc.uri(), "password_file": vc.password_file, "cafile": vc.cafile, **options}
    return VsphereInput(VsphereOptions(**told), [guest])


class TestFolder(InputSuite):
    @pytest.fixture
    def case(self, vc: Vcsim, tools: None) -> InputCase:
        return InputCase(
            made(vc, NAME),
            CONTENTS,
            name=NAME,
            sources=[vc.datastore() / NAME],
            expect={
                "firmware": Firmware.UEFI,
                "secure_boot": True,
                "memory": 1024 * MiB,
                "vcpus": 2,
                "hypervisor": "vmware",
                "osinfo": "debian10_64Guest",
                "nics": (SourceNic(mac=MAC, network="VM Network", model="vmxnet3"),),
            },
        )
