"""-i disk: names, options, and one clear error for each kind of bad input."""

from __future__ import annotations

import fcntl
import gzip
import lzma
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import places
from tests.contract.input_suite import children
from tests.fakes.disks import disk_content, mbr
from tests.fakes.http_server import serve_folder
from v2v import nbd_client, options, process
from v2v.cancel import Cancel
from v2v.errors import V2VError
from v2v.events import Event, Warned
from v2v.file_locks import FLOCK
from v2v.image import in_use
from v2v.image.in_use import QEMU_WRITE_LOCK
from v2v.inputs._plain import ImageOptions, guest_name
from v2v.inputs.disk import DiskInput
from v2v.run import Run
from v2v.types import DiskFormat, GiB, MiB


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(disk_content())
    return path


def read(run: Run, *words: object, **given: object) -> object:
    return DiskInput(ImageOptions(**given), [str(w) for w in words]).read_source(run)  # type: ignore[arg-type]


def refused(run: Run, id: str, *words: object, **given: object) -> V2VError:
    """Read a source that must be refused: the error has the id, a hint, and names the disk."""
    with pytest.raises(V2VError) as caught:
        read(run, *words, **given)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value


def qemu_img(*argv: object) -> None:
    subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("/a/web.img", "web"),
        ("web.QCOW2", "web"),
        ("web-sda", "web"),
        ("web-sda.qcow2", "web"),
        ("web-flat.vmdk", "web"),
        ("web.raw.xz", "web"),
        ("web.example.org.vmdk", "web.example.org"),
        (".img", ".img"),
        ("/dev/sdb", "sdb"),
        ("nbd://localhost/web", "unknown"),
        ("nbd+unix:///?socket=/run/web.sock", "unknown"),
        ("https://example.org/a/web%20server.qcow2?key=1", "web server"),
        ("http://example.org", "unknown"),
    ],
)
def test_the_guest_is_named_after_its_first_disk(word: str, name: str) -> None:
    assert guest_name([word, "other.img"]) == name


def test_options_come_from_the_command_line() -> None:
    given = {"-if": "qcow2", "-io allow-backing": "/a:/b/c"}
    parsed = options.parse(ImageOptions, given, module="-i disk")
    assert parsed.format == DiskFormat.QCOW2
    assert parsed.allow_backing == (Path("/a"), Path("/b/c"))


# Files that cannot be disks -----------------------------------------------------------------------


def test_missing_file(run: Run, tmp_path: Path) -> None:
    assert "gone" in str(refused(run, "source-missing", tmp_path / "gone"))


def test_second_disk_missing(run: Run, disk: Path, tmp_path: Path) -> None:
    refused(run, "source-missing", disk, tmp_path / "gone")


def test_folder(run: Run, tmp_path: Path) -> None:
    refused(run, "source-not-a-file", tmp_path)


def test_fifo_does_not_hang(run: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    refused(run, "source-not-a-file", tmp_path / "fifo")


def test_empty_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    refused(run, "image-empty", tmp_path / "a")


def test_name_that_is_no_text(run: Run, tmp_path: Path) -> None:
    with pytest.raises(V2VError) as caught:
        read(run, os.fsdecode(bytes(tmp_path) + b"/\xff"))
    assert caught.value.id in ("source-name", "source-missing")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_unreadable_file(run: Run, disk: Path) -> None:
    disk.chmod(0o600)
    for folder in disk.parents[:-2]:
        folder.chmod(0o755)
    os.seteuid(65534)
    try:
        refused(run, "source-unreadable", disk)
    finally:
        os.seteuid(0)


def test_text_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "notes.img").write_text("buy milk\n" * 100)
    assert "text" in str(refused(run, "not-a-disk-image", tmp_path / "notes.img"))


def test_unknown_content_is_refused_for_the_first_disk_only(
    run: Run, disk: Path, tmp_path: Path
) -> None:
    other = tmp_path / "data"
    other.write_bytes(b"\1\2\3" * MiB)
    refused(run, "not-a-disk-image", other)
    assert read(run, disk, other)


def test_if_raw_takes_anything(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"%PDF-1.7" * 512)
    assert read(run, tmp_path / "a", format=DiskFormat.RAW)


def test_wrong_forced_format(run: Run, disk: Path) -> None:
    refused(run, "image-format-wrong", disk, format=DiskFormat.QCOW2)


def test_raw_disk_shorter_than_its_partitions(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(mbr((0x83, 2048, GiB // 512)))
    os.truncate(path, GiB // 2)
    refused(run, "image-truncated", path)
    assert read(run, path, format=DiskFormat.RAW)


def test_odd_size_is_padded_with_a_warning(run: Run, disk: Path, events_seen: list[Event]) -> None:
    with disk.open("ab") as file:
        file.write(b"end")
    read(run, disk)
    assert [e.id for e in events_seen if isinstance(e, Warned)] == ["source-padded"]


def test_descriptor_pointing_at_a_host_file(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.vmdk"
    path.write_text(
        '# Disk DescriptorFile\nversion=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'
        'RW 1 FLAT "/etc/passwd" 0\n'
    )
    assert "/etc/passwd" in str(refused(run, "image-names-other-file", path))


def test_allowed_backing_file_is_served(run: Run, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "vm").mkdir()
    top = tmp_path / "vm" / "top.qcow2"
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", disk, top)
    refused(run, "image-names-other-file", top)
    allowed = DiskInput(ImageOptions(allow_backing=(Path("/nowhere"), disk)), [str(top)])
    with allowed.serve(allowed.read_source(run), run) as (endpoint,):
        handle = nbd_client.connect(endpoint)
        assert bytes(handle.pread(MiB, MiB)) == disk_content()[MiB : 2 * MiB]
        handle.shutdown()


def test_image_that_turned_hostile_after_it_was_read_is_not_served(
    run: Run, disk: Path, tmp_path: Path
) -> None:
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-f", "qcow2", path, 6 * MiB)
    one = DiskInput(ImageOptions(), [str(path)])
    source = one.read_source(run)
    path.unlink()
    qemu_img("create", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", path, 6 * MiB)
    with pytest.raises(V2VError) as caught, one.serve(source, run):
        pass
    assert caught.value.id == "image-names-other-file"


# Packed -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_damaged_packed_file(run: Run, tmp_path: Path, pack) -> None:
    whole = pack(disk_content())
    (tmp_path / "a").write_bytes(whole[:20] + b"\xff" * 50 + whole[70:])
    refused(run, "image-packed-damaged", tmp_path / "a")


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_cut_packed_file(run: Run, tmp_path: Path, pack) -> None:
    """It is told when it is read or, where only unpacking it all can tell, when it is served."""
    (tmp_path / "a").write_bytes(pack(disk_content())[: 2 * MiB // 3])
    one = DiskInput(ImageOptions(), [str(tmp_path / "a")])
    with pytest.raises(V2VError) as caught, one.serve(one.read_source(run), run):
        pass
    assert caught.value.id in ("image-packed-damaged", "source-serve")
    assert caught.value.hint


# In use -------------------------------------------------------------------------------------------


@contextmanager
def holding(path: Path, code: str) -> Iterator[int]:
    """Another process that opens `path`, runs `code`, and stays."""
    program = (
        f"import sys; path = sys.argv[1]\n{code}\nprint('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        try:
            yield process.pid
        finally:
            process.communicate()


def test_disk_open_for_writing_names_the_process(run: Run, disk: Path) -> None:
    with holding(disk, "f = open(path, 'r+b')") as pid:
        assert f"process {pid} " in str(refused(run, "source-in-use", disk))
    assert read(run, disk)


def test_a_descriptor_that_is_closed_meanwhile_hides_no_other(
    run: Run, disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look, looked = in_use._for_writing, []

    def closed(fdinfo: Path) -> bool:
        looked.append(fdinfo)
        return look(fdinfo if len(looked) > 1 else fdinfo.with_name("99999"))

    with holding(disk, "f, g = open(path, 'r+b'), open(path, 'r+b')") as pid:
        monkeypatch.setattr(in_use, "_for_writing", closed)
        assert f"process {pid} " in str(refused(run, "source-in-use", disk))
    assert len(looked) > 1


def test_disk_open_for_reading_is_no_hindrance(run: Run, disk: Path) -> None:
    with holding(disk, "f = open(path, 'rb')"):
        assert read(run, disk)


def test_backing_file_open_for_writing(run: Run, disk: Path, tmp_path: Path) -> None:
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", "disk.img", tmp_path / "top.qcow2")
    with holding(disk, "f = open(path, 'r+b')"):
        assert "disk.img" in str(refused(run, "source-in-use", tmp_path / "top.qcow2"))


def test_qemu_lock_of_another_host_is_seen(run: Run, disk: Path) -> None:
    """The lock alone, as seen over NFS: this process holds it, and is not looked at as a writer."""
    with disk.open("rb") as file:
        lock = struct.pack(FLOCK, fcntl.F_RDLCK, os.SEEK_SET, QEMU_WRITE_LOCK, 1, 0)
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
        assert "QEMU" in str(refused(run, "source-in-use", disk))


def test_running_qemu_is_named(run: Run, disk: Path, tmp_path: Path, need_tool) -> None:
    need_tool("qemu-nbd")
    socket, pid_file = tmp_path / "s", tmp_path / "pid"
    argv = ["qemu-nbd", "--fork", "-t", "--pid-file", str(pid_file), "-f", "raw", "-k", str(socket)]
    subprocess.run([*argv, str(disk)], check=True)
    pid = int(pid_file.read_text())
    try:
        assert f"process {pid} (qemu-nbd)" in str(refused(run, "source-in-use", disk))
    finally:
        os.kill(pid, 15)


@pytest.fixture
def loop_device(disk: Path) -> Iterator[Path]:
    with places.loop_device(disk) as device:
        yield device


def test_block_device(run: Run, loop_device: Path) -> None:
    one = DiskInput(ImageOptions(), [str(loop_device)])
    source = one.read_source(run)
    assert source.disks[0].size == len(disk_content())
    with one.serve(source, run) as (endpoint,):
        handle = nbd_client.connect(endpoint)
        assert bytes(handle.pread(MiB, MiB)) == disk_content()[MiB : 2 * MiB]
        handle.shutdown()


def test_file_behind_a_writable_loop_device(run: Run, loop_device: Path, disk: Path) -> None:
    assert loop_device.name in str(refused(run, "source-in-use", disk))


# URIs ---------------------------------------------------------------------------------------------


def test_unknown_scheme(run: Run) -> None:
    assert "nbd" in (refused(run, "uri-scheme", "ndb://host/x").hint or "")


def test_nbd_server_that_is_not_there(run: Run, tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert "refused" in str(refused(run, "nbd-unreachable", f"nbd://127.0.0.1:{port}"))
    error = refused(run, "nbd-unreachable", f"nbd+unix:///?socket={tmp_path}/none")
    assert "No such file" in str(error)


def test_server_that_does_not_speak_nbd(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v2v.inputs._images.CONNECT_SECONDS", 0.2)
    with serve_folder(tmp_path) as address:
        refused(run, "nbd-unreachable", address.replace("http", "nbd"))


def test_nbd_server_for_one_client_is_read_by_several(
    run: Run, disk: Path, tmp_path: Path, need_tool
) -> None:
    """The overlay keeps its connection while the copy makes others."""
    need_tool("qemu-nbd")
    address, pid_file, log = (tmp_path / name for name in ("s", "pid", "log"))
    argv = ["qemu-nbd", "--persistent", "--shared=1", "--format=raw", f"--socket={address}"]
    with process.server([*argv, f"--pid-file={pid_file}", str(disk)], log_file=log) as server:
        process.wait_until_ready(pid_file, server, log, cancel=Cancel(), seconds=30)
        input_ = DiskInput(ImageOptions(), [f"nbd+unix:///?socket={address}"])
        source = input_.read_source(run)
        with input_.serve(source, run) as (endpoint,):
            handles = [nbd_client.connect(endpoint, seconds=30) for _ in range(3)]
            for handle in handles:
                assert bytes(handle.pread(512, MiB)) == disk_content()[MiB : MiB + 512]
            for handle in handles:
                handle.shutdown()


def test_nbd_export_with_an_image_inside(run: Run, disk: Path, tmp_path: Path, need_tool) -> None:
    nbdkit = need_tool("nbdkit")
    image = tmp_path / "a.qcow2"
    qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, image)
    pid_file, sock = tmp_path / "pid", tmp_path / "s"
    subprocess.run([nbdkit, "-r", "-P", pid_file, "-U", sock, "file", image], check=True)
    try:
        error = refused(run, "nbd-holds-image", f"nbd+unix:///?socket={sock}")
        assert "-if qcow2" in (error.hint or "")
    finally:
        os.kill(int(pid_file.read_text()), 15)


def test_web_server_without_ranges(run: Run, disk: Path) -> None:
    with serve_folder(disk.parent, ranges=False) as address:
        refused(run, "http-no-ranges", f"{address}/disk.img")


def test_a_file_on_a_web_server_that_was_replaced_is_seen(run: Run, disk: Path) -> None:
    with serve_folder(disk.parent) as address:
        first = read(run, f"{address}/disk.img")
        assert read(run, f"{address}/disk.img") == first
        os.utime(disk, (0, 1_000_000_000))
        assert read(run, f"{address}/disk.img") != first


@pytest.mark.parametrize(
    ("kind", "direct"),
    [("raw", True), ("odd size", False), ("packed", False), ("qcow2", False)],
)
def test_only_a_plain_raw_file_may_be_read_directly(
    run: Run, disk: Path, need_tool, kind: str, direct: bool
) -> None:
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)
    path = disk.with_suffix(f".{kind.partition(' ')[0]}")
    if kind == "packed":
        path.write_bytes(lzma.compress(disk.read_bytes()))
    elif kind == "qcow2":
        qemu_img("convert", "-f", "raw", "-O", "qcow2", disk, path)
    else:
        path.write_bytes(disk.read_bytes() + b"end" * (kind == "odd size"))
    input_ = DiskInput(ImageOptions(), [str(path)])
    source = input_.read_source(run)
    with input_.serve(source, run) as (endpoint,):
        assert endpoint.file == (path if direct else None)


def test_web_page_not_found(run: Run, tmp_path: Path) -> None:
    with serve_folder(tmp_path) as address:
        assert "404" in str(refused(run, "http-unreachable", f"{address}/none.img"))


def test_web_server_that_is_not_there(run: Run) -> None:
    assert "refused" in str(refused(run, "http-unreachable", "http://127.0.0.1:9/x"))


def test_web_host_that_does_not_exist(run: Run) -> None:
    refused(run, "http-unreachable", "http://host.invalid/x.img")


def test_password_in_the_address_is_refused_and_not_repeated(run: Run) -> None:
    error = refused(run, "password-in-uri", "https://joe:geheim@example.org/x.img")
    assert "geheim" not in str(error) + str(error.hint)


def test_password_from_a_file(run: Run, disk: Path, tmp_path: Path) -> None:
    word = tmp_path / "password"
    word.write_text("geheim\n")
    with serve_folder(disk.parent, login=("joe", "geheim")) as address:
        url = address.replace("//", "//joe@") + "/disk.img"
        assert "401" in str(refused(run, "http-unreachable", url))
        one = DiskInput(ImageOptions(password_file=word), [url])
        source = one.read_source(run)
        with one.serve(source, run) as (endpoint,):
            assert endpoint.size == len(disk_content())
            assert b"geheim" not in _argv_of_children()
        assert "geheim" not in repr(source)


def _argv_of_children() -> bytes:
    return b"".join(Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children())


def test_missing_tool_names_its_package(
    run: Run, disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "setpriv").symlink_to(str(shutil.which("setpriv")))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    one = DiskInput(ImageOptions(), [str(disk)])
    with pytest.raises(V2VError) as caught, one.serve(one.read_source(run), run):
        pass
    assert caught.value.id == "tool-missing"
    assert "apt-get install nbdkit" in (caught.value.hint or "")
