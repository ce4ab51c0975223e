"""-o block: block devices of this host, such as logical volumes, LUNs or whole disks."""

from __future__ import annotations

from pathlib import Path

from lxml import etree

from v2v.disk_sinks import RAW_REQUEST
from v2v.errors import UsageError
from v2v.outputs._existing import ExistingOptions, ExistingOutput, new_source
from v2v.targets import BlockDevice
from v2v.types import TargetDisk


class BlockOutput(ExistingOutput):
    mode = "block"
    summary = "block devices of this host, named by disk; and a libvirt domain"
    Options = ExistingOptions
    request_size = RAW_REQUEST  # as measured for raw files: no request is cheaper than another

    def place(self, word: str) -> BlockDevice:
        if not word.startswith("/"):
            raise UsageError(
                f"-o block: {word!r} is not the absolute path of a device",
                id="option-value",
                hint="for example -os /dev/vg0/web, or -oo disk=2:/dev/disk/by-id/...",
            )
        return BlockDevice(Path(word))

    def describe_disk(self, element: etree._Element, disk: TargetDisk) -> None:
        element.set("type", "block")
        new_source(element, dev=disk.location)
