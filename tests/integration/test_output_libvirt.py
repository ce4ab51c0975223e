"""-o libvirt from end to end: a job that is killed, and the demo guest to its login prompt."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxml import etree

import v2v
from fixtures.domain_xml import FileDisk, write_domain
from tests.integration import processes
from tests.integration.test_demo_guest import agent_packages, sha256
from tests.libvirtd import Libvirtd, libvirtd
from tests.outputs.libvirt_output import Place, place
from v2v.api import discard, list_jobs
from v2v.types import MiB

__all__ = ["agent_packages", "libvirtd"]

DRIVER = Path(__file__).with_name("kill_at.py")
RESUMED = [
    ("copy-progress:", "files"),
    ("step-finished:finalize", "files"),
    ("step-started:disks", "upload"),
    ("step-finished:disks", "upload"),
    ("copy-progress:", "upload"),
    ("step-started:finalize", "upload"),
]
DISCARDED = [
    ("copy-progress:", "files"),
    ("step-finished:disks", "upload"),
    ("step-started:check-source", "upload"),
]
BOOT_SECONDS = 600  # far more than it takes without KVM
LOGIN = "getty@tty1.service"
CARD = "<interface type='user'><model type='virtio'/></interface>"


@pytest.fixture
def there(libvirtd: Libvirtd, tmp_path: Path) -> Iterator[Place]:
    tmp_path.chmod(0o755)
    with place(libvirtd, tmp_path / "pool") as found:
        yield found


# Killed -------------------------------------------------------------------------------------------


@pytest.fixture
def killed(there: Place, tmp_path: Path, need_tool) -> Callable[[str, str], Path]:
    """Runs a job until it kills itself at a moment; gives the source's disk."""
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)

    def kill(moment: str, way: str) -> Path:
        guest = tmp_path / "guest.img"
        guest.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(8 * MiB - 512))
        words = ["--no-convert", "--output", "libvirt", "--word", f"-oc={there.server.uri}"]
        words += ["--word", "-oo upload="] * (way == "upload")
        argv = [sys.executable, DRIVER, moment, tmp_path / "jobs", guest, there.pool, *words]
        done = subprocess.run(list(map(str, argv)), check=False)
        assert done.returncode == -signal.SIGKILL, f"the job never came to {moment}"
        assert processes.gone(str(tmp_path / "jobs"))
        return guest

    return kill


@pytest.mark.parametrize(("moment", "way"), RESUMED)
def test_a_killed_job_is_resumed(there: Place, killed, tmp_path, moment: str, way: str) -> None:
    guest = killed(moment, way)
    (job,) = list_jobs(tmp_path / "jobs")
    result = v2v.resume(job.job_id, jobs=tmp_path / "jobs")
    assert there.domains() == ["guest"]
    assert [path.name for path in there.folder.iterdir()] == ["guest-sda"]
    assert (there.folder / "guest-sda").read_bytes() == guest.read_bytes()
    assert result.guest.name == "guest"
    assert processes.gone(str(job.folder))


@pytest.mark.parametrize(("moment", "way"), DISCARDED)
def test_a_killed_job_is_discarded(there: Place, killed, tmp_path, moment: str, way: str) -> None:
    killed(moment, way)
    (job,) = list_jobs(tmp_path / "jobs")
    discard(job.job_id, jobs=tmp_path / "jobs")
    assert list(there.folder.iterdir()) == []
    assert there.domains() == []


# The demo guest -----------------------------------------------------------------------------------


@pytest.mark.appliance
@pytest.mark.boots
@pytest.mark.timeout(1800)
def test_the_demo_guest_starts_to_its_login(
    there: Place, agent_packages: Path, guest_image: Callable[[str], Path], tmp_path: Path
) -> None:
    """Without a network card: a libvirt of users has no networks."""
    image = guest_image("debian-12")
    before = sha256(image)
    source = write_domain(tmp_path / "web.xml", [FileDisk(image)], name="web", bus="sata", mac=None)
    result = v2v.convert(
        source,
        input="libvirtxml",
        output="libvirt",
        storage=there.pool,
        name="moved",
        output_options={"-oc": there.server.uri, "-of": "qcow2", "--start": ""},
        conversion=v2v.ConversionOptions(guest_agent=str(agent_packages)),
        jobs=tmp_path / "jobs",
    )
    assert result.guest.start_hint is None
    assert sha256(image) == before
    with there.server.connected() as connection:
        domain = connection.lookupByName("moved")
        assert domain.isActive()
        xml = tmp_path / "moved.xml"
        xml.write_text(domain.XMLDesc())
        assert state_of(domain, LOGIN) == "active"
        disk = ask(domain, "/usr/bin/readlink", "-f", "/sys/block/vda")
        assert "/0000:01:00.0/" in disk, "it has no network card, so that the disk comes first"
        domain.attachDevice(CARD)
        assert card_name(domain) == name_of_card(domain.XMLDesc())
    subprocess.run(["virt-xml-validate", xml, "domain"], check=True)
    assert [path.name for path in there.folder.iterdir()] == ["moved-sda"]


def card_name(domain) -> str:
    """What the guest calls the card that was just plugged in."""
    deadline = time.monotonic() + BOOT_SECONDS
    while True:
        assert time.monotonic() < deadline, "the guest does not see the card"
        names = ask(domain, "/usr/bin/ls", "/sys/class/net").split()
        found = [name for name in names if name.startswith("en")]
        if found:
            return found[0]
        time.sleep(0.2)


def name_of_card(xml: str) -> str:
    bus = etree.fromstring(xml).find("devices/interface/address").get("bus")
    return f"enp{int(bus, 16)}s0"


def state_of(domain, unit: str) -> str:
    """What systemd in the guest says of a unit, once the guest agent answers and it is there."""
    deadline = time.monotonic() + BOOT_SECONDS
    state = ""
    while state != "active":
        assert time.monotonic() < deadline, f"{unit} is {state!r}"
        assert domain.isActive(), "the guest ended"
        state = ask(domain, "/usr/bin/systemctl", "is-active", unit)
    return state


def ask(domain, *argv: str) -> str:
    """Runs a program in the guest; nothing where the agent is not there yet."""
    import libvirt
    import libvirt_qemu

    def command(name: str, **arguments: object) -> dict:
        words = json.dumps({"execute": name, "arguments": arguments})
        return json.loads(libvirt_qemu.qemuAgentCommand(domain, words, 10, 0))["return"]

    try:
        words = {"path": argv[0], "arg": list(argv[1:]), "capture-output": True}
        pid = command("guest-exec", **words)["pid"]
        while not (status := command("guest-exec-status", pid=pid))["exited"]:
            time.sleep(0.2)
    except libvirt.libvirtError as exc:
        assert exc.get_error_code() in (
            libvirt.VIR_ERR_AGENT_UNRESPONSIVE,
            libvirt.VIR_ERR_AGENT_UNSYNCED,
        )
        time.sleep(1)
        return ""
    return base64.b64decode(status.get("out-data", "")).decode().strip()
