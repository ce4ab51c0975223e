"""What a .vmx file says of its VM, but for disks and network cards."""

from __future__ import annotations

import re
import uuid

from v2v.errors import SourceError
from v2v.inputs._limits import MAX_MEMORY, MAX_VCPUS, MIN_MEMORY, assumed_memory
from v2v.inputs._vmware import SOUND_CARDS, genid_of
from v2v.inputs._vmx.nics import read_nics
from v2v.inputs._vmx.text import Vmx, parse_number
from v2v.run import Run
from v2v.texts import clean_description, clean_name
from v2v.types import Cpu, Firmware, MiB, Source

_UUID = re.compile(r"[0-9a-f]{32}")


def read_vm(vmx: Vmx, name: str, run: Run) -> Source:
    """The VM without its disks. `name` is for one whose file gives none."""
    _refuse_encrypted(vmx)
    vcpus = _vcpus(vmx)
    efi = vmx.text("firmware").lower() == "efi"
    return Source(
        name=clean_name(vmx.text("displayName")) or name,
        input="vmx",
        disks=(),
        nics=read_nics(vmx, run),
        memory=_memory(vmx, run),
        vcpus=vcpus,
        cpu=_cpu(vmx, vcpus),
        firmware=Firmware.UEFI if efi else Firmware.BIOS,
        secure_boot=efi and vmx.flag("uefi.secureBoot.enabled") is True,
        tpm=vmx.flag("vtpm.present") is True or _adds_tpm(vmx),
        genid=genid_of(vmx.number("vm.genid"), vmx.number("vm.genidX")),
        hypervisor="vmware",
        uuid=_uuid(vmx),
        description=clean_description(vmx.text("annotation").replace("\r\n", "\n")),
        osinfo=clean_name(vmx.text("guestOS")) or None,
        rtc_utc=_rtc_utc(vmx),
        video="vmvga" if vmx.flag("svga.present") else None,
        sound=_sound(vmx),
    )


def _adds_tpm(vmx: Vmx) -> bool:
    """Workstation and Fusion: a TPM that is no reason to encrypt the VM."""
    return vmx.text("managedvm.autoAddVTPM").lower() in ("software", "true")


def _refuse_encrypted(vmx: Vmx) -> None:
    if vmx.text("encryption.data"):
        raise SourceError(
            f"{vmx.name}: the VM is encrypted, its description too",
            id="vmx-encrypted",
            hint="remove the encryption in VMware first (VM settings, Access Control)",
        )


def _memory(vmx: Vmx, run: Run) -> int:
    text = vmx.text("memSize")
    if not text:
        return assumed_memory(vmx.name, run)
    megabytes = parse_number(text)
    if megabytes is None or not MIN_MEMORY <= megabytes * MiB <= MAX_MEMORY:
        raise _bad_value(vmx, "memSize", "a number of MiB that a VM can have")
    return megabytes * MiB


def _vcpus(vmx: Vmx) -> int:
    vcpus = vmx.number("numvcpus") if vmx.text("numvcpus") else 1
    if vcpus is None or not 1 <= vcpus <= MAX_VCPUS:
        raise _bad_value(vmx, "numvcpus", "a number of processors that a VM can have")
    return vcpus


def _cpu(vmx: Vmx, vcpus: int) -> Cpu:
    cores = vmx.number("cpuid.coresPerSocket") or 0
    if cores < 1 or vcpus % cores:
        return Cpu()
    return Cpu(sockets=vcpus // cores, cores=cores, threads=1)


def _bad_value(vmx: Vmx, key: str, wanted: str) -> SourceError:
    return SourceError(
        f"{vmx.name}: {key} is {vmx.text(key)[:40]!r}, which is not {wanted}",
        id="vmx-value",
        hint=f"correct {key} in a copy of the file that lies beside it",
    )


def _uuid(vmx: Vmx) -> str | None:
    """From "56 4d 36 d7 33 af 02 3c-6b 8a 6f 0c 68 eb 49 3b"."""
    digits = re.sub(r"[\s-]", "", vmx.text("uuid.bios").lower())
    return str(uuid.UUID(digits)) if _UUID.fullmatch(digits) else None


def _rtc_utc(vmx: Vmx) -> bool | None:
    """`rtc.diffFromUTC` is in seconds; without it the clock is that of the VMware host's zone."""
    difference = vmx.number("rtc.diffFromUTC")
    return None if difference is None else difference == 0


def _sound(vmx: Vmx) -> str | None:
    if not vmx.flag("sound.present"):
        return None
    return SOUND_CARDS.get(vmx.text("sound.virtualDev").lower(), "es1370")
