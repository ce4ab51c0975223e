"""-o rhv-upload: what is refused before anything is copied, or created."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.output_suite import GUEST
from tests.contract.test_outputs import make
from tests.ovirt_engine import Engine
from v2v import password
from v2v.errors import TargetError, UsageError, V2VError
from v2v.outputs._ovirt import names
from v2v.outputs.rhv_upload import RhvUploadOutput
from v2v.run import Run
from v2v.types import (
    BlockBus,
    DiskFormat,
    Firmware,
    GiB,
    Machine,
    MiB,
    Nic,
    Source,
    SourceDisk,
)

UUID = "3d1c7f6e-0f0a-4c7e-9c39-0123456789ab"


@pytest.fixture
def engine(installed: Engine) -> Engine:
    installed.model.reset()
    installed.requests.clear()
    return installed


SOURCE = Source(
    name="web server",
    input="disk",
    disks=(SourceDisk("/a", DiskFormat.RAW, GiB), SourceDisk("/b", DiskFormat.RAW, GiB)),
    nics=(Nic(mac="52:54:00:12:34:56"),),
)


def output(engine: Engine, **more: str | None) -> RhvUploadOutput:
    """`more`: options without dashes and modes: os="fast", cluster="x"; None leaves one out."""
    words: dict[str, str | None] = {**engine.words, "-os": "data"}
    for key, word in more.items():
        flag = f"-{key}" if len(key) == 2 else f"-oo rhv-{key.replace('_', '-')}"
        words[flag] = word
    made = make("rhv-upload", {flag: word for flag, word in words.items() if word is not None})
    assert isinstance(made, RhvUploadOutput)
    return made


def refused(engine: Engine, run: Run, source: Source = SOURCE, **more: str | None) -> V2VError:
    with pytest.raises(V2VError) as caught:
        output(engine, **more).check_source(source, run)
    assert not any(one.startswith(("POST", "PUT", "DELETE")) for one in engine.requests)
    assert engine.model.password not in f"{caught.value} {caught.value.hint}"
    return caught.value


def change(engine: Engine, what: str) -> None:
    domain = engine.model.domains[0]
    if what == "uefi":
        engine.model.clusters[0].minor = 2
    elif what == "center":
        engine.model.clusters[0].center = None
    elif what in ("one of two", "default gone"):
        first = engine.model.clusters[0]
        first.name = "a"
        engine.model.clusters.append(replace(first, id="c2", name="b"))
    else:
        domain.status = what


@pytest.mark.parametrize(
    ("more", "id", "says"),
    [
        ({"oc": "http://127.0.0.1/"}, "uri-invalid", "https://ENGINE/ovirt-engine/api"),
        ({"oc": "https://u:secret@h/"}, "password-in-uri", ""),
        ({"oc": "https://127.0.0.1:1/"}, "target-unreachable", "127.0.0.1"),
        ({"cafile": None}, "target-untrusted", "pki-resource"),
        ({"cafile": "/dev/null/x"}, "option-value", "curl"),
        ({"op": "/dev/null"}, "target-login", "admin@internal"),
        ({"cluster": "none"}, "target-cluster", "Default"),
        ({"os": "nothing"}, "target-storage", "blocks, data, fast, isos"),
        ({"os": "loose"}, "target-storage", "not attached"),
        ({"os": "isos"}, "target-storage", "is for iso"),
        ({"os": "blocks", "oa": "sparse"}, "target-storage", "block storage"),
        ({"of": "qcow2", "oa": "preallocated"}, "option-conflict", "qcow2"),
        ({"disk_uuid": "x"}, "option-value", "x"),
        ({"disk_uuid": UUID}, "option-value", "2 disks"),
        ({"disk_uuid": f"{UUID}\0{UUID.upper()}"}, "option-value", "twice"),
        ({"oo": "x"}, "option-unknown", ""),
    ],
)
def test_wrong_options(
    engine: Engine, run: Run, more: dict[str, str | None], id: str, says: str
) -> None:
    error = refused(engine, run, **more)
    assert error.id == id
    assert says in f"{error} {error.hint}"


@pytest.mark.parametrize(
    ("what", "id", "says"),
    [
        ("maintenance", "target-storage", "maintenance"),
        ("locked", "target-storage", "locked"),
        ("unknown", "target-storage", "unknown"),
        ("preparing_for_maintenance", "target-storage", "preparing for maintenance"),
        ("center", "target-cluster", "no data center"),
        ("one of two", "target-cluster", "a, b"),
    ],
)
def test_an_engine_that_is_not_ready(
    engine: Engine, run: Run, what: str, id: str, says: str
) -> None:
    change(engine, what)
    error = refused(engine, run)
    assert error.id == id
    assert says in str(error)


def test_a_wrong_password_is_asked_for_again(
    engine: Engine, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong").write_text("hunter2\n")
    error = refused(engine, run, op=str(tmp_path / "wrong"))
    assert error.id == "target-login"
    assert "hunter2" not in f"{error} {error.hint}"
    monkeypatch.setattr(password, "TERMINAL", Path("/nowhere"))
    assert refused(engine, run, op=None).id == "target-login"
    monkeypatch.setenv("V2V_OUTPUT_PASSWORD", engine.model.password)
    output(engine, op=None).check_source(SOURCE, run)
    assert "V2V_OUTPUT_PASSWORD" not in os.environ
    password._answers.clear()


def test_a_server_that_is_no_engine(engine: Engine, run: Run) -> None:
    error = refused(engine, run, oc=engine.url.replace("/api", "/elsewhere"))
    assert error.id == "target-answer"
    assert "ovirt-engine/api" in (error.hint or "")


def test_certificates_need_not_be_checked_if_the_user_says_so(engine: Engine, run: Run) -> None:
    output(engine, cafile=None, verifypeer="false").check_source(SOURCE, run)


def test_the_user_is_a_part_of_the_address(engine: Engine, run: Run) -> None:
    engine.model.user = "me@ldap"
    assert refused(engine, run).id == "target-login"
    output(engine, oc=engine.url.replace("//", "//me@ldap@")).check_source(SOURCE, run)


def test_the_address_may_end_with_the_host(engine: Engine, run: Run) -> None:
    output(engine, oc=f"https://127.0.0.1:{engine.port}").check_source(SOURCE, run)


def test_a_name_that_is_taken(engine: Engine, run: Run) -> None:
    add_vm(engine, "web_server", "another")
    error = refused(engine, run)
    assert error.id == "target-exists"
    assert "web_server" in str(error)


def test_the_jobs_own_vm_is_not_in_its_way(engine: Engine, run: Run) -> None:
    add_vm(engine, "web_server", names.vm_uuid(run))
    output(engine).check_source(SOURCE, run)


def add_vm(engine: Engine, name: str, uuid: str) -> None:
    from tests.fakes.ovirt_engine.model import Vm

    engine.model.vms[uuid] = Vm(uuid, name, "c", "", {}, {}, [])


def test_disks_of_these_uuids_that_are_there(engine: Engine, run: Run) -> None:
    words = {"disk_uuid": f"{UUID}\0{UUID[:-1]}c"}
    output(engine, **words).check_source(SOURCE, run)
    engine.model.disks[UUID] = strangers_disk(engine)
    error = refused(engine, run, **words)
    assert error.id == "target-exists"
    assert UUID in str(error)


def strangers_disk(engine: Engine) -> Any:
    from tests.fakes.ovirt_engine.model import Disk

    path = engine.model.folder / UUID
    path.write_bytes(b"mine")
    return Disk(UUID, "x", "theirs", "raw", 4, None, True, "d", path, status="ok")


def test_a_transfer_to_a_disk_of_others_goes_on(engine: Engine, run: Run) -> None:
    """It came between the check and the copy. To cancel a transfer removes its disk."""
    from tests.fakes.ovirt_engine.model import Transfer

    model = engine.model
    made = output(engine, disk_uuid=UUID)
    source = replace(SOURCE, disks=SOURCE.disks[:1])
    made.check_source(source, run)
    model.disks[UUID] = strangers_disk(engine)
    model.transfers["t"] = Transfer("t", UUID, 60, "legacy", "h1", phase="transferring")
    with pytest.raises(TargetError) as caught:
        made.create_disks(source, (MiB,), run)
    assert caught.value.id == "target-refused"
    made.discard((), run)
    assert model.transfers["t"].phase == "transferring"
    assert list(model.disks) == [UUID]


def test_networks_are_known_by_their_name_or_their_profiles(engine: Engine, run: Run) -> None:
    for name in ("ovirtmgmt", "default", "vlan5"):
        source = replace(SOURCE, nics=(Nic(network=name),))
        output(engine).check_source(source, run)
    error = refused(engine, run, replace(SOURCE, nics=(Nic(network="VM \x1bNetwork"),)))
    assert error.id == "target-network"
    assert "default, ovirtmgmt, vlan5" in str(error)
    assert "\x1b" not in str(error)
    assert "--network" in (error.hint or "")


@pytest.mark.parametrize(
    ("level", "source", "fits"),
    [
        ((4, 2), {"firmware": Firmware.BIOS}, True),
        ((4, 2), {"firmware": Firmware.UEFI}, False),
        ((4, 3), {"firmware": Firmware.UEFI}, True),
        ((4, 3), {"firmware": Firmware.UEFI, "secure_boot": True}, False),
        ((4, 4), {"firmware": Firmware.UEFI, "secure_boot": True}, True),
        ((4, 2), {"firmware": None}, True),
    ],
)
def test_firmware_that_the_cluster_knows(
    engine: Engine, run: Run, level: tuple[int, int], source: dict[str, Any], fits: bool
) -> None:
    cluster = engine.model.clusters[0]
    cluster.major, cluster.minor = level
    if fits:
        output(engine).check_source(replace(SOURCE, **source), run)
    else:
        assert refused(engine, run, replace(SOURCE, **source)).id == "target-firmware"


def test_a_guest_that_the_cluster_cannot_run(engine: Engine, run: Run) -> None:
    change(engine, "uefi")
    made = output(engine)
    made.check_source(SOURCE, run)
    made.check_guest(GUEST, run)
    with pytest.raises(TargetError) as caught:
        made.check_guest(replace(GUEST, firmware=Firmware.UEFI), run)
    assert caught.value.id == "target-firmware"
    with pytest.raises(TargetError) as caught:
        made.check_guest(replace(GUEST, caps=replace(GUEST.caps, arch="aarch64")), run)
    assert caught.value.id == "target-arch"


@pytest.mark.parametrize("arch", ["x86_64", "i686", "i386"])
def test_guests_of_32_bits_run_on_x86(engine: Engine, run: Run, arch: str) -> None:
    made = output(engine)
    made.check_source(SOURCE, run)
    made.check_guest(replace(GUEST, caps=replace(GUEST.caps, arch=arch)), run)


def test_too_many_disks(engine: Engine, run: Run) -> None:
    error = refused(engine, run, replace(SOURCE, disks=SOURCE.disks * 12))
    assert error.id == "target-disk-count"


def test_more_disks_than_ports(engine: Engine, run: Run) -> None:
    made = output(engine)
    made.check_source(replace(SOURCE, disks=SOURCE.disks * 2), run)
    caps = replace(GUEST.caps, block_bus=BlockBus.IDE, machine=Machine.I440FX)
    with pytest.raises(TargetError) as caught:
        made.check_guest(replace(GUEST, caps=caps), run)
    assert caught.value.id == "target-disk-count"


@pytest.mark.parametrize(
    ("more", "sizes", "used", "id"),
    [
        ({}, (8 * GiB, 8 * GiB), (GiB, GiB), None),
        ({}, (8 * GiB, 8 * GiB), (6 * GiB, 5 * GiB), "target-space"),
        ({"oa": "preallocated"}, (8 * GiB, 8 * GiB), (0, 0), "target-space"),
        ({"os": "blocks"}, (8 * GiB, 8 * GiB), (0, 0), "target-space"),
        ({"os": "blocks", "of": "qcow2"}, (8 * GiB, 8 * GiB), (0, 0), None),
        ({"os": "blocks", "of": "qcow2"}, (9 * GiB, 9 * GiB), (5 * GiB, 4 * GiB), "target-space"),
        ({"os": "blocks", "of": "qcow2"}, (9 * GiB, 9 * GiB), (4 * GiB, 3 * GiB), None),
        # 9.5 GiB, and the tenth that hosts add
        (
            {"os": "blocks", "of": "qcow2"},
            (9 * GiB, 9 * GiB),
            (4 * GiB, 7 * GiB // 2),
            "target-space",
        ),
        ({}, (GiB, GiB + 100), (0, 0), "target-disk-size"),
    ],
)
def test_space(
    engine: Engine,
    run: Run,
    more: dict[str, str | None],
    sizes: tuple[int, ...],
    used: tuple[int, ...],
    id: str | None,
) -> None:
    for domain in engine.model.domains:
        domain.available = 10 * GiB
    made = output(engine, **more)
    made.check_source(SOURCE, run)
    if id is None:
        made.check_sizes(sizes, used, run)
    else:
        with pytest.raises(TargetError) as caught:
            made.check_sizes(sizes, used, run)
        assert caught.value.id == id


def test_space_is_counted_per_storage_domain(engine: Engine, run: Run) -> None:
    for domain in engine.model.domains:
        domain.available = 10 * GiB
    first, second = SOURCE.disks
    source = replace(SOURCE, disks=(first, replace(second, target_storage="fast")))
    made = output(engine)
    made.check_source(source, run)
    made.check_sizes((8 * GiB, 8 * GiB), (6 * GiB, 6 * GiB), run)
    disks = made.create_disks(source, (MiB, MiB), run)
    places = [engine.model.disks[disk.working].domain for disk in disks]
    assert places == [one.id for one in engine.model.domains[:2]]
    made.discard(disks, run)


def test_a_vm_that_lost_a_disk_meanwhile(engine: Engine, run: Run) -> None:
    """The job begins again: what it had made of that disk goes."""
    made = output(engine)
    made.create_disks(SOURCE, (MiB, MiB), run)
    disks = made.create_disks(replace(SOURCE, disks=SOURCE.disks[:1]), (MiB,), run)
    assert list(engine.model.disks) == [disks[0].working]


def test_the_binding_that_is_missing(
    engine: Engine, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ovirtsdk4", None)
    error = refused(engine, run)
    assert error.id == "binding-missing"
    assert "v2v[ovirt]" in (error.hint or "")


@pytest.mark.parametrize(
    ("name", "becomes"),
    [
        ("web-1.example_com", "web-1.example_com"),
        ("Bürorechner 7", "Bürorechner_7"),
        ('x" or name=*', "x__or_name__"),
        ("", "vm"),
        ("a" * 100, "a" * 64),
    ],
)
def test_names_are_what_the_engine_takes(name: str, becomes: str) -> None:
    assert names.vm_name(name) == becomes


def test_usage_is_told_without_the_engine(run: Run, tmp_path: Path) -> None:
    made = make(
        "rhv-upload", {"-oc": "https://127.0.0.1:1/", "-os": "a", "-oo ovirt-disk-uuid": "x"}
    )
    with pytest.raises(UsageError):
        made.check_source(replace(SOURCE, disks=SOURCE.disks[:1]), run)
