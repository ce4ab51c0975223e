"""The demo guest from every input: as users have it, from where it is to a login on virtio.

-i disk is in test_demo_guest.py.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import v2v
from fixtures.domain_xml import FileDisk, domain_xml, write_domain
from fixtures.ova import write_ova
from fixtures.ovf import OvfImage, write_ovf
from fixtures.vmx import disk, nic, write_vm
from tests.contract.test_inputs import detached_nbdkit
from tests.fakes.http_server import serve_folder
from tests.integration.test_demo_guest import BOOT_SECONDS, sha256
from tests.libvirtd import Libvirtd, libvirtd
from v2v.api import Result

__all__ = ["libvirtd"]

pytestmark = [pytest.mark.appliance, pytest.mark.boots, pytest.mark.timeout(1800)]

MAC = "00:50:56:0a:0b:0c"
Words = tuple[str, dict[str, str]]  # the guest and the input's options


def over_nbd(image: Path, folder: Path, stack: ExitStack) -> Words:
    stack.enter_context(detached_nbdkit(image, folder / "s", read_only=True))
    return f"nbd+unix:///?socket={folder / 's'}", {}


def over_http(image: Path, folder: Path, stack: ExitStack) -> Words:
    qemu_img("convert", "-f", "raw", "-O", "qcow2", image, folder / "guest.qcow2")
    return f"{stack.enter_context(serve_folder(folder))}/guest.qcow2", {}


def ova(image: Path, folder: Path, stack: ExitStack) -> Words:
    """An export of vSphere, which is read in place from a web server."""
    disk = folder / "disk1.vmdk"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", image, disk)
    descriptor = write_ovf(
        folder / "guest.ovf", "vsphere", [OvfImage(disk.name, image.stat().st_size)]
    )
    write_ova(folder / "guest.ova", "tar", {descriptor.name: descriptor, disk.name: disk})
    disk.unlink()
    return f"{stack.enter_context(serve_folder(folder))}/guest.ova", {}


def vmx(image: Path, folder: Path, stack: ExitStack) -> Words:
    """A VM of Workstation with a snapshot: the disk in parts, and what was written since."""
    base = folder / "guest.vmdk"
    split = "subformat=twoGbMaxExtentSparse"
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", split, image, base)
    qemu_img("create", "-f", "vmdk", "-F", "vmdk", "-b", base.name, folder / "guest-000001.vmdk")
    card = nic(0, MAC, virtualDev="vmxnet3", pciSlotNumber="192")
    path = write_vm(
        folder,
        {"displayName": "guest", **disk("scsi0:0", "guest-000001.vmdk"), **card},
        name="guest",
        snapshots=[("before the update", {"scsi0:0": "guest.vmdk"})],
    )
    return str(path), {}


def from_libvirt_xml(image: Path, folder: Path, stack: ExitStack) -> Words:
    path = write_domain(folder / "guest.xml", [FileDisk(image)], name="guest", bus="sata", mac=MAC)
    return str(path), {}


def from_libvirt(image: Path, folder: Path, stack: ExitStack, server: Libvirtd) -> Words:
    qemu_img("create", "-f", "qcow2", "-F", "raw", "-b", image, folder / "guest.qcow2")
    xml = domain_xml(
        [FileDisk(folder / "guest.qcow2", "qcow2")], name="guest", type="qemu", mac=MAC, bus="sata"
    )
    stack.enter_context(server.defined(xml))
    return "guest", {"-ic": server.uri, "-io allow-backing": str(image)}


MAKERS: dict[str, Callable[[Path, Path, ExitStack], Words]] = {
    "nbd": over_nbd,
    "http": over_http,
    "ova": ova,
    "vmx": vmx,
    "libvirtxml": from_libvirt_xml,
}


def qemu_img(*argv: object) -> None:
    subprocess.run(["qemu-img", *map(str, argv)], check=True, capture_output=True)


def contents(folder: Path) -> dict[str, str]:
    """The hash of each file in a folder."""
    return {path.name: sha256(path) for path in folder.iterdir() if path.is_file()}


@pytest.fixture(params=[*MAKERS, "libvirt"])
def converted(
    request: pytest.FixtureRequest, guest_image: Callable[[str], Path], tmp_path: Path
) -> Iterator[Result]:
    """A finished conversion from the input, after which the source is as it was."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    image = guest_image("debian-12")
    with ExitStack() as stack:
        if request.param == "libvirt":
            server = request.getfixturevalue("libvirtd")
            guest, options = from_libvirt(image, source, stack, server)
        else:
            guest, options = MAKERS[request.param](image, source, stack)
        before = contents(source)
        yield v2v.convert(
            guest,
            input=request.param,
            input_options=options,
            storage=target,
            name="moved",
            boot_check=BOOT_SECONDS,
            jobs=tmp_path / "jobs",
        )
        assert contents(source) == before


def test_it_boots_on_virtio_with_its_network(converted: Result) -> None:
    assert converted.boot is not None
    assert converted.boot.reached == "login"
    assert (converted.boot.root_device or "").startswith("vda")
    assert converted.boot.nic_drivers.get("ens192") == "virtio_net"
    assert sorted(path.name for path in Path(converted.guest.metadata or "").parent.iterdir()) == [
        "moved-sda",
        "moved.xml",
    ]
