"""-i vsphere against a simulated vCenter and ESXi host: what it tells of VMs, what it refuses."""

from __future__ import annotations

import os
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from tests.fakes.disks import disk_content
from tests.fakes.vsphere.certificates import certificate
from tests.vcsim import Disk, Vcsim, Vm, vcsim
from v2v.cancel import Cancel
from v2v.errors import Cancelled, UsageError, V2VError
from v2v.events import Event, Warned
from v2v.inputs._ssh.place import SshReader
from v2v.inputs._vsphere.connect import connect
from v2v.inputs._vsphere.options import Api, VsphereOptions
from v2v.inputs._vsphere.running import Running
from v2v.inputs._vsphere.uri import read_place
from v2v.inputs.vsphere import VsphereInput
from v2v.password import forget_password
from v2v.process import PASSWORD_VARIABLE
from v2v.run import Run
from v2v.types import Firmware, Source

VMX = """\
.encoding = "UTF-8"
config.version = "8"
virtualHW.version = "19"
displayName = "plain"
firmware = "efi"
memSize = "1024"
numvcpus = "2"
guestOS = "debian10-64"
uuid.bios = "56 4d 36 d7 33 af 02 3c-6b 8a 6f 0c 68 eb 49 3b"
scsi0.present = "TRUE"
scsi0.virtualDev = "pvscsi"
scsi0:0.present = "TRUE"
scsi0:0.deviceType = "scsi-hardDisk"
scsi0:0.fileName = "plain.vmdk"
ethernet0.present = "TRUE"
ethernet0.virtualDev = "vmxnet3"
ethernet0.networkName = "VM Network"
ethernet0.addressType = "static"
ethernet0.address = "00:50:56:01:02:03"
"""


@pytest.fixture(scope="module")
def vc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vc"), folders=1) as vc:
        yield vc


@pytest.fixture(scope="module")
def plain(vc: Vcsim) -> Vm:
    return vc.create_vm("plain", disks=[Disk(content=disk_content(1))])


def made(vc: Vcsim, guest: str, **options: Any) -> VsphereInput:
    told = {"password_file": vc.password_file, "cafile": vc.cafile} | options
    told.setdefault("uri", f"vpx://{vc.user.replace('@', '%40')}@{vc.host}:{vc.port}")
    return VsphereInput(VsphereOptions(**told), [guest])


def refused(input: VsphereInput, run: Run, id: str) -> V2VError:
    with pytest.raises(V2VError) as caught:
        input.read_source(run)
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    return caught.value


# Who is asked -------------------------------------------------------------------------------------


def test_a_wrong_password(vc: Vcsim, run: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("s3cret-word\n")
    error = refused(made(vc, "plain", password_file=wrong), run, "vsphere-auth")
    assert vc.user in error.message
    assert "s3cret-word" not in error.message + str(error.hint)


def test_no_password_at_all(vc: Vcsim, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("v2v.password.TERMINAL", Path("/nowhere"))
    error = refused(made(vc, "plain", password_file=None), run, "vsphere-auth")
    assert "no password" in error.message and "-ip" in str(error.hint)


def test_a_certificate_that_nobody_vouches_for(vc: Vcsim, run: Run) -> None:
    error = refused(made(vc, "plain", cafile=None), run, "tls-untrusted")
    assert "-io thumbprint" in str(error.hint)


def test_another_certificate_than_the_one_of_the_thumbprint(vc: Vcsim, run: Run) -> None:
    options = {"cafile": None, "thumbprint": "ab" * 32}
    error = refused(made(vc, "plain", **options), run, "tls-untrusted")
    assert vc.thumbprint().replace(":", "").upper() in error.message.replace(":", "")


def test_a_cafile_that_is_none(vc: Vcsim, run: Run) -> None:
    refused(made(vc, "plain", cafile=vc.password_file), run, "tls-cafile")


@pytest.mark.parametrize("algorithm", ["sha256", "sha1"])
def test_a_thumbprint_vouches(algorithm: str, vc: Vcsim, plain: Vm, run: Run) -> None:
    input = made(vc, "plain", cafile=None, thumbprint=vc.thumbprint(algorithm))
    assert input.read_source(run).name == "plain"


def test_no_verify_trusts_anybody(vc: Vcsim, plain: Vm, run: Run) -> None:
    uri = made(vc, "").options.uri + "?no_verify=1"
    assert made(vc, "plain", uri=uri, cafile=None).read_source(run).name == "plain"


def test_a_cafile_is_gone_by_whatever_the_address_says(
    vc: Vcsim, plain: Vm, run: Run, tmp_path: Path
) -> None:
    """Addresses that were written for libvirt often end in no_verify=1."""
    uri = made(vc, "").options.uri + "?no_verify=1"
    other = certificate(tmp_path).cafile
    refused(made(vc, "plain", uri=uri, cafile=other), run, "tls-untrusted")


def test_nobody_answers(vc: Vcsim, run: Run) -> None:
    uri = made(vc, "").options.uri.replace(str(vc.port), "1")
    refused(made(vc, "plain", uri=uri), run, "vsphere-unreachable")


def test_the_password_of_the_environment(
    vc: Vcsim, plain: Vm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PASSWORD_VARIABLE, vc.password)
    try:
        assert made(vc, "plain", password_file=None).read_source(run).name == "plain"
        assert PASSWORD_VARIABLE not in os.environ
    finally:
        forget_password(PASSWORD_VARIABLE)  # other tests are in the same process


def test_a_session_that_expires_is_begun_again(vc: Vcsim, plain: Vm) -> None:
    options = made(vc, "").options
    place = read_place(options.uri, password_file=options.password_file, cafile=options.cafile)
    with connect(place, cancel=Cancel()) as session:
        session.call(session.content.sessionManager.Logout)
        assert session.call(lambda: session.content.rootFolder.name)


def test_a_cancelled_job_asks_nobody(vc: Vcsim, tmp_path: Path) -> None:
    cancel = Cancel()
    cancel.cancel()
    with (
        Run.create(tmp_path / "jobs", "test", cancel=cancel) as cancelled,
        pytest.raises(Cancelled),
    ):
        made(vc, "plain").read_source(cancelled)


@pytest.fixture
def password(tmp_path: Path) -> Path:
    """Without one it is asked for, where the tests run at a terminal."""
    (tmp_path / "password").write_text("x\n")
    return tmp_path / "password"


def test_a_host_that_does_not_answer_ends_with_the_job(run: Run, password: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def heard() -> None:
            with server.accept()[0]:
                run.cancel.cancel()

        thread = threading.Thread(target=heard)
        thread.start()
        uri = f"esx://root@127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Cancelled):
            options = VsphereOptions(uri=uri, password_file=password)
            VsphereInput(options, ["x"]).read_source(run)
        thread.join()


def test_a_server_that_tells_what_pyvmomi_does_not_know(
    vc: Vcsim, plain: Vm, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rewrite(request: bytes, answer: bytes) -> bytes:
        return answer.replace(b"VirtualVmxnet3", b"VirtualVmxnet9")

    monkeypatch.setattr(vc.front, "rewrite", rewrite)
    error = refused(made(vc, "plain"), run, "vsphere-unreachable")
    assert "VirtualVmxnet9" in error.message


def test_something_else_answers(run: Run, tmp_path: Path, password: Path) -> None:
    made_for = certificate(tmp_path)
    with serve_garbage(made_for.context) as port:
        options = VsphereOptions(
            uri=f"esx://root@127.0.0.1:{port}", cafile=made_for.cafile, password_file=password
        )
        refused(VsphereInput(options, ["x"]), run, "vsphere-unreachable")


@contextmanager
def serve_garbage(context: ssl.SSLContext) -> Iterator[int]:
    """A web server that answers all with what is no XML."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>It works!<br>")

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


# Which VM -----------------------------------------------------------------------------------------


def test_an_unknown_vm(vc: Vcsim, plain: Vm, run: Run) -> None:
    error = refused(made(vc, "plane"), run, "vsphere-vm-unknown")
    assert "did you mean plain?" in str(error.hint)


def test_a_vm_is_found_by_path_uuid_and_reference(vc: Vcsim, plain: Vm, run: Run) -> None:
    expected = made(vc, "plain").read_source(run)
    ways = ["/F0/DC0/vm/plain", str(plain.api.config.instanceUuid), str(plain.api._moId)]
    for word in ways:
        assert made(vc, word).read_source(run) == expected
    assert expected.disks[0].location == (
        f"https://{vc.host}:{vc.port}/folder/plain/plain.vmdk?dcPath=F0/DC0&dsName=datastore1"
    )


def test_another_host_in_the_address(vc: Vcsim, plain: Vm, run: Run) -> None:
    uri = made(vc, "").options.uri
    assert made(vc, "plain", uri=f"{uri}/F0/DC0/DC0_H0").read_source(run).name == "plain"
    error = refused(made(vc, "plain", uri=f"{uri}/F0/DC0/DC0_C0"), run, "vsphere-vm-unknown")
    assert "F0/DC0/DC0_H0" in error.message


# Whether it stands still --------------------------------------------------------------------------


def test_a_vm_that_runs(vc: Vcsim, run: Run) -> None:
    vc.create_vm("runs").power(on=True)
    error = refused(made(vc, "runs"), run, "source-running")
    assert "-io snapshot" in str(error.hint) and "-io running" in str(error.hint)


def test_a_vm_that_is_suspended(vc: Vcsim, run: Run) -> None:
    vm = vc.create_vm("sleeps")
    vm.power(on=True)
    vm.api.Suspend()
    refused(made(vc, "sleeps"), run, "source-suspended")


def test_a_snapshot_is_read_while_the_vm_runs(vc: Vcsim, run: Run) -> None:
    vm = vc.create_vm("snaps", disks=[Disk(content=disk_content(1))])
    vm.snapshot("old")
    vm.snapshot("new")
    vm.power(on=True)
    source = made(vc, "snaps", snapshot="old").read_source(run)
    assert source.snapshots == ("old", "new")
    assert [disk.details["path"] for disk in source.disks] == [
        "/vmfs/volumes/datastore1/snaps/snaps.vmdk"
    ]
    assert source.disks[0].details["snapshot"].startswith("snapshot-")
    assert [disk.storage for disk in source.disks] == ["datastore1"] * len(source.disks)
    error = refused(made(vc, "snaps", snapshot="odd"), run, "snapshot-unknown")
    assert "did you mean old?" in str(error.hint)


def test_a_snapshot_that_is_being_deleted(
    vc: Vcsim, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = vc.create_vm("merging")
    vm.snapshot("old")
    task = vm.api.RemoveAllSnapshots()._moId.encode()  # of the simulator: it has ended already
    there = b'<ManagedObjectReference type="Task">' + task + b"</ManagedObjectReference>"
    empty = re.compile(rb"(<name>recentTask</name><val[^>]*>)(</val>)")

    def rewrite(request: bytes, answer: bytes) -> bytes:
        if b">" + task + b"<" in request:
            return answer.replace(b">success<", b">running<")
        return empty.sub(rb"\1" + there + rb"\2", answer)

    monkeypatch.setattr(vc.front, "rewrite", rewrite)
    error = refused(made(vc, "merging"), run, "source-consolidating")
    assert "RemoveAllSnapshots" in error.message
    refused(made(vc, "merging", snapshot="old"), run, "source-consolidating")


def test_consolidation_that_is_due_is_told(vc: Vcsim, run: Run, events_seen: list[Event]) -> None:
    vc.create_vm("due").set("runtime.consolidationNeeded", True)
    made(vc, "due").read_source(run)
    warned = [event.id for event in events_seen if isinstance(event, Warned)]
    assert warned == ["vsphere-consolidation-needed"]


# Disks --------------------------------------------------------------------------------------------


def test_independent_disks_are_in_no_snapshot_of_a_vm_that_runs(vc: Vcsim, run: Run) -> None:
    disks = [Disk(), Disk(mode="independent_persistent")]
    vm = vc.create_vm("indie", disks=disks)
    vm.snapshot("one")
    assert len(made(vc, "indie", snapshot="one").read_source(run).disks) == 2
    vm.power(on=True)
    error = refused(made(vc, "indie", snapshot="one"), run, "vsphere-independent")
    assert "scsi0:1" in error.message


def test_a_disk_whose_file_is_gone(vc: Vcsim, run: Run) -> None:
    vm = vc.create_vm("gone")
    (vm.folder / "gone-flat.vmdk").unlink()
    error = refused(made(vc, "gone"), run, "image-file-missing")
    assert "gone-flat.vmdk" in error.message


def test_a_disk_that_changes_has_another_version(vc: Vcsim, run: Run) -> None:
    vm = vc.create_vm("changes", disks=[Disk(content=disk_content(1))])
    first = made(vc, "changes").read_source(run)
    assert made(vc, "changes").read_source(run) == first
    os.utime(vm.folder / "changes-flat.vmdk", (1, 1))
    second = made(vc, "changes").read_source(run)
    assert first.disks[0].details["modified"] != second.disks[0].details["modified"]


def test_a_vm_that_moves_to_another_host_is_the_same(vc: Vcsim, run: Run) -> None:
    vm = vc.create_vm("moves", disks=[Disk(content=disk_content(1))])
    before = made(vc, "moves").read_source(run)
    host = vm.api.runtime.host.name
    other = next(one for one in vc._all("HostSystem") if one.name != host)
    assert vm.api.Relocate(vim.vm.RelocateSpec(host=other)).info.state == "success"
    assert vm.api.runtime.host.name != host
    assert made(vc, "moves").read_source(run) == before


def test_over_ssh_the_host_that_has_the_vm_is_asked(vc: Vcsim, plain: Vm, run: Run) -> None:
    error = refused(made(vc, "plain", transport="ssh"), run, "ssh-unreachable")
    assert "root@DC0_H0" in error.message


@pytest.mark.parametrize("name", ["a b [c] ü 100%", "+&?#=;'~ü", "[", "%41"])
def test_names_that_addresses_would_break(name: str, vc: Vcsim, run: Run) -> None:
    datastore = f"ds {name}".translate({ord(c): "_" for c in "[]"})  # the simulator wants none
    vc.add_datastore(datastore)
    content = disk_content(3)
    vm = vc.create_vm(name, disks=[Disk(content=content, datastore=datastore)])
    source = made(vc, name).read_source(run)
    assert source.name == name
    assert source.disks[0].details["path"] == f"/vmfs/volumes/{datastore}/{name}/{name}.vmdk"
    assert source.disks[0].size == len(content)
    assert vm.name in [row.name for row in made(vc, "").list_guests(run)]


# The ESXi host itself, libvirt, options -----------------------------------------------------------


def test_an_esxi_host_itself(tmp_path: Path, run: Run) -> None:
    with vcsim(tmp_path / "esx", esx=True) as esx:
        esx.create_vm("plain", disks=[Disk(content=disk_content(1))], firmware="efi")
        input = made(esx, "plain", uri=esx.uri())
        source = input.read_source(run)
        assert (source.firmware, len(source.disks)) == (Firmware.UEFI, 1)
        assert "dcPath=ha-datacenter" in source.disks[0].location
        assert [row.name for row in input.list_guests(run)] == ["plain"]


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    """Without a folder around the datacenter: in the simulator, libvirt finds no host in one."""
    with vcsim(tmp_path_factory.mktemp("vc")) as flat:
        for name in ("plain", "runs"):
            vm = flat.create_vm(name, disks=[Disk(content=disk_content(1))], firmware="efi")
            (vm.folder / f"{name}.vmx").write_text(VMX.replace("plain", name))
        vm.power(on=True)
        yield flat


def test_libvirt_tells_the_same_as_far_as_it_goes(flat: Vcsim, run: Run) -> None:
    options = {"uri": flat.uri(verify=False), "cafile": None}
    asked = made(flat, "plain", api=Api.LIBVIRT, **options).read_source(run)
    api = made(flat, "plain", **options).read_source(run)
    for field in ("name", "nics", "memory", "vcpus", "firmware", "hypervisor", "video"):
        assert getattr(asked, field) == getattr(api, field), field
    assert _essence(asked) == _essence(api)
    refused(made(flat, "runs", api=Api.LIBVIRT, **options), run, "source-running")
    refused(made(flat, "other", api=Api.LIBVIRT, **options), run, "libvirt-vm-unknown")


def test_without_pyvmomi_libvirt_is_asked(
    flat: Vcsim, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyVmomi", None)
    refused(made(flat, "plain", api=Api.PYVMOMI), run, "binding-missing")
    input = made(flat, "plain", uri=flat.uri(verify=False), cafile=None)
    source = input.read_source(run)
    assert (source.name, source.cpu.cores) == ("plain", None)
    with pytest.raises(UsageError) as caught:
        input.list_guests(run)
    assert caught.value.id == "vsphere-libvirt"


def _essence(source: Source) -> list[tuple[object, ...]]:
    keys = ("path", "datacenter", "vm", "modified")
    return [
        (disk.location, disk.size, disk.controller, *(disk.details.get(key) for key in keys))
        for disk in source.disks
    ]


def test_what_libvirt_says_becomes_clear(vc: Vcsim, plain: Vm, run: Run, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("x\n")
    uri = made(vc, "").options.uri
    place = {"api": Api.LIBVIRT, "cafile": None, "uri": f"{uri}/F0/DC0/DC0_H0"}
    quiet = place | {"uri": f"{uri}/F0/DC0/DC0_H0?no_verify=1"}
    refused(made(vc, "plain", **quiet, password_file=wrong), run, "vsphere-auth")
    refused(made(vc, "plain", **place), run, "tls-untrusted")
    refused(made(vc, "plain", **place | {"uri": uri}), run, "vsphere-uri")
    elsewhere = f"{uri}/F0/DC0/nope?no_verify=1"
    refused(made(vc, "plain", **place | {"uri": elsewhere}), run, "vsphere-uri")
    nobody = quiet["uri"].replace(str(vc.port), "1")
    refused(made(vc, "plain", **place | {"uri": nobody}), run, "vsphere-unreachable")


@pytest.mark.parametrize(
    "options",
    [{"snapshot": "x"}, {"running": "snapshot"}, {"cafile": Path("/x")}, {"thumbprint": "x"}],
)
def test_what_takes_the_api_is_refused_with_libvirt(
    options: dict[str, Any], vc: Vcsim, run: Run
) -> None:
    told = {"cafile": None, "api": Api.LIBVIRT, "uri": vc.uri(verify=False)} | options
    assert isinstance(refused(made(vc, "plain", **told), run, "vsphere-libvirt"), UsageError)


@pytest.mark.parametrize("word", ["nfc", "nbdkit", "https:"])
def test_an_unknown_transport(word: str, vc: Vcsim, run: Run) -> None:
    assert word in refused(made(vc, "plain", transport=word), run, "input-transport").message


@pytest.mark.parametrize(
    "options",
    [
        {"identity": Path("/x")},
        {"ssh_host": "esxi", "transport": "https"},
        {"vddk_snapshot": "snapshot-1"},
        {"vddk_libdir": Path("/x"), "transport": "ssh"},
        {"reader": SshReader.DD, "transport": "vddk"},
        {"host_key": "x", "transport": "nbdkit:nfc"},
        {"shutdown_timeout": 5, "running": Running.SNAPSHOT},
    ],
)
def test_what_the_other_options_leave_without_effect_is_told(
    options: dict[str, Any], vc: Vcsim, run: Run
) -> None:
    refused(made(vc, "plain", **options), run, "option-useless")


def test_a_snapshot_that_is_there_and_what_becomes_of_the_vm_exclude_each_other(
    vc: Vcsim, run: Run
) -> None:
    options = {"snapshot": "s", "running": Running.SHUTDOWN}
    refused(made(vc, "plain", **options), run, "option-conflict")
