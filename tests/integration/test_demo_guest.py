"""The real Debian 12 guest, as it would sit on VMware, from its disk file to a login on virtio."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import v2v
from v2v.api import Result

# The time covers building the guest, too.
pytestmark = [pytest.mark.appliance, pytest.mark.boots, pytest.mark.timeout(1800)]

BOOT_SECONDS = 600  # far more than a boot takes without KVM, so that only a guest that hangs fails


@pytest.fixture(scope="module")
def before(guest_image: Callable[[str], Path]) -> str:
    return sha256(guest_image("debian-12"))


@pytest.fixture(scope="module")
def agent_packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The guest agent for Debian 12, and what a small guest lacks of what it needs."""
    folder = tmp_path_factory.mktemp("packages")
    names = ["qemu-guest-agent", "libglib2.0-0", "libnuma1", "liburing2"]
    subprocess.run(["apt-get", "-q", "download", *names], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="module")
def converted(
    before: str,
    agent_packages: Path,
    guest_image: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Result:
    target = tmp_path_factory.mktemp("target")
    return v2v.convert(
        guest_image("debian-12"),
        storage=target,
        name="demo",
        conversion=v2v.ConversionOptions(guest_agent=str(agent_packages)),
        boot_check=BOOT_SECONDS,
        jobs=tmp_path_factory.mktemp("jobs"),
    )


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def test_it_boots_to_its_login_prompt(converted: Result) -> None:
    assert converted.boot is not None
    assert converted.boot.passed
    assert converted.boot.reached == "login"


def test_its_root_is_on_virtio_blk(converted: Result) -> None:
    assert converted.boot is not None
    assert (converted.boot.root_device or "").startswith("vda")


def test_its_nic_keeps_its_name_on_virtio_net(converted: Result) -> None:
    assert converted.boot is not None
    assert converted.boot.nic_drivers.get("ens192") == "virtio_net"


def test_its_guest_agent_answers(converted: Result) -> None:
    assert converted.boot is not None
    assert (converted.boot.agent or "").startswith("7.2")


def test_the_source_is_unchanged(
    converted: Result, before: str, guest_image: Callable[[str], Path]
) -> None:
    assert sha256(guest_image("debian-12")) == before


def test_its_initramfs_was_not_rebuilt(converted: Result) -> None:
    named = [c.what for c in converted.converted.changes if "/boot/initrd" in (c.where or "")]
    assert not [what for what in named if "virtio" in what or "Rebuilt" in what]


def test_the_vmware_tools_are_gone(converted: Result) -> None:
    assert [c for c in converted.converted.changes if "open-vm-tools" in c.what]


def test_the_metadata_is_valid(converted: Result) -> None:
    assert converted.guest.metadata is not None
    subprocess.run(["virt-xml-validate", converted.guest.metadata, "domain"], check=True)


def test_nothing_but_the_result_is_left(converted: Result) -> None:
    target = Path(converted.guest.metadata or "").parent
    assert sorted(path.name for path in target.iterdir()) == ["demo-sda", "demo.xml"]
    assert not list(converted.folder.glob("*.qcow2"))
