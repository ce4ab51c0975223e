"""What the text of a serial console tells of a boot.

`observe` looks at one line, `Console` takes the stream apart. The text is hostile: lines and
tables are bounded, escape sequences never reach the log.
"""

from __future__ import annotations

import codecs
import re
from dataclasses import dataclass, field, replace

from v2v.types import BOOT_MILESTONES, MiB

MAX_LINE = 4096  # characters; a console line of a sane guest is far shorter
MAX_TABLE = 64  # disks, SCSI hosts or NICs remembered
LOG_HALF = 1 * MiB  # of the log, its first and its last characters are kept


@dataclass(frozen=True, slots=True)
class Seen:
    """What the console has told so far."""

    reached: str = "nothing"
    root_device: str | None = None  # vda1, dm-0
    trouble: str | None = None  # the most telling line of those that mean trouble
    trouble_rank: int = 1000  # its row in TROUBLE
    fatal: bool = False  # nothing good can follow
    disk_drivers: dict[str, str] = field(default_factory=dict)  # vda: virtio_blk
    scsi_hosts: dict[str, str] = field(default_factory=dict)  # 2: Virtio SCSI HBA
    nic_drivers: dict[str, str] = field(default_factory=dict)  # ens192: virtio_net

    @property
    def block_driver(self) -> str | None:
        """The driver of the root's disk, or the one all disks share when the root is mapped."""
        if self.root_device in (None, "") or not self.disk_drivers:
            return None
        for disk, driver in self.disk_drivers.items():
            if re.fullmatch(rf"{re.escape(disk)}p?\d*", self.root_device or ""):
                return driver
        drivers = set(self.disk_drivers.values())
        return drivers.pop() if len(drivers) == 1 else None


def _signs(*rows: tuple[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((name, re.compile(pattern)) for name, pattern in rows)


# A line that matches proves that the boot got this far.
MILESTONE_SIGNS = _signs(
    ("login", r"^(?:[\w.-]{1,64} )?login: ?(?:$|\[)"),
    # An initramfs run by systemd says the same words before the root is mounted.
    ("userspace", r"^Welcome to (?!.*(?:dracut|nitramfs|nitrd|GRUB)).+!$"),
    ("userspace", r"Reached target .*(?:[Mm]ulti-[Uu]ser|[Gg]raphical|[Ll]ogin [Pp]rompts)"),
    ("userspace", r"^INIT: version |^ *OpenRC \S+ is starting up|^INIT: Entering runlevel"),
    ("root", r"^(?:EXT[234]-fs|F2FS-fs) \((?P<root>[\w-]+)\): (?:mounted filesystem|Mounted)"),
    ("root", r"^XFS \((?P<root>[\w-]+)\): (?:Mounting|Starting recovery|Ending clean mount)"),
    ("root", r"^BTRFS info \(device (?P<root>[\w-]+)[^)]*\): "),
    ("root", r"^VFS: Mounted root \("),
    ("kernel", r"^Linux version \d"),
    ("bootloader", r"^Booting from [0-9a-f]{4}:7c00|^EFI stub: "),
    ("bootloader", r"GNU GRUB +version|Welcome to GRUB!|^GRUB loading|^Loading Linux |^Booting `"),
    ("bootloader", r"^BdsDxe: starting Boot(?!.*EFI Internal Shell)"),
    ("bootloader", r"^error: .*grub|^LILO |^SYSLINUX |^ISOLINUX |^systemd-boot"),
    ("firmware", r"^SeaBIOS \(version|^BdsDxe: |^UEFI Interactive Shell|^UEFI firmware"),
)

# What means trouble, the most telling first: (does it end the boot?, pattern).
TROUBLE: tuple[tuple[bool, re.Pattern[str]], ...] = tuple(
    (fatal, re.compile(pattern))
    for fatal, pattern in (
        (True, r"ALERT! .*does not exist"),
        (True, r"Kernel panic - not syncing"),
        (True, r"Gave up waiting for root"),
        (True, r"dracut.*Warning: Could not boot|Entering emergency mode\. Exit the shell"),
        (True, r"You are in (?:emergency|rescue) mode|Give root password for maintenance"),
        (True, r"Cannot open access to console, the root account is locked"),
        (True, r"No bootable (?:device|option)"),
        (True, r"X64 Exception Type|Synchronous Exception at"),
        (True, r"^grub rescue>|^grub>|Minimal BASH-like line editing"),
        (True, r"^\(initramfs\)|^dracut:/#"),
        (False, r"^BdsDxe: failed to (?:load|start) Boot"),
        (True, r"^BdsDxe: starting Boot.*EFI Internal Shell|^Shell> ?$"),
        (False, r"Timed out waiting for device|dracut.*Warning: .*does not exist"),
        (False, r"^error: .*(?:not found|unknown filesystem|no such (?:device|partition))"),
        (False, r"\[FAILED\] Failed to (?:mount|start File System Check)|\[DEPEND\]"),
        (False, r"Unable to enumerate|I/O error, dev"),
    )
)

STAMP = re.compile(r"^\[ *\d+\.\d+\] *(?:\[ *[TC]\d+\] *)?")  # the kernel's time of a line

RENAMED = re.compile(
    r"^(?P<driver>[\w-]+) [\w:.-]+ (?P<new>[\w.-]+): renamed from (?P<old>[\w.-]+)"
)
NIC_FOUND = re.compile(r"^(?P<driver>e1000e?|8139cp|8139too) [\w:.-]+ (?P<name>eth\d+): ")
DISK_FOUND = re.compile(r"^(?P<driver>virtio_blk) virtio\d+: \[(?P<disk>\w+)\]")
SCSI_HOST = re.compile(r"^scsi host(?P<host>\d+): (?P<driver>\S.*)")
SCSI_DISK = re.compile(r"^sd (?P<host>\d+):\d+:\d+:\d+: \[(?P<disk>sd[a-z]+)\]")
SCSI_DRIVERS = {"Virtio SCSI HBA": "virtio_scsi"}


def observe(seen: Seen, line: str) -> Seen:
    """What is known after one more line, free of escape sequences."""
    line = STAMP.sub("", line[:MAX_LINE].strip())
    if not line:
        return seen
    return _drivers(_trouble(_milestone(seen, line), line), line)


def _milestone(seen: Seen, line: str) -> Seen:
    for name, pattern in MILESTONE_SIGNS:
        match = pattern.search(line)
        if match is None:
            continue
        if name == "root" and seen.root_device is None and "root" in match.groupdict():
            seen = replace(seen, root_device=match["root"])
        if BOOT_MILESTONES.index(name) > BOOT_MILESTONES.index(seen.reached):
            return replace(seen, reached=name)
        return seen
    return seen


def _trouble(seen: Seen, line: str) -> Seen:
    for rank, (fatal, pattern) in enumerate(TROUBLE):
        if pattern.search(line):
            fatal = fatal or seen.fatal
            if rank < seen.trouble_rank:
                return replace(seen, trouble=line[:500], trouble_rank=rank, fatal=fatal)
            return replace(seen, fatal=fatal)
    return seen


def _drivers(seen: Seen, line: str) -> Seen:
    if match := RENAMED.match(line):
        nics = {name: d for name, d in seen.nic_drivers.items() if name != match["old"]}
        return replace(seen, nic_drivers=_with(nics, match["new"], match["driver"]))
    if match := NIC_FOUND.match(line):
        return replace(seen, nic_drivers=_with(seen.nic_drivers, match["name"], match["driver"]))
    if match := DISK_FOUND.match(line):
        return replace(seen, disk_drivers=_with(seen.disk_drivers, match["disk"], match["driver"]))
    if match := SCSI_HOST.match(line):
        driver = SCSI_DRIVERS.get(match["driver"], match["driver"])
        return replace(seen, scsi_hosts=_with(seen.scsi_hosts, match["host"], driver))
    if (match := SCSI_DISK.match(line)) and match["host"] in seen.scsi_hosts:
        driver = seen.scsi_hosts[match["host"]]
        return replace(seen, disk_drivers=_with(seen.disk_drivers, match["disk"], driver))
    return seen


def _with(table: dict[str, str], key: str, value: str) -> dict[str, str]:
    return table if len(table) >= MAX_TABLE else {**table, key: value[:100]}


# The stream ---------------------------------------------------------------------------------------

MOVES = re.compile(r"\x1b\[[\d;]*[HfEFd]|\x1b[78DEM]|\x1b\[2?J")  # the cursor goes to another line
ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # control sequences: colours, cursor
    r"|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)"  # operating system commands: titles
    r"|\x1b[PX^_][^\x1b]*\x1b\\"  # strings for the terminal
    r"|\x1b[ -/]*[0-~]"  # everything of two characters
)
UNFINISHED = re.compile(r"\r+\Z|\x1b(?:\[[0-?]{0,32}[ -/]{0,8}|\][^\x07\x1b]{0,256})?\Z")
LINE_END = re.compile(r"\r*\n|\r+")  # a tty turns \r\n into \r\r\n
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def clean(text: str) -> str:
    """Console text without escape sequences and control characters; \\n and \\t stay."""
    text = LINE_END.sub("\n", MOVES.sub("\n", text))
    return CONTROLS.sub("", ESCAPES.sub("", text))


class Console:
    """Takes the bytes of a console as they come; keeps what they tell and a bounded log."""

    def __init__(self) -> None:
        self.seen = Seen()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._raw = ""  # the start of an escape sequence that is not complete yet
        self._line = ""  # the line that is not complete yet
        self._head = ""
        self._tail = ""
        self._lost = 0

    def feed(self, data: bytes) -> None:
        raw = self._raw + self._decoder.decode(data)
        unfinished = UNFINISHED.search(raw)
        self._raw = raw[unfinished.start() :] if unfinished else ""
        text = clean(raw[: unfinished.start()] if unfinished else raw)
        self._keep(text)
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self.seen = observe(self.seen, line)
        self._line = self._line[:MAX_LINE]
        if PROMPT.search(self._line):  # no newline follows a prompt
            self.seen = observe(self.seen, self._line)

    def _keep(self, text: str) -> None:
        room = LOG_HALF - len(self._head)
        self._head += text[:room]
        self._tail += text[room:] if room > 0 else text
        excess = len(self._tail) - LOG_HALF
        if excess > 0:
            self._tail = self._tail[excess:]
            self._lost += excess

    @property
    def log(self) -> str:
        """The text without escape sequences; of a long one the middle is left out."""
        gap = f"\n[... {self._lost} characters left out ...]\n" if self._lost else ""
        return re.sub(r"\n{3,}", "\n\n", self._head + gap + self._tail)

    @property
    def last_line(self) -> str | None:
        lines = [line.strip() for line in (self._tail or self._head)[-8192:].splitlines()]
        return next((line for line in reversed(lines) if line), None)


PROMPT = re.compile(
    r"login: ?$|^grub rescue> ?$|^grub> ?$|^\(initramfs\) ?$|^dracut:/# ?$|^Shell> ?$"
)


def read_console(text: str) -> Seen:
    """What a whole console log tells."""
    console = Console()
    console.feed(text.encode())
    console.feed(b"\n")
    return console.seen
