"""oVirt's number and name for the operating system of a guest.

From the engine's osinfo-defaults.properties. What it has no entry for is the nearest that engines
of every age know: "Linux", or "Other OS".
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from v2v.hardware import Hardware
from v2v.outputs._ovirt.chipset import bios_type
from v2v.types import GuestOS


@dataclass(frozen=True, slots=True)
class OsId:
    number: int  # ovirt:id of the `ovirt` flavour
    name: str  # the unique name that the `ovirtexp` flavour has
    cim: int = 1  # OSType of CIM, for readers that do not know oVirt's number; 1: other
    tpm: bool = False  # the engine lets it have a TPM
    desktop: bool = False  # a workstation rather than a server
    q35: bool = True  # the engine takes it with this chipset
    exact: bool = True  # False: oVirt has none for this one, and this is the nearest


OTHER = OsId(0, "other")
LINUX = OsId(5, "other_linux", 36)

RHEL = {
    3: OsId(15, "rhel_3x64", 80, q35=False),
    4: OsId(14, "rhel_4x64", 80, q35=False),
    5: OsId(13, "rhel_5x64", 80, q35=False),
    6: OsId(19, "rhel_6x64", 80),
    7: OsId(24, "rhel_7x64", 80, tpm=True),
    8: OsId(30, "rhel_8x64", 80, tpm=True),
    9: OsId(34, "rhel_9x64", 80, tpm=True),
}
RHEL_32 = {
    3: OsId(9, "rhel_3", 79, q35=False),
    4: OsId(8, "rhel_4", 79, q35=False),
    5: OsId(7, "rhel_5", 79, q35=False),
    6: OsId(18, "rhel_6", 79),
}
SLES = {11: OsId(1193, "sles_11", 85)}
UBUNTU = {
    12: OsId(1252, "ubuntu_12_04", 94),
    13: OsId(1254, "ubuntu_13_04", 94),
    14: OsId(1256, "ubuntu_14_04", 94),
    18: OsId(1257, "ubuntu_18_04", 94),
}
DEBIAN = {7: OsId(1300, "debian_7", 96), 9: OsId(1301, "debian_9", 96)}

# The kinds of distributions: os-release's ID, which is also the end of libosinfo's.
KINDS = {
    **dict.fromkeys(("rhel", "centos", "centos-stream", "rocky", "almalinux", "alma"), "rhel"),
    **dict.fromkeys(("ol", "oraclelinux", "scientific", "scientificlinux", "circle"), "rhel"),
    **dict.fromkeys(("sles", "sled", "sle"), "sles"),
    "ubuntu": "ubuntu",
    "debian": "debian",
}
X86_64 = {"rhel": RHEL, "sles": SLES, "ubuntu": UBUNTU, "debian": DEBIAN}
PPC64 = {
    "rhel": {
        6: OsId(1007, "rhel_6_9_plus_ppc64", 80),
        7: OsId(1006, "rhel_7_ppc64", 80, tpm=True),
        8: OsId(1008, "rhel_8_ppc64", 80, tpm=True),
        9: OsId(1009, "rhel_9_ppc64", 80, tpm=True),
    },
    "sles": {11: OsId(1004, "sles_11_ppc64", 85)},
    "ubuntu": {14: OsId(1005, "ubuntu_14_04_ppc64", 94)},
}
S390X = {
    "rhel": {7: OsId(2003, "rhel_7_s390x", 80, tpm=True)},
    "sles": {12: OsId(2004, "sles_12_s390x", 85)},
    "ubuntu": {16: OsId(2005, "ubuntu_16_04_s390x", 94)},
}
# Architecture: the systems, any other Linux, and anything else.
ARCHITECTURES = {
    "x86_64": (X86_64, LINUX, OTHER),
    "i686": ({"rhel": RHEL_32, "debian": DEBIAN, "ubuntu": UBUNTU}, LINUX, OTHER),
    "ppc64": (PPC64, OsId(1002, "other_linux_ppc64", 36), OsId(1001, "other_ppc64")),
    "s390x": (S390X, OsId(2002, "other_linux_s390x", 36), OsId(2001, "other_s390x")),
}
SAME_ARCH = {"ppc64le": "ppc64", **dict.fromkeys(("i386", "i486", "i586"), "i686")}
KNOWN_ARCHES = (*ARCHITECTURES, *SAME_ARCH)

# libosinfo's short name: with 64 bits, with 32.
WINDOWS_XP = OsId(1, "windows_xp", 67, q35=False, desktop=True)
WINDOWS_2022 = OsId(37, "windows_2022", 1, tpm=True)
WINDOWS = {
    "xp": (WINDOWS_XP, WINDOWS_XP),
    "2k3": (
        OsId(10, "windows_2003x64", 70, q35=False),
        OsId(3, "windows_2003", 69, q35=False),
    ),
    "vista": (OsId(16, "windows_2008x64", 77), OsId(4, "windows_2008", 76)),
    "2k8": (OsId(16, "windows_2008x64", 77), OsId(4, "windows_2008", 76)),
    "7": (OsId(12, "windows_7x64", 105, desktop=True), OsId(11, "windows_7", 105, desktop=True)),
    "2k8r2": (OsId(17, "windows_2008R2x64", 103), None),
    "8": (
        OsId(21, "windows_8x64", 115, tpm=True, desktop=True),
        OsId(20, "windows_8", 114, tpm=True, desktop=True),
    ),
    "2k12": (OsId(23, "windows_2012x64", 113, tpm=True), None),
    "2k12r2": (OsId(25, "windows_2012R2x64", 116, tpm=True), None),
    "10": (
        OsId(27, "windows_10x64", 121, tpm=True, desktop=True),
        OsId(26, "windows_10", 120, tpm=True, desktop=True),
    ),
    "2k16": (OsId(29, "windows_2016x64", 117, tpm=True), None),
    "2k19": (OsId(31, "windows_2019x64", 122, tpm=True), None),
    "11": (OsId(36, "windows_11", 1, tpm=True, desktop=True), None),
    "2k22": (WINDOWS_2022, None),
    "2k25": (replace(WINDOWS_2022, exact=False), None),
}
SAME_WINDOWS = {"winxp": "xp", "8.1": "8", "2k3r2": "2k3"}
VMWARE_WINDOWS = {
    "winxppro": "xp",
    "winnetstandard": "2k3",
    "winnetenterprise": "2k3",
    "winlonghorn": "2k8",
    "windows7": "7",
    "windows7server": "2k8r2",
    "windows8": "8",
    "windows8server": "2k12",
    "windows9": "10",
    "windows9server": "2k16",
    "windows11": "11",
    "windows2019srv": "2k19",
    "windows2019srvnext": "2k22",
    "windows2022srvnext": "2k25",
}
FREEBSD = (OsId(1501, "freebsdx64", 78), OsId(1500, "freebsd", 42))

OSINFO = re.compile(r"https?://([^/]+)/([^/]+)/(.+)")  # vendor, system, version
SERVER = re.compile(r"windows (?:web )?server\D{0,20}20(03|08|12|16|19|22|25)( r2)?", re.I)
CLIENT = re.compile(r"windows[^\d]{0,20}(xp|vista|7|8\.1|8|10|11)\b", re.I)


def os_id(hardware: Hardware) -> OsId:
    """The nearest one with which the engine takes such a machine: it imports no VM that has a
    chipset which, by its list, the operating system cannot have."""
    found, general = _found(hardware)
    if found is None:
        return general
    if bios_type(hardware) and not found.q35:
        return replace(general, desktop=found.desktop, exact=False)
    return found


def _found(hardware: Hardware) -> tuple[OsId | None, OsId]:
    """The entry of the system or of an older version of it, and that for any of its kind."""
    os = hardware.os
    arch = SAME_ARCH.get(hardware.arch, hardware.arch)
    vendor, system, version = _names(hardware)
    kinds, linux, other = ARCHITECTURES.get(arch, ARCHITECTURES["x86_64"])
    if found := _windows(system, version, os) or _freebsd(vendor):
        return (found[1] if arch == "i686" else None) or found[0], other
    is_linux = system in KINDS or (os is not None and os.type == "linux")
    newest = _newest(kinds.get(KINDS.get(system, ""), {}), version)
    return newest, linux if is_linux else other


def _names(hardware: Hardware) -> tuple[str, str, str]:
    """libosinfo's vendor, system and version; or the converter's words; or, where nobody looked
    into the guest, the source's."""
    os = hardware.os
    looked = os is not None and os.type != "unknown"
    told = hardware.osinfo or ("" if looked else hardware.source_osinfo or "")
    if match := OSINFO.fullmatch(told.lower()):
        return match[1], match[2], match[3]
    if looked and os is not None:
        return os.distro.lower(), os.distro.lower(), os.version.lower()
    return "", *_vmware(told)


def _vmware(name: str) -> tuple[str, str]:
    """System and version of VMware's name of a guest: rhel8_64Guest, windows9Server64Guest."""
    name = re.sub(r"[-_]?64$", "", name.removesuffix("Guest"))
    if version := VMWARE_WINDOWS.get(name.lower()):
        return "win", version
    match = re.fullmatch(r"([A-Za-z]+?)(\d*)", name)
    system = match[1].lower() if match else ""
    # Without a number it may be any version; VMware does not tell those of Ubuntu apart.
    return (system, match[2]) if match and system in KINDS else ("", "")


def _windows(system: str, version: str, os: GuestOS | None) -> tuple[OsId, OsId | None] | None:
    if system == "win":
        return WINDOWS.get(SAME_WINDOWS.get(version, version))
    if os is None or os.type != "windows":
        return None
    if match := SERVER.search(os.product):
        year = match[1].lstrip("0")
        return WINDOWS.get(f"2k{year}{'r2' if match[2] and year != '3' else ''}")
    if match := CLIENT.search(os.product):
        return WINDOWS.get(SAME_WINDOWS.get(match[1].lower(), match[1].lower()))
    return None


def _freebsd(vendor: str) -> tuple[OsId, OsId | None] | None:
    return FREEBSD if vendor in ("freebsd.org", "freebsd") else None


def _newest(versions: dict[int, OsId], version: str) -> OsId | None:
    """The entry of the version, or the last one before it; of no number, the newest one."""
    digits = re.match(r"\d{1,4}", version)
    if digits is None:
        return versions[max(versions)] if versions and version in ("testing", "sid") else None
    known = [one for one in versions if one <= int(digits[0])]
    return versions[max(known)] if known else None
