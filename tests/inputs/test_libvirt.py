"""-i libvirt against a real libvirtd: states, snapshots, volumes, errors."""

from __future__ import annotations

import shlex
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.input_suite import children, read_all
from tests.fakes.disks import disk_content
from tests.libvirtd import Libvirtd, domain_xml, file_disk, libvirtd, volume_disk
from tests.sshd import Sshd, sshd
from v2v.errors import Cancelled, SourceError, UsageError, V2VError
from v2v.events import Event, Warned
from v2v.inputs._domain import read_domain
from v2v.inputs._domain.disks import DiskHost
from v2v.inputs._domain.sources import SshHost
from v2v.inputs._libvirt import connection as _libvirt_connection
from v2v.inputs._libvirt.host import read_vm
from v2v.inputs._libvirt.uri import ssh_host
from v2v.inputs.libvirt import LibvirtInput, LibvirtOptions
from v2v.libvirt_connection import LibvirtHost, wrapping
from v2v.run import Run
from v2v.types import DiskFormat, Source

__all__ = ["libvirtd"]

CONTENT = disk_content()


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    for tool in ("qemu-img", "qemu-nbd", "nbdkit", "virsh"):
        need_tool(tool)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """images/web.qcow2"""
    raw = tmp_path / "raw"
    raw.write_bytes(CONTENT)
    path = tmp_path / "images" / "web.qcow2"
    path.parent.mkdir()
    qemu_img("convert", "-f", "raw", "-O", "qcow2", raw, path)
    return path


@pytest.fixture
def running(libvirtd: Libvirtd, disk: Path) -> Iterator[object]:
    """A VM that runs. It boots nothing: its firmware looks for something to boot for ever."""
    with libvirtd.defined(domain_xml("web", file_disk(disk))) as domain:
        domain.create()
        yield domain


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def made(uri: str, *guests: str, **options: object) -> LibvirtInput:
    return LibvirtInput(LibvirtOptions(uri=uri, **options), guests or ["web"])


def refused(input_: LibvirtInput, run: Run, id: str) -> V2VError:
    with pytest.raises(V2VError) as caught:
        input_.read_source(run)
    assert caught.value.id == id
    return caught.value


def served(input_: LibvirtInput, source: Source, run: Run) -> bytes:
    with input_.serve(source, run) as (endpoint,):
        return read_all(endpoint)[: len(CONTENT)]


# Which VM -----------------------------------------------------------------------------------------


def test_a_vm_is_found_by_name_and_by_uuid(libvirtd: Libvirtd, disk: Path, run: Run) -> None:
    with libvirtd.defined(domain_xml("web", file_disk(disk))) as domain:
        by_name = made(libvirtd.uri).read_source(run)
        by_uuid = made(libvirtd.uri, domain.UUIDString()).read_source(run)
    assert by_name == by_uuid
    assert by_name.uuid == domain.UUIDString()
    assert [disk.location for disk in by_name.disks] == [str(disk)]


def test_a_name_that_looks_like_a_uuid_comes_first(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    with libvirtd.defined(domain_xml("web", file_disk(disk))) as domain:
        uuid = domain.UUIDString()
        with libvirtd.defined(domain_xml(uuid, file_disk(disk))):
            assert made(libvirtd.uri, uuid).read_source(run).name == uuid


def test_a_misspelt_name_is_answered_with_the_closest(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    with (
        libvirtd.defined(domain_xml("webserver", file_disk(disk))),
        libvirtd.defined(domain_xml("mail", file_disk(disk))),
    ):
        error = refused(made(libvirtd.uri, "wbserver"), run, "libvirt-vm-unknown")
        assert error.hint == "did you mean webserver?"
        error = refused(made(libvirtd.uri, "db"), run, "libvirt-vm-unknown")
        assert error.hint == "there are: mail, webserver"


def test_a_host_without_vms_says_so(libvirtd: Libvirtd, run: Run) -> None:
    error = refused(made(libvirtd.uri), run, "libvirt-vm-unknown")
    assert "there is none" in str(error.hint)


def test_a_uuid_that_nobody_has(libvirtd: Libvirtd, run: Run) -> None:
    word = "c3d1a2b0-24b4-4c3c-9d2e-6a2cf0f1c0de"
    refused(made(libvirtd.uri, word), run, "libvirt-vm-unknown")


def test_two_vms_at_once_are_refused(run: Run) -> None:
    refused(made("qemu:///system", "a", "b"), run, "guests-too-many")


# Whether it stands still --------------------------------------------------------------------------


def test_a_vm_is_read_only_when_it_is_shut_off(libvirtd: Libvirtd, running, run: Run) -> None:
    """One VM, for each takes a second to end: running, paused, saved, shut off."""
    input_ = made(libvirtd.uri)
    error = refused(input_, run, "source-running")
    assert error.message.startswith("web is running")
    assert f"shut it down: virsh -c '{libvirtd.uri}' shutdown --domain web" in str(error.hint)
    assert "-io snapshot" in str(error.hint)

    running.suspend()
    error = refused(input_, run, "source-running")
    assert error.message.startswith("web is paused")
    assert "resume --domain web, then virsh" in str(error.hint)

    running.managedSave()
    error = refused(input_, run, "libvirt-managed-save")
    assert "managedsave-remove --domain web" in str(error.hint)

    running.managedSaveRemove()
    assert served(input_, input_.read_source(run), run) == CONTENT


# Snapshots ----------------------------------------------------------------------------------------


def test_a_running_vm_is_read_below_its_snapshot(
    libvirtd: Libvirtd, running, disk: Path, run: Run, events_seen: list[Event]
) -> None:
    """The command of the hint is the one that makes it possible."""
    input_ = made(libvirtd.uri, snapshot=True)
    error = refused(input_, run, "libvirt-no-snapshot")
    command = str(error.hint).removeprefix("take one: ").partition(";")[0]
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    top = disk.with_suffix(".v2v")
    assert top.exists()

    source = input_.read_source(run)
    assert source.disks[0].location == str(disk)
    assert source.disks[0].format == DiskFormat.QCOW2
    assert source.disks[0].controller == "virtio"
    assert served(input_, source, run) == CONTENT
    assert running.isActive()
    assert not [event for event in events_seen if isinstance(event, Warned)]


def test_of_a_vm_shut_off_the_image_tells_what_is_below(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    top = disk.with_suffix(".v2v")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", disk, top)
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -P 9 0 64k", top], check=True)
    with libvirtd.defined(domain_xml("web", file_disk(top))):
        below, whole = made(libvirtd.uri, snapshot=True), made(libvirtd.uri)
        assert served(below, below.read_source(run), run) == CONTENT
        changed = served(whole, whole.read_source(run), run)
    assert changed == b"\x09" * 65536 + CONTENT[65536:]


def test_of_a_vm_shut_off_without_a_snapshot_the_option_is_left_out(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    with libvirtd.defined(domain_xml("web", file_disk(disk))):
        error = refused(made(libvirtd.uri, snapshot=True), run, "libvirt-no-snapshot")
    assert error.hint == "web is shut off: leave -io snapshot out"


def test_a_template_is_not_silently_taken_for_the_vm(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    clone = disk.with_name("clone.qcow2")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", disk, clone)
    with libvirtd.defined(domain_xml("web", file_disk(clone))):
        error = refused(made(libvirtd.uri, snapshot=True), run, "libvirt-snapshot-unsure")
        assert str(disk) in error.message and str(clone) in error.message
        assert f"-io allow-backing={disk}" in str(error.hint)
        sure = made(libvirtd.uri, snapshot=True, allow_backing=(disk,))
        assert sure.read_source(run).disks[0].location == str(disk)


def test_a_template_of_the_vm_s_own_name_is_not_taken_for_it_either(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    template = disk.rename(disk.parents[1] / "web.img")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", template, disk)
    with libvirtd.defined(domain_xml("web", file_disk(disk))) as domain:
        domain.create()
        refused(made(libvirtd.uri, snapshot=True), run, "libvirt-snapshot-unsure")


def test_a_snapshot_in_a_folder_that_is_a_link_is_one(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", disk, disk.with_suffix(".v2v"))
    link = disk.parents[1] / "link"
    link.symlink_to(disk.parent)
    with libvirtd.defined(domain_xml("web", file_disk(link / "web.v2v"))):
        source = made(libvirtd.uri, snapshot=True).read_source(run)
    assert source.disks[0].location == str(disk)


def test_disks_of_different_moments_are_refused(libvirtd: Libvirtd, disk: Path, run: Run) -> None:
    data = disk.with_name("data.qcow2")
    qemu_img("create", "-f", "qcow2", data, "6M")
    disks = (file_disk(disk), file_disk(data, target="vdb"))

    def snapshot(name: str, *words: str) -> None:
        argv = ["virsh", "-c", libvirtd.uri, "snapshot-create-as", "web", name, *words]
        argv += ["--disk-only", "--atomic", "--no-metadata"]
        subprocess.run(argv, check=True, capture_output=True)

    with libvirtd.defined(domain_xml("web", *disks)) as domain:
        domain.create()
        input_ = made(libvirtd.uri, snapshot=True)
        snapshot("first", "--diskspec", "vdb,snapshot=no")
        refused(input_, run, "libvirt-no-snapshot")
        snapshot("second", "--diskspec", "vda,snapshot=no")
        error = refused(input_, run, "libvirt-snapshots-differ")
        assert "vda of 'first', disk vdb of 'second'" in error.message
        snapshot("third")
        found = [one.location for one in input_.read_source(run).disks]
        assert found == [str(disk.with_suffix(".first")), str(data.with_suffix(".second"))]


def test_internal_snapshots_are_told_and_do_not_matter(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    with libvirtd.defined(domain_xml("web", file_disk(disk))) as domain:
        for name in ("before", "after"):
            domain.snapshotCreateXML(f"<domainsnapshot><name>{name}</name></domainsnapshot>")
        input_ = made(libvirtd.uri)
        source = input_.read_source(run)
        assert served(input_, source, run) == CONTENT
    assert source.snapshots == ("before", "after")


def snapshot_of(libvirtd: Libvirtd, name: str) -> None:
    argv = ["virsh", "-c", libvirtd.uri, "snapshot-create-as", "--domain", name, "--name", "v2v"]
    argv += ["--disk-only", "--atomic", "--no-metadata"]
    subprocess.run(argv, check=True, capture_output=True)


@pytest.mark.parametrize("job", ["active-commit", "copy"])
def test_disks_that_a_block_job_works_on_are_refused(
    libvirtd: Libvirtd, running, disk: Path, run: Run, job: str
) -> None:
    """Once it is ready, and until it is ended, it goes on writing."""
    import libvirt

    snapshot_of(libvirtd, "web")
    input_ = made(libvirtd.uri, snapshot=True)
    assert input_.read_source(run).disks
    if job == "copy":
        xml = f"<disk type='file'><source file='{disk}.copy'/></disk>"
        flag = libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB
        running.blockCopy("vda", xml, flags=flag)
    else:
        running.blockCommit("vda", None, None, 0, libvirt.VIR_DOMAIN_BLOCK_COMMIT_ACTIVE)
    error = refused(input_, run, "libvirt-block-job")
    assert f"disk vda of web has a block job ({job})" in error.message
    assert "blockjob --domain web --path vda --pivot" in str(error.hint)


def test_a_read_only_disk_has_no_snapshot_and_is_read_as_it_is(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    """libvirt leaves it out of snapshots."""
    tools = disk.with_name("tools.qcow2")
    qemu_img("create", "-f", "qcow2", tools, "6M")
    fixed = file_disk(tools, target="vdb").replace("</disk>", "<readonly/></disk>")
    with libvirtd.defined(domain_xml("web", file_disk(disk), fixed)) as domain:
        domain.create()
        snapshot_of(libvirtd, "web")
        input_ = made(libvirtd.uri, snapshot=True)
        source = input_.read_source(run)
        assert [one.location for one in source.disks] == [str(disk), str(tools)]
        with input_.serve(source, run) as (first, _):
            assert read_all(first)[: len(CONTENT)] == CONTENT


def test_a_vm_named_like_an_option_is_a_name_in_the_commands_of_hints(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    with libvirtd.defined(domain_xml("-x", file_disk(disk))) as domain:
        domain.create()
        hint = str(refused(made(libvirtd.uri, "-x"), run, "source-running").hint)
        first = hint.removeprefix("shut it down: ").partition(";")[0]
        snapshot = hint.rpartition("-io snapshot: ")[2]
        for command in (snapshot, first):
            subprocess.run(shlex.split(command), check=True, capture_output=True)


def test_a_file_that_is_no_disk_is_not_taken_for_a_raw_one(
    libvirtd: Libvirtd, disk: Path, tmp_path: Path, run: Run
) -> None:
    text = tmp_path / "shadow"
    text.write_text("root:*:19000:0:99999:7:::\n" * 100)
    disks = file_disk(disk), file_disk(text, "raw", target="vdb")
    with libvirtd.defined(domain_xml("web", *disks)):
        error = refused(made(libvirtd.uri), run, "not-a-disk-image")
    assert str(text) in error.message and "vdb" in error.message


# Disks --------------------------------------------------------------------------------------------


def test_a_disk_without_a_format_is_what_its_content_is(
    libvirtd: Libvirtd, tmp_path: Path, disk: Path, run: Run
) -> None:
    """libvirt itself writes raw into the XML of QEMU's VMs; the test driver does not."""
    node = tmp_path / "node.xml"
    node.write_text(f"<node>{domain_xml('web', file_disk(disk, None), kind='test')}</node>")
    source = made(f"test://{node}").read_source(run)
    assert source.disks[0].format == DiskFormat.QCOW2


def test_a_volume_has_the_format_that_its_pool_tells(
    libvirtd: Libvirtd, disk: Path, run: Run
) -> None:
    with (
        libvirtd.pool("images", disk.parent),
        libvirtd.defined(domain_xml("web", volume_disk("images", "web.qcow2", format="qcow2"))),
    ):
        input_ = made(libvirtd.uri)
        source = input_.read_source(run)
        assert source.disks[0].location == str(disk)
        assert source.disks[0].storage == "images"
        assert served(input_, source, run) == CONTENT
        assert (
            read_vm(libvirtd.uri, "web", None, run).volumes["images", "web.qcow2"].driver == "qcow2"
        )  # type: ignore[union-attr]


def test_a_pool_that_is_not_active_is_told(libvirtd: Libvirtd, disk: Path, run: Run) -> None:
    with (
        libvirtd.pool("images", disk.parent) as pool,
        libvirtd.defined(domain_xml("web", volume_disk("images", "web.qcow2"))),
    ):
        pool.destroy()
        error = refused(made(libvirtd.uri), run, "libvirt-pool-inactive")
    assert "virsh pool-start --pool images" in str(error.hint)


def test_a_volume_that_is_not_there_is_told(libvirtd: Libvirtd, disk: Path, run: Run) -> None:
    with (
        libvirtd.pool("images", disk.parent),
        libvirtd.defined(domain_xml("web", volume_disk("images", "gone.qcow2"))),
    ):
        error = refused(made(libvirtd.uri), run, "libvirt-volume-unknown")
    assert "gone.qcow2" in error.message and "images" in error.message


def test_a_pool_that_is_not_there_is_told(libvirtd: Libvirtd, run: Run) -> None:
    with libvirtd.defined(domain_xml("web", volume_disk("none", "web.qcow2"))):
        error = refused(made(libvirtd.uri), run, "libvirt-volume-unknown")
    assert "none" in error.message


NETWORK_POOLS = """
<pool type='rbd'><name>ceph</name><source>
  <host name='mon1' port='6789'/><host name='mon2'/><name>vms</name>
  <auth type='ceph' username='admin'><secret uuid='2ec115d7-3a88-3ceb-bc12-0ac909a6fd87'/></auth>
</source>
<volume type='network'><name>web-1</name><capacity>1048576</capacity>
  <target><format type='raw'/></target></volume></pool>
<pool type='iscsi-direct'><name>san</name><source>
  <host name='san1' port='3260'/><device path='iqn.2020-01.org.example:vms'/>
  <initiator><iqn name='iqn.2020-01.org.example:me'/></initiator>
</source>
<volume type='network'><name>unit:0:0:7</name><capacity>1048576</capacity></volume></pool>
"""


def test_volumes_of_network_pools_are_reached_as_the_host_reaches_them(
    tmp_path: Path, run: Run
) -> None:
    disks = volume_disk("ceph", "web-1"), volume_disk("san", "unit:0:0:7", target="vdb")
    node = tmp_path / "node.xml"
    node.write_text(f"<node>{domain_xml('web', *disks, kind='test')}{NETWORK_POOLS}</node>")
    volumes = read_vm(f"test://{node}", "web", None, run).volumes
    rbd, iscsi = volumes["ceph", "web-1"], volumes["san", "unit:0:0:7"]
    assert not isinstance(rbd, V2VError) and not isinstance(iscsi, V2VError)
    assert (rbd.kind, rbd.protocol, rbd.name) == ("network", "rbd", "vms/web-1")
    assert rbd.hosts == (DiskHost("mon1", 6789), DiskHost("mon2"))
    assert (rbd.user, rbd.driver) == ("admin", "raw")
    assert (iscsi.protocol, iscsi.name) == ("iscsi", "iqn.2020-01.org.example:vms/7")
    assert iscsi.hosts == (DiskHost("san1", 3260),)


# Where libvirt is ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("qemu:///system", None),
        ("qemu+unix:///session?socket=/run/x", None),
        ("test:///default", None),
        ("xen:///", None),
        ("qemu+ssh://root@kvm1/system", SshHost("kvm1", "root")),
        ("qemu+ssh://kvm1:2222/system?keyfile=/k", SshHost("kvm1", None, 2222)),
        ("xen+ssh://root@[fd00::1]:22/", SshHost("fd00::1", "root", 22)),
        ("qemu+libssh://kvm1/session", SshHost("kvm1")),
        ("qemu+libssh2://kvm1/system", SshHost("kvm1")),
        ("qemu+ssh:///system", SshHost("localhost")),
    ],
)
def test_a_uri_tells_on_which_host_the_disks_are(uri: str, host: SshHost | None) -> None:
    assert ssh_host(uri) == host


@pytest.mark.parametrize(
    ("uri", "id", "words"),
    [
        ("esx://root@esx1/?no_verify=1", "libvirt-vmware", "-i ova"),
        ("vpx://user@vc/DC/esx1", "libvirt-vmware", "-i vmx"),
        ("gsx://host", "libvirt-vmware", "-i ova"),
        ("qemu+tcp://kvm1/system", "libvirt-transport", "qemu+ssh://kvm1/system"),
        ("qemu+tls://kvm1/system", "libvirt-transport", "qemu+ssh://kvm1/system"),
        ("qemu://kvm1/system", "libvirt-transport", "qemu+ssh://kvm1/system"),
        ("qemu+ext:///system?command=x", "libvirt-transport", "ssh"),
        ("system", "libvirt-uri", "qemu:///system"),
        ("qemu+ssh://kvm1:port/system", "libvirt-uri", "qemu:///system"),
    ],
)
def test_hosts_whose_disks_cannot_be_read_are_refused_before_they_are_asked(
    uri: str, id: str, words: str, run: Run
) -> None:
    error = refused(made(uri), run, id)
    assert isinstance(error, UsageError)
    assert words in str(error.hint)


@pytest.mark.parametrize("word", ["keyfile=key", "known_hosts=~/known", "keyfile=/k&known_hosts=k"])
def test_files_in_the_address_do_not_depend_on_the_current_folder(word: str, run: Run) -> None:
    error = refused(made(f"qemu+ssh://kvm1/system?{word}"), run, "libvirt-uri-file")
    assert isinstance(error, UsageError)
    assert f"{word.rpartition('&')[2]} is not" in error.message


def test_a_password_in_the_address_is_refused_and_not_shown(run: Run) -> None:
    error = refused(made("qemu+ssh://root:secret@kvm1/system"), run, "password-in-uri")
    assert "secret" not in f"{error.message} {error.hint}"


def test_libvirts_default_is_judged_too(monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    """It comes from the environment or from libvirt's configuration."""
    monkeypatch.setenv("LIBVIRT_DEFAULT_URI", "test:///default")
    vm = read_vm(None, "test", None, run)
    assert (vm.uri, vm.name, vm.state) == ("test:///default", "test", None)


def test_a_daemon_that_is_not_there_is_one_clear_error(
    tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    uri = f"qemu+unix:///session?socket={tmp_path}/none"
    error = refused(made(uri), run, "libvirt-failed")
    assert uri in error.message and "No such file" in error.message
    assert capfd.readouterr() == ("", "")


def test_a_socket_that_one_may_not_use_is_a_matter_of_rights(
    tmp_path: Path, run: Run, libvirtd: Libvirtd
) -> None:
    import libvirt

    exc = libvirt.libvirtError("Failed to connect socket to '/x': Permission denied")
    host = LibvirtHost("qemu:///system", _libvirt_connection.ERRORS, lambda: None)
    with pytest.raises(SourceError) as raised, wrapping(libvirt, host, host.errors.failed):
        raise exc
    error = raised.value
    assert error.id == "libvirt-auth"
    assert "group libvirt" in str(error.hint)


def test_a_missing_password_file_is_told_before_anything_is_asked(tmp_path: Path, run: Run) -> None:
    refused(made("test:///default", password_file=tmp_path / "none"), run, "password-file")


@pytest.fixture
def silent_server() -> Iterator[socket.socket]:
    """Something that listens and never says a word, as a host that hangs."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def libvirt_threads_end() -> None:
    for thread in threading.enumerate():
        if thread.name == "libvirt":
            thread.join(30)
            assert not thread.is_alive()


def test_cancel_ends_a_connection_that_hangs(
    silent_server: socket.socket, run: Run, need_tool
) -> None:
    need_tool("ssh")
    port = silent_server.getsockname()[1]

    def cancel_once_connected() -> None:
        connection, _ = silent_server.accept()
        run.cancel.cancel()
        held.append(connection)

    held: list[socket.socket] = []
    thread = threading.Thread(target=cancel_once_connected)
    thread.start()
    with pytest.raises(Cancelled):
        made(f"qemu+ssh://u@127.0.0.1:{port}/system").read_source(run)
    thread.join()
    libvirt_threads_end()
    assert children() == set()
    held[0].close()


def test_a_host_that_does_not_answer_is_given_up(
    silent_server: socket.socket, run: Run, need_tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    need_tool("ssh")
    monkeypatch.setattr(_libvirt_connection, "ANSWER_SECONDS", 0.3)
    port = silent_server.getsockname()[1]
    refused(made(f"qemu+ssh://u@127.0.0.1:{port}/system"), run, "libvirt-timeout")
    libvirt_threads_end()
    assert children() == set()


def test_a_host_without_ssh_is_told_in_ssh_s_words(run: Run, need_tool) -> None:
    need_tool("ssh")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = refused(made(f"qemu+ssh://u@127.0.0.1:{port}/system"), run, "libvirt-failed")
    assert "Connection refused" in error.message


# Another host -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh")) as server:
        yield server


@pytest.mark.parametrize("transport", ["ssh", "libssh"])
def test_the_disks_of_another_host_are_read_over_ssh(
    libvirtd: Libvirtd, host: Sshd, transport: str, disk: Path, run: Run
) -> None:
    """The keys that the address names are those of the disks, too."""
    with libvirtd.defined(domain_xml("web", file_disk(disk))):
        input_ = made(libvirtd.over_ssh(host, transport))
        source = input_.read_source(run)
        assert source.disks[0].location == host.uri(disk)
        assert served(input_, source, run) == CONTENT


def test_a_snapshot_on_another_host(libvirtd: Libvirtd, host: Sshd, disk: Path, run: Run) -> None:
    """Its images are not looked into: what is below is what libvirt says."""
    top = disk.with_suffix(".v2v")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", disk, top)
    input_ = made(libvirtd.over_ssh(host), snapshot=True)
    with libvirtd.defined(domain_xml("web", file_disk(top))):
        refused(input_, run, "libvirt-no-snapshot")
    with libvirtd.defined(domain_xml("web", file_disk(top, below=disk))):
        source = input_.read_source(run)
        assert source.disks[0].location == host.uri(disk)
        assert served(input_, source, run) == CONTENT


def test_a_volume_of_another_host(libvirtd: Libvirtd, host: Sshd, disk: Path, run: Run) -> None:
    with (
        libvirtd.pool("images", disk.parent),
        libvirtd.defined(domain_xml("web", volume_disk("images", "web.qcow2", format="qcow2"))),
    ):
        source = made(libvirtd.over_ssh(host)).read_source(run)
    assert source.disks[0].location == host.uri(disk)


def test_an_image_of_another_host_with_a_backing_file_is_refused(
    libvirtd: Libvirtd, host: Sshd, disk: Path, run: Run
) -> None:
    top = disk.with_suffix(".v2v")
    qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", disk, top)
    with libvirtd.defined(domain_xml("web", file_disk(top))):
        input_ = made(libvirtd.over_ssh(host))
        source = input_.read_source(run)
    with pytest.raises(SourceError) as caught, input_.serve(source, run):
        pass
    assert caught.value.id == "image-names-other-file"


def test_a_host_that_does_not_let_one_in(
    libvirtd: Libvirtd, host: Sshd, tmp_path: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other")]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    stranger = replace(host, identity=tmp_path / "other")
    error = refused(made(libvirtd.over_ssh(stranger)), run, "libvirt-auth")
    assert "Permission denied" in error.message
    assert capfd.readouterr() == ("", "")


def test_devices_of_another_host_are_refused(libvirtd: Libvirtd, disk: Path, run: Run) -> None:
    block = (
        "<disk type='block' device='disk'><source dev='/dev/vg/web'/>"
        "<target dev='vda' bus='virtio'/></disk>"
    )
    with libvirtd.defined(domain_xml("web", block)):
        vm = read_vm(libvirtd.uri, "web", None, run)
    input_ = made(libvirtd.uri)
    (device,) = read_domain(vm.xml, "web", run, mode="libvirt").disks
    with pytest.raises(SourceError) as caught:
        input_._disk(device, vm, SshHost("kvm1"), run)
    assert caught.value.id == "libvirt-remote-device"
    assert "/dev/vg/web" in caught.value.message
