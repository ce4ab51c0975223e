"""Volumes that -o libvirt makes, fills and removes, and what may happen in between."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.output_suite import GUEST
from tests.fakes.tcp_proxy import tcp_proxy
from tests.libvirtd import Libvirtd, domain_xml, file_disk, libvirtd, own_libvirtd
from tests.outputs.libvirt_output import (
    Place,
    copy,
    create,
    make,
    make_source,
    migrate,
    place,
    sizes_of,
)
from tests.places import loop_devices
from tests.sshd import sshd
from v2v.errors import CopyError, TargetError
from v2v.events import CopyProgress
from v2v.outputs._libvirt import made
from v2v.outputs._libvirt import sink as sinks
from v2v.outputs._libvirt.disks import Disks, device_sink
from v2v.outputs._libvirt.sink import VolumeSink
from v2v.outputs._libvirt.volumes import Volume, Way, known_volumes
from v2v.types import CopyResult, DiskFormat, KiB, MiB

__all__ = ["libvirtd"]

WAYS = [{}, {"-oo upload": ""}, {"-oo upload": "", "-of": "qcow2"}]


@pytest.fixture
def there(libvirtd: Libvirtd, tmp_path: Path) -> Iterator[Place]:
    with place(libvirtd, tmp_path / "pool") as found:
        yield found


@pytest.fixture(params=WAYS, ids=["files", "upload", "staged"])
def words(request: pytest.FixtureRequest) -> dict[str, str]:
    return request.param


class Crash(BaseException):
    """The machine stops here."""


def test_each_disk_goes_to_its_own_pool(there: Place, tmp_path: Path, run) -> None:
    source = make_source(tmp_path, MiB, 2 * MiB)
    with place(there.server, tmp_path / "other") as other:
        disks = (source.disks[0], replace(source.disks[1], target_storage=other.pool))
        ref = migrate(there.output(), replace(source, disks=disks), run)
        assert [disk.location for disk in ref.disks] == [
            str(there.folder / "demo-sda"),
            str(other.folder / "demo-sdb"),
        ]


def test_a_volume_made_meanwhile_is_not_overwritten(there: Place, words, tmp_path, run) -> None:
    source = make_source(tmp_path)
    output = there.output(**words)
    output.check_source(source, run)
    (there.folder / "demo-sda").write_text("mine")
    with pytest.raises(TargetError) as error:
        migrate(output, source, run)
    assert error.value.id == "target-exists"
    output.discard((), run)
    assert (there.folder / "demo-sda").read_text() == "mine"


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_volume_that_was_being_made_is_found(
    there: Place, tmp_path, run, monkeypatch, moment: str
) -> None:
    """Killed before libvirt made it, or after that and before it was written down."""
    source = make_source(tmp_path)
    output = there.output(**{"-oo upload": ""})

    def crash(*arguments: Any, **more: Any) -> None:
        if moment == "after":
            make_it(*arguments, **more)
        raise Crash

    make_it = made.create
    with monkeypatch.context() as patch:
        patch.setattr(made, "create", crash)
        patch.setattr(type(output), "discard", lambda self, disks, run: None)
        with pytest.raises(Crash):
            output.create_disks(source, sizes_of(source), run)
    assert (there.folder / "demo-sda").exists() == (moment == "after")
    output.check_source(source, run)
    output.discard((), run)
    assert list(there.folder.iterdir()) == []


def test_a_volume_that_took_the_place_of_ours_is_somebody_else_s(
    there: Place, tmp_path, run
) -> None:
    """Ours was removed, and another made: it is neither gone on with, nor removed."""
    source = make_source(tmp_path)
    output = there.output(**{"-oo upload": ""})
    targets = create(output, source, run)
    copy(output, source, targets, run)
    volume = there.folder / "demo-sda"
    volume.unlink()
    volume.write_text("mine")
    with pytest.raises(TargetError) as error:
        output.check_source(source, run)
    assert error.value.id == "target-exists"
    with pytest.raises(TargetError) as error, output.connect(targets, run):
        pass
    assert error.value.id == "target-lost"
    output.discard(targets, run)
    assert volume.read_text() == "mine"


@pytest.mark.parametrize("copied", [False, True])
def test_a_volume_that_is_a_domain_s_by_now_is_neither_removed_nor_written(
    there: Place, tmp_path, run, copied: bool
) -> None:
    """Ours was removed, and another migration of the VM has made one of the same length."""
    source = make_source(tmp_path)
    output = there.output(**{"-oo upload": ""})
    targets = create(output, source, run)
    if copied:
        copy(output, source, targets, run)
    volume = there.folder / "demo-sda"
    volume.unlink()
    volume.write_bytes(bytes(MiB))
    with there.server.defined(domain_xml("renamed", file_disk(volume, "raw"))):
        with pytest.raises(TargetError) as error, output.connect(targets, run):
            pass
        assert error.value.id == ("target-lost" if copied else "target-exists")
        output.discard(targets, run)
    assert volume.read_bytes() == bytes(MiB)


@pytest.mark.parametrize("words", [{}, {"-of": "qcow2"}], ids=["upload", "staged"])
def test_a_guest_whose_disk_went_away_is_not_defined(
    there: Place, tmp_path, run, monkeypatch, words: dict[str, str]
) -> None:
    """While the domain was refused, for one."""
    source = make_source(tmp_path)
    output = there.output(**{"-oo upload": "", **words})
    targets = create(output, source, run)
    copy(output, source, targets, run)
    with there.server.defined(domain_xml("demo")), pytest.raises(TargetError) as error:
        output.finalize(source, GUEST, targets, run)
    assert error.value.id == "target-define"
    (there.folder / "demo-sda").unlink()
    with there.server.connected() as connection:
        connection.storagePoolLookupByName(there.pool).refresh()
    with pytest.raises(TargetError) as error:
        output.finalize(source, GUEST, targets, run)
    assert error.value.id == "target-lost"
    assert there.domains() == []


def test_a_pool_that_got_another_folder(there: Place, tmp_path, run) -> None:
    """What is in it is not the job's, and what the job made is still told of."""
    source = make_source(tmp_path)
    output = there.output(**{"-oo upload": ""})
    targets = create(output, source, run)
    copy(output, source, targets, run)
    (tmp_path / "new").mkdir()
    (tmp_path / "new/demo-sda").write_bytes(bytes(MiB))
    with there.server.connected() as connection:
        pool = connection.storagePoolLookupByName(there.pool)
        xml = pool.XMLDesc()
        pool.destroy()
        pool.undefine()
        with there.server.pool(there.pool, tmp_path / "new"):
            for call in (output.connect(targets, run).__enter__, lambda: output.discard((), run)):
                with pytest.raises(TargetError) as error:
                    call()
                assert error.value.id == "target-storage"
                assert str(there.folder) in error.value.message
        assert (tmp_path / "new/demo-sda").read_bytes() == bytes(MiB)
        connection.storagePoolDefineXML(xml).create()
    output.discard((), run)
    assert list(there.folder.iterdir()) == []


def test_what_lies_behind_the_disk_in_its_logical_volume_is_blanked(
    there: Place, tmp_path, run
) -> None:
    """LVM makes whole extents, of what others have used. Here a file stands for one."""
    source = make_source(tmp_path, MiB + 512)
    output = there.output(**{"-oo upload": ""})
    targets = create(output, source, run)
    copy(output, source, targets, run)
    path = there.folder / "demo-sda"
    with path.open("ab") as file:
        file.write(b"old" * MiB)
    (volume,) = known_volumes(run)
    logical = replace(volume, block=True)
    Disks(output._host, output._shape, run).complete([logical])
    assert path.stat().st_size == 4 * MiB + 512
    assert path.read_bytes() == content(source) + bytes(3 * MiB)


@pytest.mark.parametrize("link", [False, True])
def test_a_working_file_that_was_cut_off_or_replaced_is_not_gone_on_with(
    there: Place, tmp_path, run, link: bool
) -> None:
    source = make_source(tmp_path)
    output = there.output()
    (disk,) = create(output, source, run)
    copy(output, source, [disk], run)
    working = Path(disk.working)
    if link:
        working.rename(there.folder / "other")
        working.symlink_to("other")
    else:
        working.write_bytes(working.read_bytes()[:4096])
    with pytest.raises(TargetError) as error, output.connect([disk], run):
        pass
    assert error.value.id == "target-lost"


@pytest.mark.parametrize("head", [b"QFI\xfb\0\0\0\3", b"LUKS\xba\xbe\0\1aes", b"QED\0\xff\xff"])
def test_a_disk_that_libvirt_takes_for_an_image_is_known_again(
    there: Place, tmp_path, run, head: bytes
) -> None:
    """libvirt tells another size of it, and even of another format."""
    source = make_source(tmp_path)
    path = Path(source.disks[0].location)
    path.write_bytes(head.ljust(4096, b"\xff") + path.read_bytes()[4096:])
    output = there.output(**{"-oo upload": ""})
    copy(output, source, create(output, source, run), run)
    output.check_source(source, run)
    assert (there.folder / "demo-sda").read_bytes() == path.read_bytes()
    output.discard((), run)
    assert list(there.folder.iterdir()) == []


def test_discard_in_a_pool_that_was_renamed_or_is_gone(there: Place, tmp_path, run) -> None:
    """libvirt renames none: it is undefined, and defined by another name."""
    source = make_source(tmp_path)
    output = there.output(**{"-oo upload": ""})
    create(output, source, run)
    with there.server.connected() as connection:
        pool = connection.storagePoolLookupByName(there.pool)
        xml = pool.XMLDesc()
        pool.destroy()
        pool.undefine()
        with pytest.raises(TargetError) as error:
            output.discard((), run)
        assert error.value.id == "target-storage"
        assert "demo-sda" in error.value.message
        with there.server.pool("renamed", there.folder):
            output.discard((), run)
        assert list(there.folder.iterdir()) == []
        connection.storagePoolDefineXML(xml).create()


def test_a_pool_in_memory_holds_files(libvirtd: Libvirtd, tmp_path, run) -> None:
    """Though its path is below /dev."""
    folder = Path(tempfile.mkdtemp(prefix="v2v-test-", dir="/dev/shm"))
    try:
        with place(libvirtd, folder) as there:
            ref = migrate(there.output(), make_source(tmp_path), run)
            with libvirtd.connected() as connection:
                xml = connection.lookupByUUIDString(ref.metadata).XMLDesc()
            assert f"<source file='{folder}/demo-sda'/>" in xml
    finally:
        shutil.rmtree(folder)


@pytest.mark.parametrize("below", [False, True], ids=["itself", "below a snapshot"])
def test_discard_keeps_the_disks_that_somebody_uses(
    there: Place, words, tmp_path, run, below: bool
) -> None:
    """The domain was refused, and the user wrote one by hand."""
    source = make_source(tmp_path)
    output = there.output(**words)
    disks = create(output, source, run)
    copy(output, source, disks, run)
    with there.server.defined(domain_xml("demo")), pytest.raises(TargetError):
        output.finalize(source, GUEST, disks, run)
    volume = there.folder / "demo-sda"
    drive = file_disk(tmp_path / "snapshot", below=volume) if below else file_disk(volume)
    with there.server.defined(domain_xml("by-hand", drive)):
        output.discard(disks, run)
        assert volume.exists()


def test_a_cancelled_job_leaves_nothing(there: Place, words, tmp_path, run) -> None:
    source = make_source(tmp_path)
    output = there.output(**words)
    disks = create(output, source, run)
    copy(output, source, disks, run)
    run.cancel.cancel()
    output.discard(disks, run)
    assert list(there.folder.iterdir()) == []


def test_a_full_pool_is_told_and_the_copy_goes_on(libvirtd, small: Path, tmp_path, run) -> None:
    source = make_source(tmp_path, 6 * MiB)
    (small / "other").write_bytes(bytes(4 * MiB))
    with place(libvirtd, small) as there:
        output = there.output(**{"-oo upload": ""})
        disks = create(output, source, run)
        with pytest.raises(CopyError) as error:
            copy(output, source, disks, run)
        assert error.value.id == "target-full"
        (small / "other").unlink()
        copy(output, source, disks, run)
        output.finalize(source, GUEST, disks, run)
        assert (small / "demo-sda").read_bytes() == content(source)


def test_a_host_that_is_reached_over_ssh(there: Place, tmp_path, run) -> None:
    source = make_source(tmp_path, MiB + 512, 512)
    with sshd(tmp_path / "ssh") as host:
        output = there.output(**{"-oc": there.server.over_ssh(host)})
        ref = migrate(output, source, run)
    assert [Path(disk.location).read_bytes() for disk in ref.disks] == [
        Path(disk.location).read_bytes() for disk in source.disks
    ]


def test_an_upload_goes_on_after_the_connection_broke(
    there: Place, tmp_path, run, monkeypatch
) -> None:
    source = make_source(tmp_path, 8 * MiB)
    monkeypatch.setattr(VolumeSink, "request_size", MiB)
    with tcp_proxy(there.server.port) as wire:
        output = there.output(**{"-oc": there.server.uri_at(wire.port)})
        disks = create(output, source, run)
        sent = 0

        def send(*arguments: object) -> None:
            nonlocal sent
            sent += 1
            if sent in (3, 4):
                wire.cut()
            whole(*arguments)

        whole = sinks._send
        monkeypatch.setattr(sinks, "_send", send)
        copy(output, source, disks, run)
        assert sent >= 10
        output.finalize(source, GUEST, disks, run)
    assert (there.folder / "demo-sda").read_bytes() == content(source)


def test_an_upload_goes_on_after_the_daemon_died(tmp_path, run, monkeypatch) -> None:
    source = make_source(tmp_path, 8 * MiB)
    monkeypatch.setattr(VolumeSink, "request_size", MiB)
    with own_libvirtd() as server, place(server, tmp_path / "pool") as there:
        output = there.output(**{"-oc": server.tcp_uri})
        disks = create(output, source, run)
        sent = 0

        def send(*arguments: object) -> None:
            nonlocal sent
            sent += 1
            if sent == 3:
                server.crash()
                server.start_again()
            whole(*arguments)

        whole = sinks._send
        monkeypatch.setattr(sinks, "_send", send)
        copy(output, source, disks, run)
        output.finalize(source, GUEST, disks, run)
        assert (there.folder / "demo-sda").read_bytes() == content(source)


def test_an_image_is_sent_although_the_connection_broke(
    there: Place, tmp_path, run, monkeypatch, events_seen
) -> None:
    source = make_source(tmp_path, 8 * MiB)
    monkeypatch.setattr(VolumeSink, "request_size", MiB)
    with tcp_proxy(there.server.port) as wire:
        output = there.output(**{"-oc": there.server.uri_at(wire.port), "-of": "qcow2"})
        targets = create(output, source, run)
        copy(output, source, targets, run)
        sent = 0

        def send(*arguments: object) -> None:
            nonlocal sent
            sent += 1
            if sent == 3:
                wire.cut()
            whole(*arguments)

        whole = sinks._send
        monkeypatch.setattr(sinks, "_send", send)
        image = Path(targets[0].working).read_bytes()
        output.finalize(source, GUEST, targets, run)
        assert sent > 8
    assert (there.folder / "demo-sda").read_bytes() == image
    assert any(isinstance(event, CopyProgress) for event in events_seen)


def test_an_image_that_fills_the_pool_is_told(libvirtd, small: Path, tmp_path, run) -> None:
    source = make_source(tmp_path, 6 * MiB)
    with place(libvirtd, small) as there:
        output = there.output(**{"-oo upload": "", "-of": "qcow2"})
        targets = create(output, source, run)
        copy(output, source, targets, run)
        (small / "other").write_bytes(bytes(4 * MiB))
        with pytest.raises(CopyError) as error:
            output.finalize(source, GUEST, targets, run)
        assert error.value.id == "target-full"
        (small / "other").unlink()
        output.finalize(source, GUEST, targets, run)


@pytest.mark.parametrize("zeroes", [0, 600 * KiB])
def test_an_error_that_the_daemon_forgets_to_tell_is_noticed(
    there: Place, zeroes: int, tmp_path, run, monkeypatch
) -> None:
    """As of a full pool: what came behind it is not written."""
    source = make_source(tmp_path, 2 * MiB)
    content = os.urandom(2 * MiB - zeroes) + bytes(zeroes)
    (tmp_path / "source-0").write_bytes(content)
    forgotten, send = iter([True]), sinks._send

    def forgetful(stream: Any, block: memoryview, connection: Any) -> None:
        send(stream, memoryview(bytes(len(block))) if next(forgotten, False) else block, connection)

    monkeypatch.setattr(sinks, "_send", forgetful)
    monkeypatch.setattr("v2v.copy.engine.RETRY_SECONDS", (0.1,))
    output = there.output(**{"-oo upload": ""})
    copy(output, source, create(output, source, run), run)
    assert run.journal.get("copied:0", CopyResult).retries == 1
    assert (there.folder / "demo-sda").read_bytes() == content


def test_a_silent_host_is_given_up(there: Place, tmp_path, run, monkeypatch) -> None:
    source = make_source(tmp_path, 8 * MiB)
    monkeypatch.setattr(VolumeSink, "request_size", MiB)
    monkeypatch.setattr("v2v.copy.engine.RETRY_SECONDS", (0.1,))
    with tcp_proxy(there.server.port) as wire:
        output = there.output(**{"-oc": there.server.uri_at(wire.port)})
        disks = create(output, source, run)
        with output.connect(disks, run) as (sink,):
            sink.write(0, memoryview(bytes(MiB)))
            sink._session._stall = 0.3
            wire.stall()
            with pytest.raises(OSError, match="did not answer"):
                sink.write(0, memoryview(bytes(MiB)))
            wire.flow()


def test_a_preallocated_volume_has_its_space(there: Place, tmp_path, run) -> None:
    source = make_source(tmp_path)
    output = there.output(**{"-oo upload": "", "-oa": "preallocated"})
    create(output, source, run)
    assert (there.folder / "demo-sda").stat().st_blocks * 512 >= MiB


def test_logical_volumes(tmp_path: Path, run) -> None:
    """As far as libvirt's own driver for tests goes: it makes them, and has no devices."""
    import libvirt

    source = make_source(tmp_path, MiB + 512, name="Web 1/ü")
    connection = libvirt.open("test:///default")
    try:
        pool = connection.storagePoolDefineXML(
            "<pool type='logical'><name>vg</name><source><name>vg</name></source>"
            "<target><path>/dev/vg</path></target></pool>"
        )
        pool.create()
        output = make({"-oc": "test:///default", "-os": "vg"})
        (disk,) = create(output, source, run)
        assert pool.listVolumes() == ["Web_1__-sda"]
        assert disk.location == "/dev/vg/Web_1__-sda"
        _, capacity, allocation = pool.storageVolLookupByName("Web_1__-sda").info()
        assert capacity == allocation == MiB + 512
        output.check_source(source, run)
        qcow2 = make({"-oc": "test:///default", "-os": "vg", "-of": "qcow2"})
        with pytest.raises(Exception, match="raw"):
            qcow2.check_source(source, run)
        output.discard((), run)
        assert pool.listVolumes() == []
        pool.destroy()
        pool.undefine()
    finally:
        connection.close()


def test_a_logical_volume_is_written_over_whatever_it_holds(tmp_path: Path) -> None:
    with loop_devices(tmp_path) as make_device:
        device = make_device(b"old" * MiB)
        link = tmp_path / "vg-x"  # as LVM names its devices
        link.symlink_to(device)
        volume = Volume(
            0, "vg", "x", Way.DEVICE, str(link), str(link), DiskFormat.RAW, MiB + 512, block=True
        )
        with device_sink(volume) as sink:
            assert not sink.is_zero
            sink.write(0, memoryview(b"new" * KiB))
            sink.zero(3 * KiB, MiB + 512 - 3 * KiB)
            sink.flush()
        with device.open("rb") as file:
            assert file.read(MiB + 512) == b"new" * KiB + bytes(MiB + 512 - 3 * KiB)


def test_a_logical_volume_of_another_host_is_not_written_to(tmp_path: Path) -> None:
    """libvirt may be reached by a socket of this host, and be elsewhere."""
    (tmp_path / "x").write_bytes(b"mine")
    where = str(tmp_path / "x")
    volume = Volume(0, "vg", "x", Way.DEVICE, where, where, DiskFormat.RAW, MiB, block=True)
    with pytest.raises(TargetError) as error, device_sink(volume):
        pass
    assert error.value.id == "target-storage"


def content(source) -> bytes:
    return Path(source.disks[0].location).read_bytes()
