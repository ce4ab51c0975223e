"""Other real Debian guests, each the whole way: one boots by UEFI, one lacks virtio drivers."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import v2v

# The time covers building the guest, too.
pytestmark = [pytest.mark.appliance, pytest.mark.boots, pytest.mark.timeout(1800)]

BOOT_SECONDS = 600


def test_uefi_guest_boots_from_its_fallback_loader(
    guest_image: Callable[[str], Path], tmp_path: Path
) -> None:
    result = v2v.convert(
        guest_image("debian-12-uefi"),
        output="qemu",
        storage=tmp_path,
        name="uefi",
        output_options={"-of": "qcow2"},
        boot_check=BOOT_SECONDS,
        jobs=tmp_path / "jobs",
    )
    assert [c for c in result.converted.changes if "/boot/efi/EFI/BOOT/" in (c.where or "")]
    assert result.boot is not None
    assert result.boot.reached == "login"
    assert result.boot.nic_drivers["ens192"] == "virtio_net"
    script = Path(result.guest.metadata or "")
    assert script.name == "uefi.sh"
    subprocess.run(["sh", "-n", script], check=True)


def test_initramfs_is_rebuilt_by_the_guests_own_tools_when_asked(
    guest_image: Callable[[str], Path], tmp_path: Path
) -> None:
    result = v2v.convert(
        guest_image("debian-12-lean"),
        output="null",
        conversion=v2v.ConversionOptions(initramfs="rebuild"),
        jobs=tmp_path / "jobs",
    )
    assert [c for c in result.converted.changes if c.what.startswith("Rebuilt the initramfs")]
    assert not result.converted.findings


def test_guest_without_virtio_in_its_initramfs_is_repaired_and_boots(
    guest_image: Callable[[str], Path], tmp_path: Path
) -> None:
    result = v2v.convert(
        guest_image("debian-12-lean"),
        storage=tmp_path,
        name="lean",
        output_options={"-of": "qcow2", "-oo compressed": ""},
        boot_check=BOOT_SECONDS,
        jobs=tmp_path / "jobs",
    )
    assert [c for c in result.converted.changes if "virtio_blk" in c.what]
    assert result.boot is not None
    assert result.boot.reached == "login"
    assert result.boot.root_device == "vda1"
