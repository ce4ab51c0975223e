"""Which files a descriptor may name: those of its folder, and parents in the roots."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from tests.vmdk.disks import changed, check, check_file, content, read
from tests.vmdk.stores import CountingStore
from v2v.errors import SourceError
from v2v.types import MiB
from v2v.vmdk import Disk, LocalStore, open_disk
from v2v.vmdk.local import missing

BASE = content(1, MiB)
TOP = changed(content(1, 3 * MiB), 1)[:MiB]


@pytest.fixture
def store() -> Iterator[LocalStore]:
    with LocalStore() as store:
        yield store


def refused(store: LocalStore, path: Path, id: str, *roots: Path) -> SourceError:
    with pytest.raises(SourceError) as caught:
        open_disk(store, str(path), roots=[str(root) for root in roots])
    assert caught.value.id == id, caught.value.message
    assert caught.value.hint
    return caught.value


def named(folder: Path, name: str) -> Path:
    """A flat disk whose descriptor calls its data so."""
    path = write_vmdk(folder, "disk", BASE)
    path.write_text(path.read_text().replace('"disk-flat.vmdk"', f'"{name}"'))
    return path


def child(folder: Path, parent: str) -> Path:
    return write_vmdk(
        folder,
        "top",
        TOP,
        kind="seSparse",
        below=BASE,
        parent=parent,
        cid=2,
        parent_cid=1,
    )


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "below/../../secret",
        "https://example.com/x",
        "a\\b",
        "a\x01b",
        "..",
        ".",
        "below/",
        "link",
        "folderlink/secret",
        "x" * 300,
    ],
)
def test_data_elsewhere_is_refused(tmp_path: Path, store: LocalStore, name: str) -> None:
    vm = tmp_path / "vm"
    (vm / "below").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(BASE)
    (vm / "link").symlink_to(tmp_path / "secret")
    (vm / "folderlink").symlink_to(tmp_path)
    wanted = "image-corrupt" if "\x01" in name else "image-names-other-file"
    refused(store, named(vm, name), wanted, tmp_path)  # not even where parents may be


@pytest.mark.parametrize("name", ["below/data", "./below/data", "below/../below/data", "link"])
def test_data_below_is_read(tmp_path: Path, name: str) -> None:
    path = named(tmp_path, name)
    (tmp_path / "below").mkdir()
    (tmp_path / "disk-flat.vmdk").rename(tmp_path / "below/data")
    (tmp_path / "link").symlink_to("below/data")
    check_file(path, BASE)


def test_an_absolute_name_of_its_own_folder(tmp_path: Path) -> None:
    check_file(named(tmp_path, f"{tmp_path}/disk-flat.vmdk"), BASE)


def test_names_as_people_write_them(tmp_path: Path) -> None:
    folder = tmp_path / "[ds 1] Büro 100%"
    path = write_vmdk(folder, "a b [1] %20 ü 表 ' $(x)", BASE)
    check_file(path, BASE)


def test_the_folder_is_that_of_the_file_behind_a_link(tmp_path: Path) -> None:
    """On ESXi a datastore's name is a link to its number."""
    path = write_vmdk(tmp_path / "5f1-2b/web", "web", BASE)
    (tmp_path / "datastore1").symlink_to("5f1-2b")
    (tmp_path / "web.vmdk").symlink_to(path)
    check_file(tmp_path / "datastore1/web/web.vmdk", BASE)
    check_file(tmp_path / "web.vmdk", BASE)


@pytest.mark.parametrize("kind", ["missing", "folder", "fifo"])
def test_data_that_is_no_file(tmp_path: Path, store: LocalStore, kind: str) -> None:
    path = named(tmp_path, "data")
    if kind == "folder":
        (tmp_path / "data").mkdir()
    elif kind == "fifo":
        os.mkfifo(tmp_path / "data")
    id = "image-file-missing" if kind == "missing" else "source-unreadable"
    assert "data" in refused(store, path, id).message


# Parents -----------------------------------------------------------------------------------------


def opened(store: LocalStore, path: Path, *roots: Path) -> Disk:
    return open_disk(store, str(path), roots=[str(root) for root in roots])


@pytest.mark.parametrize("name", ["../base/web.vmdk", "{}/base/web.vmdk", "baselink/web.vmdk"])
def test_a_parent_elsewhere_is_read_where_it_may_be(
    tmp_path: Path, store: LocalStore, name: str
) -> None:
    vm = tmp_path / "vm"
    write_vmdk(tmp_path / "base", "web", BASE)
    path = child(vm, name.format(tmp_path))
    (vm / "baselink").symlink_to("../base")
    refused(store, path, "image-names-other-file")
    refused(store, path, "image-names-other-file", tmp_path / "bas")
    for root in (tmp_path / "base", tmp_path, Path("/")):
        check(opened(store, path, root), TOP)
    (tmp_path / "root").symlink_to("base")
    check(opened(store, path, tmp_path / "root"), TOP)


def test_the_parents_data_lies_in_the_parents_folder(tmp_path: Path, store: LocalStore) -> None:
    write_vmdk(tmp_path / "base", "web", BASE)
    path = child(tmp_path / "vm", "../base/web.vmdk")
    text = (tmp_path / "base/web.vmdk").read_text()
    (tmp_path / "vm/web-flat.vmdk").write_bytes(BASE)
    (tmp_path / "base/web.vmdk").write_text(text.replace("web-flat", "../vm/web-flat"))
    refused(store, path, "image-names-other-file", tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "/vmfs/volumes/5f1-2b/web/web.vmdk",
        "C:\\VMs\\web\\web.vmdk",
        "D:/VMs/web/web.vmdk",
        "\\\\server\\share\\web.vmdk",
    ],
)
def test_a_parent_by_its_path_on_another_host_is_the_one_beside(
    tmp_path: Path, store: LocalStore, name: str
) -> None:
    path = child(tmp_path, name)
    assert "web.vmdk" in refused(store, path, "image-file-missing", Path("/vmfs")).message
    write_vmdk(tmp_path, "web", BASE)
    for roots in ((), (Path("/vmfs/volumes"),)):
        check(opened(store, path, *roots), TOP)


class Strict(CountingStore):
    """Knows the real path of what is there only, as some servers of SFTP."""

    def real_path(self, path: str) -> str:
        if not os.path.lexists(path):
            raise missing(path)
        return super().real_path(path)


def test_a_root_that_is_not_there_is_none(tmp_path: Path) -> None:
    base = write_vmdk(tmp_path / "base", "web", BASE)
    relative = child(tmp_path / "vm", "../base/web.vmdk")
    with Strict() as store:
        check(open_disk(store, str(relative), roots=["/vmfs", str(tmp_path)]), TOP)
        with pytest.raises(SourceError) as caught:
            open_disk(store, str(relative), roots=["/vmfs"])
        assert caught.value.id == "image-names-other-file"
        base.rename(tmp_path / "vm/web.vmdk")
        (tmp_path / "base/web-flat.vmdk").rename(tmp_path / "vm/web-flat.vmdk")
        moved = child(tmp_path / "vm", "/vmfs/volumes/5f-1/web/web.vmdk")
        for roots in ((), ("/vmfs",), (str(tmp_path),)):
            check(open_disk(store, str(moved), roots=roots), TOP)


def test_a_parent_that_is_there_goes_before_one_beside(tmp_path: Path, store: LocalStore) -> None:
    base = write_vmdk(tmp_path / "base", "web", BASE)
    write_vmdk(tmp_path / "vm", "web", TOP)
    path = child(tmp_path / "vm", str(base))
    assert read(opened(store, path, tmp_path)) == TOP
    base.write_text(base.read_text().replace("CID=00000001", "CID=00000007"))
    refused(store, path, "vmdk-chain-broken", tmp_path)


def test_a_parent_in_none_of_the_roots_is_named(tmp_path: Path, store: LocalStore) -> None:
    base = write_vmdk(tmp_path / "base", "web", BASE)
    error = refused(store, child(tmp_path / "vm", str(base)), "image-names-other-file")
    assert str(base) in error.message


@pytest.mark.parametrize(
    "name", ["web.vmdk\x07", "sub/..", "C:\\x\\..", "x" * 300 + ".vmdk", "../" * 90_000 + "x.vmdk"]
)
def test_odd_names_of_parents(tmp_path: Path, store: LocalStore, name: str) -> None:
    path = child(tmp_path, name)
    with pytest.raises(SourceError) as caught:
        open_disk(store, str(path), roots=["/"])
    assert caught.value.id in ("image-names-other-file", "image-corrupt")
    assert "\x07" not in caught.value.message
    assert len(caught.value.message) < 1000


# What does not fit -------------------------------------------------------------------------------


def test_a_parent_that_changed_since(tmp_path: Path, store: LocalStore) -> None:
    write_vmdk(tmp_path, "web", BASE, cid=99)
    error = refused(store, child(tmp_path, "web.vmdk"), "vmdk-chain-broken")
    assert "top.vmdk" in error.message and "web.vmdk" in error.message


def test_a_chain_without_end(tmp_path: Path, store: LocalStore) -> None:
    write_vmdk(tmp_path, "web", BASE, below=BASE, parent="top.vmdk", cid=1, parent_cid=2)
    error = refused(store, child(tmp_path, "web.vmdk"), "image-corrupt")
    assert "no end" in error.message


def test_a_chain_that_is_too_long(tmp_path: Path, store: LocalStore) -> None:
    for number in range(70):
        write_vmdk(
            tmp_path,
            f"d{number}",
            bytes(512),
            kind="vmfsSparse",
            below=bytes(512),
            parent=f"d{number - 1}.vmdk" if number else None,
            cid=number,
            parent_cid=number - 1 if number else 0xFFFFFFFF,
        )
    refused(store, tmp_path / "d69.vmdk", "image-corrupt")
    assert opened(store, tmp_path / "d40.vmdk").size == 512
    assert len(opened(store, tmp_path / "d40.vmdk").files) == 82


@pytest.mark.parametrize("what", ["web-flat.vmdk", "top-sesparse.vmdk", "raw"])
def test_what_is_no_descriptor(tmp_path: Path, store: LocalStore, what: str) -> None:
    write_vmdk(tmp_path, "web", BASE)
    child(tmp_path, "web.vmdk")
    (tmp_path / "raw").write_bytes(b"")
    refused(store, tmp_path / what, "image-format-wrong")


def test_a_missing_disk(tmp_path: Path, store: LocalStore) -> None:
    refused(store, tmp_path / "web.vmdk", "image-file-missing")


def test_the_version_is_that_of_all_files(tmp_path: Path, store: LocalStore) -> None:
    base = write_vmdk(tmp_path, "web", BASE)
    path = child(tmp_path, "web.vmdk")
    disk = opened(store, path)
    assert [Path(file).name for file in disk.files] == [
        *("top.vmdk", "top-sesparse.vmdk", "web.vmdk", "web-flat.vmdk")
    ]
    assert disk.version == opened(store, path).version
    os.utime(base.with_name("web-flat.vmdk"), ns=(1, 1))
    assert disk.version != opened(store, path).version
