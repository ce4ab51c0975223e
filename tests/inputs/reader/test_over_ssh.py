"""Disks that nbdkit serves by our own code, from a host that is reached over SSH."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from tests.contract.input_suite import ContentSuite, InputCase, InputSuite, children, read_all
from tests.fakes.disks import disk_content
from tests.fakes.tcp_proxy import tcp_proxy
from tests.inputs.reader.reading import ReaderInput
from tests.inputs.ssh.hosts import place_of
from tests.integration import processes
from tests.sshd import Sshd, sshd
from v2v import nbd_client
from v2v.errors import CopyError, SourceError
from v2v.events import Event, Message
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import read_vmdk, serve_recipe
from v2v.inputs._ssh.place import SshPlace, SshReader
from v2v.run import Run
from v2v.types import MiB

CONTENT = disk_content()
NEWER = CONTENT[: 2 * MiB] + b"\7" * MiB + CONTENT[3 * MiB :]
PASSWORD = "it's 100% secret"
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path, need_tool) -> Path:
    """A VM with a snapshot."""
    need_tool("nbdkit")
    path = tmp_path / "vmfs" / "volumes" / "data store" / "web [1]"
    write_vmdk(path, "web", CONTENT)
    write_vmdk(
        path,
        "web-000001",
        NEWER,
        below=CONTENT,
        parent="web.vmdk",
        kind="vmfsSparse",
        cid=2,
        parent_cid=1,
    )
    return path


def recipe(folder: Path, place: SshPlace, name: str = "web") -> Recipe:
    return Recipe(f"{folder}/{name}.vmdk", (), ssh=place)


def case_of(folder: Path, place: SshPlace) -> InputCase:
    recipes = [recipe(folder, place, name) for name in ("web", "web-000001")]
    return InputCase(ReaderInput(*recipes), [CONTENT, NEWER], name="reader", sources=[folder])


class TestByTheBestReader(InputSuite):
    """The contract of inputs."""

    @pytest.fixture
    def case(self, folder: Path, host: Sshd) -> InputCase:
        return case_of(folder, place_of(host))


class _ByReader(ContentSuite):
    reader = SshReader.AUTO

    @pytest.fixture
    def case(self, folder: Path, host: Sshd) -> InputCase:
        return case_of(folder, place_of(host, reader=self.reader))


class TestBySftp(_ByReader):
    reader = SshReader.SFTP


class TestByDd(_ByReader):
    reader = SshReader.DD


@pytest.mark.parametrize("reader", [SshReader.HELPER, SshReader.SFTP])
def test_the_user_is_told_how_it_is_read(
    host: Sshd, folder: Path, run: Run, events_seen: list[Event], reader: SshReader
) -> None:
    with serve_recipe(recipe(folder, place_of(host, reader=reader)), run, "disk") as endpoint:
        assert endpoint.multi_conn
        assert endpoint.request_size and endpoint.request_size >= MiB // 4
    told = [event.text for event in events_seen if isinstance(event, Message)]
    assert len(told) == 1
    assert host.uri("") in told[0]
    assert ("Python" if reader is SshReader.HELPER else "SFTP") in told[0]


def test_a_dropped_connection_is_made_anew(host: Sshd, folder: Path, run: Run) -> None:
    with serve_recipe(recipe(folder, place_of(host)), run, "disk") as endpoint:
        assert read_all(endpoint) == CONTENT
        host.end_sessions()
        assert read_all(endpoint) == CONTENT


def test_who_is_not_let_in_is_told_at_once_why(
    host: Sshd, folder: Path, run: Run, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    nothing.touch()
    place = replace(place_of(host), known_hosts=nothing)
    with pytest.raises(SourceError) as served, serve_recipe(recipe(folder, place), run, "disk"):
        pass
    assert served.value.id == "ssh-host-key"
    with pytest.raises(SourceError) as read:
        read_vmdk(recipe(folder, place), run)
    assert (str(served.value), served.value.hint) == (str(read.value), read.value.hint)
    assert children() == set()


def test_a_disk_that_is_taken_away_meanwhile(host: Sshd, folder: Path, run: Run) -> None:
    with (
        pytest.raises(SourceError) as caught,
        serve_recipe(recipe(folder, place_of(host)), run, "disk") as endpoint,
    ):
        os.truncate(folder / "web-flat.vmdk", MiB)
        with pytest.raises(SourceError), nbd_client.ExportReader(endpoint, "disk") as reader:
            reader.read(3 * MiB, 512)
        raise CopyError("disk 1: cannot read", id="copy-read")
    assert "web-flat.vmdk" in caught.value.message
    assert caught.value.id.startswith(("source-", "image-"))


def test_the_end_does_not_wait_for_a_wire_that_is_silent(
    host: Sshd, folder: Path, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    import nbd

    with (
        tcp_proxy(host.port) as wire,
        pytest.raises(CopyError),
        serve_recipe(recipe(folder, place_of(host, port=wire.port)), run, "disk") as endpoint,
    ):
        wire.stall()
        handle = nbd_client.connect(endpoint)
        handle.aio_pread(nbd.Buffer(512), 3 * MiB)
        handle.poll(0)  # it is sent
        nbd_client.hang_up(handle)
        raise CopyError("stopped", id="copy-stalled")
    assert "killed" not in caplog.text  # after ten seconds of waiting
    assert children() == set()


# What is left -------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from v2v.inputs._reader import order
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import serve_recipe
from v2v.run import Run
recipe = order.read(Path(sys.argv[2]), Recipe)
with Run.create(Path(sys.argv[1]), "hold") as run:
    with serve_recipe(recipe, run, "disk") as endpoint:
        print(endpoint.socket, flush=True)
        sys.stdin.read()
"""


@pytest.mark.parametrize("reader", ["helper", "sftp", "dd"])
def test_nothing_is_left_here_and_there_when_v2v_is_killed(
    folder: Path, tmp_path: Path, reader: str
) -> None:
    from v2v.inputs._reader import order

    with sshd(tmp_path / "ssh") as host:
        order.write(tmp_path / "recipe", recipe(folder, place_of(host, reader=SshReader(reader))))
        argv = [sys.executable, "-c", HOLD, str(tmp_path / "jobs"), str(tmp_path / "recipe")]
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
        ) as process:
            assert process.stdout is not None
            socket = process.stdout.readline().strip()
            endpoint = nbd_client.describe(Path(socket))
            assert read_all(endpoint) == CONTENT
            assert there(host)
            process.send_signal(signal.SIGKILL)
        assert processes.gone(str(Path(socket).parent))
        assert _soon(lambda: not there(host)), there(host)


def there(host: Sshd) -> list[int]:
    """What the server runs for those who are logged in."""
    from tests.sshd import _children

    return _children(host.pid)


def _soon(done: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while not done():
        if time.monotonic() > end:
            return False
        threading.Event().wait(0.02)
    return True


# Passwords ----------------------------------------------------------------------------------------


def test_a_password_of_the_environment_reaches_the_reader_unseen(
    folder: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from v2v import password

    monkeypatch.setattr(password, "_answers", {})
    monkeypatch.setenv("V2V_PASSWORD", PASSWORD)
    with sshd(tmp_path / "ssh", password=PASSWORD) as host:
        place = SshPlace(
            host="127.0.0.1",
            port=host.port,
            user=host.user,
            known_hosts=host.known_hosts,
            identity=tmp_path / "none",
        )
        with serve_recipe(recipe(folder, place), run, "disk") as endpoint:
            assert read_all(endpoint) == CONTENT
            for pid in children():
                for name in ("cmdline", "environ"):
                    assert PASSWORD.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
        for path in run.folder.rglob("*"):
            if path.is_file():
                assert PASSWORD.encode() not in path.read_bytes()


def test_a_wrong_password_is_not_tried_for_each_disk(
    folder: Path, run: Run, tmp_path: Path
) -> None:
    """A key lets us in all the same; an ESXi host locks the account after five."""
    file = tmp_path / "password"
    file.write_text("barley\n")
    with sshd(tmp_path / "ssh", password=PASSWORD) as host:
        place = replace(place_of(host), password_file=file)
        disks = [recipe(folder, place, name) for name in ("web", "web-000001")]
        for one in disks:
            read_vmdk(one, run)
        for one in disks:
            with serve_recipe(one, run, "disk") as endpoint:
                assert endpoint.size == len(CONTENT)
        assert (tmp_path / "ssh/log").read_text().count("Failed password") == 1


def test_a_password_that_can_be_read_once(folder: Path, run: Run, tmp_path: Path) -> None:
    """-ip <(pass show esxi)"""
    ours, theirs = os.pipe()
    os.write(theirs, f"{PASSWORD}\n".encode())
    os.close(theirs)
    with sshd(tmp_path / "ssh", password=PASSWORD) as host:
        place = replace(
            place_of(host), identity=tmp_path / "none", password_file=Path(f"/dev/fd/{ours}")
        )
        with serve_recipe(recipe(folder, place), run, "disk") as endpoint:
            assert endpoint.size == len(CONTENT)
    os.close(ours)
