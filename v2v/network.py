"""The target's network cards: what the source had, mapped as -n, -b and --mac ask."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from v2v.hardware import valid_mac
from v2v.job import NicMap
from v2v.types import Nic, Source


def target_nics(source: Source, maps: Sequence[NicMap]) -> tuple[Nic, ...]:
    """The NICs of the target, each with a MAC address.

    A source that tells of no NIC gets those named by --mac, or else one whose MAC is derived from
    the VM, so that it is the same each time the VM is converted. So does a card whose address is
    none that a card can have.
    """
    return tuple(_mapped(nic, maps) for nic in _cards(source, maps))


def _cards(source: Source, maps: Sequence[NicMap]) -> tuple[Nic, ...]:
    """The cards on the source's networks."""
    if source.nics is None:
        named = [m for m in maps if m.kind == "mac"]
        return tuple(Nic(mac=m.source) for m in named) or (_unknown_nic(source, maps),)
    return tuple(
        replace(nic, mac=valid_mac(nic.mac) or stable_mac(source, index))
        for index, nic in enumerate(source.nics)
    )


def _unknown_nic(source: Source, maps: Sequence[NicMap]) -> Nic:
    """A NIC that nobody told of is on a network, unless only -b says where to put NICs."""
    for_all = {m.kind for m in maps if m.source is None}
    return Nic(mac=stable_mac(source), kind="bridge" if for_all == {"bridge"} else "network")


def unused_maps(source: Source, maps: Sequence[NicMap]) -> list[NicMap]:
    """Maps that name a network, bridge or MAC address which no NIC of the source has."""
    cards = _cards(source, maps)
    known: set[tuple[str, str | None]] = {(nic.kind, nic.network) for nic in cards}
    known |= {("mac", nic.mac) for nic in cards}
    return [m for m in maps if m.source is not None and (m.kind, m.source) not in known]


def stable_mac(source: Source, index: int = 0) -> str:
    """A MAC address in QEMU's range, derived from the VM's name, its disks and the NIC's number."""
    identity = "\0".join([source.name, str(index), *(disk.location for disk in source.disks)])
    digest = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    return f"52:54:00:{digest[0:2]}:{digest[2:4]}:{digest[4:6]}"


def _mapped(nic: Nic, maps: Sequence[NicMap]) -> Nic:
    """The most specific map wins: its MAC, then its network or bridge, then the one for all."""
    for kind, name in (("mac", nic.mac), (nic.kind, nic.network), (nic.kind, None)):
        for one in maps:
            if one.kind == kind and one.source == name:
                return replace(nic, kind=one.target_kind, network=one.target)
    return nic
