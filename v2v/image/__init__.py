"""What a disk image is, found out without QEMU, and which files it may make QEMU open.

An image can name other files: a backing file, a data file, extents. A hostile one names files of
the host (/etc/shadow) and has them copied into the guest's disk. So every name is resolved here,
must lie in the folder of the image that names it or below, or be allowed by the user, and QEMU is
told the format of each file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from v2v.errors import SourceError
from v2v.image import formats, magic, qcow2, vmdk
from v2v.image.formats import Header
from v2v.image.names import moved_file, named_file, refused
from v2v.image.reader import FileReader, Reader, truncated
from v2v.qemu_nbd import ImageOptions
from v2v.types import DiskFormat

MAX_CHAIN = 64  # backing files behind one another


@dataclass(frozen=True, slots=True)
class Image:
    """An image whose headers were checked. `packed` is gzip or xz; then the format is inside."""

    location: str
    format: DiskFormat
    size: int | None  # virtual size in bytes; None when the image is packed
    packed: str | None = None
    backing: Image | None = None
    data_file: Path | None = None  # where a qcow2 image keeps its data outside of itself
    files: tuple[Path, ...] = ()  # every file it consists of, its own first, backing files too


def read_image(
    path: Path,
    format: DiskFormat | None = None,
    *,
    allowed: Sequence[Path] = (),
    unpack: bool = True,
) -> Image:
    """Check a local image and all it names. `format` forces one; otherwise the content tells.

    `allowed` are files and folders elsewhere that the image may name. `unpack`: it may be packed,
    and `format` is then the one inside. SourceError if it is not sound or names others.
    """
    path = path.resolve()
    if unpack and (packed := _packed_with(path)):
        return Image(str(path), format or DiskFormat.RAW, None, packed, files=(path,))
    return _read_local(path, format, tuple(p.resolve() for p in allowed), ())


def read_remote(reader: Reader, format: DiskFormat | None = None, *, unpack: bool = True) -> Image:
    """Check an image that is not a local file. It may name no other file at all."""
    head, tail = magic.read_ends(reader)
    if unpack and (packed := magic.packed_with(head)):
        return Image(reader.name, format or DiskFormat.RAW, None, packed)
    header = _read_header(reader, format or magic.image_format(head, tail))
    if header.backing or header.data_file or header.extents:
        named = header.backing or header.data_file or header.extents[0].name
        raise refused(reader.name, named, "it is not a local file, so that it may name none")
    return Image(reader.name, header.format, header.size)


def qemu_options(image: Image, *, prefix: str = "") -> ImageOptions:
    """How QEMU opens a local image and its backing files, each format forced, and no others."""
    path = image.files[0]
    driver = "host_device" if path.is_block_device() else "file"
    options: dict[str, str | None] = {
        f"{prefix}driver": str(image.format),
        f"{prefix}file.driver": driver,
        f"{prefix}file.filename": str(path),
        **format_options(image.format, prefix),
    }
    if image.data_file:
        options[f"{prefix}data-file.driver"] = "file"
        options[f"{prefix}data-file.filename"] = str(image.data_file)
    if image.backing:
        options |= qemu_options(image.backing, prefix=f"{prefix}backing.")
    else:
        options[f"{prefix}backing"] = None
    return options


def lone_options(format: DiskFormat, file: Mapping[str, str]) -> ImageOptions:
    """How QEMU opens an image that may name no other; `file` are options of what holds it."""
    inside = {f"file.{key}": value for key, value in file.items()}
    return {"driver": str(format), **inside, **format_options(format), "backing": None}


def format_options(format: DiskFormat, prefix: str = "") -> dict[str, str]:
    """VHD: the size its header gives, where QEMU may otherwise take a rounded geometry."""
    if format == DiskFormat.VPC:
        return {f"{prefix}force_size_calc": "current_size"}
    return {}


def check_raw(reader: Reader, head: bytes, *, strict: bool) -> None:
    """Refuse what is certainly no disk, or ends before its partition table says.

    `strict` also refuses what shows no sign of being a disk: no partition table, no filesystem.
    """
    if other := magic.foreign(head):
        raise _not_a_disk(f"{reader.name} is not a disk image: it is {other.what}", other.hint)
    if strict and not magic.looks_like_disk(head):
        raise _not_a_disk(
            f"{reader.name} does not look like a disk: it has no image header, "
            "partition table or filesystem",
            magic.NO_DISK,
        )
    end = magic.partitioned_end(head)
    if end > reader.size + magic.CYLINDER:
        raise truncated(reader, "the last partition, or the partition table's copy,", end)


def _not_a_disk(message: str, hint: str) -> SourceError:
    return SourceError(message, id="not-a-disk-image", hint=hint)


# Reading ------------------------------------------------------------------------------------------


def _packed_with(path: Path) -> str | None:
    with FileReader(path) as reader:
        return magic.packed_with(reader.read(0, magic.HEAD))


def _read_local(
    path: Path,
    format: DiskFormat | None,
    allowed: tuple[Path, ...],
    above: tuple[Path, ...],
    child: Header | None = None,
) -> Image:
    """`above` are the images that lead here; `child` is the header of the last of them."""
    if path in above or len(above) > MAX_CHAIN:
        raise SourceError(f"{above[0]}: its chain of backing files has no end", id="image-corrupt")
    with FileReader(path) as reader:
        head, tail = magic.read_ends(reader)
        header = _read_header(reader, format or magic.image_format(head, tail))
    if child and child.format == DiskFormat.VMDK:
        vmdk.check_chain(str(above[-1]), child.backing_cid, str(path), header)
    named = _named_files(path, header, allowed)
    image = Image(
        str(path),
        header.format,
        header.size,
        data_file=named[0] if header.data_file else None,
        files=(path, *named),
    )
    if header.backing is None:
        return image
    base = _parent(path, header, allowed)
    below = _read_local(base, _backing_format(path, header), allowed, (*above, path), header)
    return replace(image, backing=below, files=(*image.files, *below.files))


def _read_header(reader: Reader, format: DiskFormat | None) -> Header:
    """The checked header. A forced format that the content contradicts is an error."""
    if format in (None, DiskFormat.RAW):
        return Header(DiskFormat.RAW, reader.size)
    head, tail = magic.read_ends(reader)
    found = magic.image_format(head, tail)
    if found != format and not _could_be(format, reader):
        raise SourceError(
            f"{reader.name} is not a {format} image; it looks like {_spoken(head, found)}",
            id="image-format-wrong",
            hint="leave out -if to let v2v find out, or give the right format",
        )
    parsers: dict[DiskFormat, Callable[[Reader], Header]] = {
        DiskFormat.QCOW2: qcow2.read_qcow2,
        DiskFormat.VPC: formats.read_vhd,
        DiskFormat.VHDX: formats.read_vhdx,
        DiskFormat.VDI: formats.read_vdi,
        DiskFormat.VMDK: vmdk.read_sparse if head[:4] == b"KDMV" else vmdk.read_descriptor_file,
    }
    assert format is not None  # noqa: S101  mypy does not see it from the test above
    return parsers[format](reader)


def _could_be(format: DiskFormat | None, reader: Reader) -> bool:
    """A fixed VHD whose disk begins like another image, or is cut, is known by its size alone."""
    return format == DiskFormat.VPC and reader.read(reader.size - 512, 8) == b"conectix"


def _spoken(head: bytes, found: DiskFormat | None) -> str:
    if found is None and (other := magic.foreign(head)):
        return other.what
    return str(found or DiskFormat.RAW)


def _backing_format(path: Path, header: Header) -> DiskFormat | None:
    """As recorded; an old image does not say, and then the file's own content does."""
    if header.format == DiskFormat.VMDK:
        return DiskFormat.VMDK
    if header.backing_format is None:
        return None
    try:
        return DiskFormat(header.backing_format)
    except ValueError:
        raise SourceError(
            f"{path}: its backing file has the unknown format {header.backing_format!r}",
            id="image-unsupported",
            hint="merge it with its backing file first: qemu-img convert",
        ) from None


# Which files it may name --------------------------------------------------------------------------


def _named_files(path: Path, header: Header, allowed: tuple[Path, ...]) -> tuple[Path, ...]:
    """The data file and the extents, each there and long enough."""
    if header.data_file:
        return (named_file(path, header.data_file, allowed),)
    found = []
    for number, extent in enumerate(header.extents, 1):
        file = named_file(path, extent.name, allowed)
        with FileReader(file) as reader:
            vmdk.check_extent(reader, extent, last=number == len(header.extents))
        found.append(file)
    return tuple(found)


def _parent(path: Path, header: Header, allowed: tuple[Path, ...]) -> Path:
    """The backing file. A VMDK may name its parent by a path of the VMware host: where that is not
    here, it is the file of that name beside the child. The CIDs tell whether it is the one."""
    name = header.backing or ""
    if header.format == DiskFormat.VMDK and (beside := moved_file(path, name)):
        return beside
    return named_file(path, name, allowed)
