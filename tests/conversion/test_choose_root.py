"""--root, and the keys of encrypted disks."""

from __future__ import annotations

import pytest

from conversion.decrypt import Key, parse_keys
from conversion.inspection import Root, choose_root
from conversion.problems import Problems
from conversion.volumes import Filesystem
from v2v.errors import GuestError, HostError, UsageError
from v2v.types import GuestOS

DEBIAN = Root("/dev/sda1", GuestOS("linux", "debian", "12", "Debian 12", "x86_64"))
BTRFS = Root("btrfsvol:/dev/sdb2/@", GuestOS("linux", "ubuntu", "22.04", "Ubuntu", "x86_64"))
LOCKED = Filesystem("/dev/sda5", "crypto_LUKS", uuid="cccc-3")


@pytest.mark.parametrize(
    ("roots", "wanted", "chosen"),
    [
        ([DEBIAN], "ask", DEBIAN),
        ([DEBIAN], "single", DEBIAN),
        ([DEBIAN, BTRFS], "first", DEBIAN),
        ([DEBIAN, BTRFS], "/dev/sda1", DEBIAN),
        ([DEBIAN, BTRFS], "/dev/sdb2", BTRFS),
        ([DEBIAN, BTRFS], "btrfsvol:/dev/sdb2/@", BTRFS),
    ],
)
def test_the_root_asked_for(roots, wanted, chosen):
    assert choose_root(roots, wanted, ()) is chosen


@pytest.mark.parametrize(
    ("roots", "wanted", "locked", "error"),
    [
        ([DEBIAN, BTRFS], "ask", (), "root-ambiguous"),
        ([DEBIAN, BTRFS], "single", (), "root-ambiguous"),
        ([DEBIAN], "/dev/sdz1", (), "root-unknown"),
        ([], "first", (), "no-os"),
        ([], "ask", (LOCKED,), "guest-encrypted"),
    ],
)
def test_refusals(roots, wanted, locked, error):
    with pytest.raises(GuestError) as caught:
        choose_root(roots, wanted, locked)
    assert caught.value.id == error
    for root in roots:
        assert root.device in f"{caught.value.message} {caught.value.hint}"
    for fs in locked:
        assert fs.device in caught.value.message
        assert "--key" in (caught.value.hint or "")


def test_keys(tmp_path):
    path = tmp_path / "key:1"
    path.write_bytes("pässword\nsecond line".encode())
    (key,) = parse_keys([f"CCCC-3:file:{path}"])
    assert key == Key("CCCC-3", path)
    assert key.read() == "pässword"
    assert key.fits(LOCKED)
    assert Key("/dev/sda5", path).fits(LOCKED)
    assert Key("all", path).fits(LOCKED)
    assert not Key("/dev/sda4", path).fits(LOCKED)


@pytest.mark.parametrize("word", ["all:key:secret", "all", "all:file:", ":file:/x", "all:clevis"])
def test_a_key_that_is_no_file_is_refused_without_telling_it(word):
    with pytest.raises(UsageError) as caught:
        parse_keys([word])
    assert caught.value.id == "key-form"
    assert "secret" not in str(caught.value)


def test_a_key_file_that_is_missing(tmp_path):
    with pytest.raises(HostError) as caught:
        Key("all", tmp_path / "none").read()
    assert caught.value.id == "key-unreadable"


def test_refusals_are_raised_or_collected():
    error = GuestError("no", id="no-os", hint="yes")
    with pytest.raises(GuestError), Problems().collecting():
        raise error
    problems = Problems(collect=True)
    for _ in range(2):
        with problems.collecting():
            raise error
    assert problems.blocked
    (finding,) = problems.findings  # said once
    assert (finding.severity, finding.id, finding.hint) == ("blocker", "no-os", "yes")
