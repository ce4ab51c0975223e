"""The text of a VMDK: its descriptor, alone in a file or inside of a sparse extent.

QEMU's driver reads it loosely: it looks for words anywhere in the text, and opens the files they
name. So ours is strict: what is not understood, or could be understood in two ways, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from v2v.image.encodings import ENCODINGS
from v2v.image.formats import SECTOR, ExtentFile
from v2v.image.reader import Reader, corrupt, unsupported

DESCRIPTOR_MAGIC = b"# Disk DescriptorFile"
MAX_EXTENTS = 4096
MAX_NAME = 511  # bytes: of a longer one QEMU opens what its beginning names
NO_PARENT = 0xFFFFFFFF  # the parentCID of a disk without one
FLAT_KINDS = ("FLAT", "VMFS")
OBJECTS = ("vsan://", "vvol://")  # how names of extents begin that ESXi itself resolves
SPARSE_KINDS = ("SPARSE", "VMFSSPARSE", "SESPARSE")

_ENTRY = re.compile(r'([A-Za-z][A-Za-z0-9_.]*)\s*=\s*(?:"([^"]*)"|([^"\s]*))')
_EXTENT = re.compile(
    r'(RW|RDONLY|NOACCESS)\s+(\d{1,15})\s+([A-Z]+)(?:\s+"([^"]+)"(?:\s+(\d{1,15}))?)?', re.ASCII
)
_CID = re.compile(r"^[ \t]*CID=([0-9A-Fa-f]{1,8})[ \t\r]*$", re.MULTILINE)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HEX = re.compile(r"[0-9A-Fa-f]{1,8}")


@dataclass(frozen=True, slots=True)
class Descriptor:
    kind: str  # createType
    extents: tuple[ExtentFile, ...]
    parent: str | None
    cid: int | None  # a number that changes when the content does; None: QEMU will not find it
    parent_cid: int | None  # the parent's, when this was made of it
    utf8: bool  # otherwise names of extents are bytes that look otherwise here


def parse_descriptor(reader: Reader, raw: bytes, *, for_qemu: bool = True) -> Descriptor:
    """The text of a descriptor; any line that is not understood is an error.

    `for_qemu`: so is what QEMU's driver, which will read the same text, would understand otherwise.
    """
    text, told = _decoded(raw)
    if not text.startswith(DESCRIPTOR_MAGIC.decode()):
        raise corrupt(reader, "the VMDK descriptor does not begin as one")
    entries: dict[str, str] = {}
    extents: list[ExtentFile] = []
    for line in _lines(reader, text, for_qemu=for_qemu):
        if match := _EXTENT.fullmatch(line):
            extents.append(_extent(reader, line, match, for_qemu=for_qemu))
        elif match := _ENTRY.fullmatch(line):
            if match[1].lower() in entries:
                raise corrupt(reader, f"the VMDK descriptor has {match[1]} twice")
            entries[match[1].lower()] = match[2] or match[3] or ""
        else:
            raise corrupt(reader, f"the VMDK descriptor has an odd line: {line[:80]!r}")
    if for_qemu:
        _no_second_meaning(reader, text, entries)
    _refuse_encrypted(reader, entries)
    if len(extents) > MAX_EXTENTS:
        raise corrupt(reader, f"{len(extents)} VMDK extents")
    parent, parent_cid = _parent(reader, entries)
    if parent and not told:
        parent = _as_told(parent, entries.get("encoding", ""))
    kind = entries.get("createtype", "")
    cid = _cid_of_qemu(text) if for_qemu else _number(reader, entries, "cid")
    return Descriptor(kind, tuple(extents), parent, cid, parent_cid, told)


def _decoded(raw: bytes) -> tuple[str, bool]:
    """The text, and whether it is what it looks like.

    QEMU goes by bytes. So what is not UTF-8 is read one byte one character: no two bytes make up a
    letter that hides a word which QEMU finds.
    """
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return raw.decode("latin-1"), False


def _as_told(text: str, encoding: str) -> str:
    """What the bytes mean in the encoding that the descriptor says it has."""
    codec = ENCODINGS.get(encoding.lower(), "cp1252")
    return text.encode("latin-1").decode(codec, "replace")


def _lines(reader: Reader, text: str, *, for_qemu: bool) -> Iterator[str]:
    blank = False  # the line before
    for line in text.split("\n"):
        line = line.rstrip("\r").strip(" \t")
        if _CONTROL.search(line):
            raise corrupt(reader, "the VMDK descriptor has control characters")
        if for_qemu and blank and _EXTENT.fullmatch(line):
            raise unsupported(
                reader,
                "a blank line before an extent makes QEMU read it twice",
                "take the blank line out of the descriptor",
            )
        blank = not line
        if line and not line.startswith("#"):
            yield line


def _no_second_meaning(reader: Reader, text: str, entries: dict[str, str]) -> None:
    """QEMU finds these words even in a comment or inside of another line. What follows them it
    takes for =" without looking, so that a space there makes it open another file."""
    for word in ("parentFileNameHint", "createType", "parentCID"):
        if text.lower().count(word.lower()) != (word.lower() in entries):
            raise corrupt(reader, f"the VMDK descriptor has {word} where it does not belong")
    for word in ("parentFileNameHint", "createType"):
        if word.lower() in entries and f'{word}="' not in text:
            raise corrupt(reader, f'the VMDK descriptor does not have {word} as {word}="..."')


def _refuse_encrypted(reader: Reader, entries: dict[str, str]) -> None:
    """QEMU takes what is encrypted, by Workstation or by ESXi, for the disk's content."""
    if entries.get("encryptionkeys") or "crypt" in entries.get("ddb.iofilters", "").lower():
        raise unsupported(
            reader, "the disk is encrypted", "remove the encryption of the VM in VMware first"
        )


def _extent(reader: Reader, line: str, match: re.Match[str], *, for_qemu: bool) -> ExtentFile:
    access, sectors, kind, name, offset = match.groups()
    if "RDM" in kind:
        raise raw_device(reader)
    if access != "RW" or kind not in FLAT_KINDS + SPARSE_KINDS or not name:
        raise unsupported(
            reader, f"its extent {line[:80]!r} is not supported", "export the disk again"
        )
    if name.startswith(OBJECTS):
        raise unsupported(
            reader,
            "its data is an object of vSAN, or a virtual volume, and no file",
            "read it by -it vddk, or make a copy of it on another datastore (vmkfstools -i)",
        )
    if len(name.encode()) > MAX_NAME:
        raise corrupt(
            reader, f"the name of an extent is longer than {MAX_NAME} bytes: {name[:80]!r}"
        )
    if (kind == "FLAT") != (offset is not None) and (for_qemu or kind != "VMFS"):
        raise unsupported(
            reader,
            f"its extent {line[:80]!r} {'has no' if kind == 'FLAT' else 'has an'} offset",
            'write FLAT extents with an offset ("name" 0), and others without one',
        )
    return ExtentFile(name, int(sectors) * SECTOR, int(offset or 0) * SECTOR, kind)


def raw_device(reader: Reader) -> Exception:
    return unsupported(
        reader,
        "it stands for a whole LUN or device of the VMware host (raw device mapping)",
        "make a virtual disk of it (vmkfstools -i), or give the LUN itself to -i disk",
    )


def _parent(reader: Reader, entries: dict[str, str]) -> tuple[str | None, int | None]:
    """The parent's file and CID; both None without a parent."""
    hint = entries.get("parentfilenamehint")
    found = _number(reader, entries, "parentcid")
    cid = NO_PARENT if found is None else found
    if cid != NO_PARENT and not hint:
        raise corrupt(reader, "the VMDK has a parent, and does not say which")
    return (hint, cid) if hint else (None, None)


def _number(reader: Reader, entries: dict[str, str], name: str) -> int | None:
    found = entries.get(name)
    if found is not None and not _HEX.fullmatch(found):
        raise corrupt(reader, f"the VMDK descriptor's {name} is {found[:20]!r}")
    return None if found is None else int(found, 16)


def _cid_of_qemu(text: str) -> int | None:
    """As QEMU finds it: what follows the first "CID" in the text, wherever that is."""
    match = _CID.search(text)
    if match is None or match.start(1) - len("CID=") != text.index("CID"):
        return None
    return int(match[1], 16)
