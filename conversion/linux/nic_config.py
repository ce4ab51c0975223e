"""Which network interfaces a guest's configuration speaks of: parsers of every kind of file.

Each parser takes a file's text and gives what it says of physical Ethernet interfaces; bridges,
bonds, VLANs and the like are not among them, but what they are built on is. A file that does not
parse says nothing.
"""

from __future__ import annotations

import configparser
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import yaml

MAC_PATTERN = r"(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}"
MAC = re.compile(MAC_PATTERN)
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,15}")
VIRTUAL = re.compile(
    r"(lo$|br-|br\d|virbr|bond\d|team\d|vlan|docker|veth|tun\d|tap\d|wg\d|dummy|ppp|sit|vxlan|wl|lxc|"
    r"lxd|ovs|vnet|ib\d|can\d|macv|ipvl)"
)


@dataclass(frozen=True, slots=True)
class Reference:
    """One file's mention of an interface: by name, by MAC, or both."""

    name: str | None
    mac: str | None  # lower case, colons
    where: str
    glob: bool = False  # the name is a pattern

    @property
    def usable(self) -> bool:
        return bool(self.name or self.mac)


def normal_mac(text: object) -> str | None:
    word = str(text).strip().strip("\"'")
    return word.lower().replace("-", ":") if MAC.fullmatch(word) else None


def physical_name(name: str) -> str | None:
    """The interface behind a name such as eth0:1 or ens192.100; None for a virtual one."""
    base = re.split("[:.]", name, maxsplit=1)[0]
    if not NAME.fullmatch(base) or VIRTUAL.match(base):
        return None
    return base


# ifupdown -----------------------------------------------------------------------------------------

_PORTS = ("bridge_ports", "bridge-ports", "slaves", "bond-slaves", "bond_slaves")
_RAW = ("vlan-raw-device", "vlan_raw_device", "bond-primary")
_MASTERS = ("bond-master", "bond_master")
_NO_CARD = ("ppp", "wvdial", "tunnel", "v4tunnel", "6to4", "loopback")  # methods of interfaces(5)


def ifupdown(text: str, where: str) -> list[Reference]:
    """interfaces(5)."""
    names: dict[str, None] = {}
    built: set[str] = set()
    current = ""
    for line in _logical_lines(text):
        words = line.split()
        if not words:
            continue
        if words[0] in ("auto", "iface") or words[0].startswith("allow-"):
            current = words[1] if words[0] == "iface" and len(words) > 1 else ""
            listed = words[1:2] if words[0] == "iface" else words[1:]
            names |= dict.fromkeys(listed)
            if words[0] == "iface" and words[3:4] and words[3] in _NO_CARD:
                built.add(current)
        elif words[0] in _MASTERS:
            built |= set(words[1:])
        elif words[0] in _PORTS:
            built.add(current)
            names |= dict.fromkeys(w for w in words[1:] if w not in ("none", "all", "regex"))
        elif words[0] in _RAW:
            if words[0].startswith("vlan"):
                built.add(current)
            names |= dict.fromkeys(words[1:])
    physical = [physical_name(name) for name in names if name not in built and "/" not in name]
    return [Reference(name, None, where) for name in dict.fromkeys(physical) if name]


def ifupdown_sources(text: str) -> list[str]:
    """The glob patterns of the files that an interfaces file includes.

    One with many wildcards may match without end, through links to the folder they are in.
    """
    patterns = []
    for line in _logical_lines(text):
        words = line.split()
        if len(words) == 2 and words[0] == "source":
            patterns.append(words[1])
        elif len(words) == 2 and words[0] == "source-directory":
            patterns.append(f"{words[1].rstrip('/')}/*")
    patterns = [p if p.startswith("/") else f"/etc/network/{p}" for p in patterns]
    return [
        p for p in patterns if sum(any(c in part for c in "*?[{") for part in p.split("/")) <= 2
    ]


def _logical_lines(text: str) -> Iterable[str]:
    joined = text.replace("\\\n", " ")
    return (line.strip() for line in joined.splitlines() if not line.lstrip().startswith("#"))


# netplan ------------------------------------------------------------------------------------------


def netplan(text: str, where: str) -> list[Reference]:
    """netplan(5): each of network.ethernets.

    BaseLoader makes strings of everything: no MAC becomes a number, no tag runs a constructor that
    fails, and no merge key makes a small file large.
    """
    try:
        document = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - safer than SafeLoader
    except (yaml.YAMLError, ValueError, RecursionError):
        return []
    ethernets = _mapping(_mapping(_mapping(document).get("network")).get("ethernets"))
    found = [_netplan_nic(str(key), _mapping(value), where) for key, value in ethernets.items()]
    return [reference for reference in found if reference.usable]


def _netplan_nic(key: str, value: dict[str, Any], where: str) -> Reference:
    match = _mapping(value.get("match"))
    name = value.get("set-name") or match.get("name") or (None if match else key)
    text = str(name) if name else None
    return Reference(_valid(text), normal_mac(match.get("macaddress")), where, _is_glob(text))


def _mapping(value: object) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _is_glob(name: str | None) -> bool:
    return bool(name) and any(c in str(name) for c in "*?[")


def _valid(name: str | None) -> str | None:
    if name is None or _is_glob(name):
        return name if name and re.fullmatch(r"[\w.*?\[\]-]{1,40}", name) else None
    return physical_name(name)


# systemd-networkd and .link -----------------------------------------------------------------------


def networkd(text: str, where: str) -> list[Reference]:
    """systemd.network(5): what [Match] selects."""
    match = _section(text, "Match")
    if "Kind" in match or match.get("Type", "ether").strip() not in ("ether", ""):
        return []
    macs = [normal_mac(word) for word in match.get("MACAddress", "").split()]
    names = [w for w in match.get("Name", "").split() if not w.startswith("!")]
    if names:
        mac = macs[0] if len(macs) == 1 and len(names) == 1 else None
        found = [Reference(_valid(name), mac, where, _is_glob(name)) for name in names]
    else:
        found = [Reference(None, mac, where) for mac in macs]
    return [reference for reference in found if reference.usable]


def link(text: str, where: str) -> list[Reference]:
    """systemd.link(5): a file that gives a name to a MAC address."""
    match = _section(text, "Match")
    name = _section(text, "Link").get("Name", "").strip()
    words = f"{match.get('MACAddress', '')} {match.get('PermanentMACAddress', '')}".split()
    macs = [mac for mac in map(normal_mac, words) if mac]
    if not name or not physical_name(name):
        return []
    return [Reference(physical_name(name), macs[0] if macs else None, where)]


def netdev(text: str, where: str) -> list[Reference]:
    """systemd.netdev(5): the virtual interface that the file makes."""
    name = _section(text, "NetDev").get("Name", "").strip()
    return [Reference(name, None, where)] if name else []


# NetworkManager -----------------------------------------------------------------------------------


ETHERNET = ("ethernet", "802-3-ethernet")


def network_manager(text: str, where: str) -> list[Reference]:
    """nm-settings-keyfile(5)."""
    connection = _section(text, "connection")
    kind = connection.get("type", "")
    if kind in ("vlan", "macvlan"):
        parent = physical_name(_section(text, kind).get("parent", ""))
        return [Reference(parent, None, where)] if parent else []
    if kind not in ETHERNET:
        return []
    ethernet = next((found for name in ETHERNET if (found := _section(text, name))), {})
    reference = Reference(
        _valid(connection.get("interface-name")), normal_mac(ethernet.get("mac-address")), where
    )
    return [reference] if reference.usable else []


def network_manager_builds(text: str, where: str) -> list[Reference]:
    """The bridge, bond, VLAN, ... that a connection makes."""
    connection = _section(text, "connection")
    name = connection.get("interface-name")
    made = name and connection.get("type") not in (None, *ETHERNET)
    return [Reference(name, None, where)] if made else []


def _section(text: str, name: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(strict=False, delimiters=("=",), allow_no_value=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # keys keep their case
    try:
        parser.read_string(text)
    except (configparser.Error, AttributeError):  # the latter: a key without a value is continued
        return {}
    return {k: v or "" for k, v in parser.items(name)} if parser.has_section(name) else {}


# udev ---------------------------------------------------------------------------------------------


def udev_rules(text: str, where: str) -> list[Reference]:
    """Rules that give a name to a network card."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        name = re.search(r"(?:^|[\s,])NAME=\"([^\"]+)\"", line)
        if line.lstrip().startswith("#") or not name or 'SUBSYSTEM=="net"' not in line:
            continue
        mac = re.search(r"ATTR\{address\}==\"([^\"]+)\"", line)
        if physical := physical_name(name[1]):
            found.append(Reference(physical, normal_mac(mac[1]) if mac else None, where))
    return found


def ifrename(text: str, where: str) -> list[Reference]:
    """iftab(5)."""
    found = []
    for line in text.splitlines():
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if len(words) >= 3 and words[1] == "mac" and (name := physical_name(words[0])):
            found.append(Reference(name, normal_mac(words[2]), where))
    return found
