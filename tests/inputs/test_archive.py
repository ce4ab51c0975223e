"""Archives of OVAs: every kind of tar and zip, and hostile ones."""

from __future__ import annotations

import gzip
import io
import lzma
import os
import random
import struct
import sys
import tarfile
import tempfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.ova import KINDS, write_ova
from fixtures.ovf import OvfImage, write_ovf
from tests.fakes.disks import disk_content
from v2v import events
from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError, V2VError
from v2v.inputs._archive import MAX_MEMBERS, Kind, relative_name
from v2v.inputs._archive.raw import Place, open_raw
from v2v.inputs._archive.stream import UnpackedStream, unpacked
from v2v.inputs._archive.tar import TarArchive, is_tar, walk
from v2v.inputs._archive.unpack import unpacked_disks
from v2v.inputs._archive.zip import ZipArchive
from v2v.inputs._images import Access
from v2v.inputs.ova import OvaInput, OvaOptions
from v2v.run import Run
from v2v.types import KiB, MiB, Source

LONG = "folder/" + "n" * 130 + "/disk.vmdk"


class Bytes:
    """A reader of bytes in memory."""

    name = "web.ova"

    def __init__(self, data: bytes) -> None:
        self.data, self.size = data, len(data)

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length] if offset >= 0 else b""


def tar(*members: tuple[str, bytes], format: int = tarfile.USTAR_FORMAT, **fields: object) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in fields.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def zipped(*members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def read(archive: TarArchive | ZipArchive) -> dict[str, bytes]:
    found = {name: archive.find(name) for name in archive.names()}
    return {name: b"".join(archive.chunks(one)) for name, one in found.items() if one}


def refused(id: str, archive: type[TarArchive] | type[ZipArchive], data: bytes) -> V2VError:
    with pytest.raises(V2VError) as caught:
        read(archive(Bytes(data)))
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert "web.ova" in caught.value.message
    return caught.value


FILES = (("web.ovf", b"<Envelope/>"), ("a.vmdk", os.urandom(1000)), ("empty", b""))

# tar --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT], ids=str
)
def test_members_of_every_kind_of_tar(format: int) -> None:
    files = (*FILES, (LONG, b"data"), ("./ä.vmdk", b"more"))
    data = tar(*files, format=format)
    assert is_tar(data)
    found = read(TarArchive(Bytes(data)))
    assert found == {name.removeprefix("./"): content for name, content in files}


def test_v7_archives_have_no_magic() -> None:
    data = bytearray(tar(("a", b"data")))
    data[257:265] = bytes(8)
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    assert is_tar(data)
    assert read(TarArchive(Bytes(bytes(data)))) == {"a": b"data"}


@pytest.mark.parametrize("size", [9 << 30, 70 << 30])
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_sizes_beyond_what_octal_digits_tell(size: int, format: int) -> None:
    info = tarfile.TarInfo("big.vmdk")
    info.size = size
    one = next(
        walk(UnpackedStream(iter([gzip.compress(info.tobuf(format))]), "gzip", "", Cancel()))
    )
    assert (one.name, one.size) == ("big.vmdk", size)


def test_no_zeroes_at_the_end_are_needed() -> None:
    data = tar(*FILES).rstrip(b"\0")
    data += bytes(-len(data) % 512)
    assert set(read(TarArchive(Bytes(data)))) >= {"web.ovf", "a.vmdk"}


@pytest.mark.parametrize("cut", [1, 100, 511, 512])
def test_a_member_that_goes_on_behind_the_end_is_named(cut: int) -> None:
    data = tar(("web.ovf", b"<Envelope/>"), ("a.vmdk", b"x" * 1024))
    end = data.rindex(b"x") + 1
    error = refused("ova-truncated", TarArchive, data[: end - cut])
    assert "'a.vmdk'" in error.message


def test_a_cut_header_is_told() -> None:
    refused("ova-truncated", TarArchive, tar(*FILES)[: 512 * 2 + 100])


def test_what_is_no_header_is_told() -> None:
    data = bytearray(tar(*FILES))
    data[1024 + 5] ^= 1
    refused("ova-damaged", TarArchive, bytes(data))


def with_size(field: bytes) -> bytes:
    data = bytearray(tar(("a", b"data")))
    data[124:136] = field
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    return bytes(data)


@pytest.mark.parametrize(
    ("field", "id"),
    [
        (b"\xff" * 12, "ova-damaged"),  # -1
        (b"\x80" + b"\xff" * 11, "ova-damaged"),
        (b"-0000000001\0", "ova-damaged"),
        (b"99999999999\0", "ova-damaged"),
        (b"77777777777\0", "ova-truncated"),
        (b"\x80" + b"\0" * 6 + b"\x7f" * 5, "ova-truncated"),
    ],
)
def test_sizes_that_are_none_are_refused(field: bytes, id: str) -> None:
    refused(id, TarArchive, with_size(field))


def test_two_files_of_one_name_are_refused() -> None:
    refused("ova-duplicate", TarArchive, tar(*FILES, ("./a.vmdk", b"other")))


@pytest.mark.parametrize("type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_no_files(type: bytes) -> None:
    archive = TarArchive(Bytes(tar(("a.vmdk", b""), type=type, linkname="/etc/shadow")))
    found = archive.find("a.vmdk")
    assert found is not None
    assert found.kind is (Kind.DEVICE if type == tarfile.CHRTYPE else Kind.LINK)


@pytest.mark.parametrize("name", ["/etc/shadow", "../a", "a/../../b", "C:\\a", "a\\b", "file:a"])
def test_names_that_lead_out_are_no_members(name: str) -> None:
    assert relative_name(name) is None
    assert list(TarArchive(Bytes(tar((name, b"data")))).names()) == []


def pax(records: bytes) -> bytes:
    info = tarfile.TarInfo("header")
    info.type, info.size = b"x", len(records)
    data = info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)
    return data + tar(("a.vmdk", b"data"))


@pytest.mark.parametrize(
    "records",
    [
        b"garbage",
        b"999999 path=a\n",
        b"0 path=a\n",
        b"9 path=ab",
        b"99999999999999999999999 path=a\n",
        b"30 size=-00000000000000000001\n",
        b"35 size=9999999999999999999999999\n",
    ],
)
def test_extended_headers_that_are_none_are_refused(records: bytes) -> None:
    refused("ova-damaged", TarArchive, pax(records))


def test_sparse_members_are_refused() -> None:
    refused("ova-unsupported", TarArchive, pax(b"22 GNU.sparse.major=1\n"))
    data = bytearray(tar(("a.vmdk", b"data"), format=tarfile.GNU_FORMAT))
    data[156:157] = b"S"
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    refused("ova-unsupported", TarArchive, bytes(data))


def test_a_header_for_all_members_that_renames_them_is_refused() -> None:
    data = bytearray(pax(b"11 path=abc\n"[:11] + b"\n"))
    records = b"12 path=abc\n"
    info = tarfile.TarInfo("header")
    info.type, info.size = b"g", len(records)
    data = info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(500) + tar(("a", b""))
    refused("ova-unsupported", TarArchive, data)


def test_an_extended_header_of_gigabytes_is_refused() -> None:
    info = tarfile.TarInfo("header")
    info.type, info.size = b"x", 8 << 30
    refused("ova-damaged", TarArchive, info.tobuf(tarfile.GNU_FORMAT))


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_that_would_fill_the_memory_are_refused(format: int) -> None:
    """Packed they take next to nothing: 10 MB can be 10000 names of 1 MiB."""
    error = refused("ova-damaged", TarArchive, tar(("n" * 5000, b""), format=format))
    assert len(error.message) < 200


def test_thousands_of_members_are_refused() -> None:
    header = tarfile.TarInfo("./").tobuf(tarfile.USTAR_FORMAT)
    refused("ova-too-many", TarArchive, header * (MAX_MEMBERS + 1))
    extended = pax(b"12 path=abc\n")[:1024]
    refused("ova-too-many", TarArchive, extended * (3 * MAX_MEMBERS + 1))


# zip --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_members_of_a_zip(method: int) -> None:
    files = (*FILES, ("sub/ä.vmdk", b"x" * 3 * MiB))
    assert read(ZipArchive(Bytes(zipped(*files, method=method)))) == dict(files)


def test_zip64_is_read() -> None:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(file, "w") as archive,
        archive.open("a.vmdk", "w", force_zip64=True) as member,
    ):
        member.write(b"data")
    assert read(ZipArchive(Bytes(file.getvalue()))) == {"a.vmdk": b"data"}


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_rare_compressions_are_refused(method: int) -> None:
    refused("ova-unsupported", ZipArchive, zipped(("a", b"data"), method=method))


def patched(data: bytes, at: int, value: bytes, signature: bytes = b"PK\x01\x02") -> bytes:
    start = data.index(signature) + at
    return data[:start] + value + data[start + len(value) :]


def test_an_encrypted_member_is_refused() -> None:
    error = refused("ova-unsupported", ZipArchive, patched(zipped(("a", b"data")), 8, b"\1\0"))
    assert "encrypted" in error.message


def test_a_zip_that_is_cut_is_truncated() -> None:
    data = zipped(*FILES)
    for cut in (1, 30, len(data) - 10):
        refused("ova-truncated", ZipArchive, data[:-cut])


def test_a_member_without_a_name_is_left_alone() -> None:
    data = zipped(("a", b"data"), ("b", b"more")).replace(b"adata", b"\0data")
    data = patched(data, 46, b"\0")
    assert read(ZipArchive(Bytes(data))) == {"b": b"more"}


def test_a_link_in_a_zip_is_no_file() -> None:
    data = patched(zipped(("a", b"/etc/shadow")), 38, struct.pack("<I", 0o120777 << 16))
    found = ZipArchive(Bytes(data)).find("a")
    assert found is not None
    assert found.kind is Kind.LINK


def test_a_bomb_is_stopped_at_the_size_that_it_says() -> None:
    data = zipped(("a", bytes(64 * MiB)), method=zipfile.ZIP_DEFLATED)
    archive = ZipArchive(Bytes(patched(data, 24, struct.pack("<I", 1000))))
    found = archive.find("a")
    assert found is not None
    given = 0
    with pytest.raises(SourceError) as caught:
        for chunk in archive.chunks(found):
            given += len(chunk)
    assert caught.value.id == "ova-damaged"
    assert given <= MiB


@pytest.mark.parametrize(
    ("at", "value"),
    [(16, b"\1\2\3\4"), (24, b"\xff\0\0\0")],
    ids=["checksum", "size"],
)
def test_damage_of_a_deflated_member_is_seen(at: int, value: bytes) -> None:
    data = zipped(("a", b"data" * 1000), method=zipfile.ZIP_DEFLATED)
    refused("ova-damaged", ZipArchive, patched(data, at, value))


def test_a_member_with_two_names_is_refused() -> None:
    refused("ova-damaged", ZipArchive, patched(zipped(("abc", b"")), 46, b"xyz"))


def test_a_list_of_gigabytes_is_not_read() -> None:
    data = patched(zipped(("a", b"")), 12, struct.pack("<I", 0xFFFFFF00), b"PK\x05\x06")
    refused("ova-truncated", ZipArchive, data)


def test_two_members_of_one_name_are_refused() -> None:
    with pytest.warns(UserWarning, match="Duplicate"):
        data = zipped(("a", b"1"), ("a", b"2"))
    refused("ova-duplicate", ZipArchive, data)


# Compressed streams -----------------------------------------------------------------------------

PACK = {"gzip": gzip.compress, "xz": lzma.compress}


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
@pytest.mark.parametrize("packed", PACK)
def test_streams_are_unpacked_however_they_arrive(packed: str, size: int) -> None:
    content = disk_content()[MiB : MiB + 300 * KiB] + bytes(5 * KiB)
    if size == 1:
        content = content[:3000]
    data = PACK[packed](content)
    assert b"".join(unpacked(pieces(data, size), packed, "w")) == content


@pytest.mark.parametrize("size", [1, 5, 1 << 20])
@pytest.mark.parametrize("packed", PACK)
def test_several_streams_in_a_row_are_one(packed: str, size: int) -> None:
    data = PACK[packed](b"one ") + PACK[packed](b"two ") + bytes(8) + PACK[packed](b"three")
    assert b"".join(unpacked(pieces(data, size), packed, "w")) == b"one two three"


def test_what_follows_and_is_not_packed_is_left_out() -> None:
    data = gzip.compress(b"data") + b"garbage"
    assert b"".join(unpacked(iter([data]), "gzip", "w")) == b"data"


@pytest.mark.parametrize("packed", PACK)
def test_streams_that_are_cut_or_damaged_are_told(packed: str) -> None:
    data = PACK[packed](random.Random(1).randbytes(10_000))
    with pytest.raises(SourceError) as caught:
        list(unpacked(iter([data[:-5]]), packed, "web.ova"))
    assert caught.value.id == "ova-truncated"
    damaged = data[:5000] + bytes([data[5000] ^ 255]) + data[5001:]
    with pytest.raises(SourceError) as caught:
        list(unpacked(iter([damaged]), packed, "web.ova"))
    assert caught.value.id == "ova-damaged"
    assert "web.ova" in caught.value.message


def test_a_bomb_comes_in_small_pieces() -> None:
    stream = zlib.compressobj(9, wbits=31)
    bomb = b"".join(stream.compress(bytes(MiB)) for _ in range(200)) + stream.flush()
    for count, piece in enumerate(unpacked(iter([bomb]), "gzip", "w")):
        assert len(piece) <= MiB
        if count == 20:
            break
    else:
        raise AssertionError


def test_what_unpacks_to_nothing_ends_when_the_job_is_cancelled(tmp_path: Path) -> None:
    """An empty gzip file has 20 bytes, and gigabytes of them give not one that is looked at."""
    (tmp_path / "web.ova").write_bytes(gzip.compress(b"") * 20_000)
    cancel = Cancel()
    with open_raw(Place(str(tmp_path / "web.ova")), cancel) as raw:
        chunks = iter_then(raw.chunks, cancel.cancel)
        stream = UnpackedStream(chunks, "gzip", "web.ova", cancel)
        with pytest.raises(Cancelled):
            stream.read(1)


def iter_then(chunks: Iterator[bytes], call: Callable[[], None]) -> Iterator[bytes]:
    """The chunks; `call` is called after the first."""
    yield next(chunks)
    call()
    yield from chunks


def test_unpacking_ends_when_the_job_is_cancelled() -> None:
    cancel = Cancel()
    stream = UnpackedStream(iter([gzip.compress(bytes(8 * MiB))]), "gzip", "w", cancel)
    assert stream.read(10) == bytes(10)
    cancel.cancel()
    with pytest.raises(Cancelled):
        stream.skip_to(8 * MiB)


# Anything ---------------------------------------------------------------------------------------

opened: list[str] | None = None  # the files that were opened, while it is a list


def _hook(event: str, args: tuple[object, ...]) -> None:
    if event == "open" and opened is not None and isinstance(args[0], str | bytes | os.PathLike):
        opened.append(os.fsdecode(args[0]))


sys.addaudithook(_hook)
# What Python and the look for other users of a file open.
OWN = ("/proc/", "/usr/", "/etc/localtime", sys.prefix, str(Path(__file__).parent.parent.parent))


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Small OVAs of each kind, by kind."""
    folder = tmp_path_factory.mktemp("packages")
    disk = folder / "disk1.img"
    disk.write_bytes(disk_content()[: 64 * KiB][:512] + bytes(3 * 512))
    ovf = write_ovf(folder / "web.ovf", "vsphere", [OvfImage("disk1.img", 2048)])
    found = {}
    for kind in KINDS:
        if kind != "folder":
            path = write_ova(folder / "out", kind, {"web.ovf": ovf, "disk1.img": disk})
            found[kind] = path.read_bytes()
    return found


MUTATIONS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=6
)


@pytest.mark.parametrize("kind", ["tar", "tar-in-gz", "zip", "zip-deflated", "tar.gz"])
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(mutations=MUTATIONS, cut=st.one_of(st.just(1.0), st.floats(0.01, 1)))
def test_any_archive_is_a_source_or_an_error(
    kind: str, packages: dict[str, bytes], tmp_path: Path, mutations, cut: float
) -> None:
    """And nothing but the archive is read, nor left behind."""
    global opened
    data = bytearray(packages["tar" if kind == "tar-in-gz" else kind])
    # Most of a tar archive is zeroes, which would make most mutations alike.
    used = [at for at, byte in enumerate(data) if byte] if "tar" in kind else range(len(data))
    for where, value in mutations:
        data[used[int(where * len(used))]] = value
    del data[int(cut * len(data)) :]
    with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
        path = Path(folder, "web.ova")
        path.write_bytes(gzip.compress(data, 1) if kind == "tar-in-gz" else data)
        with Run.create(Path(folder, "jobs"), "test", emit=events.ignore) as run:
            opened = []
            try:
                read_and_unpack(path, run)
            except V2VError as exc:
                assert exc.hint or exc.id == "source-read", exc
            finally:
                seen, opened = opened, None
            assert not (run.folder / "unpacked").exists()
        outside = [one for one in seen if not one.startswith((folder, *OWN))]
        assert not outside
        assert threading.active_count() == 1


def read_and_unpack(path: Path, run: Run) -> None:
    source = OvaInput(OvaOptions(), [str(path)]).read_source(run)
    assert isinstance(source, Source)
    with unpacked_disks(source.disks, Access(), run, check=True) as disks:
        assert len(disks) == len(source.disks)
