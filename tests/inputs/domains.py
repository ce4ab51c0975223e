"""Reading a libvirt domain that a test writes a part of."""

from __future__ import annotations

import pytest

from v2v.errors import V2VError
from v2v.events import Event, Warned
from v2v.inputs._domain import Domain, read_domain
from v2v.inputs._domain.disks import DomainDisk
from v2v.run import Run
from v2v.types import Source

DISK = "<disk type='file'><source file='/a'/><target dev='vda' bus='virtio'/></disk>"


def domain(
    run: Run, inside: str = "", devices: str = "", *, attributes: str = "type='kvm'"
) -> Domain:
    """Read a domain with one disk and what is given."""
    memory = "" if "<memory" in inside else "<memory>1048576</memory>"
    xml = f"<domain {attributes}>{memory}{inside}<devices>{DISK}{devices}</devices></domain>"
    return read_domain(xml.encode(), "test.xml", run, mode="libvirtxml")


def source(run: Run, inside: str = "", devices: str = "", **given: str) -> Source:
    return domain(run, inside, devices, **given).source


def disk(run: Run, xml: str) -> DomainDisk:
    """The second disk of a domain, which is the given one."""
    return domain(run, devices=xml).disks[1]


def failed(run: Run, xml: bytes | str, id: str) -> V2VError:
    data = xml.encode() if isinstance(xml, str) else xml
    with pytest.raises(V2VError) as caught:
        read_domain(data, "test.xml", run, mode="libvirtxml")
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert "test.xml" in caught.value.message
    return caught.value


def warnings(events: list[Event]) -> list[str]:
    return [event.id for event in events if isinstance(event, Warned)]
