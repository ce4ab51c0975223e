"""The steps on a small Debian in a real appliance: what they decide, and what they leave."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import fixtures
from conversion import linux
from conversion.actions import Action, CopyFile, Symlink
from conversion.guest import Guest
from conversion.linux import grub, initramfs_repair, network
from conversion.linux.cpio import Entry, write_archive
from v2v.errors import GuestError
from v2v.job import ConversionOptions
from v2v.run import Run
from v2v.types import Change, DiskFormat, Firmware, GuestOS, Nic, Source, SourceDisk

pytestmark = pytest.mark.appliance

V = "6.1.0-18-amd64"
INITRD = f"/boot/initrd.img-{V}"
MAC = "52:54:00:01:02:03"
OS = GuestOS("linux", "debian", "12", "Debian GNU/Linux 12 (bookworm)", "x86_64")


@pytest.fixture(scope="module")
def g(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    import guestfs

    overlay = tmp_path_factory.mktemp("steps") / "overlay.qcow2"
    image = fixtures.guest("tiny-debian")
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(image), "-F", "raw", str(overlay)]
    subprocess.run(argv, check=True)
    g = guestfs.GuestFS(python_return_dict=True)
    g.set_backend("direct")
    g.set_backend_settings(["force_tcg"])
    g.add_drive_opts(str(overlay), format="qcow2", cachemode="unsafe")
    g.launch()
    g.mount("/dev/sda1", "/")
    yield g
    g.close()


@pytest.fixture
def guest(g: Any, tmp_path: Path) -> Iterator[Guest]:
    source = Source("t", "disk", (SourceDisk("/t", DiskFormat.RAW),))
    packages = {"systemd": "252.22-1", "udev": "252.22-1", "open-vm-tools": "2:12.2"}
    with Run.create(tmp_path / "jobs", "steps") as run:
        yield Guest(
            g, source, ConversionOptions(), run, OS, "/dev/sda1", {"/": "/dev/sda1"},
            Firmware.BIOS, 0, packages, (Nic(mac=MAC),),
        )  # fmt: skip


def step(name: str, guest: Guest) -> list[Action]:
    return list(dict(linux.STEPS)[name](guest))


def do(name: str, guest: Guest) -> list[str]:
    actions = step(name, guest)
    for action in actions:
        action.apply(guest)
    return [action.change.what for action in actions]


def test_devices_are_named_by_uuid_everywhere(guest: Guest) -> None:
    uuid = guest.g.vfs_uuid("/dev/sda1")
    guest.g.write("/etc/fstab", b"/dev/sda1 / ext4 defaults 0 1\n/dev/sdz1 /z ext4 noauto 0 0\n")
    guest.g.write("/boot/grub/device.map", b"(hd0)\t/dev/sda\n")
    changes = do("devices", guest)
    assert guest.read_text("/etc/fstab") == (
        f"UUID={uuid} / ext4 defaults 0 1\n/dev/sdz1 /z ext4 noauto 0 0\n"
    )
    assert guest.read_text("/boot/grub/device.map") == "(hd0)\t/dev/vda\n"
    assert f"root=UUID={uuid} ro" in (guest.read_text(grub.GRUB_CFG) or "")
    assert len(changes) == 3
    assert [finding.id for finding in guest.findings] == ["device-unknown"]
    assert step("devices", guest) == []


def test_the_configured_name_is_pinned_to_the_card(guest: Guest) -> None:
    changes = do("network", guest)
    assert changes == [f"Kept the interface name ens192 for the card {MAC}"]
    link = guest.read_text("/etc/systemd/network/10-v2v-ens192.link") or ""
    assert f"MACAddress={MAC}\n" in link and "Name=ens192\n" in link
    assert linux.named_nics(guest) == (Nic(mac=MAC, name="ens192"),)
    assert step("network", guest) == []
    guest.g.rm("/etc/systemd/network/10-v2v-ens192.link")


def test_an_old_udev_gets_a_rule_instead(guest: Guest) -> None:
    guest.packages = {"udev": "215-17+deb8u7"}
    do("network", guest)
    rules = guest.read_text("/etc/udev/rules.d/70-persistent-net.rules") or ""
    assert f'ATTR{{address}}=="{MAC}"' in rules and 'NAME="ens192"' in rules
    assert not guest.glob("/etc/systemd/network/10-v2v-*")
    guest.g.rm("/etc/udev/rules.d/70-persistent-net.rules")


def test_names_are_left_alone_if_asked(guest: Guest) -> None:
    guest.options = replace(guest.options, keep_nic_names=False)
    assert step("network", guest) == []


def test_what_is_no_file_makes_way_for_one(guest: Guest) -> None:
    """Writing to a FIFO would wait for ever, writing through the link would reach /dev/null."""
    link, rules = "/etc/systemd/network/10-v2v-ens192.link", network.RULES_FILE
    for folder in ("/etc/systemd/network", "/etc/udev/rules.d"):
        guest.g.mkdir_p(folder)
    guest.g.mkfifo(0o644, link)
    guest.g.ln_s("/dev/null", rules)
    assert do("network", guest)
    assert MAC in (guest.read_text(link) or "")
    guest.packages = {"udev": "229-4ubuntu21"}
    assert do("network", guest)
    assert MAC in (guest.read_text(rules) or "") and not guest.g.is_symlink(rules)
    guest.g.rm(link)
    guest.g.rm(rules)


def test_a_bridge_with_the_name_of_a_card_is_none(guest: Guest) -> None:
    guest.g.mkdir_p("/etc/systemd/network")
    guest.g.write("/etc/systemd/network/lan.netdev", b"[NetDev]\nName=aa0\nKind=bridge\n")
    guest.g.write("/etc/systemd/network/lan.network", b"[Match]\nName=aa0\n")
    assert linux.named_nics(guest) == (Nic(mac=MAC, name="ens192"),)
    for path in guest.glob("/etc/systemd/network/lan.*"):
        guest.g.rm(path)


def test_a_kernel_without_initramfs_gets_no_uuid(guest: Guest) -> None:
    """Only an initramfs can find a filesystem by its UUID."""
    old = guest.read_text(grub.GRUB_CFG) or ""
    guest.g.write(grub.GRUB_CFG, re.sub(r"root=UUID=\S+", "root=/dev/sda1", old).encode())
    guest.g.mv(INITRD, "/initrd")
    assert do("devices", guest) == ["Remapped /dev/sda1 to /dev/vda1"]
    assert "root=/dev/vda1 ro" in (guest.read_text(grub.GRUB_CFG) or "")
    guest.g.mv("/initrd", INITRD)
    guest.g.write(grub.GRUB_CFG, old.encode())


def test_a_file_that_cannot_be_changed_is_told_by_name(guest: Guest) -> None:
    guest.g.write("/etc/securetty", b"hvc0\n")
    guest.g.set_e2attrs("/etc/securetty", "i")
    with pytest.raises(GuestError, match="/etc/securetty in the guest cannot be changed") as caught:
        do("console", guest)
    assert caught.value.id == "guest-file-unwritable"
    guest.g.set_e2attrs("/etc/securetty", "i", clear=True)
    guest.g.rm("/etc/securetty")


def test_what_is_no_file_says_nothing(guest: Guest) -> None:
    """A FIFO would be waited for, a link to itself or to /proc names no file of the guest."""
    guest.g.mkfifo(0o644, "/etc/crypttab")
    guest.g.ln_s("/etc/inittab", "/etc/inittab")
    guest.g.ln_s("/proc/self/environ", "/etc/lvm.conf")
    for path in ("/etc/crypttab", "/etc/inittab", "/etc/lvm.conf"):
        assert guest.read(path) is None
        guest.g.rm(path)


def test_a_warning_is_told_once(guest: Guest) -> None:
    guest.warn("x", id="y")
    guest.warn("x", id="y")
    assert len(guest.findings) == 1


def test_netplan_follows_a_card_whose_mac_changed(guest: Guest) -> None:
    path = "/etc/netplan/50-cloud-init.yaml"
    text = (
        "network:\n  ethernets:\n    ens192:\n"
        "      match: {macaddress: '00:50:56:aa:bb:cc'}\n      set-name: ens192\n"
    )
    guest.g.mkdir_p("/etc/netplan")
    guest.g.write(path, text.encode())
    do("network", guest)
    assert guest.read_text(path) == text.replace("00:50:56:aa:bb:cc", MAC)
    guest.g.rm(path)


def test_a_complete_initramfs_is_left_alone(guest: Guest) -> None:
    assert step("initramfs", guest) == []


@pytest.mark.parametrize("linked", [False, True])
def test_an_initramfs_without_virtio_is_extended(guest: Guest, *, linked: bool) -> None:
    old = guest.g.read_file(INITRD)
    lean = write_archive(
        [
            Entry("lib", 0o120777, b"usr/lib"),
            *(Entry(path, 0o40755) for path in ("usr", "usr/lib", "conf")),
            Entry("conf/modules", 0o100644, b"linear\n"),
        ]
    )
    if linked:
        guest.g.mv("/boot", "/real")
        guest.g.ln_s("/real", "/boot")
    guest.g.write(INITRD, lean)
    guest.g.chmod(0o600, INITRD)
    guest.g.mkfifo(0o644, f"{INITRD}.v2v-new")
    guest.g.mkdir_p("/etc/initramfs-tools")
    guest.g.write(initramfs_repair.MODULES_FILE, b"# none\n")
    changes = do("initramfs", guest)
    assert len(changes) == 2 and "virtio_blk" in changes[0]
    new = guest.g.read_file(INITRD)
    assert new.startswith(lean) and guest.g.statns(INITRD)["st_mode"] & 0o777 == 0o600
    assert "virtio_pci\n" in (guest.read_text(initramfs_repair.MODULES_FILE) or "")
    assert guest.glob(f"{INITRD}*") == [INITRD]
    guest.facts.clear()
    assert step("initramfs", guest) == []
    guest.g.write(INITRD, old)
    if linked:
        guest.g.rm("/boot")
        guest.g.mv("/real", "/boot")


def test_an_initramfs_that_is_none_is_rebuilt_by_the_guest(guest: Guest) -> None:
    old = guest.g.read_file(INITRD)
    guest.g.write(INITRD, b"something else entirely")
    assert step("initramfs", guest) == []
    assert [finding.id for finding in guest.findings] == ["initramfs-no-tool"]
    guest.g.write("/usr/sbin/update-initramfs", b"#!/bin/sh\n")
    actions = [action.change.what for action in step("initramfs", guest)]
    assert actions == ["Rebuilt the initramfs with the guest's own tools"]
    guest.g.rm("/usr/sbin/update-initramfs")
    guest.g.write(INITRD, old)


def test_a_program_that_fails_is_a_warning_and_leaves_no_trace(guest: Guest) -> None:
    status = guest.read_text("/var/lib/dpkg/status") or ""
    tools = "\nPackage: open-vm-tools\nStatus: install ok installed\nVersion: 2:12.2\n"
    guest.g.write("/var/lib/dpkg/status", (status.rstrip("\n") + "\n" + tools).encode())
    assert do("tools", guest) == ["Removed VMware Tools: open-vm-tools"]
    assert [finding.id for finding in guest.findings] == ["tools-not-removed"]
    assert guest.g.ls("/run") == []


def test_the_agent_is_fetched_at_the_first_boot(guest: Guest) -> None:
    assert do("guest-agent", guest)
    assert guest.g.statns("/usr/local/sbin/v2v-install-guest-agent")["st_mode"] & 0o777 == 0o755
    wants = "/etc/systemd/system/multi-user.target.wants/v2v-guest-agent.service"
    assert guest.g.readlink(wants) == "/etc/systemd/system/v2v-guest-agent.service"
    assert step("guest-agent", guest) == []
    guest.options = replace(guest.options, guest_agent="no")
    assert step("guest-agent", guest) == []


def test_a_uefi_guest_gets_a_fallback_loader(guest: Guest) -> None:
    guest.firmware = Firmware.UEFI
    assert step("uefi", guest) == [] and guest.findings[0].id == "esp-missing"
    guest.g.mkdir_p("/boot/efi/EFI/debian")
    for name in ("shimx64.efi", "grubx64.efi"):
        guest.g.write(f"/boot/efi/EFI/debian/{name}", name.encode())
    assert len(do("uefi", guest)) == 2
    assert guest.g.read_file("/boot/efi/EFI/BOOT/BOOTX64.EFI") == b"shimx64.efi"
    assert step("uefi", guest) == []


def test_links_are_made_through_folders_that_are_links(guest: Guest) -> None:
    """guestfs would make them in the appliance's own /srv, or fail."""
    guest.g.mkdir_p("/srv/wants")
    guest.g.ln_s("/srv/wants", "/etc/wants")
    change = Change("x", "y")
    Symlink("/etc/wants/a", "/nowhere", change).apply(guest)
    guest.g.write("/srv/wants/b", b"b")
    CopyFile("/etc/wants/b", "/etc/wants/c", change).apply(guest)
    assert sorted(guest.g.ls("/srv/wants")) == ["a", "b", "c"]


def test_the_console_of_xen_becomes_the_serial_port(guest: Guest) -> None:
    guest.g.write("/etc/securetty", b"tty1\nhvc0\n")
    assert do("console", guest) == ["Moved the console to ttyS0"]
    assert guest.read_text("/etc/securetty") == "tty1\nhvc0\nttyS0\n"
    assert step("console", guest) == []


def test_x_no_longer_asks_for_vmwares_graphics(guest: Guest) -> None:
    text = 'Section "Device"\n\tDriver "vmware"\nEndSection\n'
    guest.g.mkdir_p("/etc/X11")
    guest.g.write("/etc/X11/xorg.conf", text.encode())
    assert len(do("x11", guest)) == 1
    assert guest.read_text("/etc/X11/xorg.conf") == text.replace("vmware", "modesetting")


def test_caches_of_device_names_go(guest: Guest) -> None:
    guest.g.mkdir_p("/etc/lvm/devices")
    guest.g.write("/etc/lvm/devices/system.devices", b"x")
    assert len(do("cleanup", guest)) == 1
    assert step("cleanup", guest) == []


def test_the_boot_check_can_make_the_kernel_tell(guest: Guest) -> None:
    assert not linux.has_serial_console(guest)
    linux.add_serial_console(guest)
    assert linux.has_serial_console(guest)


def test_a_default_without_virtio_gives_way_to_a_kernel_with_it(guest: Guest) -> None:
    bare = "4.19.0-1-xen"
    text = guest.read_text(grub.GRUB_CFG) or ""
    entry = f"menuentry 'Xen' {{\n\tlinux /boot/vmlinuz-{bare} root=/dev/sda1\n}}\n"
    guest.g.write(grub.GRUB_CFG, (text + entry).replace('default="0"', 'default="1"').encode())
    guest.g.write(f"/boot/vmlinuz-{bare}", b"x")
    assert linux.chosen_kernel(guest).version == V
    assert do("kernel", guest)[0] == f"Made {V} the kernel that boots by default"
    assert (booted := grub.booted_entry(guest)) and booted.kernel.endswith(V)
    assert 'GRUB_DEFAULT="gnulinux-simple"' in (guest.read_text(grub.DEFAULT_GRUB) or "")
    assert step("kernel", guest) == []
    guest.g.rm(f"/boot/vmlinuz-{bare}")
