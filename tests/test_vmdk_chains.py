"""VMDKs with snapshots: every kind of delta, chains of them, and those that do not fit together."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures import vmdk
from fixtures.vmdk import write_vmdk
from tests.fakes.disks import disk_content
from v2v.errors import SourceError, V2VError
from v2v.image import check_raw, magic, qemu_options, read_image
from v2v.image.reader import FileReader
from v2v.qemu_nbd import image_word
from v2v.types import DiskFormat, KiB, MiB

SIZE = 24 * MiB  # several grain tables of each kind
BASE = disk_content(1, SIZE)
KINDS = ("vmfsSparse", "seSparse", "monolithicSparse", "twoGbMaxExtentSparse")


def changed(content: bytes, seed: int) -> bytes:
    """Some of it other data, some zeroes where there was data, at its start, middle and end."""
    new = bytearray(content)
    noise = disk_content(seed + 100, SIZE)
    for at in (0, 5 * MiB + 3 * KiB, 17 * MiB + 511):
        new[at + 600 : at + 70 * KiB] = noise[MiB : MiB + 70 * KiB - 600]
    new[2 * MiB : 2 * MiB + 150 * KiB] = bytes(150 * KiB)
    new[-KiB:] = noise[MiB : MiB + KiB]
    return bytes(new)


FIRST = changed(BASE, 1)
SECOND = changed(FIRST, 2)


def chain(folder: Path, kind: str = "vmfsSparse", base: str = "vmfs") -> Path:
    """A base and two deltas; the last is the VM's state."""
    write_vmdk(folder, "web", BASE, kind=base, extents=2)
    for number, (content, below) in enumerate([(FIRST, BASE), (SECOND, FIRST)], 1):
        parent = f"web-{number - 1:06}.vmdk" if number > 1 else "web.vmdk"
        write_vmdk(
            folder,
            f"web-{number:06}",
            content,
            kind=kind,
            below=below,
            parent=parent,
            cid=number + 1,
            parent_cid=number,
            extents=3,
        )
    return folder / "web-000002.vmdk"


def content_of(path: Path, folder: Path) -> bytes:
    """What QEMU reads, given the files as v2v gives them."""
    options = image_word(qemu_options(read_image(path)))
    return converted([options], folder)


def converted(source: list[str], folder: Path) -> bytes:
    out = folder / "out.raw"
    argv = ["qemu-img", "convert", "-O", "raw", *source, str(out)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out.read_bytes()


def refused(path: Path, id: str) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read_image(path)
    assert caught.value.id == id, caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.fixture(autouse=True)
def qemu(need_tool) -> None:
    need_tool("qemu-img")


# What is read ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_delta_reads_as_the_disk_it_was_made_of(tmp_path: Path, kind: str) -> None:
    vm, out = tmp_path / "vm", tmp_path
    path = chain(vm, kind)
    image = read_image(path)
    assert (image.format, image.size) == (DiskFormat.VMDK, SIZE)
    assert {file.suffix for file in image.files} == {".vmdk"}
    assert set(image.files) == set(vm.iterdir())
    assert content_of(path, out) == SECOND
    assert content_of(vm / "web-000001.vmdk", out) == FIRST
    assert content_of(vm / "web.vmdk", out) == BASE


@pytest.mark.parametrize("kind", KINDS)
def test_qemu_alone_reads_the_fixtures_so(tmp_path: Path, kind: str) -> None:
    """The builders make what QEMU takes for such files, also without v2v's options."""
    path = chain(tmp_path / "vm", kind)
    assert converted(["-f", "vmdk", str(path)], tmp_path) == SECOND


@pytest.mark.parametrize("kind", sorted(vmdk.KINDS))
def test_a_disk_without_parent_of_every_type(tmp_path: Path, kind: str) -> None:
    path = write_vmdk(tmp_path / "vm", "web", BASE, kind=kind)
    assert read_image(path).size == SIZE
    assert content_of(path, tmp_path) == BASE


@pytest.mark.parametrize("base", ["monolithicSparse", "twoGbMaxExtentFlat", "seSparse"])
def test_deltas_on_other_bases(tmp_path: Path, base: str) -> None:
    assert content_of(chain(tmp_path / "vm", "seSparse", base), tmp_path) == SECOND


def test_a_child_that_qemu_img_made(tmp_path: Path) -> None:
    vm = tmp_path / "vm"
    write_vmdk(vm, "web", BASE, kind="monolithicSparse", cid=0x1234)
    for kind in ("monolithicSparse", "twoGbMaxExtentSparse"):
        child = vm / f"{kind}.vmdk"
        argv = ["qemu-img", "create", "-f", "vmdk", "-b", "web.vmdk", "-F", "vmdk"]
        argv += ["-o", f"subformat={kind}", str(child)]
        subprocess.run(argv, check=True, capture_output=True, cwd=vm)
        assert content_of(child, tmp_path) == BASE


@pytest.mark.parametrize(
    "hint",
    [
        "/vmfs/volumes/5f1-2b/web/web.vmdk",
        "C:\\VMs\\web\\web.vmdk",
        "D:/VMs/web/web.vmdk",
        "\\\\server\\share\\web.vmdk",
    ],
)
def test_a_parent_by_its_path_on_the_vmware_host_is_the_one_beside(
    tmp_path: Path, hint: str
) -> None:
    vm = tmp_path / "vm"
    write_vmdk(vm, "web", BASE)
    path = write_vmdk(
        vm, "top", FIRST, kind="seSparse", below=BASE, parent=hint, cid=2, parent_cid=1
    )
    assert content_of(path, tmp_path) == FIRST


@pytest.mark.parametrize(
    ("encoding", "name"), [("windows-1252", "Büro"), ("GBK", "虚拟机"), ("Shift_JIS", "表")]
)
def test_descriptors_of_a_windows_host(tmp_path: Path, encoding: str, name: str) -> None:
    """They name the files in its encoding; here the same files have names in UTF-8."""
    vm = tmp_path / "vm"
    write_vmdk(vm, name, BASE, kind="monolithicSparse")
    top = write_vmdk(
        vm,
        "top",
        FIRST,
        kind="monolithicSparse",
        below=BASE,
        parent=f"{name}.vmdk",
        cid=2,
        parent_cid=1,
    )
    for path in (vm / f"{name}.vmdk", top):
        recode(path, encoding)
    assert content_of(top, tmp_path) == FIRST


def recode(path: Path, encoding: str) -> None:
    """The descriptor inside, as a host of that encoding would have written it."""
    raw = path.read_bytes()
    text = raw[512 : 512 + 10240].rstrip(b"\0").decode().replace("UTF-8", encoding)
    path.write_bytes(raw[:512] + text.encode(encoding).ljust(10240, b"\0") + raw[10752:])


def test_parts_with_names_that_qemu_would_not_find(tmp_path: Path) -> None:
    path = write_vmdk(tmp_path, "Büro", BASE[:MiB], kind="monolithicFlat")
    path.write_text(path.read_text(), encoding="cp1252")
    assert "plain letters" in (refused(path, "image-unsupported").hint or "")


def test_a_word_that_is_hidden_in_another_encodings_letters(tmp_path: Path) -> None:
    """In GBK the p is the second half of a letter; QEMU sees the word, and would open the file."""
    path = write_vmdk(tmp_path, "web", BASE[:MiB], kind="monolithicFlat")
    raw = path.read_bytes().replace(b"UTF-8", b"GBK")
    path.write_bytes(raw + b'# \x81parentFileNameHint="/etc/passwd"\n')
    refused(path, "image-corrupt")


# What does not fit --------------------------------------------------------------------------------


def test_a_parent_that_changed_since_is_told_with_both_names(tmp_path: Path) -> None:
    path = chain(tmp_path)
    write_vmdk(tmp_path, "web", FIRST, cid=99)
    error = refused(path, "vmdk-chain-broken")
    assert "web-000001.vmdk" in error.message and "web.vmdk" in error.message
    assert "00000001" in error.message and "00000063" in error.message


def test_the_parents_number_is_the_one_that_qemu_finds(tmp_path: Path) -> None:
    """It takes the first CID in the text, be it in a comment."""
    path = chain(tmp_path)
    text = (tmp_path / "web.vmdk").read_text()
    (tmp_path / "web.vmdk").write_text(text.replace("version=1", "version=1\n# CID=00000009"))
    refused(path, "vmdk-chain-broken")


def test_a_missing_link_is_named(tmp_path: Path) -> None:
    path = chain(tmp_path)
    (tmp_path / "web-000001.vmdk").unlink()
    assert "web-000001.vmdk" in refused(path, "image-file-missing").message


def test_a_missing_delta_is_named(tmp_path: Path) -> None:
    path = chain(tmp_path)
    (tmp_path / "web-000001-delta.vmdk").unlink()
    assert "web-000001-delta.vmdk" in refused(path, "image-file-missing").message


def test_a_chain_without_end_is_refused(tmp_path: Path) -> None:
    for name, parent in (("a", "b.vmdk"), ("b", "a.vmdk")):
        write_vmdk(tmp_path, name, BASE[:MiB], below=BASE[:MiB], parent=parent, parent_cid=1)
    with pytest.raises(SourceError, match="no end") as caught:
        read_image(tmp_path / "a.vmdk")
    assert caught.value.id == "image-corrupt"


def test_a_parent_elsewhere_is_refused(tmp_path: Path) -> None:
    write_vmdk(tmp_path / "base", "web", BASE[:MiB])
    path = write_vmdk(
        tmp_path / "vm",
        "top",
        BASE[:MiB],
        below=BASE[:MiB],
        parent="../base/web.vmdk",
        parent_cid=1,
    )
    refused(path, "image-names-other-file")
    assert read_image(path, allowed=(tmp_path / "base",)).backing


def test_an_absolute_parent_that_is_there_is_not_replaced_by_one_beside(tmp_path: Path) -> None:
    base = write_vmdk(tmp_path / "base", "web", BASE[:MiB])
    write_vmdk(tmp_path / "vm", "web", BASE[:MiB])
    path = write_vmdk(
        tmp_path / "vm", "top", BASE[:MiB], below=BASE[:MiB], parent=str(base), parent_cid=1
    )
    refused(path, "image-names-other-file")


def test_a_parent_that_is_no_vmdk_is_refused(tmp_path: Path) -> None:
    path = chain(tmp_path)
    (tmp_path / "web.vmdk").write_bytes(BASE)
    refused(path, "image-format-wrong")


@pytest.mark.parametrize("name", ["web-000001-delta.vmdk", "web-000001-sesparse.vmdk"])
def test_data_given_instead_of_the_descriptor(tmp_path: Path, name: str) -> None:
    kind = "vmfsSparse" if "delta" in name else "seSparse"
    chain(tmp_path, kind)
    with pytest.raises(SourceError, match="looks like the data of a VMDK") as caught:
        read_image(tmp_path / name, DiskFormat.VMDK)
    assert caught.value.id == "image-format-wrong"
    with FileReader(tmp_path / name) as reader, pytest.raises(SourceError) as caught:
        check_raw(reader, reader.read(0, magic.HEAD), strict=False)
    assert caught.value.hint == magic.VMDK_TEXT


@pytest.mark.parametrize("kind", ["vmfsRawDeviceMap", "vmfsPassthroughRawDeviceMap", "vmfsRDM"])
def test_a_raw_device_is_refused_with_what_to_do(tmp_path: Path, kind: str) -> None:
    text = vmdk.descriptor(kind, 'RW 2048 VMFSRDM "web-rdm.vmdk"\n', 1, None, vmdk.NO_PARENT)
    (tmp_path / "web.vmdk").write_text(text)
    assert "LUN" in (refused(tmp_path / "web.vmdk", "image-unsupported").hint or "")


# Headers ------------------------------------------------------------------------------------------


def small(folder: Path, kind: str) -> tuple[Path, Path]:
    """A delta of 1 MiB: its descriptor and its data."""
    path = write_vmdk(folder, "web", FIRST[:MiB], kind=kind, below=BASE[:MiB])
    return path, folder / f"web{vmdk.KINDS[kind][1]}.vmdk"


def patched(data: Path, offset: int, layout: str, value: int) -> None:
    raw = bytearray(data.read_bytes())
    struct.pack_into(layout, raw, offset, value)
    data.write_bytes(raw)


@pytest.mark.parametrize(
    ("offset", "value", "id"),
    [
        (0, 0, "image-corrupt"),  # magic
        (4, 2, "image-unsupported"),  # version
        (12, 0, "image-corrupt"),  # sectors
        (12, 1, "image-corrupt"),
        (16, 0, "image-corrupt"),  # grain: QEMU would divide by it
        (16, 3, "image-corrupt"),
        (16, 1 << 31, "image-corrupt"),
        (20, 0, "image-corrupt"),  # directory
        (20, 1 << 31, "image-truncated"),
        (24, 0, "image-corrupt"),  # its entries
        (24, 0xFFFFFFFF, "image-corrupt"),
        (4 * 512, 0xFFFFFFFF, "image-truncated"),  # a table
        (5 * 512, 0xFFFFFFFF, "image-truncated"),  # a grain
    ],
)
def test_bad_cowd_headers(tmp_path: Path, offset: int, value: int, id: str) -> None:
    path, data = small(tmp_path, "vmfsSparse")
    read_image(path)
    patched(data, offset, "<I", value)
    refused(path, id)


@pytest.mark.parametrize(
    ("offset", "value", "id"),
    [
        (0, 0, "image-corrupt"),
        (8, 1, "image-unsupported"),  # version
        (16, 0, "image-corrupt"),  # sectors
        (16, 1 << 60, "image-corrupt"),
        (24, 16, "image-unsupported"),  # grain
        (32, 0, "image-unsupported"),  # table
        (40, 1, "image-unsupported"),  # flags
        (48, 1, "image-unsupported"),  # reserved
        (80, 1 << 50, "image-truncated"),  # second header
        (80, 0, "image-corrupt"),
        (128, 1 << 60, "image-truncated"),  # directory
        (136, 0, "image-corrupt"),  # its length
        (136, 1 << 40, "image-corrupt"),
        (144, 1 << 60, "image-truncated"),  # tables
        (192, 1 << 60, "image-truncated"),  # grains
        (300, 1, "image-unsupported"),  # padding
        (512 + 24, 1, "image-unsupported"),  # journal to be replayed
        (512 + 40, 1, "image-corrupt"),
        (8 * 512, 1, "image-corrupt"),  # directory entries
        (8 * 512, 0x10000000FFFFFFFF, "image-truncated"),
        (9 * 512, 0x4 << 60, "image-corrupt"),  # table entries
        (9 * 512, 1, "image-corrupt"),
        (9 * 512, 0x3000FFFFFFFFFFFF, "image-truncated"),
    ],
)
def test_bad_sesparse_headers(tmp_path: Path, offset: int, value: int, id: str) -> None:
    path, data = small(tmp_path, "seSparse")
    read_image(path)
    patched(data, offset, "<Q", value)
    refused(path, id)


@pytest.mark.parametrize("kind", ["vmfsSparse", "seSparse"])
def test_a_cut_delta_is_refused(tmp_path: Path, kind: str) -> None:
    path, data = small(tmp_path, kind)
    data.write_bytes(data.read_bytes()[:-1])
    refused(path, "image-truncated")


def test_of_two_directories_that_of_qemu_is_checked(tmp_path: Path) -> None:
    """Where the file ends before it, QEMU would read zeroes without a word."""
    path = write_vmdk(tmp_path, "web", BASE[:MiB], kind="monolithicSparse")
    (first,) = struct.unpack_from("<Q", path.read_bytes(), 56)
    patched(path, 8, "<I", 3)  # there is a redundant directory
    patched(path, 48, "<Q", first)
    assert content_of(path, tmp_path) == BASE[:MiB]
    patched(path, 56, "<Q", 1 << 20)
    refused(path, "image-truncated")


@pytest.mark.parametrize("kind", ["monolithicSparse", "twoGbMaxExtentSparse"])
def test_a_disk_whose_last_block_is_cut_is_refused(tmp_path: Path, kind: str) -> None:
    """QEMU would read the rest of it as zeroes. Only the disk's own end may be in its last one."""
    content = bytes(range(256)) * 4 * KiB
    path = write_vmdk(tmp_path, "web", content, kind=kind)
    data = tmp_path / "web-s001.vmdk" if kind.startswith("two") else path
    whole = data.read_bytes()
    data.write_bytes(whole[:-512])
    refused(path, "image-truncated")
    shorter = bytearray(whole[: -60 * KiB])
    struct.pack_into("<Q", shorter, 12, (MiB - 60 * KiB) // 512)
    data.write_bytes(shorter)
    if kind == "monolithicSparse":
        assert read_image(path).size == MiB - 60 * KiB
        assert content_of(path, tmp_path) == content[: MiB - 60 * KiB]


def test_a_part_that_is_longer_than_told_would_move_what_follows(tmp_path: Path) -> None:
    path = write_vmdk(tmp_path, "web", BASE, kind="twoGbMaxExtentSparse", extents=3)
    read_image(path)
    patched(tmp_path / "web-s001.vmdk", 12, "<Q", SIZE // 3 // 512 + 128)
    refused(path, "image-corrupt")


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_mutated_deltas_are_read_or_refused_and_what_is_read_qemu_reads(
    tmp_path: Path, data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["vmfsSparse", "seSparse"]))
    path, extent = small(tmp_path / kind, kind)
    raw = bytearray(extent.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 64)) * 4 + data.draw(st.sampled_from([0, 512, 2048, 4608]))
        struct.pack_into("<I", raw, at, data.draw(st.sampled_from([0, 1, 7, 8, 64, 1 << 31])))
    extent.write_bytes(raw)
    try:
        image = read_image(path)
    except V2VError:
        return
    assert image.files == (path, extent)
    if data.draw(st.integers(0, 4)) == 0:  # a process each: not for all
        content_of(path, tmp_path)
