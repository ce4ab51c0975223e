"""Which interface of the configuration becomes which card of the target. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from conversion.linux.nic_config import Reference
from v2v.types import Nic

TYPICAL_NAME = "enp1s0"  # what a virtio card is called on Q35 if nobody pins a name


@dataclass(frozen=True, slots=True)
class Interface:
    """An interface the configuration uses; without a name it is known by its MAC alone."""

    name: str | None
    mac: str | None
    where: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pairing:
    pairs: tuple[tuple[Interface, int], ...]  # with the index of the target's card
    unpaired: tuple[Interface, ...]


def interfaces(used: Iterable[Reference], named: Iterable[Reference]) -> list[Interface]:
    """One Interface for each that is used, in the order in which the source's cards come."""
    naming = list(named)
    macs = {r.name: r.mac for r in naming if r.mac}
    names = {r.mac: r.name for r in naming if r.mac}
    found: dict[str, Interface] = {}
    for reference in _without_globs(used):
        name = reference.name or names.get(reference.mac or "")
        mac = reference.mac or macs.get(name)
        key = name or str(mac)
        old = found.get(key) or Interface(name, None, ())
        where = old.where if reference.where in old.where else (*old.where, reference.where)
        found[key] = Interface(name, old.mac or mac, where)
    return sorted(_merged(found.values()), key=lambda i: name_order(i.name or "~"))


def _merged(found: Iterable[Interface]) -> list[Interface]:
    """An interface known by its MAC alone is the named one with that MAC, if there is one."""
    everything = list(found)
    macs = {i.mac for i in everything if i.name and i.mac}
    return [i for i in everything if i.name or i.mac not in macs]


def _without_globs(used: Iterable[Reference]) -> list[Reference]:
    """A pattern that the card's new name matches needs nothing; another becomes a name it does."""
    references = list(used)
    taken = {r.name for r in references if not r.glob}
    result = []
    for reference in references:
        if reference.glob and reference.name:
            if fnmatchcase(TYPICAL_NAME, reference.name) or any(
                name and fnmatchcase(name, reference.name) for name in taken
            ):
                continue
            name = _name_for(reference.name)
            if name is None and not reference.mac:
                continue
            result.append(replace(reference, name=name, glob=False))
        else:
            result.append(reference)
    return result


def _name_for(pattern: str) -> str | None:
    candidates = ("ens192", "ens160", "ens33", "ens3", "eth0", "eno1", "enp3s0", "em1")
    return next((name for name in candidates if fnmatchcase(name, pattern)), None)


def name_order(name: str) -> tuple[object, ...]:
    """Sorts names as the source's cards come.

    VMware puts its cards at PCI slots 160, 192, 224, 256, then 161, 193, ...: the slot's remainder
    by 32 counts first.
    """
    words = re.split(r"(\d+)", name)
    key: list[object] = [int(word) if word.isdecimal() else word for word in words]
    if re.fullmatch(r"ens\d+", name):
        key.insert(1, int(words[1]) % 32)
    else:
        key.insert(1, 0)
    return tuple(key)


def slot_name(slot: int) -> str:
    """The name of the card at one of VMware's PCI slots.

    The number holds a function in its bits from 10 on, a bridge and a device below (VMware's
    article 2047927). A bridge's functions count as slots that follow each other, and a card is
    called by its slot: 192 is ens192, and 1216, the same bridge's function 1, is ens193.
    """
    return f"ens{slot % 1024 + slot // 1024}"


def pair(found: Sequence[Interface], nics: Sequence[Nic]) -> Pairing:
    """Interfaces with cards: by MAC where both tell it, by the slot that gave a card its name, the
    others in order.

    A MAC comes first because rules and links that name it give its card another name than its
    slot did.
    """
    free = list(range(len(nics)))
    pairs: list[tuple[Interface, int]] = []
    rest = list(found)
    for matches in (_same_mac, _same_slot):
        left = []
        for interface in rest:
            index = next((i for i in free if matches(interface, nics[i])), None)
            if index is None:
                left.append(interface)
            else:
                free.remove(index)
                pairs.append((interface, index))
        rest = left
    pairs.extend(zip(rest, free, strict=False))
    return Pairing(tuple(pairs), tuple(rest[len(free) :]))


def _same_mac(interface: Interface, nic: Nic) -> bool:
    return interface.mac is not None and interface.mac == nic.mac


def _same_slot(interface: Interface, nic: Nic) -> bool:
    return nic.slot is not None and interface.name == slot_name(nic.slot)
