"""Logging in to a real SSH server, and running programs there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sshd import Sshd, sshd
from v2v.cancel import Cancel
from v2v.inputs._ssh.connection import Done, connect
from v2v.inputs._ssh.place import SshPlace


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this host's own ~/.ssh, agent and password counts."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("V2V_PASSWORD", raising=False)
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return tmp_path / "home"


def place_of(host: Sshd) -> SshPlace:
    return SshPlace(
        host="127.0.0.1",
        port=host.port,
        user=host.user,
        known_hosts=host.known_hosts,
        identity=host.identity,
    )


def test_a_program(host: Sshd) -> None:
    with connect(place_of(host), cancel=Cancel()) as there:
        assert there.run("cat; echo no >&2; exit 3", input=b"words") == Done(3, b"words", "no\n")
