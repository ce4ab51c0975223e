"""v2v.copy_image and v2v.checksum: all kinds of source and target; real servers and devices."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import blake3
import pytest

import v2v
from tests.fakes import nbd_server
from tests.fakes.disks import disk_content
from tests.fakes.http_server import serve_folder
from tests.fakes.nbd_server import Act, Command, NbdServer
from tests.places import loop_device, loop_devices, nbd_servers
from v2v.events import CopyProgress, Event, Warned
from v2v.image_copy.source import anchored_source
from v2v.image_copy.state import unfinished
from v2v.image_copy.targets import anchored
from v2v.job import CopyOptions
from v2v.types import MiB

CONTENT = disk_content()
VERIFIED = CopyOptions(verify=1.0)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "from").mkdir()
    path = tmp_path / "from" / "disk.img"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "to").mkdir()
    return tmp_path / "to" / "disk"


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def copy(jobs: Path) -> Callable[..., v2v.CopiedImage]:
    def call(source: object, target: object, **more: Any) -> v2v.CopiedImage:
        return v2v.copy_image(str(source), str(target), jobs=jobs, **more)

    return call


def refused(id: str, action: Callable[[], object]) -> v2v.V2VError:
    """`action` must fail with this id, and a hint."""
    with pytest.raises(v2v.V2VError) as caught:
        action()
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value


def kept(jobs: Path) -> list[Path]:
    """What is kept of copies."""
    return sorted((jobs / ".copies").glob("*")) if jobs.exists() else []


def run(*argv: object) -> str:
    return subprocess.run(
        [str(word) for word in argv], check=True, capture_output=True, text=True
    ).stdout


def image(disk: Path, kind: str) -> Path:
    path = disk.with_suffix(f".{kind}")
    run("qemu-img", "convert", "-f", "raw", "-O", kind, disk, path)
    return path


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    with loop_devices(tmp_path) as make:
        yield make


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts qemu-nbd on a raw file; gives the address."""
    with nbd_servers(tmp_path) as servers:
        yield servers.qemu_nbd


# Sources ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vpc", "vhdx", "vdi"])
def test_an_image_becomes_a_raw_file(
    kind: str, disk: Path, target: Path, jobs: Path, copy, need_tool
) -> None:
    need_tool("qemu-img")
    copied = copy(image(disk, kind), target, options=VERIFIED)
    assert target.read_bytes()[: len(CONTENT)] == CONTENT
    assert not any(target.read_bytes()[len(CONTENT) :])  # VHD rounds up to whole cylinders
    assert (copied.source_format, copied.format, copied.copy.verified) == (kind, "raw", 1.0)
    assert copied.copy.data - copied.copy.found_zero < len(CONTENT) // 2
    assert target.stat().st_blocks * 512 < len(CONTENT) // 2
    assert [path.name for path in target.parent.iterdir()] == ["disk"]
    assert kept(jobs) == []


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_a_packed_image_is_unpacked(
    pack: Callable[[bytes], bytes], disk: Path, target: Path, copy, need_tool
) -> None:
    need_tool("nbdkit")
    disk.write_bytes(pack(CONTENT))
    copy(disk, target)
    assert target.read_bytes() == CONTENT


def test_a_web_server_is_copied_from(disk: Path, target: Path, copy, need_tool) -> None:
    need_tool("nbdkit")
    with serve_folder(disk.parent) as address:
        copy(f"{address}/disk.img", target)
    assert target.read_bytes() == CONTENT


def test_an_nbd_server_is_copied_from(disk: Path, target: Path, copy, server, need_tool) -> None:
    need_tool("qemu-nbd")
    copy(server(disk, "--read-only"), target)
    assert target.read_bytes() == CONTENT


def test_a_backing_file_beside_the_image_is_read(disk: Path, target: Path, copy, need_tool) -> None:
    need_tool("qemu-img")
    top = disk.with_name("top.qcow2")
    run("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", disk, top)
    copy(top, target)
    assert target.read_bytes() == CONTENT


def test_a_backing_file_elsewhere_is_refused_unless_allowed(
    disk: Path, target: Path, jobs: Path, copy, need_tool
) -> None:
    need_tool("qemu-img")
    top = target.parent.parent / "elsewhere" / "top.qcow2"
    top.parent.mkdir()
    run("qemu-img", "create", "-f", "qcow2", "-F", "raw", "-b", disk, top)
    refused("image-names-other-file", lambda: copy(top, target))
    assert list(target.parent.iterdir()) == kept(jobs) == []
    copy(top, target, input_options={"-io allow-backing": str(disk)})
    assert target.read_bytes() == CONTENT


def test_a_disk_without_any_header_is_raw(disk: Path, target: Path, copy, need_tool) -> None:
    need_tool("nbdkit")
    disk.write_bytes(CONTENT[MiB : MiB + 100 * 512])
    assert copy(disk, target).source_format == "raw"
    assert target.read_bytes() == disk.read_bytes()


def test_what_is_no_disk_is_refused_unless_raw_is_meant(
    disk: Path, target: Path, copy, jobs: Path, need_tool
) -> None:
    need_tool("nbdkit")
    disk.write_bytes(b"%PDF-1.7".ljust(512) * 64)
    refused("not-a-disk-image", lambda: copy(disk, target))
    assert list(target.parent.iterdir()) == kept(jobs) == []
    copy(disk, target, input_options={"-if": "raw"})
    assert target.read_bytes() == disk.read_bytes()


def test_progress_is_told(disk: Path, target: Path, copy, need_tool) -> None:
    need_tool("nbdkit")
    seen: list[Event] = []
    copy(disk, target, emit=seen.append)
    last = [event for event in seen if isinstance(event, CopyProgress)][-1]
    assert last.done == last.total == last.all_done > 0


# Targets: files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"compressed": True}, {"allocation": "preallocated"}])
def test_a_qcow2_file_is_made(
    more: dict[str, Any], disk: Path, target: Path, copy, need_tool
) -> None:
    need_tool("qemu-img")
    with disk.open("ab") as file:
        file.write(b"end.".ljust(512))  # no whole cluster
    copied = copy(disk, target, format="qcow2", options=VERIFIED, **more)
    compared = run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", disk, target)
    assert compared == "Images are identical.\n"
    assert json.loads(run("qemu-img", "info", "--output=json", target))["virtual-size"] == (
        copied.copy.size
    )
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_preallocated_file_has_all_of_its_space(
    disk: Path, target: Path, copy, need_tool
) -> None:
    need_tool("nbdkit")
    copy(disk, target, allocation="preallocated")
    assert target.read_bytes() == CONTENT
    assert target.stat().st_blocks * 512 >= len(CONTENT)


def test_an_existing_file_is_replaced_by_force_only(
    disk: Path, target: Path, jobs: Path, copy, need_tool
) -> None:
    need_tool("nbdkit")
    target.write_text("precious")
    refused("target-exists", lambda: copy(disk, target))
    assert (target.read_text(), len(list(target.parent.iterdir())), kept(jobs)) == (
        "precious",
        1,
        [],
    )
    copy(disk, target, force=True)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("word", "id"),
    [
        ("{to}", "target-not-a-file"),
        ("{to}/none/disk", "target-folder"),
        ("{to}/../from/disk.img/x", "target-folder"),
        ("/dev/v2v-no-such-device", "target-device"),
        ("/dev/null", "target-device"),
        ("/proc/disk", "target-unwritable"),
        ("{from}", "target-is-source"),
        ("{to}/link", "target-is-source"),
        ("{to}/hard", "target-is-source"),
        ("-", "usage"),
        ("{to}/sub/", "target-folder"),
        ("{to}/circle/disk", "target-unwritable"),
        ("{to}/" + "n" * 240, "target-create"),
        ("{to}/" + "n" * 300, "target-unwritable"),
        ("nbd:127.0.0.1:10809", "uri-scheme"),
        ("ssh://host/disk", "uri-scheme"),
        ("nbd://me:sesame@127.0.0.1/", "password-in-uri"),
        ("nbd://127.0.0.1:ten/", "uri-invalid"),
    ],
)
def test_a_target_that_cannot_be(
    word: str, id: str, force: bool, disk: Path, target: Path, jobs: Path, copy, need_tool
) -> None:
    need_tool("nbdkit")
    folder = target.parent
    (folder / "link").symlink_to(disk)
    os.link(disk, folder / "hard")
    (folder / "circle").symlink_to("circle")
    word = word.format(**{"to": folder, "from": disk})
    error = refused(id, lambda: copy(disk, word, force=force))
    assert "sesame" not in f"{error.message}{error.hint}"
    assert sorted(path.name for path in folder.iterdir()) == ["circle", "hard", "link"]
    assert disk.read_bytes() == CONTENT
    assert kept(jobs) == []


def test_a_file_that_a_program_writes_to_is_not_replaced(
    disk: Path, target: Path, copy, need_tool
) -> None:
    need_tool("nbdkit")
    target.write_text("precious")
    with target.open("r+b") as file, subprocess.Popen(["sleep", "60"], stdin=file) as other:
        error = refused("target-in-use", lambda: copy(disk, target, force=True))
        assert f"process {other.pid}" in error.message
        other.kill()
    assert target.read_text() == "precious"
    copy(disk, target, force=True)
    assert target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("more", "id"),
    [
        ({"format": "vmdk"}, "option-value"),
        ({"allocation": "thick"}, "option-value"),
        ({"compressed": True}, "option-conflict"),
        (
            {"format": "qcow2", "compressed": True, "allocation": "preallocated"},
            "option-conflict",
        ),
        ({"input_options": {"-if": "iso"}}, "option-value"),
        ({"input_options": {"-io depth": "1"}}, "option-unknown"),
    ],
)
def test_wrong_options(
    more: dict[str, Any], id: str, disk: Path, target: Path, jobs: Path, copy, need_tool
) -> None:
    need_tool("nbdkit")
    with pytest.raises(v2v.V2VError) as caught:
        copy(disk, target, **more)
    assert caught.value.id == id
    assert list(target.parent.iterdir()) == kept(jobs) == []


def test_null_takes_everything_but_proves_nothing(disk: Path, jobs: Path, copy, need_tool) -> None:
    need_tool("nbdkit")
    assert copy(disk, "null:").copy.size == len(CONTENT)
    refused("option-conflict", lambda: copy(disk, "null:", options=VERIFIED))
    refused("option-conflict", lambda: copy(disk, "null:", format="qcow2"))
    refused("option-conflict", lambda: copy(disk, "null:", compressed=True))
    assert kept(jobs) == []


def test_too_little_space(disk: Path, small: Path, jobs: Path, copy, need_tool) -> None:
    need_tool("nbdkit")
    disk.write_bytes(CONTENT + os.urandom(9 * MiB))
    refused("target-space", lambda: copy(disk, small / "disk"))
    assert list(small.iterdir()) == kept(jobs) == []


# Targets: block devices ---------------------------------------------------------------------------


def test_a_blank_device_is_written(disk: Path, loop, copy, jobs: Path, need_tool) -> None:
    """What lies behind the disk's end stays, and is told of."""
    need_tool("nbdkit")
    device = loop(bytes(8 * MiB))
    seen: list[Event] = []
    copy(disk, device, emit=seen.append, options=VERIFIED)
    assert device.read_bytes() == CONTENT.ljust(8 * MiB, b"\0")
    assert "target-larger" in [event.id for event in seen if isinstance(event, Warned)]
    assert kept(jobs) == []


@pytest.mark.parametrize("at", [0, 1 * MiB - 1, 5 * MiB, 8 * MiB - 512])
def test_a_device_that_holds_something_is_overwritten_by_force_only(
    at: int, disk: Path, loop, copy, jobs: Path, need_tool
) -> None:
    need_tool("nbdkit")
    precious = bytes(at) + b"\1"
    device = loop(precious.ljust(8 * MiB, b"\0"))
    error = refused("target-not-empty", lambda: copy(disk, device))
    assert "--force" in str(error.hint)
    assert device.read_bytes() == precious.ljust(8 * MiB, b"\0")
    assert kept(jobs) == []
    copy(disk, device, force=True)
    assert device.read_bytes()[: len(CONTENT)] == CONTENT
    assert device.read_bytes()[len(CONTENT) :] == precious.ljust(8 * MiB, b"\0")[len(CONTENT) :]


def test_a_device_that_is_too_small(disk: Path, loop, copy, jobs: Path, need_tool) -> None:
    need_tool("nbdkit")
    device = loop(bytes(4 * MiB))
    refused("target-too-small", lambda: copy(disk, device, force=True))
    assert device.read_bytes() == bytes(4 * MiB)
    assert kept(jobs) == []


def test_a_device_that_is_write_protected(disk: Path, loop, copy, need_tool) -> None:
    need_tool("nbdkit")
    device = loop(bytes(8 * MiB), "--read-only")
    refused("target-read-only", lambda: copy(disk, device, force=True))


def copy_error(action: Callable[[], object]) -> str:
    with pytest.raises(v2v.V2VError) as caught:
        action()
    return caught.value.id


def test_a_mounted_device_is_never_overwritten(
    disk: Path, loop, copy, tmp_path: Path, need_tool
) -> None:
    need_tool("nbdkit")
    need_tool("mkfs.ext4")
    device = loop(bytes(8 * MiB))
    run("mkfs.ext4", "-q", device)
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", device, place], check=False, capture_output=True).returncode:
        pytest.skip("mounting needs root")
    try:
        (place / "precious").write_text("precious")
        error = refused("target-in-use", lambda: copy(disk, device, force=True))
        assert f"mounted on {place}" in error.message
        assert (place / "precious").read_text() == "precious"
    finally:
        run("umount", place)


def test_a_device_that_a_program_writes_to(disk: Path, loop, copy, need_tool) -> None:
    need_tool("nbdkit")
    device = loop(bytes(8 * MiB))
    with subprocess.Popen(
        ["sh", "-c", 'exec 3<>"$0"; echo; read line', device],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout and other.stdout.readline() == b"\n"
        error = refused("target-in-use", lambda: copy(disk, device, force=True))
        assert f"process {other.pid}" in error.message
        other.communicate(b"\n")


def test_a_device_is_not_copied_onto_itself(
    disk: Path, loop, copy, tmp_path: Path, need_tool
) -> None:
    """Neither by another name, nor by another node."""
    need_tool("nbdkit")
    device = loop(CONTENT)
    link, node = tmp_path / "link", tmp_path / "node"
    link.symlink_to(device)
    number = device.stat().st_rdev
    run("mknod", node, "b", os.major(number), os.minor(number))
    for word in (device, link, node):
        refused("target-is-source", lambda word=word: copy(device, word, force=True))
    assert device.read_bytes() == CONTENT


def test_a_partition_of_the_source_is_the_source(loop, copy, need_tool) -> None:
    need_tool("nbdkit")
    device = loop(CONTENT, "--partscan")
    run(need_tool("addpart"), device, "1", "2048", "4096")
    part = Path(f"{device}p1")
    refused("target-is-source", lambda: copy(device, part, force=True))
    refused("target-is-source", lambda: copy(part, device, force=True))


def test_a_device_made_of_the_source_under_another_name_is_not_written(
    disk: Path, tmp_path: Path, loop, copy, need_tool
) -> None:
    need_tool("nbdkit")
    device = loop(CONTENT)
    other = tmp_path / "other name"
    os.link(tmp_path / "loop-0", other)
    refused("source-in-use", lambda: copy(other, device, force=True))
    (tmp_path / "loop-0").unlink()
    refused("source-in-use", lambda: copy(other, device, force=True))


def test_two_devices_made_of_one_file_are_the_same(loop, copy, tmp_path: Path, need_tool) -> None:
    need_tool("nbdkit")
    device = loop(CONTENT)
    with loop_device(tmp_path / "loop-0", "--read-only", "--offset", "4096") as source:
        refused("target-is-source", lambda: copy(source, device, force=True))


@pytest.mark.parametrize("options", [(), ("--read-only",)])
def test_the_file_that_a_device_is_made_of_is_not_replaced(
    options: tuple[str, ...], disk: Path, tmp_path: Path, loop, copy, need_tool
) -> None:
    need_tool("nbdkit")
    device = loop(CONTENT, *options)
    file = tmp_path / "loop-0"
    for source in (device, disk):
        refused("target-in-use", lambda source=source: copy(source, file, force=True))
    assert file.read_bytes() == CONTENT


def test_a_device_takes_raw_only(disk: Path, loop, copy, need_tool) -> None:
    need_tool("nbdkit")
    refused("option-conflict", lambda: copy(disk, loop(bytes(8 * MiB)), format="qcow2"))


# Targets: NBD servers -----------------------------------------------------------------------------


def blank(path: Path, size: int = len(CONTENT)) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


def test_an_export_is_written(
    disk: Path, target: Path, server, copy, jobs: Path, need_tool
) -> None:
    need_tool("qemu-nbd")
    uri = server(blank(target, 8 * MiB))
    copied = copy(disk, uri, options=VERIFIED)
    assert target.read_bytes() == CONTENT.ljust(8 * MiB, b"\0")
    assert (copied.target, copied.copy.verified) == (uri, 1.0)
    assert target.stat().st_blocks * 512 < len(CONTENT)
    assert kept(jobs) == []


def test_an_export_that_holds_something_is_overwritten_by_force_only(
    disk: Path, target: Path, server, copy, need_tool
) -> None:
    need_tool("qemu-nbd")
    target.write_bytes(bytes(3 * MiB) + b"\1" * 512 + bytes(5 * MiB))
    uri = server(target)
    refused("target-not-empty", lambda: copy(disk, uri))
    assert target.read_bytes() == bytes(3 * MiB) + b"\1" * 512 + bytes(5 * MiB)
    copy(disk, uri, force=True)
    assert target.read_bytes()[: len(CONTENT)] == CONTENT


def test_an_export_that_is_too_small_or_read_only(
    disk: Path, target: Path, server, copy, jobs: Path, need_tool
) -> None:
    need_tool("qemu-nbd")
    uri = server(blank(target, 4 * MiB))
    refused("target-too-small", lambda: copy(disk, uri, force=True))
    other = blank(target.with_name("other"))
    refused("target-read-only", lambda: copy(disk, server(other, "--read-only"), force=True))
    assert not any(target.read_bytes()) and not any(other.read_bytes())
    assert kept(jobs) == []


def test_an_nbd_server_that_is_not_there_is_named_with_a_remedy(
    disk: Path, tmp_path: Path, copy, jobs: Path, need_tool
) -> None:
    need_tool("nbdkit")
    error = refused("target-unreachable", lambda: copy(disk, "nbd://127.0.0.1:9/x"))
    assert "127.0.0.1" in error.message
    assert "port 9" in str(error.hint)
    refused("target-unreachable", lambda: copy(disk, f"nbd+unix:///?socket={tmp_path}/none"))
    assert kept(jobs) == []


def test_an_address_has_one_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that --resume knows it again, from any folder."""
    monkeypatch.chdir(tmp_path)
    for word in ("nbd://host", "nbd://host:10809", "nbd://host:10809/"):
        assert anchored(word) == "nbd://host/"
    secret = tmp_path / "keys.psk"
    assert anchored("nbds://v2v@host/?tls-psk-file=keys.psk") == (
        f"nbds://v2v@host/?tls-psk-file={secret}"
    )
    assert anchored("nbd+unix:///disk?socket=s") == f"nbd+unix:///disk?socket={tmp_path}/s"
    page = "http://host:10809?socket=1"
    assert anchored_source(page) == page


def test_a_server_for_one_client_is_refused_before_the_copy_if_two_are_needed(
    disk: Path, tmp_path: Path, copy, need_tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tool("nbdkit")
    monkeypatch.setattr("v2v.targets.nbd.CONNECT_SECONDS", 1.0)
    file, socket, ready = blank(tmp_path / "blank"), tmp_path / "socket", tmp_path / "ready"
    argv = [need_tool("qemu-nbd"), "--persistent", "-f", "raw", "-k", str(socket)]
    with subprocess.Popen([*argv, f"--pid-file={ready}", str(file)]) as server:
        try:
            while not ready.exists():
                assert server.poll() is None
            uri = f"nbd+unix:///?socket={socket}"
            error = refused("target-unreachable", lambda: copy(disk, uri, options=VERIFIED))
            assert "--shared=0" in str(error.hint)
            assert file.read_bytes() == bytes(len(CONTENT))
        finally:
            server.terminate()


def test_a_server_that_ends_after_its_first_client_is_the_target_that_fails(
    disk: Path, tmp_path: Path, copy, monkeypatch: pytest.MonkeyPatch, need_tool
) -> None:
    need_tool("nbdkit")
    monkeypatch.setattr("v2v.copy.engine.RETRY_SECONDS", (0.01,))
    file, socket, ready = blank(tmp_path / "blank"), tmp_path / "socket", tmp_path / "ready"
    argv = [need_tool("qemu-nbd"), "-f", "raw", "-k", str(socket), f"--pid-file={ready}", str(file)]
    with subprocess.Popen(argv) as server:
        while not ready.exists():
            assert server.poll() is None
        refused("target-unreachable", lambda: copy(disk, f"nbd+unix:///?socket={socket}"))


def test_an_export_that_the_server_does_not_have(
    disk: Path, target: Path, server, copy, need_tool
) -> None:
    need_tool("qemu-nbd")
    uri = server(blank(target), "--export-name=web").replace("///", "///wbe")
    assert "nbdinfo --list" in str(refused("target-unreachable", lambda: copy(disk, uri)).hint)


def test_an_export_is_not_copied_onto_itself(disk: Path, server, copy, need_tool) -> None:
    need_tool("qemu-nbd")
    uri = server(disk)
    refused("target-is-source", lambda: copy(uri, uri, force=True))


@pytest.fixture
def tls_server(tmp_path: Path, need_tool) -> Iterator[Callable[[Path], str]]:
    """Starts nbdkit on a file, for those only who have the key; gives the address."""
    need_tool("nbdkit")
    keys = tmp_path / "keys.psk"
    keys.write_text(f"v2v:{os.urandom(32).hex()}\n")
    with nbd_servers(tmp_path) as servers:

        def start(file: Path) -> str:
            tls = ["--tls=require", f"--tls-psk={keys}"]
            socket = servers.nbdkit(*tls, "file", f"file={file}")
            return f"nbds+unix://v2v@/?socket={socket}&tls-psk-file={keys}"

        yield start


def test_an_encrypted_connection_to_the_target(disk: Path, target: Path, tls_server, copy) -> None:
    uri = tls_server(blank(target))
    plain = uri.replace("nbds", "nbd").replace("v2v@", "").partition("&")[0]
    assert "TLS" in str(refused("target-unreachable", lambda: copy(disk, plain)).hint)
    copy(disk, uri, options=VERIFIED)
    assert target.read_bytes() == CONTENT


def test_an_encrypted_connection_to_the_source(disk: Path, target: Path, tls_server, copy) -> None:
    copy(tls_server(disk), target)
    assert target.read_bytes() == CONTENT


# Going on -----------------------------------------------------------------------------------------


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is made durable every MiB, and a read is not tried for long."""
    monkeypatch.setattr("v2v.copy.target.CHECKPOINT", MiB)
    monkeypatch.setattr("v2v.copy.fetch.RETRY_SECONDS", (0.01,))


FULL = bytes(range(1, 256)) * (16 * MiB // 255) + bytes(16 * MiB % 255)


@pytest.fixture
def broken(tmp_path: Path) -> Iterator[NbdServer]:
    """A source of 16 MiB whose second half cannot be read."""
    with nbd_server.serve(tmp_path, FULL, "broken") as one:
        one.fault(Act.ERROR, start=12 * MiB, end=13 * MiB)
        yield one


def address(server: NbdServer) -> str:
    return f"nbd+unix:///?socket={server.path}"


def fail(source: NbdServer, target: object, copy: Callable[..., object], **more: Any) -> None:
    error = refused("copy-read", lambda: copy(address(source), target, **more))
    assert "v2v copy --resume" in str(error.hint)


@pytest.mark.parametrize("more", [{}, {"format": "qcow2"}, {"format": "qcow2", "compressed": True}])
def test_a_failed_copy_goes_on_where_it_was(
    more: dict[str, Any],
    broken: NbdServer,
    target: Path,
    jobs: Path,
    copy,
    small_steps: None,
    need_tool,
) -> None:
    """With the options of the first time; what is safe is not read again."""
    need_tool("qemu-img")
    fail(broken, target, copy, options=VERIFIED, **more)
    assert not target.exists()
    assert [one.target for one in unfinished(jobs)] == [str(target)]
    broken.faults.clear()
    broken.requests.clear()
    copied = copy(address(broken), target, resume=True)
    assert copied.copy.resumed >= 4 * MiB
    assert copied.copy.verified == 1.0  # as the first time
    assert sum(length for _, length in broken.asked()) < 13 * MiB
    assert copied.format == more.get("format", "raw")
    assert v2v.checksum(target, jobs=jobs) == v2v.checksum(address(broken), jobs=jobs)
    assert [path.name for path in target.parent.iterdir()] == ["disk"]
    assert kept(jobs) == unfinished(jobs) == []


def test_an_unfinished_copy_is_not_touched_unless_asked(
    broken: NbdServer, target: Path, jobs: Path, copy, small_steps: None, need_tool
) -> None:
    need_tool("nbdkit")
    fail(broken, target, copy)
    before = [(path.name, path.stat().st_mtime_ns) for path in target.parent.iterdir()]
    broken.faults.clear()
    error = refused("copy-unfinished", lambda: copy(address(broken), target))
    assert "--resume" in str(error.hint) and "--force" in str(error.hint)
    assert [(path.name, path.stat().st_mtime_ns) for path in target.parent.iterdir()] == before
    refused("option-conflict", lambda: copy(address(broken), target, format="qcow2", resume=True))
    refused("option-conflict", lambda: copy(address(broken), target, options=VERIFIED, resume=True))
    assert copy(address(broken), target, force=True).copy.resumed == 0
    assert target.read_bytes() == FULL
    assert len(list(target.parent.iterdir())) == 1


def test_a_source_that_changed_is_copied_anew(
    broken: NbdServer, target: Path, copy, small_steps: None, need_tool
) -> None:
    need_tool("nbdkit")
    fail(broken, target, copy)
    broken.reset(CONTENT)
    seen: list[Event] = []
    copied = copy(address(broken), target, resume=True, emit=seen.append)
    assert "source-changed" in [event.id for event in seen if isinstance(event, Warned)]
    assert copied.copy.resumed == 0
    assert target.read_bytes() == CONTENT


def test_a_source_that_cannot_tell_whether_it_changed_is_gone_on_with_and_told(
    broken: NbdServer, target: Path, copy, small_steps: None, need_tool
) -> None:
    need_tool("nbdkit")
    fail(broken, target, copy)
    broken.faults.clear()
    seen: list[Event] = []
    assert copy(address(broken), target, resume=True, emit=seen.append).copy.resumed > 0
    (warning,) = [event for event in seen if isinstance(event, Warned)]
    assert warning.id == "source-unverifiable"
    assert address(broken) in warning.text
    assert "--force" in str(warning.hint)


def test_a_lost_part_is_copied_anew(
    broken: NbdServer, target: Path, copy, small_steps: None, need_tool
) -> None:
    need_tool("nbdkit")
    fail(broken, target, copy)
    (part,) = target.parent.iterdir()
    part.unlink()
    broken.faults.clear()
    seen: list[Event] = []
    copied = copy(address(broken), target, resume=True, emit=seen.append)
    assert "target-lost" in [event.id for event in seen if isinstance(event, Warned)]
    assert copied.copy.resumed == 0
    assert target.read_bytes() == FULL


def test_a_ledger_without_its_copy_does_not_count(
    broken: NbdServer, target: Path, jobs: Path, copy, small_steps: None, need_tool
) -> None:
    """v2v was killed while it forgot the copy: the ledger still tells of a file that is gone."""
    need_tool("nbdkit")
    fail(broken, target, copy, options=VERIFIED)
    (folder,) = kept(jobs)
    assert (folder / "ledger").stat().st_size > 0
    (folder / "journal").write_bytes(b"")
    broken.faults.clear()
    assert copy(address(broken), target).copy.resumed == 0
    assert target.read_bytes() == FULL


def test_a_copy_of_another_version_is_begun_again_by_force(
    broken: NbdServer, target: Path, jobs: Path, copy, small_steps: None, need_tool
) -> None:
    need_tool("nbdkit")
    fail(broken, target, copy)
    (folder,) = kept(jobs)
    journal = (folder / "journal").read_text()
    (folder / "journal").write_text(journal.replace('"allocation":"sparse"', '"allocation":"new"'))
    assert unfinished(jobs) == []
    broken.faults.clear()
    error = refused("journal-unreadable", lambda: copy(address(broken), target, resume=True))
    assert "--force" in str(error.hint)
    copy(address(broken), target, force=True)
    assert target.read_bytes() == FULL
    assert [path.name for path in target.parent.iterdir()] == ["disk"]


def test_a_device_is_resumed_without_force(
    broken: NbdServer, loop, jobs: Path, copy, small_steps: None, need_tool
) -> None:
    """What it holds is the copy's own."""
    need_tool("nbdkit")
    device = loop(bytes(16 * MiB))
    fail(broken, device, copy)
    broken.faults.clear()
    refused("copy-unfinished", lambda: copy(address(broken), device))
    assert copy(address(broken), device, resume=True).copy.resumed > 0
    assert device.read_bytes() == FULL
    assert kept(jobs) == []


def test_an_export_is_resumed_without_force(
    broken: NbdServer, target: Path, server, copy, small_steps: None, need_tool
) -> None:
    need_tool("qemu-nbd")
    uri = server(blank(target, 16 * MiB))
    fail(broken, uri, copy)
    broken.faults.clear()
    assert copy(address(broken), uri, resume=True).copy.resumed > 0
    assert target.read_bytes() == FULL


def test_a_copy_that_lacks_only_its_name_is_not_read_again(
    disk: Path, target: Path, jobs: Path, copy, need_tool
) -> None:
    """Somebody took the name while it was copied."""
    need_tool("nbdkit")

    def emit(event: Event) -> None:
        if isinstance(event, CopyProgress):
            target.write_text("precious")

    assert refused("target-exists", lambda: copy(disk, target, emit=emit))
    assert target.read_text() == "precious"
    assert len(list(target.parent.iterdir())) == 2
    target.unlink()
    content = disk.read_bytes()
    disk.unlink()
    copy(disk, target, resume=True)
    assert target.read_bytes() == content
    assert len(list(target.parent.iterdir())) == 1
    assert kept(jobs) == []


def test_another_disk_at_the_same_address_is_not_written(
    broken: NbdServer, tmp_path: Path, jobs: Path, copy, small_steps: None, need_tool
) -> None:
    need_tool("nbdkit")
    with nbd_server.serve(tmp_path, bytes(16 * MiB), "target") as there:
        fail(broken, address(there), copy)
        broken.faults.clear()
        there.reset(b"another disk".ljust(512) * (16 * MiB // 512))
        before = bytes(there.content)
        error = refused(
            "target-changed", lambda: copy(address(broken), address(there), resume=True)
        )
        assert "--force" in str(error.hint)
        assert there.content == before
        copy(address(broken), address(there), force=True)
        assert there.content == FULL
        assert kept(jobs) == []


def test_a_copy_that_saved_nothing_leaves_nothing(
    broken: NbdServer, target: Path, jobs: Path, copy, monkeypatch, need_tool
) -> None:
    need_tool("nbdkit")
    monkeypatch.setattr("v2v.copy.fetch.RETRY_SECONDS", (0.01,))
    broken.faults.clear()
    broken.fault(Act.ERROR, Command.READ, start=MiB // 2, end=15 * MiB)
    error = refused("copy-read", lambda: copy(address(broken), target))
    assert "v2v resume" not in str(error.hint)
    assert list(target.parent.iterdir()) == kept(jobs) == []


def test_resume_without_anything_kept_copies(disk: Path, target: Path, copy, need_tool) -> None:
    need_tool("nbdkit")
    assert copy(disk, target, resume=True).copy.resumed == 0
    assert target.read_bytes() == CONTENT


def test_cancelling_keeps_what_was_copied(
    tmp_path: Path, target: Path, jobs: Path, copy, small_steps: None, monkeypatch, need_tool
) -> None:
    need_tool("nbdkit")
    monkeypatch.setattr("v2v.copy.progress.TELL_SECONDS", 0.0)  # or only its end may be told
    cancel = v2v.Cancel()

    def emit(event: Event) -> None:
        if isinstance(event, CopyProgress) and event.done > 4 * MiB:
            cancel.cancel()

    with nbd_server.serve(tmp_path, FULL, "source") as source:
        options = CopyOptions(bandwidth=16 * MiB)
        error = refused(
            "cancelled",
            lambda: copy(address(source), target, emit=emit, cancel=cancel, options=options),
        )
        assert "--resume" in str(error.hint)
        assert copy(address(source), target, resume=True).copy.resumed > 0
    assert target.read_bytes() == FULL


def test_two_copies_of_the_same_pair_do_not_meet(
    broken: NbdServer, target: Path, copy, need_tool
) -> None:
    need_tool("nbdkit")
    told: list[str] = []

    def emit(event: Event) -> None:
        if isinstance(event, CopyProgress) and not told:
            told.append(copy_error(lambda: copy(address(broken), target, force=True)))

    broken.faults.clear()
    copy(address(broken), target, emit=emit)
    assert told == ["job-running"]


# Checksums ----------------------------------------------------------------------------------------


def reference(content: bytes) -> str:
    """As docs/checksum.md tells."""
    root = blake3.blake3(b"v2v-checksum-1\n" + struct.pack("<Q", len(content)))
    for offset in range(0, len(content), MiB):
        root.update(blake3.blake3(content[offset : offset + MiB]).digest())
    return root.hexdigest()


def test_a_disk_has_one_checksum_whatever_it_is_in(
    disk: Path, jobs: Path, loop, server, need_tool
) -> None:
    need_tool("qemu-img")
    expected = reference(CONTENT)
    packed = disk.with_suffix(".gz")
    packed.write_bytes(gzip.compress(CONTENT))
    for one in (disk, image(disk, "qcow2"), image(disk, "vmdk"), packed, loop(CONTENT)):
        assert v2v.checksum(one, jobs=jobs) == expected
    assert v2v.checksum(server(disk, "--read-only"), jobs=jobs) == expected
    assert list(jobs.glob(".scratch/*")) == []


def test_a_verified_copy_tells_the_checksum(
    disk: Path, target: Path, copy, jobs: Path, need_tool
) -> None:
    need_tool("nbdkit")
    assert copy(disk, target, options=VERIFIED).copy.checksum == reference(CONTENT)


def test_one_changed_byte_changes_the_checksum(disk: Path, jobs: Path, need_tool) -> None:
    need_tool("nbdkit")
    disk.write_bytes(CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]))
    assert v2v.checksum(disk, jobs=jobs) != reference(CONTENT)
