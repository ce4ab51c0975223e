"""Disks among devices, snapshots, and what stands in the way of reading a VM."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pyVmomi import vim

from tests.inputs.vsphere.objects import (
    DEVICE,
    FLAT,
    RDM,
    disk,
    flat,
    found,
    ide,
    inventory,
    located,
    nvme,
    sata,
    scsi,
)
from v2v.errors import UsageError
from v2v.inputs._vsphere import findings
from v2v.inputs._vsphere.drives import Drive, boot_orders, read_drives
from v2v.inputs._vsphere.inventory import Datastore, Inventory
from v2v.inputs._vsphere.read import _of_parents
from v2v.inputs._vsphere.snapshots import Snapshot, find_snapshot, read_snapshots
from v2v.inputs._vsphere.summary import summary
from v2v.types import Firmware, GiB, GuestSummary, KiB, MiB


def test_disks_count_in_the_order_of_controllers_and_places() -> None:
    devices = [
        disk(2005, controller=201),
        disk(2004, controller=200, unit=1),
        disk(2003, controller=15000),
        disk(2002, controller=31000),
        disk(2001, controller=1001),
        disk(2000, controller=1000, unit=8),
        disk(1999, controller=1000, unit=1),
        disk(1998, controller=7),  # which is not there
        scsi(1001, 1),
        scsi(1000, 0),
        sata(),
        nvme(),
        ide(201, 1),
        ide(200, 0),
    ]
    labels = [(one.label, one.key, one.controller) for one in read_drives(devices)]
    assert labels == [
        ("scsi0:1", 1999, "scsi"),
        ("scsi0:8", 2000, "scsi"),
        ("scsi1:0", 2001, "scsi"),
        ("nvme0:0", 2002, "nvme"),
        ("sata0:0", 2003, "sata"),
        ("ide0:1", 2004, "ide"),
        ("ide1:0", 2005, "ide"),
        ("device 1998", 1998, None),
    ]


def drive(**values: Any) -> Drive:
    (found,) = read_drives([scsi(), disk(**values)])
    return found


def test_sizes_in_bytes_or_from_old_servers_in_kib() -> None:
    assert drive(capacityInKB=3).size == 3 * KiB
    assert drive(capacityInKB=3, capacityInBytes=3 * KiB + 512).size == 3 * KiB + 512
    assert drive(capacityInKB=0).size is None


def test_datastores_of_parents_are_known_by_what_stands_in_paths() -> None:
    """A linked clone names its parents by /vmfs/volumes/UUID."""
    parent = flat("[b] p/p.vmdk", datastore=vim.Datastore("ds-2"))
    own = flat("[a] w/w.vmdk", datastore=vim.Datastore("ds-1"), parent=parent)
    known = {
        "ds-1": Datastore("a", "VMFS", "ds:///vmfs/volumes/5f0-a/"),
        "ds-2": Datastore("b", "NFS", "/vmfs/volumes/77-b"),
        "ds-3": Datastore("c", "VMFS", "ds:///vmfs/volumes/5f0-c/"),
        "ds-4": Datastore("two\nlines", "VMFS", "ds:///vmfs/volumes/5f0-d/"),
    }
    drives = read_drives([scsi(), disk(backing=own)])
    assert _of_parents(drives, Inventory(vms=(), datastores=known)) == {"5f0-a": "a", "77-b": "b"}
    last = read_drives([scsi(), disk(backing=flat(datastore=vim.Datastore("ds-4")))])
    assert _of_parents(last, Inventory(vms=(), datastores=known)) == {}


def test_a_disk_with_snapshots_is_a_chain_of_files() -> None:
    backing = flat("[a] w/w-2.vmdk", parent=flat("[a] w/w-1.vmdk", parent=flat("[b] w/w.vmdk")))
    assert drive(backing=backing).files == ("[a] w/w-2.vmdk", "[a] w/w-1.vmdk", "[b] w/w.vmdk")


@pytest.mark.parametrize(
    ("backing", "expected"),
    [
        (flat(), {}),
        (flat(diskMode="independent_persistent"), {"independent": True}),
        (flat(sharing="sharingMultiWriter"), {"shared": True}),
        (flat(sharing="sharingNone"), {}),
        (flat(keyId=vim.encryption.CryptoKeyId(keyId="k")), {"encrypted": True}),
        (
            RDM(fileName="[a] w/r.vmdk", lunUuid="0200", compatibilityMode="physicalMode"),
            {"lun": "0200", "physical": True},
        ),
        (
            RDM(fileName="[a] w/r.vmdk", deviceName="vml.1", compatibilityMode="virtualMode"),
            {"lun": "vml.1"},
        ),
        (
            DEVICE.VirtualDisk.LocalPMemBackingInfo(fileName="", diskMode="persistent"),
            {"files": ()},
        ),
    ],
)
def test_what_disks_may_be(backing: Any, expected: dict[str, Any]) -> None:
    usual = {"independent": False, "shared": False, "encrypted": False, "lun": None} | {
        "physical": False
    }
    one = drive(backing=backing)
    for name, value in (usual | expected).items():
        assert getattr(one, name) == value, name


def test_a_bus_that_vms_share_shares_its_disks() -> None:
    (one,) = read_drives([scsi(shared="physicalSharing"), disk()])
    assert one.shared


def test_the_boot_order_is_that_of_the_firmware_else_of_the_vmx() -> None:
    drives = read_drives([scsi(), disk(2000), disk(2001, unit=1), disk(2002, unit=2)])
    boot = vim.vm.BootOptions
    order = boot(
        bootOrder=[
            boot.BootableEthernetDevice(deviceKey=4000),
            boot.BootableDiskDevice(deviceKey=2002),
            boot.BootableDiskDevice(deviceKey=9999),
            boot.BootableDiskDevice(deviceKey=2000),
        ]
    )
    assert boot_orders(drives, order, "scsi0:1") == [2, None, 1]
    assert boot_orders(drives, boot(), "scsi0:1, scsi0:9, SCSI0:0") == [2, 1, None]
    assert boot_orders(drives, None, "") == [None, None, None]


# Snapshots ----------------------------------------------------------------------------------------


def tree(number: int, name: str, *children: Any) -> Any:
    return vim.vm.SnapshotTree(
        snapshot=vim.vm.Snapshot(f"snapshot-{number}"),
        vm=vim.VirtualMachine("vm-42"),
        name=name,
        description="",
        id=number,
        createTime=datetime(2026, 1, number, tzinfo=UTC),
        state="poweredOff",
        quiesced=False,
        childSnapshotList=list(children),
    )


SNAPSHOTS = vim.vm.SnapshotInfo(
    rootSnapshotList=[tree(1, "clean", tree(2, "50%25 é", tree(4, "twin")), tree(3, "twin"))]
)


def test_snapshots_are_listed_oldest_first() -> None:
    found = read_snapshots(SNAPSHOTS)
    assert [(one.id, one.name) for one in found] == [
        ("snapshot-1", "clean"),
        ("snapshot-2", "50% é"),
        ("snapshot-3", "twin"),
        ("snapshot-4", "twin"),
    ]
    assert read_snapshots(None) == ()


@pytest.mark.parametrize(
    ("word", "id"),
    [
        ("clean", "snapshot-1"),
        ("50% é", "snapshot-2"),
        ("50%25 e\N{COMBINING ACUTE ACCENT}", "snapshot-2"),
        ("id=4", "snapshot-4"),
        ("snapshot-3", "snapshot-3"),
        ("moref=snapshot-3", "snapshot-3"),
    ],
)
def test_a_snapshot_is_named_in_many_ways(word: str, id: str) -> None:
    assert find_snapshot(read_snapshots(SNAPSHOTS), word, "web").id == id


@pytest.mark.parametrize(
    ("word", "id", "hint"),
    [
        ("twin", "snapshot-ambiguous", "id=3 (2026-01-03T00:00:00+00:00), id=4"),
        ("cleen", "snapshot-unknown", "did you mean clean?"),
        ("nothing like it", "snapshot-unknown", "it has clean, 50% é, twin, twin"),
    ],
)
def test_no_such_snapshot_or_two(word: str, id: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        find_snapshot(read_snapshots(SNAPSHOTS), word, "web")
    assert caught.value.id == id
    assert hint in str(caught.value.hint)


def test_a_vm_without_snapshots() -> None:
    snapshots: list[Snapshot] = []
    with pytest.raises(UsageError) as caught:
        find_snapshot(snapshots, "x", "web")
    assert "it has none" in str(caught.value.hint)


# Findings and rows of the list --------------------------------------------------------------------

SHARED_RDM = RDM(
    fileName="[a] r.vmdk", lunUuid="0200", compatibilityMode="virtualMode", diskMode="persistent"
)
VSAN = flat(datastore=vim.Datastore("ds-2"))


@pytest.mark.parametrize(
    ("devices", "properties", "blocker", "warning"),
    [
        (None, {}, None, None),
        (None, {"runtime_powerState": "poweredOn"}, None, "source-running"),
        (None, {"runtime_powerState": "suspended"}, None, "source-running"),
        ([scsi()], {}, "vsphere-no-disks", None),
        (None, {"runtime_connectionState": "inaccessible"}, "vsphere-inaccessible", None),
        (None, {"config_hardware_device": None}, "vsphere-inaccessible", None),
        (None, {"runtime_powerState": None}, "vsphere-inaccessible", None),
        (None, {"runtime_consolidationNeeded": True}, None, "vsphere-consolidation-needed"),
        ([scsi(), disk(backing=SHARED_RDM)], {}, "vsphere-rdm", None),
        (
            [scsi(), disk(backing=flat(keyId=vim.encryption.CryptoKeyId(keyId="k")))],
            {},
            "vsphere-disk-encrypted",
            None,
        ),
        ([scsi(), disk(backing=FLAT(fileName=""))], {}, "vsphere-disk-kind", None),
        ([scsi(shared="virtualSharing"), disk()], {}, None, "disk-shared"),
        (
            [scsi(), disk(backing=flat(diskMode="independent_persistent"))],
            {},
            None,
            "vsphere-independent",
        ),
        ([scsi(), disk(backing=VSAN)], {}, None, "vsphere-object-store"),
        ([scsi(), disk(), DEVICE.VirtualPCIPassthrough(key=13000)], {}, None, "device-dropped"),
        ([scsi(), disk(), DEVICE.VirtualUSB(key=13000)], {}, None, "device-dropped"),
        ([scsi(), *(disk(2000 + n, unit=n) for n in range(166))], {}, None, "vsphere-many-disks"),
    ],
)
def test_what_stands_in_the_way(
    devices: list[Any] | None, properties: dict[str, Any], blocker: str | None, warning: str | None
) -> None:
    there = Inventory((), datastores={"ds-2": Datastore("vsan", "vsan", "")})
    row = summary(located(found(devices, **properties)), there)
    assert [one.id for one in row.findings if one.severity == "blocker"] == [
        *filter(None, [blocker])
    ]
    assert [one.id for one in row.findings if one.severity == "warning"] == [
        *filter(None, [warning])
    ]
    assert row.convertible is (blocker is None)
    assert all(one.hint for one in row.findings)


def test_a_raw_device_mapping_names_its_lun() -> None:
    (finding,) = findings.blockers(found(), [drive(backing=SHARED_RDM)])
    assert "0200" in finding.text and "scsi0:0" in finding.text
    assert not list(findings.blockers(found(), [drive(backing=SHARED_RDM)], vddk=True))


def test_a_row_of_the_list() -> None:
    storage = vim.vm.Summary.StorageSummary(committed=5 * MiB, uncommitted=7, unshared=3)
    told = found(
        [scsi(), disk(capacityInKB=2048), disk(2001, unit=1)],
        runtime_powerState="poweredOn",
        config_hardware_memoryMB=4096,
        config_hardware_numCPU=8,
        config_firmware="efi",
        config_changeTrackingEnabled=True,
        config_guestFullName="Debian GNU/Linux 11 (64-bit)",
        summary_storage=storage,
        snapshot=SNAPSHOTS,
    )
    row = summary(located(told), inventory())
    assert row == GuestSummary(
        name="web",
        id="vm-42",
        where="/DC/vm",
        power="on",
        disks=2,
        provisioned=3 * MiB,
        used=5 * MiB,
        firmware=Firmware.UEFI,
        cbt=True,
        snapshots=("clean", "50% é", "twin", "twin"),
        os="Debian GNU/Linux 11 (64-bit)",
        memory=4 * GiB,
        vcpus=8,
        findings=row.findings,
    )
    assert [one.id for one in row.findings] == ["source-running"]


def test_a_vm_of_which_nothing_is_known_is_a_row_too() -> None:
    row = summary(located(found(config_hardware_device=None, runtime_powerState=None)), inventory())
    assert (row.power, row.disks, row.memory, row.convertible) == ("unknown", 0, None, False)
