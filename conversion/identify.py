"""Which operating system is this? Decided from a few small files, as values.

Sources: os-release(5), Debian's and the RPM distributions' release files, the ELF specification.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Any

from conversion.files import clean, decode, read_capped
from v2v.types import GuestOS

OS_RELEASE = ("/etc/os-release", "/usr/lib/os-release")
# Files of systems older than os-release, and the distribution each tells of.
RELEASE_FILES = {
    "/etc/lsb-release": "ubuntu",
    "/etc/debian_version": "debian",
    "/etc/redhat-release": "redhat",
    "/etc/SuSE-release": "suse",
    "/etc/alpine-release": "alpine",
    "/etc/arch-release": "arch",
    "/etc/gentoo-release": "gentoo",
}
NAMES = ("/etc/hostname", "/etc/HOSTNAME")
PROGRAMS = ("/bin/sh", "/usr/bin/env", "/bin/bash", "/bin/ls", "/sbin/init")
FILES = (*OS_RELEASE, *RELEASE_FILES, *NAMES)

# e_machine: (32-bit name, 64-bit name); None is none that we have a name for.
MACHINES = {
    3: ("i386", None),
    20: ("ppc", None),
    21: (None, "ppc64"),
    22: ("s390", "s390x"),
    40: ("armv7l", None),
    62: (None, "x86_64"),
    183: (None, "aarch64"),
    243: ("riscv32", "riscv64"),
}
ELF_HEADER = 64  # bytes; all that is needed is in the first 20
_VERSION = re.compile(r"\d+(\.\d+)*")


def identify_mounted(g: Any) -> GuestOS:
    """Identify the Linux whose root is mounted at / in the appliance."""
    files = {path: content for path in FILES if (content := read_capped(g, path)) is not None}
    return identify(files, _architecture(g))


def _architecture(g: Any) -> str:
    for path in PROGRAMS:
        if arch := elf_architecture(read_capped(g, path, ELF_HEADER) or b""):
            return arch
    return "unknown"


def elf_architecture(header: bytes) -> str | None:
    """The architecture a program was built for, named as `uname -m` names it."""
    if len(header) < 20 or header[:4] != b"\x7fELF" or header[4] not in (1, 2):
        return None
    little = header[5] == 1
    machine = int.from_bytes(header[18:20], "little" if little else "big")
    name = MACHINES.get(machine, (None, None))[header[4] - 1]
    return f"{name}le" if name == "ppc64" and little else name


def identify(files: Mapping[str, bytes], arch: str) -> GuestOS:
    """Decide from the content of FILES."""
    release = _release(files)
    distro, version = release.get("ID", ""), release.get("VERSION_ID", "")
    product = release.get("PRETTY_NAME", "")
    if not distro:
        distro, product = _from_release_files(files)
    if not version:
        version = _version_of(files, distro)
    distro = clean(distro.lower(), 40) or "unknown"
    version = clean(version, 40)
    return GuestOS(
        type="linux",
        distro=distro,
        version=version,
        product=clean(product) or f"{distro} {version}".strip(),
        arch=arch,
        hostname=_hostname(files),
        osinfo=osinfo(distro, version),
    )


def parse_shell(text: str) -> dict[str, str]:
    """NAME=value lines, quoted as a shell would have them."""
    values = {}
    for line in text.splitlines():
        name, equals, word = line.strip().partition("=")
        if not equals or not name.isidentifier():
            continue
        try:
            words = shlex.split(word, comments=True)
        except ValueError:  # a quote that is never closed
            continue
        values[name] = words[0] if words else ""
    return values


def _release(files: Mapping[str, bytes]) -> dict[str, str]:
    for path in OS_RELEASE:
        if path in files:
            return parse_shell(decode(files[path]))
    return {}


def _from_release_files(files: Mapping[str, bytes]) -> tuple[str, str]:
    lsb = parse_shell(decode(files.get("/etc/lsb-release", b"")))
    if lsb.get("DISTRIB_ID"):
        return lsb["DISTRIB_ID"], lsb.get("DISTRIB_DESCRIPTION", "")
    for path, distro in RELEASE_FILES.items():
        if path in files and path != "/etc/lsb-release":
            line = _first_line(files[path])
            return distro, f"Debian {line}" if distro == "debian" else line
    return "unknown", "Linux"


def _version_of(files: Mapping[str, bytes], distro: str) -> str:
    """For releases that os-release gives no number: Debian's testing, and what is older."""
    lsb = parse_shell(decode(files.get("/etc/lsb-release", b"")))
    if lsb.get("DISTRIB_RELEASE") and distro != "debian":
        return lsb["DISTRIB_RELEASE"]
    for path in RELEASE_FILES:
        if path in files and (match := _VERSION.search(_first_line(files[path]))):
            return match[0]
    return ""


def _first_line(content: bytes) -> str:
    return decode(content).strip().partition("\n")[0]


def _hostname(files: Mapping[str, bytes]) -> str:
    for path in NAMES:
        for line in decode(files.get(path, b"")).splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                return clean(line, 64)
    return ""


def osinfo(distro: str, version: str) -> str | None:
    """The libosinfo URI of a system that we convert, where libosinfo has such URIs."""
    if not re.fullmatch(r"(\d+(\.\d+)*)?", version):
        return None
    if distro == "debian":
        return f"http://debian.org/debian/{version.partition('.')[0] or 'testing'}"
    if distro == "ubuntu" and version:
        return f"http://ubuntu.com/ubuntu/{version}"
    return None
