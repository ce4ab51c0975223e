"""UEFI firmware for QEMU's guests: where distributions install it, and the arguments for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from v2v.errors import HostError
from v2v.hardware import Hardware
from v2v.qemu import qemu_arch, quote
from v2v.types import Machine


@dataclass(frozen=True, slots=True)
class UefiFirmware:
    """The read-only code, and the empty variables of which every guest needs a copy."""

    code: str
    variables: str


_OVMF_4M = ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")
_OVMF_2M = ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd")
_EDK2 = "/usr/share/edk2"
_QEMU_EFI = "/usr/share/qemu-efi-aarch64/QEMU_EFI.fd"

# (arch, secure boot): pairs of code and variables on Debian, Fedora, RHEL and SUSE, best first.
# The variables of secure boot hold Microsoft's keys, which sign the loaders of distributions.
UEFI_FILES: dict[tuple[str, bool], tuple[tuple[str, str], ...]] = {
    ("x86_64", False): (
        _OVMF_4M,
        _OVMF_2M,
        (f"{_EDK2}/ovmf/OVMF_CODE.fd", f"{_EDK2}/ovmf/OVMF_VARS.fd"),
        (f"{_EDK2}/x64/OVMF_CODE.4m.fd", f"{_EDK2}/x64/OVMF_VARS.4m.fd"),
        ("/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"),
    ),
    ("x86_64", True): (
        ("/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
        ("/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/OVMF/OVMF_VARS.ms.fd"),
        (f"{_EDK2}/ovmf/OVMF_CODE.secboot.fd", f"{_EDK2}/ovmf/OVMF_VARS.secboot.fd"),
    ),
    ("aarch64", False): (
        ("/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
        (
            f"{_EDK2}/aarch64/QEMU_EFI-silent-pflash.raw",
            f"{_EDK2}/aarch64/vars-template-pflash.raw",
        ),
    ),
    ("aarch64", True): (
        ("/usr/share/AAVMF/AAVMF_CODE.ms.fd", "/usr/share/AAVMF/AAVMF_VARS.ms.fd"),
    ),
}
UEFI_PACKAGES = {"x86_64": ("ovmf", "edk2-ovmf"), "aarch64": ("qemu-efi-aarch64", "edk2-aarch64")}


def uefi_firmware(arch: str, *, secure_boot: bool = False) -> UefiFirmware:
    """The installed UEFI firmware for guests of an architecture."""
    arch = qemu_arch(arch)
    for code, variables in UEFI_FILES.get((arch, secure_boot), ()):
        if Path(code).exists() and Path(variables).exists():
            return UefiFirmware(code, variables)
    debian, rpm = UEFI_PACKAGES.get(arch, ("ovmf", "edk2-ovmf"))
    kind = "UEFI firmware with secure boot" if secure_boot else "UEFI firmware"
    raise HostError(
        f"no {kind} for {arch} guests is installed",
        id="uefi-firmware-missing",
        hint=f"install it: apt-get install {debian}, or dnf install {rpm}",
    )


def firmware_arguments(hardware: Hardware, firmware: UefiFirmware, variables: str) -> list[str]:
    """UEFI from its code and `variables`, the guest's own writable copy."""
    pflash = "if=pflash,format=raw"
    argv = [
        *("-drive", f"{pflash},unit=0,readonly=on,file={quote(firmware.code)}"),
        *("-drive", f"{pflash},unit=1,file={quote(variables)}"),
    ]
    if hardware.secure_boot and hardware.machine is Machine.Q35:
        argv += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
        argv += ["-global", "ICH9-LPC.disable_s3=1"]
    return argv
