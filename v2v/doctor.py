"""What this host can do: tools, bindings, the appliance, KVM, space, and which modes are usable.

Every check gives a value and none raises; what is missing comes with the packages that bring it.
"""

from __future__ import annotations

import importlib
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from v2v import nbdkit, process, registry
from v2v.errors import V2VError
from v2v.texts import size_text
from v2v.types import GiB, MiB


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"  # v2v works, something is slower or not available
    MISSING = "missing"  # v2v does not work without it


@dataclass(frozen=True, slots=True)
class Check:
    group: str  # tools, nbdkit, bindings, appliance, speed, space, modes
    name: str
    status: Status
    detail: str
    hint: str | None = None


# Tool: whether v2v works without it. Their packages are in v2v.process.
TOOLS = {
    "nbdkit": Status.MISSING,
    "qemu-nbd": Status.MISSING,
    "qemu-img": Status.MISSING,
    "setpriv": Status.MISSING,
    "qemu-system-x86_64": Status.MISSING,
    "nbdfuse": Status.WARNING,  # for `v2v open --fuse`
    "fusermount3": Status.WARNING,
}

# Plugin or filter: (what for, Debian package, RPM package).
PLUGINS = {
    "file": ("raw images", "nbdkit", "nbdkit-server"),
    "nbd": ("nbd:// sources", "nbdkit", "nbdkit-nbd-plugin"),
    "curl": ("http:// sources", "nbdkit-plugin-curl", "nbdkit-curl-plugin"),
    "ssh": ("ssh:// sources", "nbdkit", "nbdkit-ssh-plugin"),
    "null": ("-o null", "nbdkit", "nbdkit-server"),
}
FILTERS = {
    "xz": ("xz-compressed images", "nbdkit", "nbdkit-xz-filter"),
    "gzip": ("gzip-compressed images", "nbdkit", "nbdkit-gzip-filter"),
    "offset": ("disks inside of archives", "nbdkit", "nbdkit-basic-filters"),
    "cow": ("images behind an address", "nbdkit", "nbdkit-basic-filters"),
    "retry": ("retries of remote sources", "nbdkit", "nbdkit-basic-filters"),
}
NEEDED_PLUGINS = ("file",)

# Binding: (whether v2v works without it, Debian package, RPM package).
BINDINGS = {
    "nbd": (Status.MISSING, "python3-libnbd", "python3-libnbd"),
    "guestfs": (Status.MISSING, "python3-guestfs", "python3-libguestfs"),
    "libvirt": (Status.WARNING, "python3-libvirt", "python3-libvirt"),
}

APPLIANCE_SPACE = 1 * GiB  # overlays and the cached appliance; the field's own minimum


def examine(jobs: Path, *, launch: bool = False) -> tuple[Check, ...]:
    """Every check, in the order they are shown. `launch` really starts an appliance."""
    checks = [*_tools(), *_nbdkit(), *_bindings(), *_appliance(), _speed()]
    if launch:
        checks.append(_launch())
    return (*checks, *_space(jobs), *_modes())


def usable(checks: Sequence[Check]) -> bool:
    """Whether v2v works here at all."""
    return all(check.status is not Status.MISSING for check in checks)


def _install(debian: str, rpm: str) -> str:
    return f"apt-get install {debian}, or dnf install {rpm}"


# Programs -----------------------------------------------------------------------------------------


def _tools() -> Iterator[Check]:
    for tool, without in TOOLS.items():
        try:
            path = process.find_tool(tool)
            yield Check("tools", tool, Status.OK, f"{_version(tool)} ({path})")
        except V2VError as exc:
            yield Check("tools", tool, without, exc.message, exc.hint)


def _version(tool: str) -> str:
    """The first number with a dot that `TOOL --version` prints."""
    done = process.run_tool([tool, "--version"], timeout=60, check=False)
    match = re.search(r"\d+(\.\d+)+", done.stdout)
    return match[0] if match else "version unknown"


def _nbdkit() -> Iterator[Check]:
    if shutil.which("nbdkit") is None:
        return
    kinds: tuple[tuple[str, dict[str, tuple[str, str, str]], Callable[[str], bool]], ...] = (
        ("plugin", PLUGINS, nbdkit.has_plugin),
        ("filter", FILTERS, nbdkit.has_filter),
    )
    for kind, known, has in kinds:
        for name, (purpose, debian, rpm) in known.items():
            label = f"{name} {kind}"
            try:
                present = has(name)
            except V2VError as exc:
                yield Check("nbdkit", label, Status.WARNING, exc.message, exc.hint)
                continue
            if present:
                yield Check("nbdkit", label, Status.OK, f"for {purpose}")
            else:
                status = Status.MISSING if name in NEEDED_PLUGINS else Status.WARNING
                hint = _install(debian, rpm)
                yield Check("nbdkit", label, status, f"not installed; for {purpose}", hint)
    yield _reader()


def _reader() -> Check:
    """nbdkit's Python, which runs our own code."""
    try:
        nbdkit.check_python()
        detail = "for VMware disks over SSH and HTTPS"
        return Check("nbdkit", "python plugin", Status.OK, detail)
    except V2VError as exc:
        return Check("nbdkit", "python plugin", Status.WARNING, exc.message, exc.hint)


def _bindings() -> Iterator[Check]:
    for name, (without, debian, rpm) in BINDINGS.items():
        try:
            detail = _binding_version(name, importlib.import_module(name))
            yield Check("bindings", name, Status.OK, detail)
        except ImportError as exc:
            hint = f"{_install(debian, rpm)}; the environment needs --system-site-packages"
            yield Check("bindings", name, without, f"cannot be imported: {exc}", hint)


def _binding_version(name: str, module: Any) -> str:
    if name == "nbd":
        return str(module.NBD().get_version())
    if name == "libvirt":
        number = module.getVersion()  # 9003001 is 9.3.1
        return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"
    found = module.GuestFS(python_return_dict=True).version()
    return f"{found['major']}.{found['minor']}.{found['release']}"


# The appliance ------------------------------------------------------------------------------------


def _appliance() -> Iterator[Check]:
    """supermin builds the appliance from the host's own kernel, which it must be able to read."""
    if shutil.which("supermin") is None:
        hint = _install("libguestfs-tools", "guestfs-tools")
        yield Check("appliance", "supermin", Status.WARNING, "not installed", hint)
    kernels = sorted(Path("/boot").glob("vmlinuz-*")) + sorted(
        Path("/lib/modules").glob("*/vmlinuz")
    )
    readable = [kernel for kernel in kernels if _readable(kernel)]
    if readable:
        yield Check("appliance", "kernel", Status.OK, str(readable[-1]))
    elif kernels:
        hint = f"chmod a+r {kernels[-1]} (Debian and Ubuntu: dpkg-statoverride keeps it so)"
        yield Check(
            "appliance", "kernel", Status.MISSING, f"{kernels[-1]} cannot be read by you", hint
        )
    else:
        hint = _install("linux-image-amd64 (Ubuntu: linux-image-generic)", "kernel-core")
        yield Check("appliance", "kernel", Status.MISSING, "no kernel in /boot", hint)


def _readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return True
    except OSError:
        return False


def _speed() -> Check:
    """KVM, if a guest really starts with it. Device files and permissions alone prove nothing."""
    from v2v.accel import accelerator

    try:
        found = accelerator()
    except V2VError as exc:
        return Check("speed", "KVM", Status.WARNING, exc.message, exc.hint)
    if found == "kvm":
        return Check("speed", "KVM", Status.OK, "a guest starts with it")
    why = "it does not start a guest" if Path("/dev/kvm").exists() else "there is no /dev/kvm"
    hint = "enable virtualisation in the firmware (or nested virtualisation), and join group kvm"
    return Check(
        "speed", "KVM", Status.WARNING, f"{why}: v2v uses TCG emulation, which is much slower", hint
    )


def _launch() -> Check:
    """Start an empty appliance as a conversion would."""
    start = time.monotonic()
    try:
        with _handle() as g:
            g.add_drive_scratch(16 * MiB)
            g.launch()
    except (ImportError, RuntimeError, V2VError) as exc:
        hint = "libguestfs-test-tool prints what happens in between"
        return Check("appliance", "launch", Status.MISSING, str(exc), hint)
    took = time.monotonic() - start
    return Check("appliance", "launch", Status.OK, f"an appliance starts in {took:.1f} s")


@contextmanager
def _handle() -> Iterator[Any]:
    import guestfs

    from v2v.accel import accelerator

    g = guestfs.GuestFS(python_return_dict=True)
    try:
        g.set_backend("direct")
        if accelerator() == "tcg":
            g.set_backend_settings(["force_tcg"])
        yield g
    finally:
        g.close()


# Space and modes ----------------------------------------------------------------------------------


def _space(jobs: Path) -> Iterator[Check]:
    """Free space where overlays are written, and where libguestfs caches its appliance."""
    for name, folder in (("jobs", jobs), ("appliance cache", Path("/var/tmp"))):  # noqa: S108
        there = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(there).free
        detail = f"{folder}: {size_text(free)} free"
        if free >= APPLIANCE_SPACE:
            yield Check("space", name, Status.OK, detail)
        else:
            hint = "make room" + (
                ", or choose another place with $V2V_JOBS" if name == "jobs" else ""
            )
            yield Check("space", name, Status.WARNING, f"{detail}, 1 GiB is needed", hint)


def _modes() -> Iterator[Check]:
    modes: list[tuple[str, Any]] = [("-i", cls) for cls in registry.inputs().values()]
    modes += [("-o", cls) for cls in registry.outputs().values()]
    for flag, cls in modes:
        missing = [tool for tool in cls.tools if shutil.which(tool) is None]
        if not missing:
            yield Check("modes", f"{flag} {cls.mode}", Status.OK, cls.summary)
            continue
        packages = [process.PACKAGES.get(tool, (tool, tool)) for tool in missing]
        debian, rpm = (" ".join(dict.fromkeys(names)) for names in zip(*packages, strict=True))
        detail = f"needs {', '.join(missing)}"
        yield Check("modes", f"{flag} {cls.mode}", Status.WARNING, detail, _install(debian, rpm))
