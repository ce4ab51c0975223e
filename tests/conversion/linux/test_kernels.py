"""Which kernel boots, what it can drive, and the hardware that follows from it."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conversion import linux
from conversion.linux.caps import kernel_caps, rtc_utc
from conversion.linux.kernels import Kernel, best_bus, built_in, choose, kernel_versions
from conversion.linux.modules import Modules
from conversion.linux.versions import version_key
from v2v.errors import GuestError
from v2v.types import BlockBus, GuestOS, Machine, NetModel

VIRTIO = ("virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "sd_mod", "ahci", "ata_piix")


def kernel(version: str, *drivers: str) -> Kernel:
    modules = Modules({name: f"{name}.ko" for name in drivers})
    return Kernel(version, f"/boot/vmlinuz-{version}", None, f"/lib/modules/{version}", modules)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("5.10.0-9-amd64", "5.10.0-28-amd64"),
        ("6.1.0-9", "6.1.0-10"),
        ("1.0~rc1", "1.0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+"),
        ("9", "1:1"),
        ("1.0-1", "1.0-1+b1"),
        ("239-12ubuntu1", "240"),
        ("6.8.0-9-generic", "6.11.0-1-generic"),
    ],
)
def test_versions_sort_as_dpkg_sorts_them(older: str, newer: str) -> None:
    assert version_key(older) < version_key(newer)


VERSION = st.from_regex(r"([0-9]:)?[0-9][0-9a-z.+~]{0,5}(-[0-9a-z.+~]{1,4})?", fullmatch=True)


@given(VERSION, VERSION)
def test_any_versions_can_be_compared(left: str, right: str) -> None:
    assert (version_key(left) < version_key(right)) in (True, False)


def test_versions_agree_with_dpkg(need_tool) -> None:
    dpkg = need_tool("dpkg")
    words = ["1.0", "1.0~1", "1.0-1", "1.0-1~", "1.0.1", "1.a", "1:0.1", "1.0-a", "1.00"]
    for left in words:
        for right in words:
            argv = [dpkg, "--compare-versions", left, "lt", right]
            less = subprocess.run(argv, capture_output=True, check=False).returncode == 0
            assert (version_key(left) < version_key(right)) is less, (left, right)


def test_kernels_are_found_by_their_images_newest_first() -> None:
    names = ["6.1.0-9-amd64", "6.1.0-18-amd64", "6.1.0-18-amd64.old", "5.10.0-1"]
    paths = [f"/boot/vmlinuz-{name}" for name in names] + ["/boot/vmlinuz", "/boot/config-6"]
    assert list(kernel_versions(paths)) == ["6.1.0-18-amd64", "6.1.0-9-amd64", "5.10.0-1"]


def test_what_a_configuration_builds_in() -> None:
    config = "CONFIG_VIRTIO_PCI=y\nCONFIG_VIRTIO_BLK=m\n# CONFIG_VIRTIO_NET is not set\n"
    assert built_in(config) == {"virtio_pci"}


@pytest.mark.parametrize(
    ("drivers", "preferred", "bus"),
    [
        (VIRTIO, "virtio-blk", BlockBus.VIRTIO_BLK),
        (VIRTIO, "virtio-scsi", BlockBus.VIRTIO_SCSI),
        (("virtio_pci", "virtio_blk"), "virtio-scsi", BlockBus.VIRTIO_BLK),
        (("virtio_blk",), "virtio-blk", None),
        (("ahci", "sd_mod", "ata_piix"), "virtio-blk", BlockBus.SATA),
        (("sd_mod", "ata_piix"), "virtio-blk", BlockBus.IDE),
        (("ata_piix",), "virtio-blk", None),
    ],
)
def test_the_bus_is_the_preferred_one_or_the_best_there_is(
    drivers: tuple[str, ...], preferred: str, bus: BlockBus | None
) -> None:
    assert best_bus(kernel("6.1", *drivers), preferred) == bus


OLD = kernel("2.6.18", "ata_piix", "sd_mod")
XEN = kernel("3.2.0-xen")
NEW = kernel("6.1", *VIRTIO)
NEWER = kernel("6.5", *VIRTIO)
DEBUG = kernel("6.9-dbg", *VIRTIO)


@pytest.mark.parametrize(
    ("kernels", "booted", "chosen"),
    [
        ([NEW, NEWER], "6.1", NEW),
        ([OLD, NEWER, NEW], "2.6.18", NEWER),
        ([XEN, DEBUG, NEW], "3.2.0-xen", NEW),
        ([OLD], "2.6.18", OLD),
        ([XEN], "3.2.0-xen", None),
        ([NEWER, NEW], None, NEWER),
        ([], None, None),
    ],
)
def test_choose(kernels: list[Kernel], booted: str | None, chosen: Kernel | None) -> None:
    assert choose(kernels, booted, "virtio-blk") == chosen


def test_only_as_many_kernels_are_read_as_are_needed() -> None:
    read = []

    def reading():
        for one in (NEWER, NEW):
            read.append(one.version)
            yield one

    assert choose(reading(), "6.5", "virtio-blk") == NEWER
    assert read == ["6.5"]


@pytest.mark.parametrize(
    ("one", "arch", "machine", "bus", "net", "modern"),
    [
        (NEW, "x86_64", Machine.Q35, BlockBus.VIRTIO_BLK, NetModel.VIRTIO, True),
        (NEW, "aarch64", Machine.VIRT, BlockBus.VIRTIO_BLK, NetModel.VIRTIO, True),
        (OLD, "x86_64", Machine.I440FX, BlockBus.IDE, NetModel.RTL8139, False),
        (
            kernel("3.16.0-4-amd64", *VIRTIO),
            "x86_64",
            Machine.I440FX,
            BlockBus.VIRTIO_BLK,
            NetModel.VIRTIO,
            False,
        ),
        (
            kernel("3.2.0", "ahci", "sd_mod", "e1000"),
            "i686",
            Machine.Q35,
            BlockBus.SATA,
            NetModel.E1000,
            False,
        ),
    ],
)
def test_hardware_follows_from_the_kernel(
    one: Kernel, arch: str, machine: Machine, bus: BlockBus, net: NetModel, modern: bool
) -> None:
    caps = kernel_caps(one, "virtio-blk", arch)
    assert (caps.machine, caps.block_bus, caps.net_model) == (machine, bus, net)
    assert caps.virtio_1_0 is modern and caps.arch == arch


@pytest.mark.parametrize("distro", ["debian", "ubuntu", "linuxmint", "kali"])
def test_debian_and_its_kin_are_supported(distro: str) -> None:
    linux.check_supported(GuestOS("linux", distro, "1", "x", "x86_64"))


@pytest.mark.parametrize(
    ("kind", "distro", "product"),
    [("linux", "fedora", "Fedora Linux 40"), ("windows", "windows", ""), ("unknown", "", "")],
)
def test_others_are_refused_by_name(kind: str, distro: str, product: str) -> None:
    with pytest.raises(GuestError) as caught:
        linux.check_supported(GuestOS(kind, distro, "40", product, "x86_64"))
    assert caught.value.id == "guest-unsupported" and "--no-convert" in str(caught.value.hint)
    assert product in caught.value.message


@pytest.mark.parametrize(
    ("adjtime", "utc"),
    [
        ("", True),
        ("0.0 0 0.0\n0\nUTC\n", True),
        ("0.0 0 0.0\n0\nLOCAL\n", False),
        ("0.0 0 0.0\n0\nLOCAL", False),
        ("LOCAL\n", True),
        ("\n\nlocal time\n", True),
    ],
)
def test_what_the_clock_runs_in(adjtime: str, utc: bool) -> None:
    assert rtc_utc(adjtime) is utc
