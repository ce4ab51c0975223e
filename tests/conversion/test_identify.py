"""Telling operating systems apart by the content of a few files."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion.files import clean
from conversion.identify import elf_architecture, identify, osinfo, parse_shell

BOOKWORM = b"""PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
NAME="Debian GNU/Linux"
VERSION_ID="12"
ID=debian
HOME_URL="https://www.debian.org/"
"""
TRIXIE = b'PRETTY_NAME="Debian GNU/Linux trixie/sid"\nID=debian\n'
JAMMY = b"PRETTY_NAME='Ubuntu 22.04.4 LTS'\nID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\n"
SQUEEZE = {"/etc/debian_version": b"6.0.10\n"}
PRECISE = {
    "/etc/lsb-release": b"DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=12.04\nDISTRIB_DESCRIPTION='Ubuntu'",
    "/etc/debian_version": b"wheezy/sid\n",
}
CENTOS = {"/etc/redhat-release": b"CentOS release 6.10 (Final)\n"}


@pytest.mark.parametrize(
    ("files", "distro", "version", "product", "uri"),
    [
        (
            {"/etc/os-release": BOOKWORM, "/etc/debian_version": b"12.5\n"},
            "debian",
            "12",
            "Debian GNU/Linux 12 (bookworm)",
            "http://debian.org/debian/12",
        ),
        (
            {"/usr/lib/os-release": JAMMY},
            "ubuntu",
            "22.04",
            "Ubuntu 22.04.4 LTS",
            "http://ubuntu.com/ubuntu/22.04",
        ),
        (
            {"/etc/os-release": TRIXIE, "/etc/debian_version": b"trixie/sid\n"},
            "debian",
            "",
            "Debian GNU/Linux trixie/sid",
            "http://debian.org/debian/testing",
        ),
        (SQUEEZE, "debian", "6.0.10", "Debian 6.0.10", "http://debian.org/debian/6"),
        (PRECISE, "ubuntu", "12.04", "Ubuntu", "http://ubuntu.com/ubuntu/12.04"),
        (CENTOS, "redhat", "6.10", "CentOS release 6.10 (Final)", None),
        ({}, "unknown", "", "Linux", None),
    ],
    ids=["debian", "ubuntu", "testing", "old debian", "old ubuntu", "rpm", "nothing"],
)
def test_systems(files, distro, version, product, uri):
    os = identify(files, "x86_64")
    assert (os.type, os.distro, os.version) == ("linux", distro, version)
    assert os.product == product
    assert os.osinfo == uri


def test_the_host_name():
    assert identify({"/etc/hostname": b"# made by\n\nweb1\n"}, "x86_64").hostname == "web1"


def test_hostile_strings_are_cleaned():
    os = identify({"/etc/os-release": b'ID="\x1b[31mx\xff"\nPRETTY_NAME="' + b"a" * 999 + b'"'}, "")
    assert os.distro == "?[31mx?"
    assert len(os.product) == 200
    assert clean("a\nb\u202e") == "a?b?"


def test_a_version_never_breaks_out_of_the_uri():
    assert osinfo("ubuntu", "22.04/../../x") is None
    assert osinfo("ubuntu", "") is None


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail(content):
    paths = ("/etc/os-release", "/etc/lsb-release", "/etc/debian_version", "/etc/hostname")
    for path in paths:
        identify({path: content}, "x86_64")


def test_shell_words():
    text = "A=1\nB='two words'\nC=\"x # y\" # note\nD='open\n 9=x\nE=\n"
    assert parse_shell(text) == {"A": "1", "B": "two words", "C": "x # y", "E": ""}


def elf(bits: int, order: str, machine: int) -> bytes:
    head = b"\x7fELF" + bytes([bits, 1 if order == "little" else 2]) + bytes(12)
    return head + machine.to_bytes(2, order)


@pytest.mark.parametrize(
    ("header", "arch"),
    [
        (elf(2, "little", 62), "x86_64"),
        (elf(1, "little", 3), "i386"),
        (elf(2, "little", 183), "aarch64"),
        (elf(2, "little", 21), "ppc64le"),
        (elf(2, "big", 21), "ppc64"),
        (elf(2, "big", 22), "s390x"),
        (elf(2, "little", 9999), None),
        (elf(7, "little", 62), None),
        (b"#!/bin/sh\n" + bytes(20), None),
        (b"\x7fELF", None),
    ],
)
def test_architectures(header, arch):
    assert elf_architecture(header) == arch


def test_the_architecture_of_a_real_program():
    assert elf_architecture(Path(sys.executable).read_bytes()[:64]) == platform.machine()
