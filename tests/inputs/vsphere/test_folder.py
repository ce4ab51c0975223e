"""Files over HTTPS /folder: what is read, by whom, and what goes wrong on the way."""

from __future__ import annotations

import http.client
import os
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes.tcp_proxy import tcp_proxy
from tests.fakes.vsphere.certificates import certificate
from tests.fakes.vsphere.folder import Fault, Folder
from tests.fakes.vsphere.proxy import Front, serve_front
from tests.vcsim import DESCRIPTOR, Disk, vcsim
from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError
from v2v.extents import Extent
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import serve_recipe
from v2v.inputs._vsphere.folder import FolderStore, open_folder
from v2v.inputs._vsphere.place import VspherePlace
from v2v.inputs._vsphere.web import Limits, Web
from v2v.run import Run
from v2v.types import KiB, MiB
from v2v.vmdk import open_disk

USER, PASSWORD = "root@é", "s3cret & 100% ü"
SIZE = 3 * MiB + 512
CONTENT = random.Random(1).randbytes(SIZE)
DISK = "/vmfs/volumes/datastore1/VM/VM-flat.vmdk"
HASTY = Limits(silence=30.0, patience=0.5, locked=0.1, first_wait=0.01, longest_wait=0.1)
PATIENT = replace(HASTY, patience=60.0)

Open = Callable[..., FolderStore]


class Host:
    """The front alone, without an API behind."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "datastore1"
        self.put("VM/VM-flat.vmdk", CONTENT)
        self.certificate = certificate(folder)
        self.files = Folder(USER, PASSWORD, {"ha-datacenter"}, {"datastore1": self.root})
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD, encoding="utf-8")

    def put(self, name: str, content: bytes) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def serve(self) -> AbstractContextManager[Front]:
        return serve_front(self.files, self.certificate.context)

    def place(self, port: int) -> VspherePlace:
        return VspherePlace(
            scheme="esx",
            server="127.0.0.1",
            port=port,
            user=USER,
            password_file=self.password_file,
            cafile=self.certificate.cafile,
        )


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def front(host: Host) -> Iterator[Front]:
    with host.serve() as front:
        yield front


@pytest.fixture
def place(host: Host, front: Front) -> VspherePlace:
    return host.place(front.server_port)


@pytest.fixture
def opened() -> Iterator[Open]:
    with ExitStack() as stack:

        def opened(place: VspherePlace, **options: object) -> FolderStore:
            given = {"cancel": Cancel(), "limits": HASTY, "request_size": 256 * KiB} | options
            return stack.enter_context(open_folder(place, **given))  # type: ignore[arg-type]

        yield opened


def read(store: FolderStore, path: str = DISK) -> bytes:
    """All of a file, by as many threads as there are connections."""
    file = store.open(path)
    found = bytearray(file.size)
    piece = store.request_size

    def one(offset: int) -> None:
        file.read_into(offset, memoryview(found)[offset : offset + piece])

    with ThreadPoolExecutor(store.parallel) as threads:
        list(threads.map(one, range(0, file.size, piece)))
    return bytes(found)


def test_a_file_is_read_in_parts_over_one_login(host: Host, place: VspherePlace, opened) -> None:
    assert read(opened(place)) == CONTENT
    assert host.files.logins == 1
    assert max(one.length for one in host.files.asked if one.method == "GET") == 256 * KiB
    assert host.files.bytes_sent == SIZE


def test_a_long_read_is_cut_into_requests(host: Host, place: VspherePlace, opened) -> None:
    file = opened(place).open(DISK)
    assert file.read(1, SIZE) == CONTENT[1:]
    assert file.read(SIZE - 10, 100) == CONTENT[-10:]
    assert list(file.extents(512, 1024)) == [Extent(512, 1024)]
    assert [one.length for one in host.files.asked if one.method == "GET"][:2] == [256 * KiB] * 2


def test_requests_through_a_vcenter_are_small(place: VspherePlace) -> None:
    with open_folder(place, cancel=Cancel(), through_vcenter=True) as store:
        assert store.request_size == 2 * MiB
    with open_folder(place, cancel=Cancel()) as store:
        assert store.request_size > 2 * MiB


@pytest.mark.parametrize("name", ["a b", "ü-ключ-字", "[x] (1)", "50% %20", "a+b&c=d?e#f", "'\"\\"])
def test_names_are_what_they_are(host: Host, place: VspherePlace, opened, name: str) -> None:
    host.files.datacenters.add(f"F 0%/{name}")
    host.files.datastores[name] = host.root
    host.put(f"{name}/{name}-flat.vmdk", b"x" * 512)
    store = opened(replace(place, path=f"F 0%/{name}"))
    path = f"/vmfs/volumes/{name}/{name}/{name}-flat.vmdk"
    assert store.real_path(path) == path
    assert read(store, path) == b"x" * 512


def test_a_datastore_may_be_named_by_its_uuid(place: VspherePlace, opened) -> None:
    uuid = "5f3a1b2c-11112222-3333-001122334455"
    store = opened(place, datastores={uuid: "datastore1"})
    assert store.real_path(f"/vmfs/volumes/{uuid}/X/../VM/VM-flat.vmdk") == DISK
    assert store.open(f"/vmfs/volumes/{uuid}/VM/VM-flat.vmdk").size == SIZE


def test_what_is_outside_of_datastores_is_not_asked_for(
    host: Host, place: VspherePlace, opened
) -> None:
    store = opened(place)
    for path in ("/etc/passwd", "/vmfs/volumes/datastore1/../../../etc/passwd", "/vmfs/volumes/x"):
        with pytest.raises(SourceError) as caught:
            store.open(path)
        assert caught.value.id == "image-file-missing"
    assert not host.files.asked


def test_the_version_changes_with_the_file(host: Host, place: VspherePlace, opened) -> None:
    store = opened(place)
    before = store.open(DISK).version
    assert before and before == store.open(DISK).version
    host.put("VM/VM-flat.vmdk", CONTENT + bytes(512))
    assert store.open(DISK).version != before


def test_a_file_that_is_replaced_while_it_is_read(host: Host, place: VspherePlace, opened) -> None:
    """By one of the same size: what was read of the old one does not fit the new one."""
    file = opened(place).open(DISK)
    assert file.read(0, 10) == CONTENT[:10]
    host.put("VM/VM-flat.vmdk", bytes(SIZE))
    os.utime(host.root / "VM/VM-flat.vmdk", (1, 1))
    with pytest.raises(SourceError) as caught:
        file.read(SIZE - 10, 10)
    assert caught.value.id == "source-changed-while-copied"


def test_a_session_that_ended_is_renewed_once(host: Host, place: VspherePlace, opened) -> None:
    store = opened(place)
    file = store.open(DISK)
    for _ in range(3):
        host.files.expire_sessions()
        assert read(store) == CONTENT
    assert file.read(0, 10) == CONTENT[:10]
    assert host.files.logins == 4


def test_what_is_lost_is_asked_for_again(host: Host, place: VspherePlace, opened) -> None:
    cut, busy = Fault(cut=1000), Fault(status=503)
    host.files.faults.extend([cut, busy, Fault(cut=0), Fault(status=500), cut, busy, cut])
    assert read(opened(place, limits=PATIENT)) == CONTENT
    assert not host.files.faults


def test_connections_that_break_are_made_anew(host: Host, front: Front, opened) -> None:
    with tcp_proxy(front.server_port) as wire:
        store = opened(host.place(wire.port), limits=PATIENT)
        file = store.open(DISK)
        assert file.read(0, 10) == CONTENT[:10]
        wire.cut()
        assert file.read(10, 10) == CONTENT[10:20]
        wire.cut_after(MiB)
        assert read(store) == CONTENT


def test_a_server_that_ends_in_the_middle_is_told_in_time(host: Host, opened) -> None:
    with host.serve() as front:
        file = opened(host.place(front.server_port)).open(DISK)
        assert file.read(0, 10) == CONTENT[:10]
    with pytest.raises(SourceError) as caught:
        file.read(0, 10)
    assert caught.value.id == "source-read"
    assert "refused" in caught.value.message


def test_a_server_that_says_nothing_is_given_up(host: Host, place: VspherePlace, opened) -> None:
    file = opened(place).open(DISK)
    host.files.always = Fault(hang=True)
    file._web._limits = replace(HASTY, silence=1.5)  # by now: it answers the first question
    for one in file._web._all:
        one.close()
    with pytest.raises(SourceError) as caught:
        file.read(0, 10)
    assert "timed out" in caught.value.message


def test_a_read_is_cancelled_while_it_waits(host: Host, place: VspherePlace, opened) -> None:
    cancel = Cancel()
    file = opened(place, cancel=cancel, limits=Limits()).open(DISK)
    host.files.always = Fault(hang=True)
    waiting = threading.Thread(target=lambda: host.files.hanging.wait(60) and cancel.cancel())
    waiting.start()
    with pytest.raises(Cancelled):
        file.read(0, 10)
    waiting.join()


def test_a_read_that_is_cancelled_while_it_connects_asks_for_nothing(
    host: Host, place: VspherePlace, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no connection yet that could be broken, and the server may be silent for long."""
    cancel = Cancel()
    file = opened(place, cancel=cancel, limits=Limits()).open(DISK)
    host.files.always = Fault(status=404)
    connect = Web._connect

    def late(web: Web, connection: http.client.HTTPSConnection) -> None:
        cancel.cancel()
        connect(web, connection)

    monkeypatch.setattr(Web, "_connect", late)
    asked = len(host.files.asked)
    for one in file._web._all:
        one.close()
    with pytest.raises(Cancelled):
        file.read(0, 10)
    assert len(host.files.asked) == asked


LIES = {
    "another part": Fault(shift=512),
    "another size": Fault(size=SIZE + 1),
    "a size of other digits": Fault(size=10**30),
    "all of it": Fault(whole=True),
}


@pytest.mark.parametrize("fault", LIES.values(), ids=LIES.keys())
def test_a_server_that_lies_is_not_believed(
    host: Host, place: VspherePlace, opened, fault: Fault
) -> None:
    file = opened(place, limits=PATIENT).open(DISK)
    host.files.always = fault
    with pytest.raises(SourceError) as caught:
        file.read(0, 1024)
    assert caught.value.id == "source-read"


STATUSES = {404: "image-file-missing", 403: "source-unreadable", 423: "source-locked"} | {
    409: "source-locked",
    500: "source-locked",
    503: "source-read",
    302: "source-read",
}


@pytest.mark.parametrize(("status", "id"), STATUSES.items())
def test_a_status_that_stays_is_one_clear_error(
    host: Host, place: VspherePlace, opened, status: int, id: str
) -> None:
    store = opened(place)
    file = store.open(DISK)
    host.files.always = Fault(status=status)
    with pytest.raises(SourceError) as caught:
        file.read(0, 10)
    assert caught.value.id == id
    assert DISK in caught.value.message
    assert file.size == SIZE


def test_a_locked_file_is_told_when_it_is_opened(host: Host, place: VspherePlace, opened) -> None:
    host.files.locked.add("VM/VM-flat.vmdk")
    with pytest.raises(SourceError) as caught:
        opened(place).open(DISK)
    assert caught.value.id == "source-locked"


def test_a_server_that_is_busy_from_the_start_is_not_waited_for_long(
    host: Host, place: VspherePlace, opened
) -> None:
    host.files.locked.add("VM/VM-flat.vmdk")
    host.files.locked_status = 503
    with pytest.raises(SourceError, match="503") as caught:
        opened(place, limits=replace(HASTY, patience=3600.0, first=0.1)).open(DISK)
    assert caught.value.id == "source-read"


def test_a_wrong_password_is_told_and_not_shown(
    host: Host, place: VspherePlace, opened, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    wrong = tmp_path / "wrong"
    wrong.write_text("not-the-secret")
    with pytest.raises(SourceError) as caught:
        opened(replace(place, password_file=wrong)).open(DISK)
    assert caught.value.id == "vsphere-auth"
    shown = f"{caught.value.message} {caught.value.hint} {caplog.text}"
    assert "not-the-secret" not in shown


def test_a_wrong_password_is_tried_once(host: Host, place: VspherePlace, opened) -> None:
    store = opened(place)
    file = store.open(DISK)
    host.files.password = "another"
    host.files.expire_sessions()
    before = len([one for one in host.files.asked if one.by_password])
    for _ in range(5):
        with pytest.raises(SourceError) as caught:
            file.read(0, 10)
        assert caught.value.id == "vsphere-auth"
    assert len([one for one in host.files.asked if one.by_password]) == before + 1


def test_secrets_are_not_logged(
    host: Host, place: VspherePlace, opened, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    host.files.faults.append(Fault(status=503))
    assert read(opened(place)) == CONTENT
    assert "again in" in caplog.text
    for secret in (PASSWORD, "Basic ", "vmware_soap_session", *host.files.sessions):
        assert secret not in caplog.text


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
def test_a_server_is_known_by_its_thumbprint(
    host: Host, place: VspherePlace, opened, algorithm: str
) -> None:
    known = replace(place, cafile=None, thumbprint=host.certificate.thumbprint(algorithm))
    assert read(opened(known)) == CONTENT


def test_no_password_goes_to_a_server_that_is_not_known(
    host: Host, front: Front, place: VspherePlace, opened, tmp_path: Path
) -> None:
    other = certificate(tmp_path, name="other")
    known = replace(place, cafile=None, thumbprint=other.thumbprint())
    for one in (replace(place, cafile=None), replace(place, cafile=other.cafile), known):
        with pytest.raises(SourceError) as caught:
            opened(one).open(DISK)
        assert caught.value.id == "tls-untrusted"
        seen = host.certificate.thumbprint()
        assert seen in f"{caught.value.message} {caught.value.hint}"
    assert not host.files.asked


def test_an_expired_certificate_is_not_trusted_and_may_be_by_its_thumbprint(
    host: Host, front: Front, place: VspherePlace, opened, tmp_path: Path
) -> None:
    expired = certificate(tmp_path, name="expired", expired=True)
    front.certificate = expired.context
    with pytest.raises(SourceError) as caught:
        opened(replace(place, cafile=expired.cafile)).open(DISK)
    assert caught.value.id == "tls-untrusted"
    assert "expired" in caught.value.message
    assert read(opened(replace(place, thumbprint=expired.thumbprint()))) == CONTENT


def test_a_certificate_of_another_host_is_not_trusted(
    host: Host, front: Front, place: VspherePlace, opened, tmp_path: Path
) -> None:
    other = certificate(tmp_path, name="other", address="127.0.0.2")
    front.certificate = other.context
    with pytest.raises(SourceError, match=r"127\.0\.0\.1") as caught:
        opened(replace(place, cafile=other.cafile)).open(DISK)
    assert caught.value.id == "tls-untrusted"
    with pytest.raises(SourceError, match="127"):  # to say which CA counts is to verify
        opened(replace(place, cafile=other.cafile, verify=False)).open(DISK)
    anybody = replace(place, cafile=None, verify=False)
    assert read(opened(anybody)) == CONTENT


def test_a_wrong_address_is_told_at_once(host: Host, opened) -> None:
    with host.serve() as front:
        port = front.server_port
    with pytest.raises(SourceError) as caught:
        opened(host.place(port), limits=Limits()).open(DISK)
    assert caught.value.id == "vsphere-unreachable"


def test_proxies_of_the_environment_are_ignored(
    place: VspherePlace, opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    assert read(opened(place)) == CONTENT


def test_a_vm_with_a_snapshot_is_read_from_a_vcenter_and_served(
    tmp_path: Path, opened, run: Run, need_tool
) -> None:
    content = CONTENT[: 2 * MiB]
    with vcsim(tmp_path / "vc", folders=1) as vc:
        vm = vc.create_vm("web [1] 5% ü", disks=[Disk(content=content)])
        vm.snapshot()
        place = VspherePlace(
            scheme="vpx",
            server=vc.host,
            port=vc.port,
            user=vc.user,
            path=vc.datacenter,
            password_file=vc.password_file,
            thumbprint=vc.thumbprint(),
        )
        path = f"/vmfs/volumes/datastore1/{vm.name}/{vm.name}-000001.vmdk"
        disk = open_disk(opened(place), path)
        found = bytearray(disk.size)
        disk.read_into(0, memoryview(found))
        assert vc.datacenter == "F0/DC0"
        assert len(disk.files) == 4
        assert found == content
        recipe = Recipe(path, (), folder=place, through_vcenter=True)
        target = tmp_path / "copy"
        with serve_recipe(recipe, run, "disk0") as endpoint:
            assert endpoint.request_size == 2 * MiB
            argv = [need_tool("nbdcopy"), str(endpoint.uri), str(target)]
            subprocess.run(argv, check=True, timeout=60)
        assert target.read_bytes() == content


def test_who_reads_a_served_disk_hears_why_it_cannot_be_read(
    host: Host, place: VspherePlace, run: Run
) -> None:
    descriptor = DESCRIPTOR.format(sectors=SIZE // 512, flat="VM-flat.vmdk")
    host.put("VM/VM.vmdk", descriptor.encode())
    host.files.locked.add("VM/VM-flat.vmdk")
    recipe = Recipe(DISK.replace("-flat", ""), (), folder=place)
    with pytest.raises(SourceError) as caught, serve_recipe(recipe, run, "disk0"):
        pass
    assert caught.value.id == "source-locked"
