"""What a libvirt domain says of its machine: memory, processor, firmware, clock."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from v2v.errors import SourceError
from v2v.inputs._limits import MAX_MEMORY, MAX_VCPUS, MIN_MEMORY, assumed_memory
from v2v.inputs._xml import attribute, find_text, number
from v2v.run import Run
from v2v.texts import size_text
from v2v.types import Cpu, Firmware, KiB

if TYPE_CHECKING:
    from v2v.inputs._xml import Element

MAX_FEATURES = 100
SCALES = "kmgtpe"  # each a factor of 1024, or 1000, more
UNIT = re.compile(r"([kmgtpe])(ib|b)?", re.IGNORECASE)
FEATURE = re.compile(r"[a-z][a-z0-9_-]{0,40}", re.ASCII)
UTC = ("utc", "etc/utc", "gmt", "etc/gmt", "zulu", "uct")

# Domains of these types say what their firmware is. Others (a physical machine, VMware's through an
# older libvirt) may leave it out.
TELL_FIRMWARE = ("kvm", "qemu", "xen", "hvf")
X86 = ("x86_64", "i686")
UEFI_NAMES = re.compile(r"ovmf|edk2|aavmf|uefi", re.IGNORECASE)


def read_memory(root: Element, name: str, run: Run) -> int:
    """Bytes the VM boots with at most; what the balloon left it at some time does not count."""
    text = find_text(root, "memory")
    if text is None:
        return assumed_memory(name, run)
    count, factor = number(text), unit_bytes(attribute(root, "memory", "unit"))
    if count is None or factor is None or not MIN_MEMORY <= count * factor <= MAX_MEMORY:
        raise SourceError(
            f"{name}: the VM's memory is {text!r} {attribute(root, 'memory', 'unit') or 'KiB'}, "
            f"which is not between {size_text(MIN_MEMORY)} and {size_text(MAX_MEMORY)}",
            id="domain-invalid",
            hint="correct <memory>",
        )
    return count * factor


def unit_bytes(unit: str | None) -> int | None:
    """What libvirt takes a unit for: KB is 1000 bytes, k and KiB 1024, nothing is KiB."""
    if unit is None:
        return KiB
    if unit.lower() in ("b", "byte", "bytes"):
        return 1
    found = UNIT.fullmatch(unit)
    if found is None:
        return None
    base = 1000 if (found[2] or "").lower() == "b" else KiB
    return int(base ** (SCALES.index(found[1].lower()) + 1))


def read_vcpus(root: Element, name: str) -> int:
    """The most the VM may have: some of them may be unplugged when it starts."""
    text = find_text(root, "vcpu")
    count = 1 if text is None else number(text)
    if count is None or not 1 <= count <= MAX_VCPUS:
        raise SourceError(
            f"{name}: the VM has {text!r} virtual CPUs, which is not between 1 and {MAX_VCPUS}",
            id="domain-invalid",
            hint="correct <vcpu>",
        )
    return count


def read_cpu(root: Element) -> Cpu:
    """Dies and clusters are counted as cores of their socket."""

    def count(key: str) -> int | None:
        found = number(attribute(root, "cpu/topology", key))
        return found if found and found <= MAX_VCPUS else None

    cores = count("cores")
    if cores:
        cores *= (count("dies") or 1) * (count("clusters") or 1)
    return Cpu(
        model=find_text(root, "cpu/model"),
        vendor=find_text(root, "cpu/vendor"),
        sockets=count("sockets"),
        cores=cores,
        threads=count("threads"),
    )


def read_firmware(root: Element) -> Firmware | None:
    """None where the domain does not tell."""
    chosen = attribute(root, "os", "firmware")
    if chosen in ("efi", "bios"):
        return Firmware.UEFI if chosen == "efi" else Firmware.BIOS
    loader = find_text(root, "os/loader") or ""
    flash = attribute(root, "os/loader", "type") == "pflash"
    if flash or UEFI_NAMES.search(loader) or root.find("os/nvram") is not None:
        return Firmware.UEFI
    told = root.get("type") in TELL_FIRMWARE and find_text(root, "os/type") == "hvm"
    x86 = (attribute(root, "os/type", "arch") or X86[0]) in X86
    return Firmware.BIOS if told and x86 else None


def read_secure_boot(root: Element) -> bool:
    """On, that is able to and with keys that it checks against."""
    features = {
        str(feature.get("name")): feature.get("enabled") == "yes"
        for feature in reversed(root.findall("os/firmware/feature"))
    }
    if not features.get("enrolled-keys", True):
        return False
    return features.get("secure-boot", attribute(root, "os/loader", "secure") == "yes")


def read_nvram(root: Element) -> str | None:
    return find_text(root, "os/nvram") or attribute(root, "os/nvram/source", "file")


def read_features(root: Element) -> tuple[str, ...]:
    parent = root.find("features")
    found = [] if parent is None else [e for e in parent if e.get("state") != "off"]
    names = [e.tag for e in found if isinstance(e.tag, str) and FEATURE.fullmatch(e.tag)]
    return tuple(dict.fromkeys(names))[:MAX_FEATURES]


def read_clock(root: Element) -> bool | None:
    """Whether the clock runs in UTC; None when it is not said, or an absolute time."""
    offset = attribute(root, "clock", "offset")
    if offset == "variable":
        offset = attribute(root, "clock", "basis") or "utc"
    if offset == "timezone":
        return (attribute(root, "clock", "timezone") or "").lower() in UTC
    return {"utc": True, "localtime": False}.get(offset or "")
