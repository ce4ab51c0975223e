"""A libvirt domain, read from its XML: https://libvirt.org/formatdomain.html."""

from __future__ import annotations

from dataclasses import dataclass

from v2v.inputs._domain_disks import DomainDisk
from v2v.run import Run
from v2v.types import Source


@dataclass(frozen=True, slots=True)
class Domain:
    """`source` has everything but its disks, which `_domain_sources.source_disk` makes."""

    source: Source
    disks: tuple[DomainDisk, ...]  # fixed disks only, in the order of the XML


def read_domain(xml: bytes, name: str, run: Run, *, mode: str) -> Domain:
    """Parse the XML. Reads no other file, connects to nothing.

    name: where the XML is from, for messages. mode: the input mode, for `Source.input`. Warns of
    devices that the target will not have. SourceError when it is no domain, or has no disk.
    """
    raise NotImplementedError
