"""Network identity: interfaces keep the names and addresses that the guest's configuration uses.

On new hardware a card would get a new name (ens192 becomes enp1s0), and whatever is configured for
the old one is lost. So each name the configuration uses is paired with a card of the target and
pinned to its MAC address; where the MAC itself changed, the configuration's copies of it are
corrected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace

from conversion.actions import Action, EditFile, WriteFile
from conversion.guest import Guest
from conversion.linux import nic_config
from conversion.linux.caps import caps
from conversion.linux.nic_config import Reference
from conversion.linux.nic_pairing import Pairing, interfaces, pair
from conversion.linux.versions import version_key
from v2v.types import Change, NetModel, Nic

LINK_FOLDER = "/etc/systemd/network"
RULES_FILE = "/etc/udev/rules.d/70-persistent-net.rules"
# systemd 240 lets a .link file rename a card that was renamed before, in the initramfs (naming
# scheme v240, "allow re-renames"); before that only a udev rule does.
LINK_SYSTEMD = "240"
WHY = "cards get other names on the new hardware, and the configuration uses this one"

Parser = Callable[[str, str], list[Reference]]
SOURCES: tuple[tuple[str, Parser], ...] = (
    ("/etc/netplan/*.yaml", nic_config.netplan),
    ("/etc/netplan/*.yml", nic_config.netplan),
    ("/etc/systemd/network/*.network", nic_config.networkd),
    ("/etc/NetworkManager/system-connections/*", nic_config.network_manager),
)
# What these make is no card, whatever its name.
BUILDERS: tuple[tuple[str, Parser], ...] = (
    ("/etc/systemd/network/*.netdev", nic_config.netdev),
    ("/etc/NetworkManager/system-connections/*", nic_config.network_manager_builds),
)
# These only name cards; nothing is configured by them, so they tell MACs of names used elsewhere.
NAMERS: tuple[tuple[str, Parser], ...] = (
    ("/etc/udev/rules.d/*.rules", nic_config.udev_rules),
    ("/etc/systemd/network/*.link", nic_config.link),
    ("/etc/iftab", nic_config.ifrename),
)


# Writing ------------------------------------------------------------------------------------------


def link_file(name: str, mac: str) -> str:
    """systemd.link(5). `Path=*` leaves out VLANs and bridges, which share their card's MAC."""
    return (
        f"# Written by v2v: keeps this card's name on the new hardware.\n"
        f"[Match]\nMACAddress={mac}\nPath=*\n\n[Link]\nName={name}\n"
    )


def rule_line(name: str, mac: str) -> str:
    """A udev rule; `DRIVERS==\"?*\"` leaves out VLANs and bridges."""
    return (
        f'SUBSYSTEM=="net", ACTION=="add", DRIVERS=="?*", ATTR{{address}}=="{mac}", '
        f'ATTR{{type}}=="1", NAME="{name}"\n'
    )


def edit_rules(text: str, names: dict[str, str], *, add: bool) -> str:
    """Silence rules that give one of `names` (name: MAC), or another name to its card; add ours."""
    lines = []
    for line in text.splitlines(keepends=True):
        references = nic_config.udev_rules(line, "")
        silent = any(
            (r.name in names and r.mac != names[r.name])
            or (r.mac in names.values() and names.get(r.name or "") != r.mac)
            for r in references
        )
        ours = add and any(r.name in names for r in references)
        if not ours:
            lines.append(f"# silenced by v2v: {line}" if silent else line)
    start = "".join(lines)
    if not add:
        return start
    if start and not start.endswith("\n"):
        start += "\n"
    return start + "".join(rule_line(name, mac) for name, mac in names.items())


def replace_identity(text: str, macs: dict[str, str], driver: str) -> str:
    """Correct MACs (old: new) and the driver where a configuration selects a card by them.

    Understands the line that netplan, systemd-networkd and NetworkManager write; an address that
    is to be given to the card (`MACAddress=` in [Link], netplan's `macaddress` beside `match`) is
    left as it is unless it is the card's own old one.
    """

    def mac(match: re.Match[str]) -> str:
        old = nic_config.normal_mac(match[2])
        return match[1] + macs.get(old or "", match[2])

    key = r"((?i:\b(?:mac-?address|permanentmacaddress))[ \t]*[:=][ \t]*[\"']?)"
    text = re.sub(key + rf"({nic_config.MAC_PATTERN})", mac, text, flags=re.IGNORECASE)
    old_drivers = r"(?:vmxnet3|vmxnet|e1000e?|pcnet32|hv_netvsc|xen_netfront|vif|xen-netfront)"
    return re.sub(
        rf"(?m)^((?:[^#\n]*[ \t{{,])?(?:driver|Driver)[ \t]*[:=][ \t\[]*[\"']?){old_drivers}\b",
        rf"\g<1>{driver}",
        text,
    )


# The guest ----------------------------------------------------------------------------------------


def _references(guest: Guest) -> list[Reference]:
    used = []
    for path in _interfaces_files(guest):
        used += nic_config.ifupdown(guest.read_text(path) or "", path)
    used += _from(guest, SOURCES)
    built = {reference.name for reference in _from(guest, BUILDERS)}
    return [reference for reference in used if reference.name not in built]


def _from(guest: Guest, sources: Iterable[tuple[str, Parser]]) -> list[Reference]:
    found = []
    for pattern, parse in sources:
        for path in guest.glob(pattern):
            found += parse(guest.read_text(path) or "", path)
    return found


def _interfaces_files(guest: Guest) -> list[str]:
    """/etc/network/interfaces and what it includes, each once."""
    files: dict[str, None] = {}
    asked: set[str] = set()
    pending = ["/etc/network/interfaces"]
    while pending:
        path = pending.pop(0)
        text = None if path in files else guest.read_text(path)
        if text is None:
            continue
        files[path] = None
        for pattern in nic_config.ifupdown_sources(text):
            if pattern not in asked:
                asked.add(pattern)
                pending += guest.glob(pattern)
    return list(files)


def pairing(guest: Guest) -> Pairing:
    found = interfaces(_references(guest), _from(guest, NAMERS))
    return pair(found, guest.nics)


def named_nics(guest: Guest) -> tuple[Nic, ...]:
    """The target's cards with the names they have in the guest, where its configuration tells."""
    names = {index: i.name for i, index in pairing(guest).pairs if i.name}
    return tuple(
        replace(nic, name=names.get(index, nic.name)) for index, nic in enumerate(guest.nics)
    )


def keep_nic_names(guest: Guest) -> Iterable[Action]:
    """Step: pin each name the configuration uses to a card of the target."""
    if not guest.options.keep_nic_names:
        return
    result = pairing(guest)
    for interface in result.unpaired:
        guest.warn(
            f"{', '.join(interface.where)} configures {interface.name or interface.mac}, and the "
            f"target has no network card left for it",
            id="nic-missing",
            hint="tell of more cards with --mac MAC:network:NAME",
        )
    names = {i.name: guest.nics[n].mac or "" for i, n in result.pairs if i.name}
    yield from _pin(guest, names)
    yield from _correct(guest, result)


def _pin(guest: Guest, names: dict[str, str]) -> Iterable[Action]:
    modern = version_key(_udev_version(guest)) >= version_key(LINK_SYSTEMD)
    if modern:
        for name, mac in names.items():
            path = f"{LINK_FOLDER}/10-v2v-{name}.link"
            change = Change(f"Kept the interface name {name} for the card {mac}", WHY, path)
            if guest.read_text(path) != link_file(name, mac):
                yield WriteFile(path, link_file(name, mac).encode(), change)
    elif names:
        listed = ", ".join(f"{name} for the card {mac}" for name, mac in names.items())
        change = Change(f"Kept the interface names: {listed}", WHY, RULES_FILE)
        if guest.read(RULES_FILE) is not None:
            yield EditFile(RULES_FILE, lambda old: edit_rules(old, names, add=True), change)
        else:
            yield WriteFile(RULES_FILE, edit_rules("", names, add=True).encode(), change)
    for path in guest.glob("/etc/udev/rules.d/*.rules"):
        if path != RULES_FILE or modern:
            yield from _silence(guest, path, names)


def _silence(guest: Guest, path: str, names: dict[str, str]) -> Iterable[Action]:
    text = guest.read_text(path) or ""
    if edit_rules(text, names, add=False) != text:
        why = "they belong to cards of the old hardware and would take names that are kept"
        change = Change("Silenced udev rules that name network cards", why, path)
        yield EditFile(path, lambda old: edit_rules(old, names, add=False), change)


def _udev_version(guest: Guest) -> str:
    version = guest.packages.get("udev") or guest.packages.get("systemd") or "0"
    return version.split("-")[0]


def _correct(guest: Guest, result: Pairing) -> Iterable[Action]:
    """Where configuration selects a card by a MAC that changed, or by the old card's driver."""
    macs = {i.mac: guest.nics[n].mac or "" for i, n in result.pairs if i.mac}
    macs = {old: new for old, new in macs.items() if new and old != new}
    driver = "virtio_net" if caps(guest).net_model is NetModel.VIRTIO else caps(guest).net_model
    for path in {path for pattern, _ in SOURCES for path in guest.glob(pattern)}:
        text = guest.read_text(path) or ""
        if replace_identity(text, macs, driver) == text:
            continue
        what = ", ".join(f"{old} by {new}" for old, new in macs.items() if old in text.lower())
        yield EditFile(
            path,
            lambda old: replace_identity(old, macs, driver),
            Change(
                f"Replaced {what or 'the driver'} in what selects a network card",
                "the card on the new hardware is another one",
                path,
            ),
        )
