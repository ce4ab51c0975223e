"""What -o libvirt refuses before anything is copied: each has its own clear error."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.output_suite import GUEST
from tests.libvirtd import Libvirtd, domain_xml, libvirtd
from tests.outputs.libvirt_output import (
    Place,
    hidden_firmware,
    make,
    make_source,
    missing_nic,
    place,
)
from tests.places import authority, certificate, reserved_port
from tests.sshd import sshd
from v2v.errors import TargetError, UsageError, V2VError
from v2v.events import Warned
from v2v.libvirt_connection import wrapping
from v2v.outputs._libvirt.connection import host_of
from v2v.types import BlockBus, DiskFormat, Firmware, GiB, Machine, MiB, Nic, Source, SourceDisk

__all__ = ["libvirtd"]


@pytest.fixture
def there(libvirtd: Libvirtd, tmp_path: Path) -> Iterator[Place]:
    with place(libvirtd, tmp_path / "pool") as found:
        yield found


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_source(tmp_path)


def refusal(output, source: Source, run) -> V2VError:
    with pytest.raises(V2VError) as error:
        output.check_source(source, run)
    return error.value


def test_no_such_pool(there: Place, source, run) -> None:
    error = refusal(there.output(**{"-os": there.pool[:-1]}), source, run)
    assert error.id == "target-storage"
    assert error.hint == f"did you mean {there.pool}?"


def test_an_inactive_pool(there: Place, source, run) -> None:
    with there.server.connected() as connection:
        connection.storagePoolLookupByName(there.pool).destroy()
    error = refusal(there.output(), source, run)
    assert error.id == "target-storage"
    assert error.hint == f"`virsh pool-start --pool {there.pool}` starts it"


def test_a_pool_by_its_uuid(there: Place, source, run) -> None:
    with there.server.connected() as connection:
        uuid = connection.storagePoolLookupByName(there.pool).UUIDString()
    there.output(**{"-os": uuid}).check_source(source, run)


def test_a_pool_that_takes_no_disks(source, run) -> None:
    import libvirt

    connection = libvirt.open("test:///default")
    xml = (
        "<pool type='disk'><name>lun</name><source><device path='/dev/none'/></source>"
        "<target><path>/dev</path></target></pool>"
    )
    try:
        pool = connection.storagePoolDefineXML(xml)
        pool.create()
        error = refusal(make({"-oc": "test:///default", "-os": "lun"}), source, run)
        assert error.id == "target-storage"
        assert "type disk" in error.message
        pool.destroy()
        pool.undefine()
    finally:
        connection.close()


def test_a_domain_has_the_name(there: Place, source, run) -> None:
    with there.server.defined(domain_xml("demo")):
        error = refusal(there.output(), source, run)
    assert error.id == "target-exists"
    assert "a domain demo" in error.message
    assert "-on" in (error.hint or "")


@pytest.mark.parametrize("words", [{}, {"-oo upload": ""}])
def test_a_volume_has_the_name(there: Place, source, run, words) -> None:
    (there.folder / "demo-sda").write_text("mine")
    error = refusal(there.output(**words), source, run)
    assert error.id == "target-exists"
    assert "volume demo-sda" in error.message
    with pytest.raises(TargetError):
        there.output(**words).create_disks(source, [1], run)
    there.output(**words).discard((), run)
    assert (there.folder / "demo-sda").read_text() == "mine"


@pytest.mark.parametrize(
    ("nic", "text"),
    [
        (missing_nic(), "has no network nowhere"),
        (replace(missing_nic(), kind="bridge"), "has no bridge nowhere"),
    ],
)
def test_a_network_that_is_missing(
    there: Place, source, run, events_seen, nic: Nic, text: str
) -> None:
    source = replace(source, nics=(nic, nic))
    there.output().check_source(source, run)
    (warning,) = [event for event in events_seen if isinstance(event, Warned)]
    assert warning.id == "target-network"
    assert text in warning.text
    error = refusal(there.output(**{"--start": ""}), source, run)
    assert error.id == "target-network"
    assert text in error.message


def test_too_little_space(libvirtd: Libvirtd, small: Path, source, run) -> None:
    with place(libvirtd, small) as there:
        there.output().check_sizes([GiB], [1], run)
        for words in ({"-oa": "preallocated"}, {"-oo upload": "", "-oa": "preallocated"}):
            with pytest.raises(TargetError) as error:
                there.output(**words).check_sizes([GiB], [1], run)
            assert error.value.id == "target-space"


@pytest.mark.parametrize("words", [{}, {"-oo upload": ""}])
def test_what_the_job_has_there_counts_as_free(
    libvirtd: Libvirtd, small: Path, source, run, words
) -> None:
    """It was killed while it made the disks, and makes them anew."""
    with place(libvirtd, small) as there:
        output = there.output(**{"-oa": "preallocated", **words})
        output.create_disks(source, [6 * MiB], run)
        output.check_sizes([6 * MiB], [0], run)
        output.discard((), run)


def test_staged_images_need_space_here(there: Place, run) -> None:
    output = there.output(**{"-of": "qcow2", "-oo upload": ""})
    free = shutil.disk_usage(run.folder).free
    pool_free = shutil.disk_usage(there.folder).free
    with pytest.raises(TargetError) as error:
        output.check_sizes([0], [max(free, pool_free) + GiB], run)
    assert error.value.id in ("staging-space", "target-space")


@pytest.mark.parametrize(
    "words",
    [{"-oo compressed": ""}, {"-oo compressed": "", "-of": "qcow2", "-oa": "preallocated"}],
)
def test_options_that_contradict_each_other(words, source, run) -> None:
    with pytest.raises(UsageError) as error:
        make(words).check_source(source, run)
    assert error.value.id == "option-conflict"


def test_nobody_listens(source, run) -> None:
    with reserved_port() as port:
        error = refusal(make({"-oc": Libvirtd.uri_at(port)}), source, run)
    assert error.id == "target-unreachable"


def test_a_certificate_that_nobody_trusts(source, run, tmp_path: Path, need_tool) -> None:
    """libvirt has another CA than the one that signed the server's certificate."""
    need_tool("openssl")
    ours, theirs = authority(tmp_path / "ours"), authority(tmp_path / "theirs")
    certificate(theirs, theirs, "server")
    (ours / "cacert.pem").write_bytes((ours / "ca-cert.pem").read_bytes())
    with tls_server(theirs) as port:
        uri = f"qemu+tls://127.0.0.1:{port}/system?pkipath={ours}"
        error = refusal(make({"-oc": uri}), source, run)
    assert error.id == "target-untrusted"
    assert "certificate" in error.message


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """Takes one connection, and does no more than the handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server-cert.pem", folder / "server-key.pem")

    def serve() -> None:
        with suppress(OSError), listener.accept()[0] as raw:
            context.wrap_socket(raw, server_side=True).close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def test_another_hypervisor_is_refused_before_it_is_asked(source, run) -> None:
    output = make({"-oc": "esx://127.0.0.1/"})
    error = refusal(output, source, run)
    assert error.id == "target-answer"
    assert "not on esx" in error.message
    output.discard((), run)  # there is nothing, and nobody to ask


def test_a_password_in_the_address_is_refused_and_not_shown(source, run) -> None:
    error = refusal(make({"-oc": "qemu+ssh://ann:secret@host/system"}), source, run)
    assert error.id == "password-in-uri"
    assert "secret" not in error.message
    assert "-op" in (error.hint or "")


def test_a_host_that_is_reached_over_ssh_and_does_not_know_the_key(
    there: Place, source, run, tmp_path: Path
) -> None:
    with sshd(tmp_path / "ssh") as host:
        identity = tmp_path / "other"
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity]
        subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        uri = there.server.over_ssh(replace(host, identity=identity))
        error = refusal(make({"-oc": uri, "-os": there.pool}), source, run)
    assert error.id == "target-login"
    assert "Permission denied" in error.message


def test_a_user_who_is_not_let_in() -> None:
    import libvirt

    host = host_of("qemu:///system", None)
    with pytest.raises(TargetError) as error, wrapping(libvirt, host, host.errors.failed):
        raise libvirt.libvirtError("Failed to connect socket to '/x': Permission denied")
    assert error.value.id == "target-login"


def test_an_architecture_that_the_host_does_not_run(there: Place, run) -> None:
    caps = replace(GUEST.caps, arch="s390x", machine=Machine.VIRT)
    with pytest.raises(TargetError) as error:
        there.output().check_guest(replace(GUEST, caps=caps), run)
    assert error.value.id == "target-arch"


@pytest.mark.parametrize("machine", [Machine.Q35, Machine.I440FX])
def test_more_processors_than_a_guest_can_have(there: Place, run, machine: Machine) -> None:
    """libvirt would refuse the domain once all was copied."""
    guest = replace(GUEST, caps=replace(GUEST.caps, machine=machine))
    run.journal.put("source", Source(name="web", input="disk", disks=(), vcpus=256))
    with pytest.raises(TargetError) as error:
        there.output().check_guest(guest, run)
    assert error.value.id == "target-vcpus"
    run.journal.put("source", Source(name="web", input="disk", disks=(), vcpus=255))
    there.output().check_guest(guest, run)


@pytest.mark.parametrize(
    ("hides", "secure", "text"),
    [
        (lambda features: True, False, "no UEFI firmware for"),
        (lambda features: "secure-boot" in features, True, "no UEFI firmware with secure boot"),
        (lambda features: "secure-boot" in features, False, None),
    ],
)
def test_firmware_that_the_host_does_not_have(there: Place, run, hides, secure, text) -> None:
    source = Source(name="web", input="disk", disks=(), secure_boot=secure)
    run.journal.put("source", source)
    guest = replace(GUEST, firmware=Firmware.UEFI)
    output = there.output()
    output.check_guest(guest, run)
    with hidden_firmware(there.server, hides):
        if text is None:
            output.check_guest(guest, run)
            return
        with pytest.raises(TargetError) as error:
            output.check_guest(guest, run)
    assert error.value.id == "target-firmware"
    assert text in error.value.message


def test_more_disks_than_there_are_ports(there: Place, run) -> None:
    disk = SourceDisk("/srv/x", DiskFormat.RAW, MiB)
    run.journal.put("source", Source(name="web", input="disk", disks=(disk,) * 201))
    with pytest.raises(TargetError) as error:
        there.output().check_guest(GUEST, run)
    assert error.value.id == "target-disk-count"
    scsi = replace(GUEST, caps=replace(GUEST.caps, block_bus=BlockBus.VIRTIO_SCSI))
    there.output().check_guest(scsi, run)


def test_a_host_that_tells_nothing_of_itself_is_believed(run) -> None:
    make({"-oc": "test:///default"}).check_guest(GUEST, run)


def test_only_disks_that_are_here_can_be_booted() -> None:
    assert make({}).bootable
    assert make({"-oc": "qemu:///system"}).bootable
    assert not make({"-oc": "qemu+ssh://host/system"}).bootable
    assert not make({"-oo upload": ""}).bootable


@pytest.mark.parametrize("active", [True, False])
def test_a_network_that_is_there(there: Place, source, run, events_seen, active: bool) -> None:
    xml = "<network><name>lan</name><forward mode='bridge'/><bridge name='br-none'/></network>"
    source = replace(source, nics=(Nic(mac="52:54:00:12:34:56", network="lan"),))
    with there.server.connected() as connection:
        network = connection.networkDefineXML(xml)
        try:
            if active:
                network.create()
            there.output().check_source(source, run)
            warned = [event.text for event in events_seen if isinstance(event, Warned)]
            assert bool(warned) != active
            assert active or "is not active" in warned[0]
        finally:
            if active:
                network.destroy()
            network.undefine()


def test_nothing_may_be_written_through_a_connection_that_is_read_only(source, run) -> None:
    """libvirt tells of it when the pool is to be looked at again."""
    import libvirt

    host = host_of("qemu:///system", None)
    error = libvirt.libvirtError("operation forbidden for read only access")
    error.err = (libvirt.VIR_ERR_OPERATION_DENIED, 0, str(error), 2, "", None, None, -1, -1)
    with pytest.raises(TargetError) as raised, wrapping(libvirt, host, host.errors.refused):
        raise error
    assert raised.value.id == "target-login"
