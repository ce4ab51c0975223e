"""iscsi:// disks, from a real target; and what QEMU is told of iscsi:// and rbd:// addresses.

There is no Ceph to test with: rbd is tested as far as QEMU's options.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.input_suite import children, read_all
from tests.fakes.disks import disk_content
from tests.tgtd import tgtd
from v2v import nbd_client
from v2v.errors import HostError, SourceError, UsageError, V2VError
from v2v.inputs._details import Slice
from v2v.inputs._images import Access, read_disk
from v2v.inputs._plain import ImageOptions, guest_name
from v2v.inputs._serve import errors, serve_disk
from v2v.inputs._serve.qemu_bytes import driver_options
from v2v.inputs.disk import DiskInput
from v2v.run import Run
from v2v.types import DiskFormat, MiB, SourceDisk

CONTENT = disk_content()
QCOW2 = Access(format=DiskFormat.QCOW2)


@pytest.fixture(scope="module")
def luns(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A raw disk, a qcow2 image, and a disk in the middle of a larger one."""
    folder = tmp_path_factory.mktemp("luns")
    raw, image, larger = (folder / name for name in ("raw", "qcow2", "larger"))
    raw.write_bytes(CONTENT)
    argv = ["qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(image)]
    subprocess.run(argv, check=True)
    larger.write_bytes(b"\xa5" * 1024 + CONTENT + b"\x5a" * 4096)
    for file in (raw, image, larger):
        with file.open("ab") as opened:
            opened.truncate(-(-file.stat().st_size // MiB) * MiB)
    return [raw, image, larger]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory, luns: list[Path]) -> Iterator[str]:
    with tgtd(tmp_path_factory.mktemp("tgtd"), luns) as address:
        yield address


@pytest.fixture
def driver() -> None:
    """QEMU's iSCSI driver, which its packages bring apart."""
    argv = ["qemu-img", "info", "--image-opts", "driver=iscsi,transport=tcp,portal=,target=,lun=0"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if "Unknown driver" in done.stderr:
        pytest.skip("QEMU's iSCSI driver is not installed (make setup installs it)")


def served(disk: SourceDisk, run: Run, password_file: Path | None = None) -> bytes:
    before = children()  # tgtd is one
    with serve_disk(disk, 0, run, password_file=password_file) as endpoint:
        assert endpoint.read_only
        content = read_all(endpoint)
    assert children() == before
    return content


def refused(id: str, disk: SourceDisk, run: Run, password_file: Path | None = None) -> V2VError:
    with pytest.raises(V2VError) as caught:
        served(disk, run, password_file)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert disk.location in str(caught.value)
    return caught.value


@pytest.mark.usefixtures("driver")
class TestTarget:
    def test_a_raw_disk(self, run: Run, target: str) -> None:
        disk = read_disk(f"{target}/1", Access(), run)
        assert (disk.format, disk.size) == ("raw", None)
        assert served(disk, run) == CONTENT

    def test_an_image(self, run: Run, target: str) -> None:
        assert served(read_disk(f"{target}/2", QCOW2, run), run) == CONTENT
        told = refused("source-holds-image", read_disk(f"{target}/2", Access(), run), run)
        assert "-if qcow2" in (told.hint or "")

    def test_a_part(self, run: Run, target: str) -> None:
        part = Slice(1024, len(CONTENT), "disk1")
        assert served(read_disk(f"{target}/3", Access(), run, part=part), run) == CONTENT
        odd = read_disk(f"{target}/3", Access(), run, part=Slice(100, 1024, "disk1"))
        refused("slice-unaligned", odd, run)

    def test_it_is_a_guest_of_i_disk(self, run: Run, target: str) -> None:
        input_ = DiskInput(ImageOptions(), [f"{target}/1"])
        source = input_.read_source(run)
        assert source.name == "unknown"
        with input_.serve(source, run) as (endpoint,):
            handle = nbd_client.connect(endpoint)
            assert bytes(handle.pread(512, MiB)) == CONTENT[MiB : MiB + 512]
            handle.shutdown()

    def test_a_lun_that_is_not_there(self, run: Run, target: str) -> None:
        told = refused("source-serve", read_disk(f"{target}/9", Access(), run), run)
        assert "LOGICAL_UNIT_NOT_SUPPORTED" in str(told)

    def test_a_target_that_is_not_there(self, run: Run, target: str) -> None:
        other = target.rpartition("/")[0] + "/iqn.2024-01.example.v2v:none/1"
        assert "not found" in str(refused("source-serve", read_disk(other, Access(), run), run))

    def test_nobody_answers(self, run: Run) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            uri = f"iscsi://127.0.0.1:{unused.getsockname()[1]}/iqn.2024-01.example:x/1"
            refused("iscsi-unreachable", read_disk(uri, Access(), run), run)

    def test_a_password_from_a_file(self, run: Run, luns: list[Path], tmp_path: Path) -> None:
        word = tmp_path / "password"
        word.write_text("open sesame 12\n")
        with tgtd(tmp_path / "tgtd", luns, user="joe", password="open sesame 12") as target:
            disk = read_disk(f"{target}/1", Access(), run)
            before = children()
            with serve_disk(disk, 0, run, password_file=word) as endpoint:
                assert read_all(endpoint) == CONTENT
                new = children() - before
                argv = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in new]
                assert argv and b"sesame" not in b"".join(argv)
            refused("iscsi-login", disk, run)
            word.write_text("open barley 12\n")
            refused("iscsi-login", disk, run, word)
            gone = tmp_path / "none"
            with pytest.raises(UsageError) as caught:
                served(disk, run, gone)
            assert caught.value.id == "password-file"


# Addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "secret", "expected"),
    [
        (
            "iscsi://host/iqn.2024-01.a:b/1",
            False,
            {"transport": "tcp", "portal": "host:3260", "target": "iqn.2024-01.a:b", "lun": "1"},
        ),
        (
            "iscsi://joe%40x@[::1]:3261/iqn.2024-01.a%3Ab/012",
            True,
            {
                "transport": "tcp",
                "portal": "[::1]:3261",
                "target": "iqn.2024-01.a:b",
                "lun": "12",
                "user": "joe@x",
                "password-secret": "password",
            },
        ),
        ("rbd:///pool/image", False, {"pool": "pool", "image": "image"}),
        (
            "rbd://joe@mon/pool/space/image@snap?conf=/etc/ceph/a.conf",
            True,
            {
                "pool": "pool",
                "namespace": "space",
                "image": "image",
                "snapshot": "snap",
                "server.0.host": "mon",
                "server.0.port": "6789",
                "user": "joe",
                "key-secret": "password",
                "conf": "/etc/ceph/a.conf",
            },
        ),
        (
            "rbd://[fd00::1]:3300/pool/a%2Cb",
            False,
            {"pool": "pool", "image": "a,b", "server.0.host": "fd00::1", "server.0.port": "3300"},
        ),
    ],
)
def test_what_qemu_is_told(uri: str, secret: bool, expected: dict[str, str]) -> None:
    options = driver_options(uri, secret=secret)
    assert options.pop("driver") == uri.partition(":")[0]
    assert options == expected


@pytest.mark.parametrize(
    ("uri", "id"),
    [
        ("iscsi://host/iqn.2024-01.a:b", "uri-invalid"),
        ("iscsi://host/iqn.2024-01.a:b/one", "uri-invalid"),
        ("iscsi://host/a/b/1", "uri-invalid"),
        ("iscsi:///iqn.2024-01.a:b/1", "uri-invalid"),
        ("iscsi://joe%25geheim@host/iqn.2024-01.a:b/1", "password-in-uri"),
        ("iscsi://joe:geheim@host/iqn.2024-01.a:b/1", "password-in-uri"),
        ("rbd://mon/pool", "uri-invalid"),
        ("rbd://mon/pool/", "uri-invalid"),
        ("rbd://mon/a/b/c/d", "uri-invalid"),
        ("rbd://mon:x/pool/image", "uri-invalid"),
    ],
)
def test_addresses_that_cannot_be(run: Run, uri: str, id: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_disk(uri, Access(), run)
    assert caught.value.id == id
    assert caught.value.hint
    assert "geheim" not in f"{caught.value.message}{caught.value.hint}"


@pytest.mark.parametrize(
    ("uri", "name"),
    [("iscsi://host/iqn.a/1", "unknown"), ("rbd://mon/pool/web", "web"), ("ssh://h/a/w.img", "w")],
)
def test_the_guest_is_named_after_what_has_a_name(uri: str, name: str) -> None:
    assert guest_name([uri]) == name


# What servers say ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["iscsi", "rbd"])
def test_a_driver_of_qemu_that_is_missing_names_its_package(scheme: str) -> None:
    words = f"qemu-nbd: Failed to blk_new_open 'driver=raw,a=': Unknown driver '{scheme}'"
    disk = SourceDisk(f"{scheme}://host/a/1", DiskFormat.RAW)
    error = errors.from_words(words, disk, Path("/log"))
    assert isinstance(error, HostError)
    assert error.id == "qemu-driver-missing"
    assert "qemu-block-extra" in (error.hint or "")
    assert f"qemu-block-{scheme}" in (error.hint or "")


def test_what_is_not_known_is_told_without_the_options() -> None:
    words = "qemu-nbd: Failed to blk_new_open 'driver=raw,file.lun=1': iSCSI: it broke"
    disk = SourceDisk("iscsi://host/a/1", DiskFormat.RAW)
    error = errors.from_words(words, disk, Path("/log"))
    assert isinstance(error, SourceError)
    assert str(error) == "iscsi://host/a/1 cannot be served: iSCSI: it broke"
    assert "/log" in (error.hint or "")
