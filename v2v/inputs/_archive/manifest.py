"""The manifest of an OVA: checksums of its files. DMTF DSP0243, section 5.1."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from v2v.errors import SourceError
from v2v.inputs._archive import Listing, Member, listed, relative_name
from v2v.inputs._checksums import file_differs
from v2v.run import Run
from v2v.texts import clean
from v2v.types import Checksum

LINE = re.compile(r"([A-Za-z][A-Za-z0-9-]{0,15})\s{0,8}\((.{1,1024})\)\s{0,8}=\s{0,8}(\S{1,256})")
ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")  # the strongest last
SHOWN = 60  # characters of a bad line


@dataclass(frozen=True, slots=True)
class Manifest:
    """`files` are named relative to the manifest; `unknown` are algorithms nobody here knows."""

    files: dict[str, Checksum] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()


def read_manifest(data: bytes, where: str) -> Manifest:
    """Lines such as `SHA256(disk1.vmdk)= 9f86d0...`. Of several for one file the strongest counts.

    Anything else is an error: `where` and the line's number are told.
    """
    files: dict[str, Checksum] = {}
    unknown: dict[str, None] = {}
    for number, line in enumerate(_text(data, where).splitlines(), 1):
        if not line.strip():
            continue
        found = LINE.fullmatch(line.strip())
        if found is None:
            raise _invalid(where, number, line)
        algorithm, name, digest = found[1].lower().replace("-", ""), found[2], found[3].lower()
        if algorithm not in ALGORITHMS:
            unknown[found[1]] = None
            continue
        if not re.fullmatch(r"[0-9a-f]+", digest) or len(digest) != 2 * _digest_size(algorithm):
            raise _invalid(where, number, line)
        _put(files, relative_name(name) or name, Checksum(algorithm, digest), where, number, line)
    return Manifest(files, tuple(unknown))


def _put(
    files: dict[str, Checksum], name: str, one: Checksum, where: str, number: int, line: str
) -> None:
    other = files.get(name)
    if other and other.algorithm == one.algorithm and other != one:
        raise _invalid(where, number, line)
    if other is None or ALGORITHMS.index(one.algorithm) > ALGORITHMS.index(other.algorithm):
        files[name] = one


def _digest_size(algorithm: str) -> int:
    return hashlib.new(algorithm, usedforsecurity=False).digest_size


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise _invalid(where, data[: exc.start].count(b"\n") + 1, "it is not UTF-8") from exc


def _invalid(where: str, number: int, line: str) -> SourceError:
    return SourceError(
        f"{where}, line {number}: no checksum of a file: {clean(line)[:SHOWN]!r}",
        id="ova-manifest-invalid",
        hint="lines are like `SHA256(disk1.vmdk)= 9f86d0...`; without the manifest, or with "
        "-io checksums=no, nothing is checked",
    )


def find_manifest(listing: Listing, ovf: Member) -> Member | None:
    """NAME.mf beside NAME.ovf; or the only one beside it."""
    path = PurePosixPath(ovf.name)
    if found := listing.find(str(path.with_suffix(".mf"))):
        return found
    others = [PurePosixPath(name) for name in listing.names()]
    beside = [str(one) for one in others if is_manifest(str(one)) and one.parent == path.parent]
    return listing.find(beside[0]) if len(beside) == 1 else None


def is_manifest(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() == ".mf" and not path.name.startswith("._")


def rebased(manifest: Manifest, ovf: str) -> Manifest:
    """With the files named as in the container, where they are named relative to the OVF."""
    parent = PurePosixPath(ovf).parent
    files = {
        str(parent / name) if relative_name(name) else name: checksum
        for name, checksum in manifest.files.items()
    }
    return Manifest(files, manifest.unknown)


def tell_of(manifest: Manifest, listing: Listing, run: Run) -> None:
    """Warn of what cannot be checked."""
    where = listing.where
    missing = [name for name in manifest.files if not (relative_name(name) and listing.find(name))]
    if missing:
        run.warn(
            f"{where}: the manifest names files that are not there: {listed(missing)}",
            id="ova-manifest-missing",
            hint="they may have been left out on purpose; disks that are needed are there",
        )
    if manifest.unknown:
        run.warn(
            f"{where}: the manifest has checksums of a kind that is not known here: "
            f"{listed(manifest.unknown)}",
            id="ova-manifest-algorithm",
            hint="those files are not checked",
        )


def check_content(manifest: Manifest, found: Member, data: bytes, where: str) -> None:
    """A small file is checked at once."""
    expected = manifest.files.get(found.name)
    if expected is None:
        return
    digest = hashlib.new(expected.algorithm, data, usedforsecurity=False).hexdigest()
    if digest != expected.digest:
        raise file_differs(f"{found.name} in {where}", expected, digest)
