"""The domain that -o libvirt defines: fitted to the host, defined once, started when asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from tests.contract.output_suite import GUEST
from tests.libvirtd import Libvirtd, domain_xml, libvirtd
from tests.machines import disks as some_disks
from tests.machines import machine
from tests.outputs.libvirt_output import (
    UNDEFINE_NVRAM,
    Place,
    copy,
    create,
    hidden_firmware,
    make_source,
    migrate,
    missing_nic,
    place,
)
from tests.outputs.test_libvirt_defines import for_tests
from tests.outputs.test_libvirt_xml import schema, validate
from v2v.errors import TargetError
from v2v.events import Warned
from v2v.outputs import libvirt as outputs_libvirt
from v2v.outputs._domain import domain_element, domain_uuid, written
from v2v.outputs._libvirt import domain
from v2v.outputs._libvirt.capabilities import Capabilities, parse_capabilities
from v2v.outputs._libvirt.fit import fit
from v2v.types import BlockBus, Firmware, Machine, MiB

__all__ = ["libvirtd"]


@pytest.fixture
def there(libvirtd: Libvirtd, tmp_path: Path) -> Iterator[Place]:
    with place(libvirtd, tmp_path / "pool") as found:
        yield found


class Crash(BaseException):
    """The machine stops here."""


@pytest.mark.parametrize(
    ("firmware", "secure", "kind", "bus"),
    [
        (Firmware.BIOS, False, Machine.I440FX, BlockBus.IDE),
        (Firmware.BIOS, False, Machine.Q35, BlockBus.VIRTIO_SCSI),
        (Firmware.UEFI, False, Machine.Q35, BlockBus.VIRTIO_BLK),
        (Firmware.UEFI, True, Machine.Q35, BlockBus.SATA),
    ],
)
def test_libvirt_takes_what_is_written(
    there: Place, tmp_path, run, firmware, secure, kind, bus
) -> None:
    """With everything a source can have: what this host lacks is left out, and it starts."""
    import libvirt

    tmp_path.chmod(0o755)
    source = make_source(
        tmp_path,
        512,
        512,
        memory=64 * MiB,
        name="A <1>",
        secure_boot=secure,
        tpm=True,
        vsock=True,
        sound="ich9",
    )
    source = replace(source, genid="5b1e0da7-2e7f-4b1c-8c51-8d3cd0a1e2f3")
    run.journal.put("source", source)
    caps = replace(GUEST.caps, machine=kind, block_bus=bus)
    guest = replace(GUEST, firmware=firmware, caps=caps, nics=())
    output = there.output()
    disks = create(output, source, run)
    output.check_guest(guest, run)
    copy(output, source, disks, run)
    output.finalize(source, guest, disks, run)
    with there.server.connected() as connection:
        found = connection.lookupByName("A <1>")
        validate(found.XMLDesc().encode(), tmp_path)
        found.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        xml = found.XMLDesc()
        assert found.UUIDString() == str(domain.domain_uuid(run))
    root = etree.fromstring(xml)
    assert (root.find("os/nvram") is not None) == (firmware is Firmware.UEFI)
    keys = root.find("os/nvram[@template='/usr/share/OVMF/OVMF_VARS_4M.ms.fd']") is not None
    assert keys == secure
    assert root.find("genid") is not None


def test_a_host_whose_firmware_can_all_do_secure_boot(libvirtd: Libvirtd) -> None:
    """Without keys it lets every guest boot."""
    import libvirt

    hardware = machine(firmware=Firmware.UEFI, nics=(), vsock=False, memory=64 * MiB, disk_count=0)
    xml = for_tests(written(domain_element(hardware, [], domain_uuid(hardware))))
    with (
        hidden_firmware(libvirtd, lambda features: "secure-boot" not in features),
        libvirtd.connected() as connection,
    ):
        domain = connection.defineXML(xml)
        domain.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
        root = etree.fromstring(domain.XMLDesc())
        domain.destroy()
        domain.undefineFlags(UNDEFINE_NVRAM)
    assert root.find("os/loader").text.endswith("secboot.fd")
    assert not root.find("os/nvram").get("template").endswith("ms.fd")


def test_a_domain_that_is_refused_keeps_the_disks(there: Place, tmp_path, run) -> None:
    source = make_source(tmp_path)
    output = there.output()
    disks = create(output, source, run)
    copy(output, source, disks, run)
    with there.server.defined(domain_xml("demo")):
        with pytest.raises(TargetError) as error:
            output.finalize(source, GUEST, disks, run)
        assert error.value.id == "target-define"
        assert (there.folder / "demo-sda").exists()
    assert (run.folder / "domain.xml").exists()
    output.finalize(source, GUEST, disks, run)
    assert there.domains() == ["demo"]


def test_a_device_that_libvirt_refuses_is_left_out(
    there: Place, tmp_path, run, monkeypatch, events_seen
) -> None:
    """It has panic devices, and this is another machine's."""

    def write(*arguments: Any, **words: Any) -> Any:
        root = element(*arguments, **words)
        root.find("devices/panic").set("model", "pseries")
        return root

    element = outputs_libvirt.domain_element
    monkeypatch.setattr(outputs_libvirt, "domain_element", write)
    migrate(there.output(), make_source(tmp_path), run)
    warned = {event.text for event in events_seen if isinstance(event, Warned)}
    assert any("has no panic (pseries): the guest gets none" in text for text in warned)
    with there.server.connected() as connection:
        root = etree.fromstring(connection.lookupByName("demo").XMLDesc())
    assert root.find("devices/panic") is None
    assert root.find("devices/rng") is not None


def test_a_refused_domain_s_disks_are_discarded(there: Place, tmp_path, run) -> None:
    source = make_source(tmp_path)
    output = there.output()
    disks = create(output, source, run)
    copy(output, source, disks, run)
    with there.server.defined(domain_xml("demo")), pytest.raises(TargetError):
        output.finalize(source, GUEST, disks, run)
    output.discard(disks, run)
    assert list(there.folder.iterdir()) == []


def test_a_crash_once_it_is_defined(there: Place, tmp_path, run, monkeypatch) -> None:
    """The domain is there, and nothing tells of it: neither is it defined again nor removed."""
    source = make_source(tmp_path)
    output = there.output()
    disks = create(output, source, run)
    copy(output, source, disks, run)

    def crash(*arguments: Any) -> None:
        define(*arguments)
        raise Crash

    define = domain.define
    with monkeypatch.context() as patch:
        patch.setattr(domain, "define", crash)
        with pytest.raises(Crash):
            output.finalize(source, GUEST, disks, run)
    output.discard(disks, run)
    assert (there.folder / "demo-sda").exists()
    output.finalize(source, GUEST, disks, run)
    assert there.domains() == ["demo"]


def test_it_is_started_when_asked(there: Place, tmp_path, run) -> None:
    tmp_path.chmod(0o755)
    source, guest = make_source(tmp_path, memory=64 * MiB), replace(GUEST, nics=())
    output = there.output(**{"--start": ""})
    disks = create(output, source, run)
    copy(output, source, disks, run)
    ref = output.finalize(source, guest, disks, run)
    assert ref.start_hint is None
    with there.server.connected() as connection:
        assert connection.lookupByName("demo").isActive()
    assert output.finalize(source, guest, disks, run) == ref


def test_a_guest_that_does_not_start_is_kept(there: Place, tmp_path, run) -> None:
    source = make_source(tmp_path)
    output = there.output(**{"--start": ""})
    disks = create(output, source, run)
    copy(output, source, disks, run)
    guest = replace(GUEST, nics=(missing_nic(),))
    for _ in range(2):
        with pytest.raises(TargetError) as error:
            output.finalize(source, guest, disks, run)
        assert error.value.id == "target-start"
    output.discard(disks, run)
    assert there.domains() == ["demo"]
    assert (there.folder / "demo-sda").exists()


def test_a_host_without_kvm_is_told(there: Place, tmp_path, run, events_seen) -> None:
    migrate(there.output(), make_source(tmp_path), run)
    with there.server.connected() as connection:
        kind = etree.fromstring(connection.lookupByName("demo").XMLDesc()).get("type")
    warned = {event.id for event in events_seen if isinstance(event, Warned)}
    assert (kind == "qemu") == ("target-no-kvm" in warned)


# Capabilities -------------------------------------------------------------------------------------

HOST = """
<domainCapabilities>
  <path>/usr/bin/qemu</path><domain>{kind}</domain><machine>pc-q35-9.0</machine><arch>x86_64</arch>
  <os supported='yes'>
    <enum name='firmware'/>
    <loader supported='yes'><enum name='secure'><value>no</value></enum></loader>
  </os>
  <cpu>
    <mode name='host-passthrough' supported='yes'/>
    <mode name='maximum' supported='yes'/>
    <mode name='host-model' supported='yes'>{model}</mode>
  </cpu>
  <devices>
    <graphics supported='yes'><enum name='type'><value>spice</value></enum></graphics>
    <video supported='yes'><enum name='modelType'><value>vga</value></enum></video>
    <rng supported='yes'><enum name='model'><value>virtio-transitional</value></enum></rng>
    <tpm supported='no'/>
  </devices>
  <features><genid supported='no'/></features>
</domainCapabilities>
"""


@pytest.mark.parametrize(
    ("kind", "model", "mode"),
    [
        ("kvm", "<model>EPYC</model>", "host-model"),
        ("kvm", "", "host-passthrough"),
        ("qemu", "<model>EPYC</model>", "maximum"),
    ],
)
def test_the_best_processor_that_the_host_has(kind: str, model: str, mode: str) -> None:
    host = parse_capabilities(HOST.format(kind=kind, model=model))
    assert (host.kind, host.cpu) == (kind, mode)


def test_what_a_host_cannot_do_is_left_out() -> None:
    host = parse_capabilities(HOST.format(kind="kvm", model=""))
    assert not host.has("os/firmware", "efi")
    assert not host.has("loader/secure", "yes")
    hardware = machine(tpm=True, genid="5b1e0da7-2e7f-4b1c-8c51-8d3cd0a1e2f3", windows=True)
    root = domain_element(hardware, some_disks(1), domain_uuid(hardware))
    left_out = fit(root, replace(host, vsock=False))
    assert left_out == [
        "tpm (tpm-crb)",
        "rng (virtio)",
        "graphics (vnc)",
        "genid",
        "vsock (virtio)",
    ]
    for path in ("devices/tpm", "devices/rng", "devices/graphics", "genid", "devices/vsock"):
        assert root.find(path) is None
    assert root.find("devices/video") is not None
    assert root.find("features/hyperv") is not None
    schema().assertValid(root)


def test_hyper_v_is_kvm_s(tmp_path) -> None:
    hardware = machine(windows=True)
    root = domain_element(hardware, some_disks(1), domain_uuid(hardware))
    schema().assertValid(root)
    assert fit(root, Capabilities(kind="qemu", cpu="maximum")) == []
    assert root.find("features/hyperv") is None
    assert root.find("clock/timer[@name='hypervclock']") is None
    assert root.find("cpu").get("mode") == "maximum"
    schema().assertValid(root)


def test_a_host_that_tells_nothing_gets_the_whole_domain() -> None:
    hardware = machine(tpm=True)
    root = domain_element(hardware, some_disks(1), domain_uuid(hardware))
    before = etree.tostring(root)
    assert fit(root, Capabilities()) == []
    assert etree.tostring(root) == before
