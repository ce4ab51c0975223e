"""A VM's properties as a Source: each device and setting that v2v takes over."""

from __future__ import annotations

from typing import Any

import pytest
from pyVmomi import vim

from tests.inputs.vsphere.objects import DEVICE, found, located, nic, reference, scsi
from v2v.errors import SourceError
from v2v.events import Event, Warned
from v2v.inputs._vsphere import vm as vms
from v2v.inputs._vsphere.nics import read_nics
from v2v.run import Run
from v2v.types import Cpu, Firmware, GiB, Nic, Removable, Source

GENID = "00000001-0000-0000-0200-000000000000"  # as QEMU turns it around


def read(run: Run, devices: list[Any] | None = None, **properties: Any) -> Source:
    return vms.read_vm(located(found(devices, **properties)), {}, run, mode="vsphere")


def extra(**values: str) -> list[Any]:
    return [vim.option.OptionValue(key=k.replace("_", "."), value=v) for k, v in values.items()]


def test_what_every_vm_has(run: Run) -> None:
    assert read(run, []) == Source(
        name="web",
        input="vsphere",
        disks=(),
        nics=(),
        memory=2 * GiB,
        vcpus=4,
        cpu=Cpu(sockets=2, cores=2, threads=1),
        hypervisor="vmware",
        uuid="42112233-4455-6677-8899-aabbccddeeff",
    )


@pytest.mark.parametrize(
    ("properties", "field", "value"),
    [
        (
            {"config_annotation": "the web\x1b server\nof all"},
            "description",
            "the web� server\nof all",
        ),
        ({"config_guestId": "debian11_64Guest"}, "osinfo", "debian11_64Guest"),
        ({"config_firmware": "bios"}, "firmware", Firmware.BIOS),
        ({"config_firmware": "efi"}, "firmware", Firmware.UEFI),
        ({"config_firmware": "csm"}, "firmware", None),
        ({"config_uuid": "no"}, "uuid", None),
        ({"config_extraConfig": extra(rtc_diffFromUTC="0")}, "rtc_utc", True),
        ({"config_extraConfig": extra(rtc_diffFromUTC="-7200")}, "rtc_utc", False),
        ({"config_extraConfig": extra(vm_genid="1", vm_genidX="2")}, "genid", GENID),
        ({"name": "a\x1bb" + "c" * 300}, "name", "a�b" + "c" * 252),
        ({"name": ""}, "name", "vm-42"),
    ],
)
def test_settings(properties: dict[str, Any], field: str, value: object, run: Run) -> None:
    assert getattr(read(run, [], **properties), field) == value


@pytest.mark.parametrize(
    ("firmware", "asked", "secure"),
    [("efi", True, True), ("efi", False, False), ("bios", True, False)],
)
def test_secure_boot_takes_uefi(firmware: str, asked: bool, secure: bool, run: Run) -> None:
    boot = vim.vm.BootOptions(efiSecureBootEnabled=asked)
    source = read(run, [], config_firmware=firmware, config_bootOptions=boot)
    assert source.secure_boot is secure


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        ("VirtualTPM", "tpm", True),
        ("VirtualVideoCard", "video", "vmvga"),
        ("VirtualHdAudioCard", "sound", "ich6"),
        ("VirtualEnsoniq1371", "sound", "es1370"),
        ("VirtualSoundBlaster16", "sound", "sb16"),
        ("VirtualFloppy", "removables", (Removable("floppy"),)),
    ],
)
def test_devices(kind: str, field: str, value: object, run: Run) -> None:
    device = getattr(DEVICE, kind)(key=9000)
    assert getattr(read(run, [device]), field) == value


def test_drives_are_on_their_controllers(run: Run) -> None:
    devices = [scsi(), DEVICE.VirtualCdrom(key=3000, controllerKey=1000)]
    assert read(run, devices).removables == (Removable("cdrom", "scsi"),)


def test_the_nvram_is_beside_the_vmx(run: Run) -> None:
    files = vim.vm.FileInfo(vmPathName="[ds1] web 1/web.vmx")
    told = {"config_files": files, "config_extraConfig": extra(nvram="web.nvram")}
    assert read(run, [], **told).nvram == "/vmfs/volumes/ds1/web 1/web.nvram"
    told["config_extraConfig"] = extra(nvram="../../etc/passwd")
    assert read(run, [], **told).nvram is None


@pytest.mark.parametrize(
    "hardware",
    [
        {"memoryMB": 2**40, "numCPU": 1},
        {"memoryMB": -5, "numCPU": 1},
        {"memoryMB": 1024, "numCPU": 100_000},
    ],
)
def test_values_that_no_vm_has_are_refused(hardware: dict[str, int], run: Run) -> None:
    # pyVmomi checks the ranges of what it sends, but not of what it gets.
    made = vim.vm.VirtualHardware()
    made.__dict__.update(hardware)
    with pytest.raises(SourceError) as caught:
        read(run, [], config_hardware=made)
    assert caught.value.id == "vsphere-value"


def test_cores_that_do_not_divide_the_processors_are_not_believed(run: Run) -> None:
    hardware = vim.vm.VirtualHardware(memoryMB=2048, numCPU=3, numCoresPerSocket=2)
    assert read(run, [], config_hardware=hardware).cpu == Cpu()


# Network cards ------------------------------------------------------------------------------------

CARD = DEVICE.VirtualEthernetCard
PORT = CARD.DistributedVirtualPortBackingInfo
NETWORKS = {"network-1": "Renamed", "dvportgroup-7": "Prod/1", "opaque-id": "Segment"}


def portgroup(key: str) -> Any:
    port = vim.dvs.PortConnection(switchUuid="50", portgroupKey=key)
    return PORT(port=port)


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (nic(macAddress="00:50:56:AA:BB:01"), Nic("00:50:56:aa:bb:01", model="vmxnet3")),
        (nic("VirtualE1000e"), Nic(model="e1000e")),
        (nic("VirtualE1000"), Nic(model="e1000")),
        (nic("VirtualPCNet32"), Nic(model="vlance")),
        (nic("VirtualSriovEthernetCard"), Nic(model="sriov")),
        (nic(macAddress="nonsense"), Nic(model="vmxnet3")),
        (
            nic(slotInfo=DEVICE.VirtualDevice.PciBusSlotInfo(pciSlotNumber=192)),
            Nic(model="vmxnet3", slot=192),
        ),
        (
            nic(connectable=DEVICE.VirtualDevice.ConnectInfo(startConnected=False)),
            Nic(model="vmxnet3", connected=False),
        ),
        (
            nic(
                backing=CARD.NetworkBackingInfo(
                    deviceName="Old", network=reference("Network", "network-1")
                )
            ),
            Nic(network="Renamed", model="vmxnet3"),
        ),
        (
            nic(backing=CARD.NetworkBackingInfo(deviceName="a%2fb\n")),
            Nic(network="a/b", model="vmxnet3"),
        ),
        (nic(backing=portgroup("dvportgroup-7")), Nic(network="Prod/1", model="vmxnet3")),
        (
            nic(backing=CARD.OpaqueNetworkBackingInfo(opaqueNetworkId="opaque-id")),
            Nic(network="Segment", model="vmxnet3"),
        ),
    ],
)
def test_network_cards(card: Any, expected: Nic, run: Run, events_seen: list[Event]) -> None:
    if expected.network == "default":
        expected = Nic(
            **{**{f: getattr(expected, f) for f in Nic.__slots__}, "network": "VM Network"}
        )
    assert read_nics([card], NETWORKS, "web", run) == (expected,)
    assert not events_seen


def test_a_network_whose_name_nobody_tells_is_told_of(run: Run, events_seen: list[Event]) -> None:
    (card,) = read_nics([nic(backing=portgroup("dvportgroup-9"))], NETWORKS, "web", run)
    assert card.network == "dvportgroup-9"
    (event,) = events_seen
    assert isinstance(event, Warned) and event.id == "nic-connection"
    assert "-n dvportgroup-9:NETWORK" in str(event.hint)


def test_network_cards_are_in_the_order_of_their_keys(run: Run) -> None:
    cards = [nic(key=4001, macAddress="00:50:56:00:00:02"), nic(key=4000)]
    assert [one.mac for one in read_nics(cards, {}, "web", run)] == [None, "00:50:56:00:00:02"]
