"""The disks of a VM for other programs: Unix sockets, TCP, TLS, raw files."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import v2v
from tests.integration import processes
from tests.places import authority, certificate
from v2v import nbdfuse
from v2v.errors import V2VError
from v2v.events import Event, Warned
from v2v.opening import OpenedGuest
from v2v.opening.tcp import parse
from v2v.types import MiB

SIZE = 4 * MiB


def image(path: Path) -> Path:
    """A raw disk: a boot sector's signature, some data, and holes."""
    with path.open("wb") as stream:
        stream.truncate(SIZE)
        stream.seek(510)
        stream.write(b"\x55\xaa")
        stream.seek(MiB)
        stream.write(os.urandom(MiB))
    return path


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return image(tmp_path / "vm.img")


@pytest.fixture
def opening(tmp_path: Path, need_tool) -> Callable[..., Any]:
    """v2v.open_disks with its scratch files in tmp_path."""
    for tool in ("nbdkit", "qemu-nbd", "nbdinfo", "nbdcopy"):
        need_tool(tool)

    def open_disks(*guests: Path, **options: Any) -> Any:
        return v2v.open_disks(*guests, jobs=tmp_path / "jobs", **options)

    return open_disks


@pytest.fixture
def fuse(tmp_path: Path, need_tool) -> Iterator[Path]:
    """A folder that is not there, where FUSE works."""
    need_tool("nbdfuse")
    if not os.access("/dev/fuse", os.W_OK):
        pytest.skip("there is no /dev/fuse")
    yield tmp_path / "fuse"
    for left in nbdfuse.mounted_below(tmp_path):  # of a test that failed
        nbdfuse.detach(left)


def content(uri: str, path: Path) -> bytes:
    """What nbdcopy reads."""
    subprocess.run(["nbdcopy", uri, path], check=True, capture_output=True, timeout=60)
    return path.read_bytes()


def reads(uri: str) -> bool:
    done = subprocess.run(["nbdinfo", "--size", uri], capture_output=True, text=True, timeout=60)
    return done.returncode == 0 and done.stdout.strip() == str(SIZE)


def ports(count: int) -> int:
    """The first of so many free ports in a row, none of which the system gives to anybody."""
    first, *_ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    below = int(first) if int(first) > 11000 else 1 << 15
    for port in range(10000 + secrets.randbelow(below - 11000), below - count, count):
        try:
            for one in range(port, port + count):
                socket.create_server(("127.0.0.1", one)).close()
        except OSError:
            continue
        return port
    raise AssertionError("no free port")


def nothing_left(tmp_path: Path) -> bool:
    scratch = tmp_path / "jobs/.scratch"
    assert processes.gone(str(scratch)), processes.mentioning(str(scratch))
    assert not nbdfuse.mounted_below(tmp_path)
    return list(scratch.iterdir()) == []


def error(opening: Callable[..., Any], *guests: Path, **options: Any) -> V2VError:
    with pytest.raises(V2VError) as caught, opening(*guests, **options):
        pytest.fail("it was opened")
    return caught.value


# Unix sockets -------------------------------------------------------------------------------------


def test_disks_are_read_at_their_uris_and_gone_afterwards(opening, disk, tmp_path) -> None:
    other = image(tmp_path / "data.img")
    with opening(disk, other) as opened:
        assert (opened.name, opened.writable) == ("vm", False)
        assert [one.name for one in opened.disks] == ["sda", "sdb"]
        assert [one.size for one in opened.disks] == [SIZE, SIZE]
        assert content(opened.disks[0].uri, tmp_path / "a") == disk.read_bytes()
        assert content(opened.disks[1].uri, tmp_path / "b") == other.read_bytes()
        folder = opened.disks[0].socket.parent
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()
    assert nothing_left(tmp_path)


def test_a_format_is_opened_as_the_disk_inside(opening, disk, tmp_path) -> None:
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", disk, tmp_path / "vm.qcow2"]
    subprocess.run(argv, check=True)
    with opening(tmp_path / "vm.qcow2") as opened:
        assert content(opened.disks[0].uri, tmp_path / "a") == disk.read_bytes()


def nbd_handle(opened: OpenedGuest) -> Any:
    import nbd

    handle = nbd.NBD()
    handle.set_strict_mode(0)  # the server is to refuse, not the client
    handle.connect_uri(opened.disks[0].uri)
    return handle


def test_the_source_cannot_be_written(opening, disk) -> None:
    before = disk.read_bytes()
    with opening(disk) as opened:
        handle = nbd_handle(opened)
        assert handle.is_read_only()
        with pytest.raises(Exception, match=r"(?i)not permitted|read-only"):
            handle.pwrite(b"x" * 512, 0)
    assert disk.read_bytes() == before


def test_what_is_written_is_read_again_and_thrown_away(opening, disk, tmp_path) -> None:
    before = disk.read_bytes()
    with opening(disk, writable=True) as opened:
        handle = nbd_handle(opened)
        handle.pwrite(b"x" * 512, MiB)
        handle.shutdown()
        assert opened.writable
        assert content(opened.disks[0].uri, tmp_path / "a")[MiB : MiB + 512] == b"x" * 512
    assert disk.read_bytes() == before
    assert nothing_left(tmp_path)


def test_an_error_in_the_block_closes_everything(opening, disk, tmp_path, fuse) -> None:
    with pytest.raises(ZeroDivisionError), opening(disk, fuse=fuse, writable=True):
        _ = 1 // 0
    assert nothing_left(tmp_path)
    assert not fuse.exists()


def test_sockets_are_where_they_are_wanted(opening, disk, tmp_path) -> None:
    folder = tmp_path / "s"
    with opening(disk, socket_dir=folder) as opened:
        assert opened.disks[0].socket == folder / "sda"
        assert str(folder) in opened.disks[0].uri
        assert reads(opened.disks[0].uri)
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        taken = error(opening, disk, socket_dir=folder)
        assert taken.id == "open-folder" and str(folder / "sda") in taken.message
        assert reads(opened.disks[0].uri)  # it was left alone
    assert not folder.exists()


def test_a_socket_folder_that_was_there_stays(opening, disk, tmp_path) -> None:
    folder = tmp_path / "s"
    folder.mkdir()
    (folder / "mine").touch()
    for name in ("sda", "sdb"):  # of a v2v that was killed
        (folder / name).symlink_to(tmp_path / "v2v-gone/source-0-x/s")
    with opening(disk, socket_dir=folder) as opened:
        assert reads(opened.disks[0].uri)
    assert [path.name for path in folder.iterdir()] == ["mine"]


def test_a_socket_path_that_is_too_long_is_told(opening, disk, tmp_path) -> None:
    found = error(opening, disk, socket_dir=tmp_path / ("x" * 107))
    assert (found.id, found.exit_code) == ("open-socket-path", 2)


def test_what_is_in_the_way_of_a_socket_stays(opening, disk, tmp_path) -> None:
    (tmp_path / "sda").write_text("mine")
    assert error(opening, disk, socket_dir=tmp_path).id == "open-folder"
    assert error(opening, disk, socket_dir=disk).id == "open-folder"
    assert (tmp_path / "sda").read_text() == "mine"


@pytest.mark.parametrize("target", ["precious", "not-there"])
def test_a_link_of_somebody_else_stays(target: str, opening, disk, tmp_path) -> None:
    (tmp_path / "precious").touch()
    link = tmp_path / "sda"
    link.symlink_to(tmp_path / target)
    assert error(opening, disk, socket_dir=tmp_path).id == "open-folder"
    assert link.readlink() == tmp_path / target


def test_what_a_kill_left_goes_with_the_next(opening, disk, tmp_path) -> None:
    """Even where it came between the making or the removing of a folder and its journal."""
    scratch = tmp_path / "jobs/.scratch"
    for name in ("young", "old"):
        (scratch / name).mkdir(parents=True)
    (scratch / "old/log").mkdir()
    (scratch / "old/overlay-0.qcow2").touch()
    os.utime(scratch / "old", (0, 0))
    with opening(disk):
        pass
    assert [path.name for path in scratch.iterdir()] == ["young"]


# TCP ----------------------------------------------------------------------------------------------


def test_disks_are_on_ports_one_after_the_other(opening, disk, tmp_path) -> None:
    other, port = image(tmp_path / "data.img"), ports(2)
    seen: list[Event] = []
    with opening(disk, other, tcp=port, emit=seen.append) as opened:
        uris = [one.uri for one in opened.disks]
        assert uris == [f"nbd://127.0.0.1:{port}/", f"nbd://127.0.0.1:{port + 1}/"]
        assert content(uris[0], tmp_path / "a") == disk.read_bytes()
        assert content(uris[1], tmp_path / "b") == other.read_bytes()
        assert opened.disks[0].socket is None
    assert not reads(uris[0])
    assert [event.id for event in seen if isinstance(event, Warned)] == ["open-local-users"]
    assert nothing_left(tmp_path)


def test_writing_works_on_tcp_too(opening, disk) -> None:
    before = disk.read_bytes()
    with opening(disk, tcp=ports(1), writable=True) as opened:
        handle = nbd_handle(opened)
        handle.pwrite(b"x" * 512, 0)
        assert bytes(handle.pread(512, 0)) == b"x" * 512
        handle.shutdown()
    assert disk.read_bytes() == before


def test_a_port_in_use_is_told(opening, disk) -> None:
    port = ports(2)
    with socket.create_server(("127.0.0.1", port + 1)):
        found = error(opening, disk, disk, tcp=port)
    assert (found.id, found.exit_code) == ("open-port", 3)
    assert str(port + 1) in found.message and "in use" in found.message


@pytest.mark.parametrize(
    "word", ["", "x", "0", "65536", "host:", ":10809", "-1", "::1:10809", "[::1]", "a:b:1", "1.5"]
)
def test_what_is_no_address_is_refused(word: str, opening, disk) -> None:
    assert error(opening, disk, tcp=word).id == "option-value"


def test_addresses() -> None:
    assert (parse("10809").host, parse("10809").port) == ("127.0.0.1", 10809)
    assert parse("[::1]:5").numbers == ("::1",)
    assert parse("127.0.0.2:1").is_loopback
    assert not parse("0.0.0.0:1").is_loopback
    assert not parse("[::]:1").is_loopback


def test_more_disks_than_ports_are_refused(opening, disk) -> None:
    assert error(opening, disk, disk, tcp=65535).id == "option-value"


def test_other_hosts_are_kept_out_unless_it_is_asked_for(opening, disk) -> None:
    port = ports(1)
    found = error(opening, disk, tcp=f"0.0.0.0:{port}")
    assert (found.id, found.exit_code) == ("open-insecure", 2)
    with opening(disk, tcp=f"0.0.0.0:{port}", insecure=True):
        assert reads(f"nbd://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "options",
    [
        {"tls_psk_file": "k"},
        {"tls_certificates": "."},
        {"insecure": True},
        {"tcp": 10809, "socket_dir": "s"},
        {"tcp": 10809, "tls_psk_file": "k", "tls_certificates": "."},
    ],
)
def test_options_that_contradict_each_other(options: dict[str, Any], opening, disk) -> None:
    assert error(opening, disk, **options).id == "option-conflict"


# TLS ----------------------------------------------------------------------------------------------


def test_who_has_the_key_reads_and_nobody_else(opening, disk, tmp_path) -> None:
    keys, wrong, port = tmp_path / "my keys", tmp_path / "wrong", ports(1)
    keys.write_text(f"a user:{secrets.token_hex(32)}\n")
    wrong.write_text(f"a user:{secrets.token_hex(32)}\n")
    seen: list[Event] = []
    with opening(disk, tcp=port, tls_psk_file=keys, emit=seen.append) as opened:
        assert content(opened.disks[0].uri, tmp_path / "a") == disk.read_bytes()
        here = f"nbds://a%20user@127.0.0.1:{port}/?tls-psk-file="
        assert not reads(f"{here}{wrong}")
        assert not reads(f"nbd://127.0.0.1:{port}/")
    assert not [event for event in seen if isinstance(event, Warned)]


def test_who_has_a_certificate_reads_and_nobody_else(opening, disk, tmp_path, need_tool) -> None:
    need_tool("openssl")
    ours, theirs = authority(tmp_path / "ours"), authority(tmp_path / "theirs")
    server, client, stranger = (tmp_path / name for name in ("server", "client", "stranger"))
    for folder in (server, client, stranger):
        folder.mkdir()
    certificate(server, ours, "server")
    certificate(client, ours, "client")
    certificate(stranger, theirs, "client")
    (stranger / "ca-cert.pem").write_bytes((ours / "ca-cert.pem").read_bytes())
    with opening(disk, tcp=ports(1), tls_certificates=server) as opened:
        uri = opened.disks[0].uri
        assert uri.startswith("nbds://") and "?" not in uri  # the client's files are the client's
        assert content(f"{uri}?tls-certificates={client}", tmp_path / "a") == disk.read_bytes()
        assert not reads(f"{uri}?tls-certificates={stranger}")
        assert not reads(uri.replace("nbds:", "nbd:"))
        assert not reads(uri)


def test_files_of_tls_that_are_not_there_are_told_before_anything_is_opened(
    opening, tmp_path
) -> None:
    (tmp_path / "empty").touch()
    for options in (
        {"tls_psk_file": tmp_path / "none"},
        {"tls_psk_file": tmp_path / "empty"},
        {"tls_certificates": tmp_path},
    ):
        assert error(opening, tmp_path / "no-disk", tcp=10809, **options).id == "tls-files"


@pytest.mark.parametrize("text", ["web", ":00", "web:", "web:key", "web:123", "web:00 11"])
def test_what_is_no_key_is_told(text: str, opening, tmp_path) -> None:
    keys = tmp_path / "keys.psk"
    keys.write_text(f"{text}\nother:00\n")
    found = error(opening, tmp_path / "no-disk", tcp=10809, tls_psk_file=keys)
    assert found.id == "tls-files"


def test_certificates_that_are_none_are_told(opening, disk, tmp_path) -> None:
    for name in ("ca-cert.pem", "server-cert.pem", "server-key.pem"):
        (tmp_path / name).write_text("junk")
    found = error(opening, disk, tcp=ports(1), tls_certificates=tmp_path)
    assert found.id == "tls-files" and "server-cert.pem" in found.message
    assert nothing_left(tmp_path)


# Raw files ----------------------------------------------------------------------------------------


def test_disks_are_files(opening, disk, tmp_path, fuse) -> None:
    other = image(tmp_path / "data.img")
    with opening(disk, other, fuse=fuse) as opened:
        files = [one.file for one in opened.disks]
        assert files == [fuse / "vm-sda.img", fuse / "vm-sdb.img"]
        assert files[0].read_bytes() == disk.read_bytes()
        assert files[1].read_bytes() == other.read_bytes()
        with (
            pytest.raises(OSError, match=r"(?i)denied|read-only|not permitted"),
            files[0].open("r+b", buffering=0) as stream,
        ):
            stream.write(b"x")
        assert error(opening, disk, fuse=fuse).id == "open-folder-in-use"
    assert not fuse.exists()
    assert nothing_left(tmp_path)


def test_files_can_be_written_to_be_thrown_away(opening, disk, tmp_path, fuse) -> None:
    before = disk.read_bytes()
    fuse.mkdir()
    with opening(disk, fuse=fuse, writable=True) as opened:
        with opened.disks[0].file.open("r+b") as stream:
            stream.write(b"written")
        assert opened.disks[0].file.read_bytes()[:7] == b"written"
    assert list(fuse.iterdir()) == []
    assert disk.read_bytes() == before
    assert nothing_left(tmp_path)


def test_a_file_that_is_still_open_does_not_keep_the_mount(opening, disk, tmp_path, fuse) -> None:
    with opening(disk, fuse=fuse) as opened:
        fd = os.open(opened.disks[0].file, os.O_RDONLY)
    with pytest.raises(OSError, match="not connected"):
        os.pread(fd, MiB, 0)
    with suppress(OSError):
        os.close(fd)
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "vm-sda.img"])
def test_a_folder_that_holds_something_is_refused(name: str, opening, disk, fuse) -> None:
    fuse.mkdir()
    (fuse / name).write_text("mine")
    found = error(opening, disk, fuse=fuse)
    assert (found.id, found.exit_code) == ("open-folder-not-empty", 2)
    assert (fuse / name).read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_told(opening, disk, fuse) -> None:
    assert error(opening, disk, fuse=fuse / "deep").id == "open-folder"
    assert error(opening, disk, fuse=disk).id == "open-folder"


def test_what_a_killed_nbdfuse_left_is_removed(opening, disk, tmp_path, fuse) -> None:
    seen: list[Event] = []
    fuse.mkdir()
    (fuse / "old name-sdb.img").touch()
    (fuse / "vm-sda.img").touch()
    argv = ["nbdfuse", "-P", tmp_path / "pid", fuse / "vm-sda.img"]
    with subprocess.Popen([*argv, "[", "nbdkit", "--exit-with-parent", "null", "1M", "]"]) as lost:
        while not (tmp_path / "pid").exists():
            assert lost.poll() is None
        lost.send_signal(signal.SIGKILL)
    with pytest.raises(OSError):
        (fuse / "vm-sda.img").stat()
    with opening(disk, fuse=fuse, emit=seen.append) as opened:
        assert opened.disks[0].file.read_bytes() == disk.read_bytes()
    assert [event.id for event in seen if isinstance(event, Warned)] == ["open-stale-mount"]
    assert list(fuse.iterdir()) == []


def test_a_name_that_is_a_path_stays_in_the_folder(opening, tmp_path, fuse) -> None:
    guest = image(tmp_path / " ..\n$(x)'\"\\040.img")
    with opening(guest, fuse=fuse) as opened:
        file = opened.disks[0].file
        assert file.parent == fuse and "\n" not in file.name
        assert nbdfuse.mounted_below(tmp_path) == [file]
        assert file.read_bytes() == guest.read_bytes()
    assert nothing_left(tmp_path)


def test_a_missing_tool_is_told_with_its_package(opening, disk, fuse, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = error(opening, disk, fuse=fuse)
    assert (found.id, found.exit_code) == ("tool-missing", 3)
    assert "nbdfuse" in (found.hint or "")
    assert not fuse.exists()
