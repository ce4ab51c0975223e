"""-o local: disk files and a libvirt domain in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from v2v.hardware import Hardware
from v2v.outputs._domain import domain_xml
from v2v.outputs._folder import FolderOptions, FolderOutput
from v2v.outputs._virsh import start_command
from v2v.types import TargetDisk


class LocalOutput(FolderOutput):
    """NAME-sda, NAME-sdb, ... and NAME.xml."""

    mode = "local"
    aliases = ("disk",)
    summary = "disk files and a libvirt domain (NAME.xml) in a folder"
    Options = FolderOptions
    suffix = ".xml"

    def description(self, hardware: Hardware, disks: Sequence[TargetDisk]) -> bytes:
        return domain_xml(hardware, disks)

    def start_hint(self, name: str, description: Path) -> str:
        return start_command(name, description)
