"""qemu-guest-agent: how the host asks the guest to shut down, freeze its disks, tell its addresses.

It is installed from packages that are at hand; only if there are none does the guest fetch it when
it first boots, by a service that never holds the boot up, tries a few times, and then removes
itself whatever came of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from conversion.actions import Action, Changes, RemoveFile, Symlink, WriteFile
from conversion.guest import Guest
from conversion.linux.tools import RunUninstaller
from v2v.errors import HostError
from v2v.types import Change

PACKAGE = "qemu-guest-agent"
WHY = "the host asks it for a clean shutdown, for addresses, and for quiet disks at a backup"
DEBIAN_ARCHS = {"x86_64": "amd64", "i386": "i386", "i686": "i386", "aarch64": "arm64"}
APT_CACHE = "/var/cache/apt/archives"
UNIT = "/etc/systemd/system/v2v-guest-agent.service"
SCRIPT = "/usr/local/sbin/v2v-install-guest-agent"
MASK = f"/etc/systemd/system/{PACKAGE}.service"

SCRIPT_TEXT = """\
#!/bin/sh
# Written by v2v: installs qemu-guest-agent once the network is up, then removes itself.
# It tries a few times at each of the first five boots, and gives up for good after that.
set -u
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
state=/var/lib/v2v-guest-agent

finish() {
    systemctl --no-reload disable v2v-guest-agent.service >/dev/null 2>&1
    rm -f /etc/systemd/system/v2v-guest-agent.service "$state" \\
        /usr/local/sbin/v2v-install-guest-agent
    exit 0
}

installed() { dpkg-query -W -f '${Status}' qemu-guest-agent 2>/dev/null | grep -q ' installed$'; }

boots=$(cat "$state" 2>/dev/null || echo 0)
boots=$((boots + 1))
echo "$boots" >"$state"
[ "$boots" -le 5 ] || finish

for pause in 10 30 60 120 300; do
    installed || apt-get -q -y -o DPkg::Lock::Timeout=120 --no-install-recommends \\
        install qemu-guest-agent
    if installed; then
        systemctl --no-block start qemu-guest-agent.service
        finish
    fi
    sleep "$pause"
    apt-get -q -o DPkg::Lock::Timeout=120 update
done
"""

# Not a oneshot: multi-user.target would wait for it. Not wanting network-online.target, which would
# make guests wait for a network they may never have; the script's own pauses do.
UNIT_TEXT = f"""\
[Unit]
Description=Install the QEMU guest agent (written by v2v)
After=network-online.target
ConditionPathExists={SCRIPT}

[Service]
Type=simple
ExecStart={SCRIPT}
TimeoutStopSec=30
Nice=10

[Install]
WantedBy=multi-user.target
"""


def choose_packages(names: Iterable[str], arch: str) -> list[str]:
    """The package files that fit an architecture; none if the agent itself is not among them.

    The file names are NAME_VERSION_ARCH.deb; of several agents the last by name is taken.
    """
    wanted = (f"_{arch}.deb", "_all.deb")
    fitting = sorted(name for name in names if name.endswith(wanted))
    agents = [name for name in fitting if name.startswith(f"{PACKAGE}_")]
    if not agents:
        return []
    return [name for name in fitting if name not in agents[:-1]]


def add_guest_agent(guest: Guest) -> Iterable[Action]:
    """Step: see that the guest has its agent."""
    choice = guest.options.guest_agent
    if choice == "no":
        return
    if PACKAGE in guest.packages:
        yield from _unmask(guest)
    elif choice != "auto":
        yield from _from_folder(guest, Path(choice))
    elif guest.options.appliance_network:
        apt = ("apt-get", "-q", "-y", "--no-install-recommends", "install", PACKAGE)
        yield install(apt, _installed())
    elif cached := _in_apt_cache(guest):
        paths = (f"{APT_CACHE}/{name}" for name in cached)
        yield install(("dpkg", "--install", *paths), _installed("its own package cache"))
    else:
        yield from at_first_boot(guest)


def _installed(origin: str = "the network") -> Change:
    return Change(f"Installed {PACKAGE} from {origin}", WHY)


def _unmask(guest: Guest) -> Iterable[Action]:
    if guest.g.is_symlink(MASK) and guest.g.readlink(MASK) == "/dev/null":
        yield RemoveFile(MASK, Change(f"Unmasked {PACKAGE}", WHY, MASK))


def _in_apt_cache(guest: Guest) -> list[str]:
    """The agent's package alone: what it needs may be older in the cache than in the guest."""
    names = [path.rsplit("/", 1)[-1] for path in guest.glob(f"{APT_CACHE}/{PACKAGE}_*.deb")]
    return choose_packages(names, DEBIAN_ARCHS.get(guest.os.arch, guest.os.arch))


def _from_folder(guest: Guest, folder: Path) -> Iterable[Action]:
    if not folder.is_dir():
        raise HostError(
            f"{folder}: no such folder of packages",
            id="guest-agent-folder",
            hint="--guest-agent takes auto, no, or a folder that holds .deb files",
        )
    arch = DEBIAN_ARCHS.get(guest.os.arch, guest.os.arch)
    names = choose_packages((path.name for path in folder.glob("*.deb")), arch)
    if names:
        yield InstallFromHost(
            tuple(folder / name for name in names), _installed(f"{folder} on the host")
        )
        return
    guest.warn(
        f"{folder} holds no {PACKAGE} package for {arch}",
        id="guest-agent-package",
        hint="the guest will fetch it when it first boots",
    )
    yield from at_first_boot(guest)


def at_first_boot(guest: Guest) -> Iterable[Action]:
    """Let the guest install its agent itself, once it has a network."""
    if guest.exists(UNIT):
        return
    if not guest.exists("/lib/systemd/systemd") or not guest.exists("/usr/bin/apt-get"):
        guest.warn(
            f"{PACKAGE} is not in the guest, and a guest without systemd and apt cannot be told "
            f"to fetch it",
            id="guest-agent-skipped",
            hint="install it in the converted guest, or give its package with --guest-agent FOLDER",
        )
        return
    change = Change(f"Lets the guest install {PACKAGE} when it first boots", WHY, UNIT)
    yield WriteFile(SCRIPT, SCRIPT_TEXT.encode(), Change(change.what, WHY, SCRIPT), mode=0o755)
    yield WriteFile(UNIT, UNIT_TEXT.encode(), change)
    name = UNIT.rsplit("/", 1)[-1]
    yield Symlink(f"/etc/systemd/system/multi-user.target.wants/{name}", UNIT, change)


@dataclass(frozen=True)
class InstallPackages(RunUninstaller):
    """Install; if it fails, leave nothing half installed and let the first boot do it."""

    def apply(self, guest: Guest) -> Changes:
        if done := super().apply(guest):
            return done
        failed = len(guest.findings)
        purge = ("dpkg", "--force-depends", "--purge", PACKAGE)
        RunUninstaller((purge,), self.change).apply(guest)
        del guest.findings[failed:]  # that it could not be installed says it all
        return tuple(change for action in at_first_boot(guest) for change in action.apply(guest))


def install(command: tuple[str, ...], change: Change) -> InstallPackages:
    return InstallPackages(
        (command,),
        change,
        failure_id="guest-agent-not-installed",
        hint="the guest will fetch it when it first boots",
    )


@dataclass(frozen=True)
class InstallFromHost:
    """Copy packages from the host into the guest, install them there, remove the copies."""

    files: Sequence[Path]
    change: Change

    def apply(self, guest: Guest) -> Changes:
        # In the guest; /var/tmp may be a link, through which rm_rf would leave the guest's tree.
        folder = guest.g.realpath(guest.g.mkdtemp("/var/tmp/v2v-XXXXXX"))  # noqa: S108
        try:
            paths = []
            for file in self.files:
                path = f"{folder}/{re.sub(r'[^A-Za-z0-9._+~-]', '_', file.name)}"
                guest.g.upload(str(file), path)
                paths.append(path)
            return install(("dpkg", "--install", *paths), self.change).apply(guest)
        finally:
            guest.g.rm_rf(folder)
