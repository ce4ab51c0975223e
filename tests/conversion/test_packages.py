"""dpkg's status file, as it is and as a hostile guest may have it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from conversion.packages import parse_status

STATUS = b"""\
Package: open-vm-tools
Status: install ok installed
Priority: optional
Conffiles:
 /etc/vmware-tools/tools.conf 00000000
Version: 2:12.2.0-1+deb12u2
Description: tools
 Package: not-a-field
 .
 Status: lies

Package: removed
Status: deinstall ok config-files
Version: 1

Package: kept-back
Status: hold ok installed
Version: 3

Package: broken
Status: install ok half-installed
Version: 4
"""


def test_only_installed_packages_are_told():
    assert parse_status(STATUS) == {"open-vm-tools": "2:12.2.0-1+deb12u2", "kept-back": "3"}


def test_a_word_without_end_is_left_out():
    status = b"Package: " + b"a" * 10_000 + b"\nStatus: install ok installed\nVersion: 1\n"
    assert parse_status(status) == {}


def test_what_is_not_ascii_is_replaced():
    status = b"Package: b\xff\nStatus: install ok installed\nVersion: 1\xe4\n"
    assert parse_status(status) == {"b\ufffd": "1\ufffd"}


@given(st.binary(max_size=500))
def test_no_bytes_make_it_fail(status):
    parse_status(status)
    parse_status(b"Package: x\nStatus: install ok installed\n" + status)
