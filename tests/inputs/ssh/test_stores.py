"""Files of a real SSH server, by SFTP and by dd."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.lying_sftp import lying_sftp
from tests.fakes.tcp_proxy import tcp_proxy
from tests.inputs.ssh.hosts import after_its_end, lacking, place_of
from tests.sshd import Sshd, sshd
from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError
from v2v.extents import Extent
from v2v.inputs._ssh.connection import ProgramRefused, connect
from v2v.inputs._ssh.dd import DdStore
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._ssh.sftp import ATTEMPTS, SftpStore
from v2v.types import KiB, MiB
from v2v.vmdk.store import Entry, Kind, ListingStore

STORES: dict[str, Any] = {"sftp": SftpStore, "dd": DdStore}
CONTENT = random.Random(5).randbytes(10 * MiB + 12_345)
NAMES = [
    "web 1-flat.vmdk",
    "[datastore1] a$HOME`id`;x.vmdk",
    "100%d %s.vmdk",
    "日本語 é.vmdk",
    "-rf.vmdk",
    "\"quoted\" and 'quoted' \\n.vmdk",
    " space at the ends ",
    "..hidden.vmdk",
    os.fsdecode(b"latin \xe9.vmdk"),
]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def opened(kind: str, place: SshPlace, cancel: Cancel | None = None) -> Iterator[Any]:
    with connect(place, cancel=cancel or Cancel()) as there:
        store = STORES[kind](there)
        yield store
        if isinstance(store, SftpStore):
            store.close()


@pytest.fixture
def store(host: Sshd, kind: str) -> Iterator[ListingStore]:
    with opened(kind, place_of(host)) as store:
        yield store


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk-flat.vmdk"
    path.write_bytes(CONTENT)
    return path


def refused(id: str, act: Any) -> SourceError:
    with pytest.raises(SourceError) as caught:
        act()
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert "ssh://" in caught.value.message
    return caught.value


def test_a_file(store: ListingStore, disk: Path) -> None:
    file = store.open(str(disk))
    assert file.size == len(CONTENT)
    assert file.read(0, len(CONTENT) + 5) == CONTENT
    for offset, length in ((0, 0), (0, 1), (511, 1024), (4 * MiB - 7, 20), (len(CONTENT) - 9, 99)):
        assert file.read(offset, length) == CONTENT[offset : offset + length]
    assert list(file.extents(5, 100)) == [Extent(5, 100)]
    buffer = bytearray(6 * MiB)
    file.read_into(3 * MiB + 1, memoryview(buffer))
    assert buffer == CONTENT[3 * MiB + 1 : 9 * MiB + 1]


def test_threads_read_at_once(store: ListingStore, disk: Path) -> None:
    file = store.open(str(disk))
    chance = random.Random(1)
    ranges = [(chance.randrange(len(CONTENT)), chance.randrange(300 * KiB)) for _ in range(60)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda one: file.read(*one), ranges))
    assert found == [CONTENT[offset : offset + length] for offset, length in ranges]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(store: ListingStore, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(name.encode(errors="surrogateescape"))
    path = str(tmp_path / name)
    assert store.open(path).read(0, 99) == name.encode(errors="surrogateescape")
    assert store.real_path(path) == path
    assert [one.name for one in store.entries(str(tmp_path))] == [name]


def test_an_empty_file(store: ListingStore, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    file = store.open(str(tmp_path / "empty"))
    assert (file.size, file.read(0, 10)) == (0, b"")


def test_a_version_tells_of_changes(host: Sshd, disk: Path) -> None:
    found = set()
    for kind in STORES:
        with opened(kind, place_of(host)) as store:
            found.add(store.open(str(disk)).version)
    assert len(found) == 1  # a job may go on with another reader
    os.utime(disk, (1, 1))
    with opened("sftp", place_of(host)) as store:
        assert store.open(str(disk)).version not in found


def test_what_is_no_file(store: ListingStore, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "nowhere").symlink_to("/no-such")
    for name in ("pipe", "folder"):
        refused("source-unreadable", lambda name=name: store.open(str(tmp_path / name)))
    for name in ("none", "nowhere", "none/none"):
        refused("image-file-missing", lambda name=name: store.open(str(tmp_path / name)))
    refused("image-file-missing", lambda: store.entries(str(tmp_path / "none")))
    refused("image-file-missing", lambda: store.real_path(str(tmp_path / "none/none")))


def test_a_path_without_links(store: ListingStore, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(tmp_path)
    (tmp_path / "link.vmdk").symlink_to("other/disk-flat.vmdk")
    assert store.real_path(str(tmp_path / "other/link.vmdk")) == str(disk)


def test_what_is_in_a_folder(store: ListingStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 5000)
    (tmp_path / ".hidden").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    found = {one.name: one for one in store.entries(str(tmp_path))}
    assert {name: one.kind for name, one in found.items()} == {
        "file": Kind.FILE,
        ".hidden": Kind.FILE,
        "folder": Kind.FOLDER,
        "link": Kind.LINK,
        "pipe": Kind.OTHER,
    }
    assert found["file"].size == 5000
    (tmp_path / "folder/empty").mkdir()
    assert store.entries(str(tmp_path / "folder/empty")) == []


def test_a_file_that_the_user_may_not_read(kind: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("another user needs root")
    folder = Path(tempfile.mkdtemp())  # whose parents everybody may read
    folder.chmod(0o755)
    try:
        (folder / "disk").write_bytes(b"secret")
        (folder / "disk").chmod(0o600)
        (folder / "closed").mkdir(0o700)
        with (
            sshd(folder / "ssh", user="nobody") as server,
            opened(kind, place_of(server)) as store,
        ):
            refused("source-unreadable", lambda: store.open(str(folder / "disk")))
            refused("source-unreadable", lambda: store.entries(str(folder / "closed")))
    finally:
        shutil.rmtree(folder)


def test_a_connection_that_breaks_in_the_middle(host: Sshd, kind: str, disk: Path) -> None:
    with tcp_proxy(host.port) as wire, opened(kind, place_of(host, port=wire.port)) as store:
        file = store.open(str(disk))
        before = wire.connections()
        for offset in (MiB, 5 * MiB):
            wire.cut_after(2 * MiB)
            assert file.read(offset, 5 * MiB) == CONTENT[offset : offset + 5 * MiB]
        assert wire.connections() > before


def test_many_sessions_that_break_at_once(host: Sshd, disk: Path) -> None:
    """They are more than the attempts to read a range."""
    with opened("sftp", place_of(host)) as store:
        file = store.open(str(disk))
        store._free += [store._new() for _ in range(ATTEMPTS)]
        host.end_sessions()
        assert file.read(0, MiB) == CONTENT[:MiB]


def test_a_file_that_changed_while_there_was_no_connection(host: Sshd, disk: Path) -> None:
    with opened("sftp", place_of(host)) as store:
        file = store.open(str(disk))
        assert file.read(0, 10) == CONTENT[:10]
        host.end_sessions()
        with disk.open("ab") as grown:
            grown.write(b"more")
        for _ in range(3):  # whoever asks again gets no other answer
            refused("source-changed-while-copied", lambda: file.read(0, 10))


def test_a_file_that_took_the_place_of_one_that_is_open(host: Sshd, disk: Path) -> None:
    with opened("sftp", place_of(host)) as store:
        before = store.open(str(disk))
        other = disk.with_name("other")
        other.write_bytes(CONTENT[::-1])
        os.utime(other, (1, 1))
        other.rename(disk)
        after = store.open(str(disk))
        assert before.read(0, 10) == CONTENT[:10]
        assert after.read(0, 10) == CONTENT[::-1][:10]


def test_a_file_that_is_cut_while_it_is_read(store: ListingStore, kind: str, disk: Path) -> None:
    file = store.open(str(disk))
    os.truncate(disk, MiB)
    id = "source-changed-while-copied" if kind == "dd" else "source-size"  # it looks each time
    refused(id, lambda: file.read(0, 5 * MiB))


def test_a_job_that_is_cancelled(host: Sshd, kind: str, disk: Path) -> None:
    """Also while nothing comes."""
    cancel = Cancel()
    with (
        tcp_proxy(host.port) as wire,
        opened(kind, place_of(host, port=wire.port), cancel) as store,
    ):
        file = store.open(str(disk))
        wire.stall()
        threading.Timer(0.1, cancel.cancel).start()
        with pytest.raises(Cancelled):
            file.read(0, 5 * MiB)


# ---- SFTP


def test_a_host_without_sftp(tmp_path: Path) -> None:
    with (
        sshd(tmp_path / "ssh", sftp=False) as server,
        pytest.raises(ProgramRefused),
        opened("sftp", place_of(server)),
    ):
        pass


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("command", ["echo Welcome to this host", "exit 3"])
def test_a_host_that_answers_otherwise(
    tmp_path: Path, command: str, late: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if late:
        after_its_end(monkeypatch, "subsystem")
    extra = f"Subsystem sftp {command}\n"
    with (
        sshd(tmp_path / "ssh", sftp=False, extra=extra) as server,
        pytest.raises(ProgramRefused),
        opened("sftp", place_of(server)),
    ):
        pass


def test_a_host_that_allows_nothing_but_sftp(tmp_path: Path, disk: Path) -> None:
    with (
        sshd(tmp_path / "ssh", extra="ForceCommand internal-sftp") as server,
        opened("sftp", place_of(server)) as store,
    ):
        assert store.open(str(disk)).read(0, 100) == CONTENT[:100]


def test_a_host_that_lets_one_program_run(
    tmp_path: Path, disk: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind == "dd":  # each waits until another one has ended
        monkeypatch.setattr("v2v.inputs._ssh.connection.ROOM_SECONDS", 60.0)
    with (
        sshd(tmp_path / "ssh", extra="MaxSessions 1") as server,
        connect(place_of(server), cancel=Cancel(), connections=1) as there,
    ):
        file = STORES[kind](there).open(str(disk))
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda at: file.read(at * MiB, 2 * MiB), range(8)))
    assert found == [CONTENT[at * MiB : (at + 2) * MiB] for at in range(8)]


def test_answers_in_small_pieces(tmp_path: Path) -> None:
    content = CONTENT[: 300 * KiB]
    with (
        lying_sftp(tmp_path, content, piece=1000) as server,
        opened("sftp", place_of(server)) as store,
    ):
        assert store.open("/disk").read(0, MiB) == content


def test_a_server_that_tells_of_more_than_there_is(tmp_path: Path) -> None:
    with (
        lying_sftp(tmp_path, CONTENT[:MiB], told=10 << 30) as server,
        opened("sftp", place_of(server)) as store,
    ):
        file = store.open("/disk")
        assert file.read(0, MiB) == CONTENT[:MiB]
        refused("source-size", lambda: file.read(MiB - 5, 10))
        refused("source-size", lambda: file.read(5 << 30, 10))
        assert file.read(0, MiB) == CONTENT[:MiB]


def test_a_server_that_tells_of_less_than_there_is(tmp_path: Path) -> None:
    with (
        lying_sftp(tmp_path, CONTENT[:MiB], told=1000) as server,
        opened("sftp", place_of(server)) as store,
    ):
        refused("source-size", lambda: store.open("/disk"))


def test_a_file_that_is_in_use(tmp_path: Path) -> None:
    """All that ESXi's server says of it is `Failure`."""
    with (
        lying_sftp(tmp_path, CONTENT[:MiB], refuses_open=4) as server,
        opened("sftp", place_of(server)) as store,
    ):
        assert "snapshot" in str(refused("source-locked", lambda: store.open("/disk")).hint)


def test_a_part_that_cannot_be_read(tmp_path: Path) -> None:
    with (
        lying_sftp(tmp_path, CONTENT[:MiB], refuses_after=500 * KiB) as server,
        opened("sftp", place_of(server)) as store,
    ):
        # Whether it is as large as it says cannot be known then.
        refused("source-locked", lambda: store.open("/disk"))


@pytest.mark.parametrize("path", ["disk", "", "/disk\0x"])
def test_real_paths_that_cannot_be(tmp_path: Path, path: str) -> None:
    with (
        lying_sftp(tmp_path, b"", real_path=path) as server,
        opened("sftp", place_of(server)) as store,
    ):
        refused("source-read", lambda: store.real_path("/disk"))


def test_names_that_cannot_be(tmp_path: Path) -> None:
    names = ("disk", "../../etc/passwd", "..", ".", "", "a/b", "a\0b")
    with (
        lying_sftp(tmp_path, b"", named=names) as server,
        opened("sftp", place_of(server)) as store,
    ):
        assert store.entries("/") == [Entry("disk", Kind.FILE, 1)]


# ---- dd

FAULTY = """#!/bin/sh
echo "$@" >> {log}
if [ -e {mark} ]; then rm {mark}; {dd} "$@" 2>/dev/null | head -c 100000; kill -9 $$; fi
exec {dd} "$@"
"""


@pytest.fixture
def faulty(tmp_path: Path) -> tuple[Path, Path, Path]:
    """A dd that ends early while a mark is there; the log of its arguments, and the mark."""
    program, log, mark = tmp_path / "tools/dd", tmp_path / "dd.log", tmp_path / "mark"
    program.parent.mkdir()
    program.write_text(FAULTY.format(log=log, mark=mark, dd=shutil.which("dd")))
    program.chmod(0o755)
    for name in ("head", "rm"):
        (tmp_path / "tools" / name).symlink_to(str(shutil.which(name)))
    return program, log, mark


@contextmanager
def with_dd(folder: Path, program: Path) -> Iterator[DdStore]:
    tools = [program.with_name(name) for name in ("head", "rm")]
    with (
        lacking(folder / "host", str(program), *map(str, tools)) as server,
        opened("dd", place_of(server)) as store,
    ):
        yield store


def test_a_dd_that_is_killed(tmp_path: Path, disk: Path, faulty: tuple[Path, ...]) -> None:
    program, log, mark = faulty
    with with_dd(tmp_path, program) as store:
        file = store.open(str(disk))
        log.write_text("")
        mark.touch()
        assert file.read(0, 4 * MiB) == CONTENT[: 4 * MiB]
        assert not mark.exists()
        assert len(log.read_text().splitlines()) == 2


def test_small_reads_start_one_dd(tmp_path: Path, disk: Path, faulty: tuple[Path, ...]) -> None:
    program, log, _ = faulty
    with with_dd(tmp_path, program) as store:
        file = store.open(str(disk))
        log.write_text("")
        for offset in range(0, MiB, 64 * KiB):
            assert file.read(offset, 512) == CONTENT[offset : offset + 512]
        assert len(log.read_text().splitlines()) == 1


def test_names_are_in_no_command(tmp_path: Path, disk: Path, faulty: tuple[Path, ...]) -> None:
    """What runs there says nothing of them but as the value of a variable; it is one word."""
    program, log, _ = faulty
    odd = disk.rename(disk.with_name("a b;touch x.vmdk"))
    with with_dd(tmp_path, program) as store:
        assert store.open(str(odd)).read(0, 10) == CONTENT[:10]
    assert f"if={odd} " in log.read_text()


def test_another_file_of_the_same_name(host: Sshd, disk: Path) -> None:
    with opened("dd", place_of(host)) as store:
        file = store.open(str(disk))
        assert file.read(0, 10) == CONTENT[:10]
        other = disk.with_name("other")
        other.write_bytes(CONTENT[::-1])
        os.utime(other, (1, 1))
        other.rename(disk)
        for _ in range(2):
            refused("source-changed-while-copied", lambda: file.read(5 * MiB, 10))
        disk.unlink()
        refused("source-changed-while-copied", lambda: file.read(5 * MiB, 10))


def test_a_name_with_a_newline(host: Sshd) -> None:
    with opened("dd", place_of(host)) as store:
        assert "sftp" in str(refused("source-name", lambda: store.open("/a\nb")).hint)


def test_a_host_without_stat(tmp_path: Path, disk: Path) -> None:
    with lacking(tmp_path / "host", "dd") as server:
        (tmp_path / "host/bin/stat").unlink()
        with opened("dd", place_of(server)) as store:
            file = store.open(str(disk))
            assert (file.size, file.version) == (len(CONTENT), "")
            assert file.read(5, 100) == CONTENT[5:105]
            refused("image-file-missing", lambda: store.open(str(tmp_path / "none")))
            found = {one.name: (one.kind, one.size) for one in store.entries(str(tmp_path))}
    assert found["disk-flat.vmdk"] == (Kind.FILE, len(CONTENT))
    assert found["host"][0] == Kind.FOLDER


def test_a_shell_of_another_kind(host: Sshd, disk: Path) -> None:
    """A command's text is one that every shell takes; bash stands for those that are not sh."""
    from v2v.inputs._ssh import dd

    for script in (dd.READ.format(dd.STATE, 1, 2, 3), dd.LOOK, dd.REAL_PATH, dd.FOLDER):
        assert "'" not in script
        assert "\n" not in script
        subprocess.run(["sh", "-n", "-c", script], check=True)
