"""What a vCenter would answer, made of pyVmomi's own types: no server is needed."""

from __future__ import annotations

from typing import Any

from pyVmomi import vim

from v2v.inputs._vsphere.inventory import Inventory, Located, arrange
from v2v.inputs._vsphere.retrieve import Found

DEVICE = vim.vm.device
FLAT = DEVICE.VirtualDisk.FlatVer2BackingInfo
RDM = DEVICE.VirtualDisk.RawDiskMappingVer1BackingInfo


def scsi(key: int = 1000, bus: int = 0, *, shared: str = "noSharing") -> Any:
    return DEVICE.ParaVirtualSCSIController(key=key, busNumber=bus, sharedBus=shared)


def sata(key: int = 15000) -> Any:
    return DEVICE.VirtualAHCIController(key=key, busNumber=0)


def nvme(key: int = 31000) -> Any:
    return DEVICE.VirtualNVMEController(key=key, busNumber=0)


def ide(key: int = 200, bus: int = 0) -> Any:
    return DEVICE.VirtualIDEController(key=key, busNumber=bus)


def flat(file: str = "[ds1] web/web.vmdk", **values: Any) -> Any:
    return FLAT(fileName=file, diskMode=values.pop("diskMode", "persistent"), **values)


def disk(key: int = 2000, controller: int = 1000, unit: int = 0, **values: Any) -> Any:
    values.setdefault("backing", flat())
    values.setdefault("capacityInKB", 1024)
    return DEVICE.VirtualDisk(key=key, controllerKey=controller, unitNumber=unit, **values)


def nic(kind: str = "VirtualVmxnet3", **values: Any) -> Any:
    values.setdefault(
        "backing", DEVICE.VirtualEthernetCard.NetworkBackingInfo(deviceName="VM Network")
    )
    return getattr(DEVICE, kind)(key=values.pop("key", 4000), **values)


def found(devices: list[Any] | None = None, **properties: Any) -> Found:
    """A VM that is off; `properties` have _ for the dots of their paths."""
    told: dict[str, Any] = {
        "name": "web",
        "config.uuid": "42112233-4455-6677-8899-aabbccddeeff",
        "config.hardware.device": [scsi(), disk()] if devices is None else devices,
        "config.hardware": vim.vm.VirtualHardware(memoryMB=2048, numCPU=4, numCoresPerSocket=2),
        "runtime.powerState": "poweredOff",
        "runtime.connectionState": "connected",
    }
    told |= {key.replace("_", "."): value for key, value in properties.items()}
    return Found("vm-42", "VirtualMachine", told)


def located(one: Found | None = None) -> Located:
    one = one or found()
    return Located(
        id=one.id,
        name=one.get("name"),
        path=f"/DC/vm/{one.get('name')}",
        datacenter="DC",
        host="esx1",
        hosts=("DC", "esx1"),
        uuids=(),
        found=one,
    )


def reference(kind: str, id: str) -> Any:
    return getattr(vim, kind)(id)


def inventory(*vms: tuple[str, str, str], **uuids: str) -> Inventory:
    """Of (reference, name, folder below DC/vm: "", or one name). DC is in the folder F0; the VMs
    are at the host esx1 of the cluster Cl."""

    def thing(kind: str, id: str, name: str, parent: Any = None, **more: Any) -> Found:
        return Found(id, kind, {"name": name, "parent": parent, **more})

    around = [
        thing("Folder", "f0", "F0", reference("Folder", "root")),
        thing("Datacenter", "dc", "DC%2f1", reference("Folder", "f0")),
        thing("Folder", "vms", "vm", reference("Datacenter", "dc")),
        thing("Folder", "blue", "blue", reference("Folder", "vms")),
        thing("Folder", "hosts", "host", reference("Datacenter", "dc")),
        thing("ClusterComputeResource", "cl", "Cl", reference("Folder", "hosts")),
        thing("HostSystem", "esx1", "esx1", reference("ClusterComputeResource", "cl")),
        thing("dvs.DistributedVirtualPortgroup", "dvportgroup-7", "Prod%2f1"),
    ]
    made = [
        thing(
            "VirtualMachine",
            id,
            name,
            reference("Folder", folder or "vms"),
            **{
                "runtime.host": reference("HostSystem", "esx1"),
                "config.uuid": uuids.get(id.replace("-", "_")),
            },
        )
        for id, name, folder in vms
    ]
    return arrange([*around, *made])
