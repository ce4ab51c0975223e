"""VMs of VMware in a store: which files they may name, and which VMs there are.

What a store of another host adds is in test_vmx_ssh; here it is one of this host.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from fixtures.vmfs import add_datastore, make_volumes
from fixtures.vmx import disk, write_chain, write_vm
from tests.fakes.disks import disk_content
from v2v.errors import V2VError
from v2v.events import Event, Warned
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._vmx import listing
from v2v.inputs._vmx.datastores import find_vms
from v2v.inputs._vmx.places import RemotePlace
from v2v.inputs._vmx.remote import RemoteFolder
from v2v.inputs._vmx.vm import read_folder
from v2v.run import Run
from v2v.types import Firmware, GuestSummary, MiB, Source
from v2v.vmdk import LocalStore

CONTENT = disk_content(1)
PLACE = RemotePlace(SshPlace(host="esxi", user="root"))
READ = Callable[..., Source]


@pytest.fixture
def store() -> Iterator[LocalStore]:
    with LocalStore() as store:
        yield store


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    return make_volumes(tmp_path)


@pytest.fixture
def datastore(volumes: Path) -> Path:
    return add_datastore(volumes, "datastore1")


@pytest.fixture
def read(store: LocalStore, run: Run) -> READ:
    def read(path: Path, snapshot: str | None = None, allowed: tuple[str, ...] = ()) -> Source:
        return read_folder(RemoteFolder(store, PLACE, str(path), allowed), snapshot, run)

    return read


@pytest.fixture
def warned(events_seen: list[Event]) -> Callable[[], set[str]]:
    return lambda: {event.id for event in events_seen if isinstance(event, Warned)}


def vm(folder: Path, entries: dict[str, str] | None = None, **more: object) -> Path:
    """A VM with a good disk at scsi0:0, and whatever else its file says."""
    write_vmdk(folder, "web", CONTENT)
    return write_vm(folder, disk("scsi0:0", "web.vmdk") | (entries or {}), **more)  # type: ignore[arg-type]


def refused(read: READ, path: Path, id: str, *args: object) -> V2VError:
    with pytest.raises(V2VError) as caught:
        read(path, *args)
    assert caught.value.id == id, caught.value.message
    assert caught.value.hint
    return caught.value


# One VM -------------------------------------------------------------------------------------------


def test_a_vm_has_addresses_as_the_user_wrote_them(datastore: Path, read: READ, warned) -> None:
    """Not those of the UUID that the datastore's name is a link to."""
    path = vm(datastore / "My VM [1] 50%", {"nvram": "web.nvram", "displayName": "Wéb"})
    (path.parent / "web.nvram").touch()
    source = read(path)
    folder = f"ssh://root@esxi{datastore}/My%20VM%20%5B1%5D%2050%25"
    assert (source.name, source.nvram) == ("Wéb", f"{folder}/web.nvram")
    (found,) = source.disks
    assert (found.location, found.size) == (f"{folder}/web.vmdk", len(CONTENT))
    assert found.details["modified"]
    assert warned() == set()


def test_a_folder_means_the_vm_in_it(datastore: Path, read: READ) -> None:
    path = vm(datastore / "web")
    assert read(path.parent) == read(path)
    (path.parent / "other.vmx").touch()
    assert "other.vmx, web.vmx" in refused(read, path.parent, "vmx-folder").message


@pytest.mark.parametrize("name", ["web/gone.vmx", "gone/web.vmx", "gone"])
def test_what_is_not_there(datastore: Path, read: READ, name: str) -> None:
    vm(datastore / "web")
    error = refused(read, datastore / name, "source-missing")
    assert f"ssh://root@esxi{datastore}/{name}" in error.message
    assert "v2v list -ic esx+ssh://root@esxi" in str(error.hint)


def test_a_link_to_a_vmx_means_its_folder(datastore: Path, read: READ) -> None:
    path = vm(datastore / "web")
    (datastore / "link.vmx").symlink_to("web/web.vmx")
    assert read(datastore / "link.vmx").disks[0].location.endswith("/web/web.vmdk")
    assert path.exists()


def test_a_disk_on_another_datastore_is_read_and_told(
    volumes: Path, datastore: Path, read: READ, warned
) -> None:
    other = add_datastore(volumes, "other")
    write_vmdk(other / "web", "data", CONTENT)
    path = vm(datastore / "web", disk("scsi0:1", f"{other}/web/data.vmdk"))
    assert read(path).disks[1].location == f"ssh://root@esxi{other}/web/data.vmdk"
    assert warned() == {"vmx-disk-elsewhere"}


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("{outside}", "image-names-other-file"),
        ("../../../../secret.vmdk", "image-names-other-file"),
        ("link.vmdk", "image-names-other-file"),
        ("a|00b", "image-names-other-file"),
        ("gone.vmdk", "vmx-disk-missing"),
        ("", "vmx-disk-missing"),
        ("{volumes}/1234/x/gone.vmdk", "vmx-disk-missing"),
        ("/vmfs/volumes/1234/x/gone.vmdk", "image-names-other-file"),
        ("C:\\VMs\\gone.vmdk", "vmx-disk-missing"),
        ("web-flat.vmdk", "image-format-wrong"),
        ("a" * 5000, "image-names-other-file"),
    ],
)
def test_disks_that_are_refused(
    datastore: Path, tmp_path: Path, read: READ, name: str, id: str
) -> None:
    outside = write_vmdk(tmp_path, "secret", CONTENT)
    path = vm(datastore / "web")
    (path.parent / "link.vmdk").symlink_to(outside)
    name = name.format(outside=outside, volumes=datastore.parent)
    text = f'scsi0:1.present = "TRUE"\nscsi0:1.fileName = "{name}"\n'
    path.write_text(path.read_text() + text)
    refused(read, path, id)


def test_a_disk_elsewhere_may_be_allowed(datastore: Path, tmp_path: Path, read: READ) -> None:
    outside = write_vmdk(tmp_path / "more", "data", CONTENT)
    path = vm(datastore / "web", disk("scsi0:1", str(outside)))
    refused(read, path, "image-names-other-file")
    assert len(read(path, None, (str(outside.parent),)).disks) == 2


def test_outside_of_datastores_only_the_vms_own_folder_counts(tmp_path: Path, read: READ) -> None:
    """A backup of a VM on any host; what else is there is none of the VM's business."""
    other = write_vmdk(tmp_path / "other", "data", CONTENT)
    path = vm(tmp_path / "web", disk("scsi0:1", str(other)))
    refused(read, path, "image-names-other-file")
    assert read(vm(tmp_path / "web")).disks[0].size == len(CONTENT)


@pytest.mark.parametrize("word", ["/vmfs/volumes/123-4/web/data.vmdk", "D:\\VMs\\web\\data.vmdk"])
def test_a_path_that_is_not_there_means_the_file_beside(
    datastore: Path, read: READ, warned, word: str
) -> None:
    path = vm(datastore / "web", disk("scsi0:1", word))
    write_vmdk(path.parent, "data", CONTENT)
    assert read(path).disks[1].location.endswith("/web/data.vmdk")
    assert warned() == {"vmx-disk-moved"}


def test_data_without_its_descriptor(datastore: Path, read: READ) -> None:
    path = vm(datastore / "web")
    (path.parent / "web.vmdk").unlink()
    assert "web-flat.vmdk is only the data" in str(refused(read, path, "vmx-disk-missing").hint)


@pytest.mark.parametrize("scheme", ["vsan", "vvol"])
def test_data_that_is_no_file(datastore: Path, read: READ, scheme: str) -> None:
    path = vm(datastore / "web")
    text = path.with_name("web.vmdk").read_text()
    path.with_name("web.vmdk").write_text(text.replace("web-flat.vmdk", f"{scheme}://52af-1b"))
    assert "-it vddk" in str(refused(read, path, "image-unsupported").hint)


def test_a_chain_that_is_broken(datastore: Path, read: READ) -> None:
    folder = datastore / "web"
    top = write_chain(folder, [CONTENT, disk_content(2)])[-1]
    write_vmdk(folder, "web", CONTENT, cid=77)
    refused(read, write_vm(folder, disk("scsi0:0", top.name)), "vmdk-chain-broken")


@pytest.mark.parametrize("sign", ["web.vmx.lck", ".lck-3409000000000000", "web-1a2b.vswp"])
def test_a_vm_that_runs(datastore: Path, read: READ, sign: str) -> None:
    folder = datastore / "web"
    top = write_chain(folder, [CONTENT, disk_content(2)])[-1]
    entries = disk("scsi0:0", top.name)
    path = write_vm(folder, entries, snapshots=[("old", {"scsi0:0": "web.vmdk"})])
    (folder / sign).touch()
    error = refused(read, path, "source-running")
    assert error.message.endswith(f"{path}: the VM is running: {sign} is there")
    assert "-io snapshot=NAME" in str(error.hint)
    assert read(path, "old").disks[0].location.endswith("/web.vmdk")


def test_a_list_of_snapshots_that_is_a_link_to_elsewhere_is_not_read(
    datastore: Path, tmp_path: Path, read: READ, events_seen: list[Event]
) -> None:
    (tmp_path / "secret").write_text("root:hash")
    path = vm(datastore / "web")
    path.with_suffix(".vmsd").symlink_to(tmp_path / "secret")
    assert read(path).snapshots == ()
    assert "hash" not in str(events_seen)
    refused(read, path, "image-names-other-file", "old")


# Many VMs -----------------------------------------------------------------------------------------


@pytest.fixture
def found(store: LocalStore, volumes: Path, run: Run) -> Callable[[], list[str]]:
    def found(path: Path = volumes) -> list[str]:
        return [str(Path(one.path).relative_to(volumes)) for one in find_vms(store, str(path), run)]

    return found


def test_vms_are_found_once_by_the_names_of_their_datastores(volumes: Path, found) -> None:
    for name in ("b store", "a%store"):
        datastore = add_datastore(volumes, name)
        vm(datastore / "web")
    (volumes / "again").symlink_to("a%store")
    (volumes / "gone").symlink_to("nowhere")
    (volumes / "unnamed/tpl").mkdir(parents=True)
    (volumes / "unnamed/tpl/x.vmtx").touch()
    (volumes / "unnamed/no.vmx").mkdir()
    assert found() == ["a%store/web/web.vmx", "b store/web/web.vmx", "unnamed/tpl/x.vmtx"]
    assert found(volumes / "b store") == ["b store/web/web.vmx"]


def test_folders_of_vsan_are_found_by_the_names_of_their_vms(datastore: Path, found) -> None:
    vm(datastore / "6a51-uuid").rename(datastore / "6a51-uuid/mail.vmx")
    (datastore / "mail").symlink_to("6a51-uuid")
    assert found() == ["datastore1/mail/mail.vmx"]


@pytest.mark.parametrize("name", [b"a\xff", b"a\nb", b"a\x1b[31m"])
def test_names_that_no_address_can_hold_are_left_out(
    datastore: Path, found, read: READ, name: bytes
) -> None:
    folder = datastore / os.fsdecode(name)
    folder.mkdir()
    (folder / "web.vmx").touch()
    (datastore / os.fsdecode(name + b".vmx")).touch()
    assert found() == []
    refused(read, datastore, "vmx-folder")


def test_links_out_of_a_datastore_are_not_followed(datastore: Path, tmp_path: Path, found) -> None:
    vm(tmp_path / "elsewhere")
    (datastore / "web").symlink_to(tmp_path / "elsewhere")
    assert found() == []


def name_found(store: LocalStore, volumes: Path, word: str, run: Run) -> str:
    vms = find_vms(store, str(volumes), run)
    one = listing.find_by_name(store, PLACE, vms, word, run)
    return str(Path(one.path).relative_to(volumes))


def test_a_vm_is_found_by_what_it_calls_itself_then_by_its_file_then_by_its_folder(
    volumes: Path, datastore: Path, store: LocalStore, run: Run
) -> None:
    vm(datastore / "web", {"displayName": "mail"})
    vm(datastore / "mail", {"displayName": "Café"}, name="other")
    assert name_found(store, volumes, "mail", run) == "datastore1/web/web.vmx"
    assert name_found(store, volumes, "web", run) == "datastore1/web/web.vmx"
    assert name_found(store, volumes, "Cafe\u0301", run) == "datastore1/mail/other.vmx"
    (datastore / "web/web.vmx").write_text("no key\n")
    assert name_found(store, volumes, "mail", run) == "datastore1/mail/other.vmx"


def test_names_of_two_vms_and_of_none(
    volumes: Path, datastore: Path, store: LocalStore, run: Run
) -> None:
    paths = [vm(datastore / name, {"displayName": "db"}) for name in ("one", "two")]
    with pytest.raises(V2VError) as caught:
        name_found(store, volumes, "db", run)
    assert caught.value.id == "vmx-vm-ambiguous"
    assert all(str(path) in caught.value.message for path in paths)
    with pytest.raises(V2VError) as caught:
        name_found(store, volumes, "dbx", run)
    assert (caught.value.id, caught.value.hint) == ("vmx-vm-unknown", "did you mean db?")


@pytest.mark.parametrize(
    ("word", "path"),
    [
        ("/vmfs/volumes/ds/a/a.vmx", "/vmfs/volumes/ds/a/a.vmx"),
        ("[my ds] a/a.vmx", "/vmfs/volumes/my ds/a/a.vmx"),
        ("[my ds]", None),
        ("web", None),
    ],
)
def test_words_that_are_paths(word: str, path: str | None) -> None:
    assert listing.path_of(word, "/vmfs/volumes") == path


@pytest.fixture
def listed(store: LocalStore, volumes: Path, run: Run) -> Callable[[], dict[str, GuestSummary]]:
    def listed() -> dict[str, GuestSummary]:
        found = find_vms(store, str(volumes), run)
        return {one.name: one for one in listing.summaries(store, PLACE, found, run)}

    return listed


def test_a_listing_tells_of_each_vm(datastore: Path, listed, warned) -> None:
    folder = datastore / "web"
    top = write_chain(folder, [CONTENT, disk_content(2)])[-1]
    entries = disk("scsi0:0", top.name) | {
        "displayName": "Web",
        "firmware": "efi",
        "ctkEnabled": "TRUE",
        "numvcpus": "2",
        "guestOS": "debian12-64",
    }
    path = write_vm(folder, entries, snapshots=[("old", {"scsi0:0": "web.vmdk"})])
    (one,) = listed().values()
    files = [file for file in folder.iterdir() if file.suffix == ".vmdk"]
    assert one == GuestSummary(
        name="Web",
        id=str(path),
        where=str(folder),
        power="off",
        disks=1,
        provisioned=len(CONTENT),
        used=sum(file.stat().st_blocks * 512 for file in files),
        firmware=Firmware.UEFI,
        cbt=True,
        snapshots=("old",),
        os="debian12-64",
        memory=1024 * MiB,
        vcpus=2,
        findings=one.findings,
    )
    assert one.convertible
    assert [finding.id for finding in one.findings] == ["snapshots"]
    assert warned() == set()


def test_a_listing_tells_what_is_in_the_way(datastore: Path, listed, warned) -> None:
    vm(datastore / "run", {"displayName": "runs"}).with_suffix(".vmx.lck").touch()
    vm(datastore / "sus", {"displayName": "sleeps", "checkpoint.vmState": "x.vmss"})
    rdm = vm(datastore / "rdm", {"displayName": "rdm"}).with_name("web.vmdk")
    rdm.write_text(
        rdm.read_text().replace("VMFS", "VMFSRDM").replace('"vmfs"', '"vmfsRawDeviceMap"')
    )
    vm(datastore / "enc", {"displayName": "enc", "encryption.data": "x"})
    vm(datastore / "ind", {"displayName": "ind", "scsi0:0.mode": "independent-persistent"})
    vm(datastore / "gone", {"displayName": "gone"}).with_name("web.vmdk").unlink()
    (datastore / "bad").mkdir()
    (datastore / "bad/bad.vmx").write_text("no key\n")
    found = listed()
    told = {name: (one.power, one.convertible, _ids(one)) for name, one in found.items()}
    assert told == {
        "runs": ("on", True, ["source-running"]),
        "sleeps": ("suspended", True, ["source-suspended"]),
        "rdm": ("off", False, ["image-unsupported"]),
        "web": ("unknown", False, ["vmx-encrypted"]),
        "ind": ("off", True, ["disk-independent"]),
        "gone": ("off", False, ["vmx-disk-missing"]),
        "bad": ("unknown", False, ["vmx-invalid"]),
    }
    assert found["rdm"].provisioned is None
    assert warned() == set()


def _ids(guest: GuestSummary) -> list[str]:
    return [one.id for one in guest.findings]
