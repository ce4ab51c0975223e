"""The loader that firmware starts when it remembers no boot entry: \\EFI\\BOOT\\BOOTX64.EFI.

A VM's boot entries live in its firmware's variables, which stay behind. A guest without the
fallback loader would not boot, so the loader it has is copied there; nothing is replaced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from conversion.actions import Action, CopyFile
from conversion.guest import Guest
from v2v.types import Change, Firmware

ESP = "/boot/efi"
SUFFIXES = {"x86_64": "x64", "aarch64": "aa64", "i386": "ia32", "i686": "ia32", "armv7l": "arm"}


def fallback_copies(
    loaders: Mapping[str, Sequence[str]], suffix: str, distro: str
) -> list[tuple[str, str]]:
    """What to copy where, below EFI; nothing if there is a fallback or no loader.

    loaders: the files of each folder of EFI. shim starts the grub beside it, under the name that
    it was built with, so both are copied; fbx64.efi is not, since with it shim would only write
    boot entries and reset.
    """
    fallback = f"boot{suffix}.efi"
    for folder, files in loaders.items():
        if folder.lower() == "boot" and any(name.lower() == fallback for name in files):
            return []
    for folder in sorted(loaders, key=lambda name: (name.lower() != distro, name)):
        if folder.lower() == "boot":
            continue
        names = {name.lower(): name for name in loaders[folder]}
        first = next(
            (
                n
                for kind in ("shim", "grub", "systemd-boot")
                if (n := f"{kind}{suffix}.efi") in names
            ),
            None,
        )
        if first is None:
            continue
        copies = [(f"{folder}/{names[first]}", f"BOOT/{fallback.upper()}")]
        companions = ("grub", "mm") if first.startswith("shim") else ()
        for other in [*(f"{kind}{suffix}.efi" for kind in companions), "grub.cfg"]:
            if other in names:
                copies.append((f"{folder}/{names[other]}", f"BOOT/{names[other]}"))
        return copies
    return []


def add_fallback_loader(guest: Guest) -> Iterable[Action]:
    """Step: give a UEFI guest the loader that firmware without memory starts."""
    if guest.firmware is not Firmware.UEFI:
        return
    suffix = SUFFIXES.get(guest.os.arch)
    if suffix is None or not guest.g.is_dir(f"{ESP}/EFI"):
        guest.warn(
            "the EFI system partition was not found; the guest may not boot on new hardware",
            id="esp-missing",
            hint=r"see that it is mounted at /boot/efi and holds \EFI\BOOT",
        )
        return
    loaders = {
        name: _files(guest, f"{ESP}/EFI/{name}")
        for name in guest.g.ls(f"{ESP}/EFI")
        if guest.g.is_dir(f"{ESP}/EFI/{name}")
    }
    copies = fallback_copies(loaders, suffix, guest.os.distro)
    why = "firmware on new hardware remembers no boot entry and starts this one"
    for source, target in copies:
        path = f"{ESP}/EFI/{target}"
        change = Change(f"Copied {source} as the fallback loader {target}", why, path)
        yield CopyFile(f"{ESP}/EFI/{source}", path, change)
    if not copies and not _has_fallback(loaders, suffix):
        guest.warn(
            "the EFI system partition holds no loader that v2v knows",
            id="uefi-loader-unknown",
            hint=f"put one at \\EFI\\BOOT\\BOOT{suffix.upper()}.EFI",
        )


def _files(guest: Guest, folder: str) -> list[str]:
    return [name for name in guest.g.ls(folder) if guest.g.is_file(f"{folder}/{name}")]


def _has_fallback(loaders: Mapping[str, Sequence[str]], suffix: str) -> bool:
    return any(
        folder.lower() == "boot" and any(n.lower() == f"boot{suffix}.efi" for n in names)
        for folder, names in loaders.items()
    )
