"""Removal of other hypervisors' tools, the fallback loader, the guest agent: what is decided."""

from __future__ import annotations

import subprocess

import pytest

from conversion.linux import guest_agent, tools, uefi

STATUS = """\
Package: open-vm-tools
Status: install ok installed
Depends: libc6 (>= 2.34), libglib2.0-0t64 | libglib2.0-0
Version: 2:12

Package: open-vm-tools-desktop
Status: install ok installed
Pre-Depends: open-vm-tools (= 2:12)
Version: 2:12

Package: ubuntu-server
Status: install ok installed
Depends: open-vm-tools:any (>= 1), x

Package: ghost
Status: deinstall ok config-files
Depends: open-vm-tools

Package: alt
Status: install ok installed
Depends: open-vm-tools | x

Package: x
Status: install ok installed
Description: x
 Depends: open-vm-tools
"""


def status_without(*names: str) -> dict[str, tools.Package]:
    found = tools.parse_status(STATUS)
    return {name: package for name, package in found.items() if name not in names}


def test_status_holds_what_is_installed() -> None:
    found = tools.parse_status(STATUS)
    assert "ghost" not in found
    assert found["ubuntu-server"].needs == (frozenset({"open-vm-tools"}), frozenset({"x"}))
    assert found["x"].needs == ()


@pytest.mark.parametrize(
    ("without", "wanted", "leaving", "kept"),
    [
        (
            ["ubuntu-server"],
            ["open-vm-tools", "open-vm-tools-desktop"],
            ["open-vm-tools", "open-vm-tools-desktop"],
            {},
        ),
        ([], ["open-vm-tools"], [], {"open-vm-tools": "open-vm-tools-desktop"}),
        (["open-vm-tools-desktop"], ["open-vm-tools"], [], {"open-vm-tools": "ubuntu-server"}),
        ([], ["open-vm-tools-desktop"], ["open-vm-tools-desktop"], {}),
        (["ubuntu-server"], ["nosuch"], [], {}),
        (
            ["ubuntu-server", "open-vm-tools-desktop", "x"],
            ["open-vm-tools"],
            [],
            {"open-vm-tools": "alt"},
        ),
    ],
)
def test_nothing_is_removed_that_another_package_needs(
    without: list[str], wanted: list[str], leaving: list[str], kept: dict[str, str]
) -> None:
    result, stays = tools.removable(status_without(*without), wanted)
    assert result == leaving
    assert set(stays) == set(kept)


def test_a_package_that_must_stay_keeps_what_it_needs() -> None:
    installed = tools.parse_status(
        "Package: a\nStatus: install ok installed\n\n"
        "Package: b\nStatus: install ok installed\nDepends: a\n\n"
        "Package: c\nStatus: install ok installed\nDepends: b\n"
    )
    assert tools.removable(installed, ["a", "b"]) == ([], {"b": "c", "a": "b"})


def test_what_another_package_provides_is_not_missed() -> None:
    installed = tools.parse_status(
        "Package: a\nStatus: install ok installed\nProvides: tools (= 1)\n\n"
        "Package: b\nStatus: install ok installed\nProvides: tools\n\n"
        "Package: c\nStatus: install ok installed\nDepends: tools\n"
    )
    assert tools.removable(installed, ["a"]) == (["a"], {})
    assert tools.removable(installed, ["a", "b"])[0] == []


def test_patterns_find_the_tools_and_not_their_libraries() -> None:
    names = ["open-vm-tools", "open-vm-tools-desktop", "libvmtools0", "virtualbox-guest-x11", "vim"]
    assert tools.matching(names, tools.PRODUCTS[0].packages) == names[:2]
    assert tools.matching(names, tools.PRODUCTS[1].packages) == ["virtualbox-guest-x11"]


# The fallback loader ------------------------------------------------------------------------------

DEBIAN = ["shimx64.efi", "grubx64.efi", "mmx64.efi", "fbx64.efi", "BOOTX64.CSV", "grub.cfg"]


@pytest.mark.parametrize(
    ("loaders", "suffix", "expected"),
    [
        (
            {"debian": DEBIAN},
            "x64",
            [
                ("debian/shimx64.efi", "BOOT/BOOTX64.EFI"),
                ("debian/grubx64.efi", "BOOT/grubx64.efi"),
                ("debian/mmx64.efi", "BOOT/mmx64.efi"),
                ("debian/grub.cfg", "BOOT/grub.cfg"),
            ],
        ),
        ({"debian": DEBIAN, "Boot": ["bootx64.efi"]}, "x64", []),
        (
            {"debian": ["grubaa64.efi"], "BOOT": ["BOOTX64.EFI"]},
            "aa64",
            [("debian/grubaa64.efi", "BOOT/BOOTAA64.EFI")],
        ),
        (
            {"Microsoft": ["bootmgfw.efi"], "ubuntu": ["grubx64.efi"], "a": ["grubx64.efi"]},
            "x64",
            [("a/grubx64.efi", "BOOT/BOOTX64.EFI")],
        ),
        (
            {"systemd": ["systemd-bootx64.efi"]},
            "x64",
            [("systemd/systemd-bootx64.efi", "BOOT/BOOTX64.EFI")],
        ),
        ({"debian": ["grubia32.efi"]}, "x64", []),
        ({}, "x64", []),
    ],
)
def test_fallback_copies(
    loaders: dict[str, list[str]], suffix: str, expected: list[tuple[str, str]]
) -> None:
    assert uefi.fallback_copies(loaders, suffix, "debian") == expected


def test_the_guests_own_loader_is_preferred() -> None:
    loaders = {"a": ["grubx64.efi"], "ubuntu": ["grubx64.efi"]}
    assert uefi.fallback_copies(loaders, "x64", "ubuntu")[0][0] == "ubuntu/grubx64.efi"


# The agent ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["qemu-guest-agent_1_amd64.deb", "liburing2_2_amd64.deb"], None),
        (["qemu-guest-agent_1_arm64.deb"], []),
        (["liburing2_2_amd64.deb"], []),
        (
            ["qemu-guest-agent_1_amd64.deb", "qemu-guest-agent_2_amd64.deb"],
            ["qemu-guest-agent_2_amd64.deb"],
        ),
        (
            ["qemu-guest-agent_1_amd64.deb", "x_1_all.deb", "y_1_i386.deb", "readme"],
            ["qemu-guest-agent_1_amd64.deb", "x_1_all.deb"],
        ),
    ],
)
def test_choose_packages(names: list[str], expected: list[str] | None) -> None:
    assert guest_agent.choose_packages(names, "amd64") == (
        sorted(names) if expected is None else expected
    )


def test_the_first_boot_script_is_a_valid_shell_script(need_tool) -> None:
    subprocess.run([need_tool("sh"), "-n"], input=guest_agent.SCRIPT_TEXT, text=True, check=True)


def test_the_first_boot_service_holds_nothing_up() -> None:
    assert "Type=oneshot" not in guest_agent.UNIT_TEXT  # multi-user.target would wait for it
    assert "Wants=network-online.target" not in guest_agent.UNIT_TEXT
