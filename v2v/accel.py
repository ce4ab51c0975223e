"""Does KVM truly work here? Found out by running a guest, once per boot of the host.

/dev/kvm may open, and even make a virtual CPU, on a host where no guest can run (nested
virtualisation that lacks a feature). So a guest of one sector is started, and KVM counts only if
code in it ran.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
from pathlib import Path

import platformdirs

from v2v.cancel import Cancel
from v2v.process import ToolError, find_tool, run_tool

log = logging.getLogger(__name__)

PROBE_SECONDS = 10.0  # a guest that works is there in under one
X86 = ("qemu-system-x86_64", "qemu-system-i386", "qemu-kvm")

# A boot sector in 16-bit code. It writes 0x10 to port 0xf4, where the isa-debug-exit device makes
# QEMU end with (0x10 << 1) | 1 = 33; no failure of QEMU itself has that exit code.
#   ba f4 00           mov  dx, 0xf4
#   66 b8 10 00 00 00  mov  eax, 0x10
#   66 ef              out  dx, eax
#   f4                 hlt
#   eb fd              jmp  to the hlt
GUEST_CODE = bytes.fromhex("ba f4 00  66 b8 10 00 00 00  66 ef  f4  eb fd")
BOOT_SECTOR = GUEST_CODE.ljust(510, b"\0") + b"\x55\xaa"
GUEST_RAN = 33
DISK_BYTES = 1024 * 1024  # SeaBIOS does not boot a disk of a single sector from AHCI


def accelerator(emulator: str = "qemu-system-x86_64", cancel: Cancel | None = None) -> str:
    """The accelerator that works with an emulator: kvm or tcg.

    emulator: a name on PATH or a path. The answer is kept in the user's cache folder until the host
    boots again, the emulator changes, or another user asks. Only x86 emulators can be asked; for
    others the answer is tcg.
    """
    path = Path(find_tool(emulator)).resolve()
    if path.name not in X86 or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    key = _key(path)
    known = _remembered()
    if key not in known:
        known = {key: "kvm" if guest_runs(str(path), "kvm", cancel) else "tcg"}
        _remember(known)
    return known[key]


def guest_runs(emulator: str, accelerator: str, cancel: Cancel | None = None) -> bool:
    """Start a guest that says it ran; False if it did not, for whatever reason."""
    with tempfile.NamedTemporaryFile(prefix="v2v-accel-") as sector:
        sector.write(BOOT_SECTOR)
        sector.truncate(DISK_BYTES)
        sector.flush()
        argv = [emulator, "-accel", accelerator, "-machine", "q35", "-m", "32"]
        argv += ["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
        argv += ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
        argv += ["-drive", f"file={sector.name},format=raw,if=ide,snapshot=on"]
        if accelerator == "kvm":
            argv += ["-cpu", "host"]  # as guests get it; creating that CPU is what fails on some
        try:
            result = run_tool(argv, timeout=PROBE_SECONDS, cancel=cancel, check=False)
        except ToolError as exc:
            log.debug("accelerator %s: %s", accelerator, exc)
            return False
    log.debug("accelerator %s: exit %d %s", accelerator, result.returncode, result.stderr[-500:])
    return result.returncode == GUEST_RAN


def _key(emulator: Path) -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {emulator} {emulator.stat().st_mtime_ns} {os.geteuid()}"


def _cache() -> Path:
    return platformdirs.user_cache_path("v2v") / "accelerator.json"


def _remembered() -> dict[str, str]:
    try:
        known = json.loads(_cache().read_text())
    except (OSError, ValueError):
        return {}
    if not isinstance(known, dict):
        return {}
    return {key: word for key, word in known.items() if word in ("kvm", "tcg")}


def _remember(known: dict[str, str]) -> None:
    """Under another name first; a host without a writable cache asks again each time."""
    path = _cache()
    working = path.with_suffix(f".{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        working.write_text(json.dumps(known))
        working.replace(path)
    except OSError as exc:
        log.debug("%s: %s", path, exc.strerror)
