"""ssh:// disks, from a real SSH server."""

from __future__ import annotations

import gzip
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.input_suite import InputCase, InputSuite, children, read_all
from tests.fakes.disks import disk_content
from tests.sshd import Sshd, runs, sshd
from v2v import nbd_client
from v2v.errors import UsageError, V2VError
from v2v.inputs._details import IDENTITY, KNOWN_HOSTS, Slice
from v2v.inputs._images import Access, read_disk
from v2v.inputs._plain import ImageOptions
from v2v.inputs._serve import serve_disk
from v2v.inputs.disk import DiskInput
from v2v.run import Run
from v2v.types import DiskFormat, MiB, SourceDisk

CONTENT = disk_content()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.fixture
def access(host: Sshd) -> Access:
    return Access(known_hosts=host.known_hosts, identity=host.identity)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "vm").mkdir()
    path = tmp_path / "vm" / "web 1%d.img"
    path.write_bytes(CONTENT)
    return path


def qcow2(disk: Path) -> Path:
    path = disk.with_suffix(".qcow2")
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(disk), str(path)]
    subprocess.run(argv, check=True)
    return path


def quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace(" ", "%20")


def read(host: Sshd, path: Path, access: Access, run: Run, part: Slice | None = None) -> SourceDisk:
    return read_disk(host.uri(quoted(path)), access, run, part=part)


def served(disk: SourceDisk, run: Run, password_file: Path | None = None) -> bytes:
    with serve_disk(disk, 0, run, password_file=password_file) as endpoint:
        assert endpoint.file is None
        return read_all(endpoint)


def refused(id: str, disk: SourceDisk, run: Run, password_file: Path | None = None) -> V2VError:
    with pytest.raises(V2VError) as caught:
        served(disk, run, password_file)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert disk.location in str(caught.value)
    assert children() == set()
    return caught.value


class TestSsh(InputSuite):
    """The contract of inputs, on two disks."""

    @pytest.fixture
    def case(self, disk: Path, host: Sshd) -> InputCase:
        options = ImageOptions(
            known_hosts=host.known_hosts, identity=host.identity, format=DiskFormat.QCOW2
        )
        return InputCase(
            DiskInput(options, [host.uri(quoted(qcow2(disk)))]),
            [CONTENT],
            name="web 1%d",
            sources=[disk.parent],
        )


def test_a_raw_disk(run: Run, host: Sshd, disk: Path, access: Access) -> None:
    found = read(host, disk, access, run)
    assert (found.format, found.size, found.files) == ("raw", None, ())
    assert served(found, run) == CONTENT


def test_reading_the_source_connects_to_nothing(run: Run, access: Access) -> None:
    assert read_disk("ssh://nobody@host.invalid/disk.img", access, run).size is None


def test_an_odd_size_is_filled_up(run: Run, host: Sshd, disk: Path, access: Access) -> None:
    disk.write_bytes(CONTENT + b"end")
    assert served(read(host, disk, access, run), run) == (CONTENT + b"end").ljust(
        len(CONTENT) + 512, b"\0"
    )


@pytest.mark.parametrize("format", [DiskFormat.RAW, DiskFormat.QCOW2])
def test_a_part_of_a_file(
    run: Run, host: Sshd, disk: Path, access: Access, format: DiskFormat
) -> None:
    content = (qcow2(disk) if format == DiskFormat.QCOW2 else disk).read_bytes()
    disk.write_bytes(b"\xa5" * 700 + content + b"\x5a" * 600)
    part = Slice(700, len(content), "disk1")
    assert served(read(host, disk, replace(access, format=format), run, part), run) == CONTENT


def test_an_image_is_not_taken_for_the_disk_unless_that_is_meant(
    run: Run, host: Sshd, disk: Path, access: Access
) -> None:
    image = qcow2(disk)
    assert "-if qcow2" in str(
        refused("source-holds-image", read(host, image, access, run), run).hint
    )
    raw = read(host, image, replace(access, format=DiskFormat.RAW), run)
    assert served(raw, run).startswith(image.read_bytes())


@pytest.mark.parametrize("format", [None, DiskFormat.RAW])
def test_a_packed_file(
    run: Run, host: Sshd, disk: Path, access: Access, format: DiskFormat | None
) -> None:
    disk.write_bytes(gzip.compress(CONTENT, 1))
    found = read(host, disk, replace(access, format=format), run)
    assert "gzip" in str(refused("source-holds-image", found, run))


def test_a_raw_disk_that_begins_as_a_packed_file_does(
    run: Run, host: Sshd, disk: Path, access: Access
) -> None:
    disk.write_bytes(gzip.compress(CONTENT, 1).ljust(MiB, b"\0"))
    certain = replace(access, format=DiskFormat.RAW, unpack=False)
    assert served(read(host, disk, certain, run), run) == disk.read_bytes()


def test_what_is_no_disk(run: Run, host: Sshd, disk: Path, access: Access) -> None:
    disk.write_text("buy milk\n" * 1000)
    with pytest.raises(V2VError) as caught:
        served(read(host, disk, access, run), run)
    assert caught.value.id == "not-a-disk-image"
    disk.write_bytes(b"")
    refused("image-empty", read(host, disk, access, run), run)
    disk.write_bytes(CONTENT)
    refused("image-format-wrong", read(host, disk, replace(access, format="vmdk"), run), run)  # type: ignore[arg-type]


def test_an_image_that_names_another_file(run: Run, host: Sshd, disk: Path, access: Access) -> None:
    top = disk.with_name("top.qcow2")
    argv = ["qemu-img", "create", "-u", "-f", "qcow2", "-F", "raw", "-b", "/etc/passwd", top, "6M"]
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)
    found = read(host, top, replace(access, format=DiskFormat.QCOW2), run)
    refused("image-names-other-file", found, run)


def test_a_file_that_is_not_there(run: Run, host: Sshd, disk: Path, access: Access) -> None:
    refused("source-missing", read(host, disk.with_name("none"), access, run), run)


def test_a_host_that_is_not_known_is_not_trusted(
    run: Run, host: Sshd, disk: Path, access: Access, tmp_path: Path
) -> None:
    empty = tmp_path / "known_hosts"
    for known in (empty, tmp_path / "none"):
        empty.touch()
        found = read(host, disk, replace(access, known_hosts=known), run)
        assert f"`ssh -p {host.port} {host.user}@127.0.0.1`" in str(
            refused("ssh-host-key", found, run).hint
        )
    assert empty.read_text() == ""


def test_a_host_whose_key_has_changed(
    run: Run, host: Sshd, disk: Path, access: Access, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)]
    subprocess.run(argv, check=True)
    key = other.with_suffix(".pub").read_text().split()[1]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{host.port} ssh-ed25519 {key}\n")
    error = refused("ssh-host-key", read(host, disk, replace(access, known_hosts=known), run), run)
    assert "another host may have taken its place" in str(error)


def test_a_login_without_a_key(
    run: Run, host: Sshd, disk: Path, access: Access, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    found = read(host, disk, replace(access, identity=tmp_path / "none"), run)
    assert "-ip FILE" in str(refused("ssh-login", found, run).hint)


def test_no_ssh_server(run: Run, host: Sshd, disk: Path, access: Access) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        found = read_disk(f"ssh://127.0.0.1:{port}{quoted(disk)}", access, run)
        assert "refused" in str(refused("ssh-unreachable", found, run))
    found = read_disk("ssh://host.invalid/disk.img", access, run)
    assert "host.invalid" in str(refused("ssh-unreachable", found, run))


def test_files_with_odd_names(
    run: Run, host: Sshd, disk: Path, access: Access, tmp_path: Path
) -> None:
    """libssh knows %d, %h and others in the names of files."""
    folder = tmp_path / "%d %h,"
    folder.mkdir()
    for file in (host.known_hosts, host.identity):
        (folder / file.name).write_bytes(file.read_bytes())
        (folder / file.name).chmod(0o600)
    given = Access(known_hosts=folder / host.known_hosts.name, identity=folder / host.identity.name)
    found = read(host, disk, given, run)
    assert found.details[KNOWN_HOSTS] == str(given.known_hosts)
    assert found.details[IDENTITY] == str(given.identity)
    assert served(found, run) == CONTENT


def test_a_password_from_a_file(run: Run, disk: Path, access: Access, tmp_path: Path) -> None:
    word = tmp_path / "password"
    with sshd(tmp_path / "ssh", password="open sesame") as server:
        given = Access(known_hosts=server.known_hosts, identity=tmp_path / "none")
        found = read(server, disk, given, run)
        word.write_text("open sesame\n")
        with serve_disk(found, 0, run, password_file=word) as endpoint:
            assert read_all(endpoint) == CONTENT
            argv = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children()]
            assert argv and b"sesame" not in b"".join(argv)
        assert "sesame" not in repr(found)
        word.write_text("open barley\n")
        refused("ssh-login", found, run, word)


def test_a_connection_that_breaks_is_made_again(
    run: Run, host: Sshd, disk: Path, access: Access
) -> None:
    with serve_disk(read(host, disk, access, run), 0, run) as endpoint:
        handle = nbd_client.connect(endpoint)
        assert bytes(handle.pread(512, MiB)) == CONTENT[MiB : MiB + 512]
        host.end_sessions()
        assert bytes(handle.pread(512, 2 * MiB)) == CONTENT[2 * MiB : 2 * MiB + 512]
        handle.shutdown()


@pytest.mark.parametrize(
    ("uri", "id"),
    [
        ("ssh://host", "uri-invalid"),
        ("ssh:///disk.img", "uri-invalid"),
        ("ssh://-oProxyCommand=x/disk.img", "uri-invalid"),
        ("ssh://-oProxyCommand=x@host/disk.img", "uri-invalid"),
        ("ssh://host:many/disk.img", "uri-invalid"),
        ("ssh://joe:geheim@host/disk.img", "password-in-uri"),
    ],
)
def test_addresses_that_cannot_be(run: Run, access: Access, uri: str, id: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_disk(uri, access, run)
    assert caught.value.id == id
    assert "geheim" not in f"{caught.value.message}{caught.value.hint}"


def test_nothing_of_the_server_is_left(tmp_path: Path) -> None:
    with sshd(tmp_path / "ssh") as server:
        assert runs(server.pid)
    assert not runs(server.pid)
