"""Removing what only another hypervisor's guest needs: its tools, services and drivers.

Packages are removed by the guest's dpkg, in the appliance, which cannot remove more than it is
told. `update-initramfs` and `update-grub` are hidden from the packages' scripts meanwhile: what
they would make is either untouched by the removal or made by other steps, and without KVM they
take many minutes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

from conversion.actions import Action, Changes, RemoveFile, RunInGuest
from conversion.guest import Guest
from v2v.types import Change

DPKG_STATUS = "/var/lib/dpkg/status"
SHADOW = "/run/v2v-shadow"  # a folder of programs that do nothing, first on PATH
SHADOWED = ("update-initramfs", "update-grub", "update-grub2")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

ENVIRONMENT = (
    f"PATH={SHADOW}:{SYSTEM_PATH}",
    "DEBIAN_FRONTEND=noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN=true",
    "LC_ALL=C",
)


@dataclass(frozen=True, slots=True)
class Product:
    name: str
    packages: tuple[str, ...]  # patterns
    uninstallers: tuple[tuple[str, ...], ...] = ()  # of installations without packages


PRODUCTS = (
    Product(
        "VMware Tools",
        (
            "open-vm-tools",
            "open-vm-tools-*",
            "open-vm-dkms",
            "open-vm-modules-*",
            "open-vm-source",
            "vmware-tools",
            "vmware-tools-*",
            "vmware-open-vm-tools-*",
        ),
        (("/usr/bin/vmware-uninstall-tools.pl",),),
    ),
    Product(
        "VirtualBox Guest Additions",
        ("virtualbox-guest-*", "virtualbox-ose-guest-*"),
        (("/usr/sbin/vbox-uninstall-guest-additions",), ("/opt/VBoxGuestAdditions/uninstall.sh",)),
    ),
    Product("Xen guest tools", ("xe-guest-utilities", "xe-guest-utilities-*", "xen-guest-agent")),
    Product("Parallels Tools", ("parallels-tools", "prl-tools-*")),
    Product("Hyper-V daemons", ("hyperv-daemons",)),
)


@dataclass(frozen=True, slots=True)
class Package:
    name: str
    needs: tuple[frozenset[str], ...]  # each a set of alternatives
    provides: frozenset[str] = frozenset()


def parse_status(text: str) -> dict[str, Package]:
    """The installed packages of a dpkg status file, with what they cannot be without."""
    found = {}
    for paragraph in re.split(r"\n\s*\n", text):
        fields = dict(
            re.findall(r"(?m)^(Package|Status|Depends|Pre-Depends|Provides): (.+)$", paragraph)
        )
        if "Package" not in fields or not fields.get("Status", "").endswith(" installed"):
            continue
        needs = f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}"
        found[fields["Package"]] = Package(
            fields["Package"],
            tuple(_names(group.split("|")) for group in needs.split(",") if group.strip()),
            _names(fields.get("Provides", "").split(",")),
        )
    return found


def _names(words: Iterable[str]) -> frozenset[str]:
    """Package names without versions and architectures: "libc6:any (>= 2.3)" is libc6."""
    return frozenset(re.split(r"[\s(:\[]", w.strip(), maxsplit=1)[0] for w in words if w.strip())


def removable(
    installed: Mapping[str, Package], wanted: Iterable[str]
) -> tuple[list[str], dict[str, str]]:
    """Of `wanted`, what nothing else needs; and what must stay, with the package that needs it."""
    leaving = {name for name in wanted if name in installed}
    kept: dict[str, str] = {}
    while True:
        broken = _broken_by(installed, leaving)
        if not broken:
            return sorted(leaving), kept
        for name, needed_by in broken.items():
            kept[name] = needed_by
            leaving.discard(name)


def _broken_by(installed: Mapping[str, Package], leaving: set[str]) -> dict[str, str]:
    staying = [package for name, package in installed.items() if name not in leaving]
    available = {p.name for p in staying} | {name for p in staying for name in p.provides}
    broken: dict[str, str] = {}
    for package in staying:
        for group in package.needs:
            suppliers = {n for n in leaving if n in group or installed[n].provides & group}
            if suppliers and not group & available:
                broken |= dict.fromkeys(suppliers, package.name)
    return broken


def matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    patterns = tuple(patterns)
    return sorted(n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns))


# The step -----------------------------------------------------------------------------------------


def remove_tools(guest: Guest) -> Iterable[Action]:
    """Step: remove the tools of every hypervisor the guest may come from."""
    for product in PRODUCTS:
        yield from _remove_packages(guest, product)
        for uninstaller in product.uninstallers:
            if guest.exists(uninstaller[0]):
                yield RunUninstaller(
                    (uninstaller,),
                    Change(
                        f"Ran the uninstaller of {product.name}",
                        "these tools do nothing on KVM, and some of them fail there",
                        uninstaller[0],
                    ),
                    failure_id="tools-not-removed",
                    hint="remove them in the converted guest; they do no harm there",
                )
    if guest.exists("/etc/udev/rules.d/99-vmware-scsi-udev.rules"):
        path = "/etc/udev/rules.d/99-vmware-scsi-udev.rules"
        yield RemoveFile(path, Change("Removed VMware's disk rules", "the disks are others", path))


def _remove_packages(guest: Guest, product: Product) -> Iterable[Action]:
    wanted = matching(guest.packages, product.packages)
    if not wanted:
        return
    names, kept = removable(_installed(guest), wanted)
    for name, needed_by in kept.items():
        guest.warn(
            f"{name} stays in the guest, because {needed_by} depends on it",
            id="tools-kept",
            hint="it does nothing on KVM",
        )
    if names:
        yield RunUninstaller(
            (("dpkg", "--purge", *names),),
            Change(
                f"Removed {product.name}: {', '.join(names)}",
                "these packages do nothing on KVM, and some of them fail there",
            ),
            failure_id="tools-not-removed",
            hint="remove the packages in the converted guest; they do no harm there",
        )


def _installed(guest: Guest) -> dict[str, Package]:
    if "dpkg status" not in guest.facts:
        content = guest.read(DPKG_STATUS, limit=MAX_STATUS) or b""
        guest.facts["dpkg status"] = parse_status(content.decode("utf-8", "replace"))
    installed: dict[str, Package] = guest.facts["dpkg status"]
    return installed


MAX_STATUS = 64 * 1024 * 1024


@dataclass(frozen=True)
class RunUninstaller(RunInGuest):
    """Run programs of the guest with those that rebuild the initramfs or the menu out of reach."""

    environment: tuple[str, ...] = ENVIRONMENT

    def apply(self, guest: Guest) -> Changes:
        g = guest.g
        try:
            g.mkdir_p(SHADOW)
            for name in SHADOWED:
                g.write(f"{SHADOW}/{name}", b"#!/bin/sh\nexit 0\n")
                g.chmod(0o755, f"{SHADOW}/{name}")
            return super().apply(guest)
        finally:
            g.rm_rf(SHADOW)
