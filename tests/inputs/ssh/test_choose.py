"""Which reader is taken, on hosts that lack this or that."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.inputs.ssh.hosts import SFTP, lacking, place_of
from v2v.cancel import Cancel
from v2v.errors import SourceError
from v2v.inputs._ssh.choose import open_store
from v2v.inputs._ssh.place import SshReader

PYTHON = sys.executable


@pytest.mark.parametrize(
    ("programs", "told"),
    [
        (("python3", SFTP, "dd"), "a program of ours"),
        (("python", SFTP, "dd"), "a program of ours"),
        ((SFTP, "dd"), "by SFTP (no Python runs there)"),
        (("dd",), "by dd there (no Python runs there, no SFTP is offered there)"),
    ],
)
def test_the_first_that_works(tmp_path: Path, programs: tuple[str, ...], told: str) -> None:
    (tmp_path / "disk").write_bytes(data := os.urandom(100_000) + bytes(300_000))
    for name in programs:
        if name.startswith("python"):
            (tmp_path / name).symlink_to(PYTHON)
    there = [str(tmp_path / one) if one.startswith("python") else one for one in programs]
    heard: list[str] = []
    with (
        lacking(tmp_path / "host", *there) as host,
        open_store(place_of(host), cancel=Cancel(), tell=heard.append) as store,
    ):
        assert store.open(f"{tmp_path}/disk").read(0, 10**6) == data
        assert store.real_path(str(tmp_path)) == str(tmp_path.resolve())
    (sentence,) = heard
    assert told in sentence
    assert sentence.startswith("ssh://")


@pytest.mark.parametrize(
    ("reader", "lack"),
    [
        (SshReader.HELPER, "no Python"),
        (SshReader.SFTP, "no SFTP"),
        (SshReader.DD, "no dd"),
        (SshReader.AUTO, "no Python runs there, no SFTP is offered there, no dd"),
    ],
)
def test_a_host_where_it_does_not_work(tmp_path: Path, reader: SshReader, lack: str) -> None:
    with (
        lacking(tmp_path / "host") as host,
        pytest.raises(SourceError, match=lack) as caught,
        open_store(place_of(host, reader=reader), cancel=Cancel(), tell=print),
    ):
        pass
    assert caught.value.id == "ssh-reader"


def test_a_python_that_is_too_old(tmp_path: Path) -> None:
    """Python 2 does not know what the program says; nor does anything else of that name."""
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\necho 'SyntaxError: what is this?' >&2\nexit 1\n")
    old.chmod(0o755)
    heard: list[str] = []
    with (
        lacking(tmp_path / "host", str(old), SFTP) as host,
        open_store(place_of(host), cancel=Cancel(), tell=heard.append),
    ):
        assert "by SFTP" in heard[0]
