"""The demo guest from VMware, by each way of reading it, to a login on virtio."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache, partial
from pathlib import Path

import pytest

from fixtures.vmx import disk, nic, write_vm
from tests.fakes.vddk.host import THUMBPRINT, vddk_host
from tests.integration.moving import (
    MAC,
    Maker,
    Moved,
    Words,
    check_booted,
    check_same,
    move,
)
from tests.sshd import sshd
from tests.vcsim import Disk, Nic, Vcsim, vcsim
from v2v import nbdkit

pytestmark = [pytest.mark.appliance, pytest.mark.boots, pytest.mark.timeout(1800)]


def over_ssh(image: Path, folder: Path, stack: ExitStack, *, reader: str) -> Words:
    vm = folder / "vmfs" / "volumes" / "Datastore [1] 100%" / "guest"
    put_flat(vm, image)
    card = nic(0, MAC, virtualDev="vmxnet3", pciSlotNumber="192")
    path = write_vm(
        vm, {"displayName": "guest", **disk("scsi0:0", "guest.vmdk"), **card}, name="guest"
    )
    server = stack.enter_context(sshd(folder / "sshd"))
    options = {
        "-it": "ssh",
        "-io ssh-known-hosts": str(server.known_hosts),
        "-io ssh-identity": str(server.identity),
        "-io ssh-reader": reader,
    }
    return "vmx", server.uri(path), options, vm


def put_flat(vm: Path, image: Path) -> None:
    """A disk as an ESXi host has it."""
    vm.mkdir(parents=True)
    shutil.copyfile(image, vm / "guest-flat.vmdk")
    sectors = image.stat().st_size // 512
    (vm / "guest.vmdk").write_text(
        '# Disk DescriptorFile\nversion=1\nencoding="UTF-8"\nCID=fffffffe\nparentCID=ffffffff\n'
        f'createType="vmfs"\n\nRW {sectors} VMFS "guest-flat.vmdk"\n'
    )


def of_vsphere(image: Path, folder: Path, stack: ExitStack) -> tuple[Vcsim, dict[str, str], Path]:
    server = stack.enter_context(vcsim(folder / "vc"))
    made = server.create_vm("guest", disks=[Disk(content=image)], nics=[Nic(mac=MAC)])
    options = {
        "-ic": server.uri("vpx"),
        "-ip": str(server.password_file),
        "-io cafile": str(server.cafile),
    }
    return server, options, made.folder


def https(image: Path, folder: Path, stack: ExitStack) -> Words:
    _, options, vm = of_vsphere(image, folder, stack)
    return "vsphere", "guest", options, vm


def vddk(image: Path, folder: Path, stack: ExitStack) -> Words:
    server, options, vm = of_vsphere(image, folder, stack)
    flat = vm / "guest-flat.vmdk"
    disks = {"[datastore1] guest/guest.vmdk": flat}
    host = vddk_host(folder / "host", disks, password=server.password)
    nbdkit._config.cache_clear()
    stack.callback(nbdkit._config.cache_clear)
    patch = stack.enter_context(pytest.MonkeyPatch.context())
    patch.setenv("PATH", str(host.folder), prepend=":")
    patch.setenv("VDDK_FAKE", str(host.world))
    options |= {"-it": "vddk", "-io vddk-thumbprint": THUMBPRINT}
    return "vsphere", "guest", options, vm


def by_plugin(image: Path, folder: Path, stack: ExitStack) -> Words:
    """Described by libvirt's driver, and read by a plugin that the user chose."""
    server, options, vm = of_vsphere(image, folder, stack)
    card = nic(0, MAC, virtualDev="vmxnet3", networkName="VM Network")
    write_vm(vm, {**LIBVIRT_WANTS, **disk("scsi0:0", "guest.vmdk"), **card}, name="guest")
    del options["-io cafile"]  # libvirt has its own
    options |= {"-ic": server.uri(verify=False), "--vsphere-api": "libvirt"}
    options |= {"-it": "nbdkit:file", "-io file": str(vm / "guest-flat.vmdk")}
    return "vsphere", "guest", options, vm


LIBVIRT_WANTS = {
    "config.version": "8",
    "virtualHW.version": "19",
    "displayName": "guest",
    "scsi0.present": "TRUE",
    "scsi0.virtualDev": "pvscsi",
    "scsi0:0.deviceType": "scsi-hardDisk",
}


MAKERS: dict[str, Maker] = {
    **{f"ssh-{reader}": partial(over_ssh, reader=reader) for reader in ("helper", "sftp", "dd")},
    "https": https,
    "vddk": vddk,
    "nbdkit": by_plugin,
}
# The same VM, described by the same code and read by other code than what boots.
TWINS = {"ssh-sftp": "ssh-helper", "ssh-dd": "ssh-helper", "vddk": "https"}
BOOTED = [name for name in MAKERS if name not in TWINS]


@pytest.fixture(scope="module")
def moved(
    guest_image: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Moved]:
    """The guest that came in one way, once for all tests."""

    @cache
    def moved(name: str) -> Moved:
        image, folder = guest_image("debian-12"), tmp_path_factory.mktemp(name)
        return move(MAKERS[name], image, folder, boots=name in BOOTED)

    return moved


@pytest.mark.parametrize("name", BOOTED)
def test_it_boots_on_virtio_with_its_network(name: str, moved: Callable[[str], Moved]) -> None:
    check_booted(moved(name))


@pytest.mark.parametrize(("name", "twin"), TWINS.items())
def test_it_is_the_guest_that_booted(name: str, twin: str, moved: Callable[[str], Moved]) -> None:
    check_same(moved(name), moved(twin))
