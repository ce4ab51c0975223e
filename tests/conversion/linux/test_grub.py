"""GRUB's menu and command lines."""

from __future__ import annotations

import pytest

from conversion.linux import grub, x11
from conversion.linux.console import console_words, inittab, securetty, serial_words, tells_serial

CFG = """\
if [ -s $prefix/grubenv ]; then
  set have_grubenv=true
  load_env
fi
if [ "${next_entry}" ] ; then
   set default="${next_entry}"
   set next_entry=
   save_env next_entry
   set boot_once=true
else
   set default="0"
fi
function savedefault {
  if [ -z "${boot_once}" ]; then
    saved_entry="${chosen}"
  fi
}
### BEGIN /etc/grub.d/10_linux ###
menuentry 'Debian GNU/Linux' --class debian --class os $menuentry_id_option 'gnulinux-simple-U' {
\tload_video
\tif [ x$grub_platform = xxen ]; then insmod xzio; insmod lzopio; fi
\tset root='hd0,msdos1'
\tif [ x$feature_platform_search_hint = xy ]; then
\t  search --no-floppy --fs-uuid --set=root --hint-bios=hd0,msdos1  U
\telse
\t  search --no-floppy --fs-uuid --set=root U
\tfi
\techo\t'Loading Linux 6.1.0-18-amd64 ...'
\tlinux\t/boot/vmlinuz-6.1.0-18-amd64 root=/dev/sda1 ro  quiet
\techo\t'Loading initial ramdisk ...'
\tinitrd\t/boot/initrd.img-6.1.0-18-amd64
}
submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-U' {
\tmenuentry 'Debian GNU/Linux, with Linux 6.1.0-18-amd64' --class debian $menuentry_id_option 'gnulinux-6.1.0-18-amd64-advanced-U' {
\t\tlinux\t/boot/vmlinuz-6.1.0-18-amd64 root=/dev/sda1 ro  quiet
\t}
\tmenuentry 'Debian GNU/Linux, with Linux 5.10.0-9-amd64' --class debian $menuentry_id_option 'gnulinux-5.10.0-9-amd64-advanced-U' {
\t\tlinux\t/boot/vmlinuz-5.10.0-9-amd64 root=/dev/sda1 ro  quiet resume=/dev/sda5
\t}
}
menuentry 'UEFI Firmware Settings' $menuentry_id_option 'uefi-firmware' {
\tfwsetup
}
menuentry "Other's disk" {
  linuxefi /vmlinuz-4.9 root=/dev/sdb1
}
"""  # noqa: E501

LEGACY = """\
default\t\t1
timeout 5
## ## Start Default Options ##
# kopt=root=/dev/sda1 ro
# defoptions=quiet
title\t\tDebian GNU/Linux, kernel 2.6.32-5-amd64
root\t\t(hd0,0)
kernel\t\t/boot/vmlinuz-2.6.32-5-amd64 root=/dev/sda1 ro quiet
initrd\t\t/boot/initrd.img-2.6.32-5-amd64

title\t\tDebian GNU/Linux, kernel 2.6.26-2-amd64
kernel\t\t(hd0,0)/boot/vmlinuz-2.6.26-2-amd64 root=/dev/sda1 ro
"""


def with_default(value: str) -> str:
    return CFG.replace('set default="0"', f'set default="{value}"')


def test_entries_are_those_that_boot_linux_with_their_places() -> None:
    found = grub.menu_entries(CFG)
    places = [tuple(next(n for n in names if n.isdecimal()) for names in e.names) for e in found]
    assert places == [("0",), ("1", "0"), ("1", "1"), ("3",)]
    assert found[2].path == "gnulinux-advanced-U>gnulinux-5.10.0-9-amd64-advanced-U"
    assert found[3].title == "Other's disk" and found[3].arguments == "root=/dev/sdb1"


@pytest.mark.parametrize(
    ("default", "kernel"),
    [
        ("0", "6.1.0-18-amd64"),
        ("1>1", "5.10.0-9-amd64"),
        ("1", "6.1.0-18-amd64"),
        ("1>Debian GNU/Linux, with Linux 5.10.0-9-amd64", "5.10.0-9-amd64"),
        ("1>gnulinux-5.10.0-9-amd64-advanced-U", "5.10.0-9-amd64"),
        ("gnulinux-advanced-U>gnulinux-5.10.0-9-amd64-advanced-U", "5.10.0-9-amd64"),
        (
            "Advanced options for Debian GNU/Linux>Debian GNU/Linux, with Linux 5.10.0-9-amd64",
            "5.10.0-9-amd64",
        ),
        ("gnulinux-advanced-U>1", "5.10.0-9-amd64"),
        ("gnulinux-simple-U", "6.1.0-18-amd64"),
        ("Other's disk", "4.9"),
        ("3", "4.9"),
        ("no such entry", "6.1.0-18-amd64"),
        ("7", "6.1.0-18-amd64"),
        ("${saved_entry}", "5.10.0-9-amd64"),
    ],
)
def test_the_entry_that_boots(default: str, kernel: str) -> None:
    environment = {"saved_entry": "gnulinux-advanced-U>gnulinux-5.10.0-9-amd64-advanced-U"}
    entry = grub.default_entry(with_default(default), environment)
    assert entry is not None and entry.kernel.endswith(f"vmlinuz-{kernel}")


def test_an_empty_or_damaged_menu_has_no_default() -> None:
    assert grub.default_entry("", {}) is None
    assert grub.default_entry("}\n}\nmenuentry {\n}}\nlinux", {}) is None


def test_grubenv() -> None:
    text = "# GRUB Environment Block\nsaved_entry=1>2\nempty=\n" + "#" * 100
    assert grub.parse_grubenv(text) == {"saved_entry": "1>2", "empty": ""}


def test_set_default_keeps_the_one_time_choice() -> None:
    text = grub.set_default(CFG, "a>b")
    assert 'set default="a>b"' in text and 'set default="${next_entry}"' in text
    assert text.replace('"a>b"', '"0"') == CFG


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("GRUB_DEFAULT=0\nX=1\n", 'GRUB_DEFAULT="a>b"\nX=1\n'),
        ("GRUB_DEFAULT=saved", 'GRUB_DEFAULT="a>b"'),
        ("#GRUB_DEFAULT=0\n", '#GRUB_DEFAULT=0\nGRUB_DEFAULT="a>b"\n'),
    ],
)
def test_set_default_setting(before: str, after: str) -> None:
    assert grub.set_default_setting(before, "a>b") == after


def test_legacy_menu() -> None:
    entry = grub.legacy_default(LEGACY)
    assert entry is not None and entry.kernel == "/boot/vmlinuz-2.6.26-2-amd64"
    assert "default\t\t0\n" in grub.set_legacy_default(LEGACY, "0")
    edited = grub.edit_arguments(LEGACY, lambda words: [*words, "x"])
    assert "# kopt=root=/dev/sda1 ro x\n" in edited
    assert "kernel\t\t/boot/vmlinuz-2.6.32-5-amd64 root=/dev/sda1 ro quiet x\n" in edited


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet"\n', 'GRUB_CMDLINE_LINUX_DEFAULT="quiet x"\n'),
        ("GRUB_CMDLINE_LINUX=''\n", "GRUB_CMDLINE_LINUX='x'\n"),
        ("GRUB_CMDLINE_LINUX=a # c\n", 'GRUB_CMDLINE_LINUX="a x" # c\n'),
        ("export GRUB_CMDLINE_LINUX=\n", "export GRUB_CMDLINE_LINUX=x\n"),
        ("# GRUB_CMDLINE_LINUX=a\n", "# GRUB_CMDLINE_LINUX=a\n"),
        ("GRUB_TIMEOUT=1\n", "GRUB_TIMEOUT=1\n"),
    ],
)
def test_edit_settings(before: str, after: str) -> None:
    assert grub.edit_settings(before, lambda words: [*words, "x"]) == after


def test_edits_that_change_no_word_change_no_byte() -> None:
    assert grub.edit_arguments(CFG, lambda words: words) == CFG
    assert (
        grub.edit_settings('GRUB_CMDLINE_LINUX="a   b"\n', list) == 'GRUB_CMDLINE_LINUX="a   b"\n'
    )


def test_a_file_of_empty_lines_is_read_at_once() -> None:
    """Patterns whose leading spaces could be newlines would take hours for it."""
    text = "\n" * 400_000
    assert grub.edit_settings(text, list) == text
    assert grub.edit_arguments(text, list) == text
    assert grub.default_choice(text, {}) == "0"
    assert grub.set_default_setting(text, "x") == '\nGRUB_DEFAULT="x"\n'
    assert grub.legacy_entries(f"title x\n{text}") == []
    assert x11.modesetting(text) == text


def test_menus_without_end_are_cut() -> None:
    assert grub.menu_entries("submenu x {\n" * 100_000) == []


# Consoles -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("ro console=hvc0 quiet", "ro console=ttyS0 quiet"),
        ("console=xvc0,9600", "console=ttyS0,9600"),
        ("console=ttyS0 console=hvc0", "console=ttyS0"),
        ("console=tty0 xhvc0=1", "console=tty0 xhvc0=1"),
        ("a a", "a a"),
    ],
)
def test_console_words(before: str, after: str) -> None:
    assert " ".join(console_words(before.split())) == after


def test_inittab_moves_xens_getty() -> None:
    xen = "1:2345:respawn:/sbin/getty 38400 tty1\nX0:2345:respawn:/sbin/getty -L hvc0 9600\n"
    assert inittab(xen) == xen.replace("hvc0", "ttyS0")
    both = xen + "T0:23:respawn:/sbin/getty -L ttyS0 9600 vt100\n"
    assert "hvc0" not in inittab(both) and inittab(both).count("ttyS0") == 1
    comment = "#X0:2345:respawn:/sbin/getty -L hvc0 9600\n"
    assert inittab(comment) == comment


def test_securetty_allows_the_serial_port_where_xens_console_was() -> None:
    assert securetty("tty1\nhvc0\n") == "tty1\nhvc0\nttyS0\n"
    assert securetty("tty1\n") == "tty1\n"
    assert securetty("hvc0\nttyS0\n") == "hvc0\nttyS0\n"


@pytest.mark.parametrize(
    ("arguments", "tells"),
    [
        ("root=/dev/sda1 ro quiet", False),
        ("ro console=ttyS0,115200n8", True),
        ("ro console=ttyS0 quiet", False),
        ("ro console=ttyS0 loglevel=3", False),
        ("ro console=ttyS0 loglevel=7", True),
        ("ro console=ttyS1", False),
    ],
)
def test_tells_serial(arguments: str, tells: bool) -> None:
    assert tells_serial(arguments) is tells


def test_serial_words_make_a_kernel_tell() -> None:
    text = grub.edit_arguments(CFG, serial_words)
    entries = grub.menu_entries(text)
    assert all(tells_serial(entry.arguments) for entry in entries)
    assert entries[0].arguments == (
        "root=/dev/sda1 ro console=tty0 console=ttyS0,115200 loglevel=7"
    )
    assert grub.edit_arguments(text, serial_words) == text
