"""An OVF as oVirt's engine reads it.

Its Java does not know namespaces: it takes elements and attributes by the names that stand in the
file, prefix and all. So does minidom, which is why it is used here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID
from xml.dom import minidom

from v2v.outputs._ovirt.ovf import Flavour
from v2v.types import GiB

DISK, NIC, OTHER = "17", "10", "0"
# What the engine's osinfo-defaults.properties keeps from some systems, by name and by number.
NO_Q35 = {"rhel_3", "rhel_4", "rhel_5", "rhel_3x64", "rhel_4x64", "rhel_5x64"} | {
    *("windows_xp", "windows_2003", "windows_2003x64"),
    *("9", "8", "7", "15", "14", "13", "1", "3", "10"),
}
OTHER_PROCESSORS = {str(number) for number in (*range(1001, 1010), *range(2001, 2006))}
WITH_UUID = {"15", "17", "10", "0", "20", "26", "24", "32768"}


@dataclass
class Read:
    vm: str | None
    os: str
    fields: dict[str, str]
    cpu: tuple[int, int, int]
    memory: int  # MB
    disks: list[dict[str, Any]]
    nics: list[tuple[str, str, bool, str]]  # type, network, linked, MAC
    devices: dict[str, str]


def read(content: bytes, flavour: Flavour) -> Read:
    return _Reader(content, flavour).read()


class _Reader:
    def __init__(self, content: bytes, flavour: Flavour) -> None:
        self.root = minidom.parseString(content).documentElement
        assert self.root.tagName == "ovf:Envelope"
        self.export = flavour is Flavour.OVIRTEXP
        (self.system,) = self.all("Content" if self.export else "VirtualSystem", self.root)
        self.items = self.all("Item", self.section("VirtualHardwareSection"))
        for one in self.items:
            if text("rasd:ResourceType", one) in WITH_UUID:
                UUID(text("rasd:InstanceId", one))

    def all(self, tag: str, parent: minidom.Element) -> list[minidom.Element]:
        return parent.getElementsByTagName(tag)

    def section(self, name: str) -> minidom.Element:
        if not self.export:
            (found,) = self.all(name, self.root)
            return found
        kinds = {one.getAttribute("xsi:type"): one for one in self.all("Section", self.root)}
        return kinds[f"ovf:{name}_Type"]

    def of_type(self, number: str) -> list[minidom.Element]:
        return [one for one in self.items if text("rasd:ResourceType", one) == number]

    def read(self) -> Read:
        os = self.section("OperatingSystemSection")
        (cpu,), (memory,) = self.of_type("3"), self.of_type("4")
        numbers = ("num_of_sockets", "cpu_per_socket", "threads_per_cpu")
        own = (one for one in self.system.childNodes if isinstance(one, minidom.Element))
        told = Read(
            vm=os.getAttribute("ovf:id") if self.export else self.system.getAttribute("ovf:id"),
            os=text("Description", os) if self.export else os.getAttribute("ovirt:id"),
            fields={one.tagName: inner(one) for one in own},
            cpu=tuple(int(text(f"rasd:{name}", cpu)) for name in numbers),
            memory=int(text("rasd:VirtualQuantity", memory)),
            disks=[self.disk(one) for one in self.all("Disk", self.section("DiskSection"))],
            nics=[nic(one) for one in self.of_type(NIC)],
            devices={text("Type", one): text("Device", one) for one in self.of_type(OTHER)},
        )
        importable(told)
        return told

    def disk(self, disk: minidom.Element) -> dict[str, Any]:
        files = {one.getAttribute("ovf:id"): one for one in self.all("File", self.root)}
        known, ref = disk.getAttribute("ovf:diskId"), disk.getAttribute("ovf:fileRef")
        if self.export:  # the disk is told by its volume; the image is in the file's name
            volume, file = known, files[known]
            image = file.getAttribute("ovf:href").partition("/")[0]
            assert ref == f"{image}/{volume}" and file.hasAttribute("ovf:description")
            size = int(disk.getAttribute("ovf:size")) * GiB
            (item,) = [i for i in self.of_type(DISK) if text("rasd:InstanceId", i) == volume]
            assert text("rasd:HostResource", item) == ref
        else:  # the device finds the disk by its description, which is its id where there is none
            image, volume, file = known, ref, files[ref]
            size = int(disk.getAttribute("ovf:capacity"))
            assert not disk.hasAttribute("ovf:description")
            hosts = {text("rasd:HostResource", i).rpartition("/")[2]: i for i in self.of_type(DISK)}
            item = hosts[image]
        assert text("rasd:Caption", item).startswith("Drive ")
        names = ("volume-format", "volume-type", "disk-interface", "boot")
        return {
            "image": image,
            "volume": volume,
            "size": size,
            "used": int(file.getAttribute("ovf:size")),
            "storage": text("rasd:StorageId", item),
            "order": int(text("BootOrder", item)),
            **{name: disk.getAttribute(f"ovf:{name}") for name in names},
        }


def importable(told: Read) -> None:
    """What else the engine looks at before it imports a VM."""
    assert told.fields["BiosType"] == "0" or told.os not in NO_Q35
    foreign = told.os in OTHER_PROCESSORS or told.os.endswith(("ppc64", "s390x"))
    assert not (foreign and "sound" in told.devices)


def nic(item: minidom.Element) -> tuple[str, str, bool, str]:
    macs = item.getElementsByTagName("rasd:MACAddress")
    return (
        text("rasd:ResourceSubType", item),
        text("rasd:Connection", item),
        text("rasd:Linked", item) == "true",
        inner(macs[0]) if macs else "",
    )


def text(tag: str, parent: minidom.Element) -> str:
    return inner(parent.getElementsByTagName(tag)[0])


def inner(element: minidom.Element) -> str:
    return "".join(one.data for one in element.childNodes if isinstance(one, minidom.Text))
