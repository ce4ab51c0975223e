"""The source of a copy of one image: whatever the disk input reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from v2v import nbd_client, registry
from v2v.endpoint import Endpoint
from v2v.errors import SourceError, UsageError
from v2v.image import check_raw
from v2v.image.magic import HEAD, SECTOR
from v2v.image_copy.state import Request
from v2v.image_copy.targets import anchored_uri
from v2v.input import Input
from v2v.inputs._details import is_plain
from v2v.job import ModuleChoice
from v2v.nbd_client import ExportReader
from v2v.options import anchored
from v2v.run import Run
from v2v.types import Source, SourceDisk

INPUT = "disk"  # the input that reads images of every kind


@contextmanager
def open_source(request: Request, run: Run) -> Iterator[tuple[Source, Endpoint]]:
    """Read what the source is, and serve it."""
    with ExitStack() as stack:
        with run.step("open", "Opening the source"):
            input_, source, known = _read_source(request, run)
            endpoint = _export(source.disks[0], run)
            if endpoint is None:
                (endpoint,) = stack.enter_context(input_.serve(source, run))
            if not known:
                with ExportReader(endpoint, request.source) as reader:
                    check_raw(reader, reader.read(0, HEAD), strict=False)
        yield source, endpoint


def _export(disk: SourceDisk, run: Run) -> Endpoint | None:
    """A raw disk behind an NBD server is read from there, without a server of ours in between."""
    if not is_plain(disk) or not disk.location.startswith("nbd"):
        return None
    endpoint = nbd_client.describe(uri=disk.location, cancel=run.cancel)
    return endpoint if endpoint.size % SECTOR == 0 else None  # ours fills up the last sector


def _read_source(request: Request, run: Run) -> tuple[Input, Source, bool]:
    """The input and its source; False if it shows no sign of being a disk.

    Without any header it is raw: a disk that holds but one volume looks like that.
    """
    try:
        input_ = _input(request, {})
        return input_, input_.read_source(run), True
    except SourceError as exc:
        if exc.id != "not-a-disk-image" or "-if" in request.input:
            raise
    input_ = _input(request, {"-if": "raw"})
    return input_, input_.read_source(run), False


def _input(request: Request, words: dict[str, str]) -> Input:
    return registry.make_input(ModuleChoice(INPUT, request.input | words), (request.source,))


def input_words(words: Mapping[str, str] | None) -> dict[str, str]:
    return anchored(registry.find_input(INPUT).Options, words or {})


def anchored_source(source: str | Path) -> str:
    word = str(source)
    if word == "-":
        raise UsageError(
            "the source cannot be stdin: the parts of a disk are read in any order",
            id="usage",
            hint="name a file, a block device or an address",
        )
    return anchored_uri(word) if "://" in word else str(Path(word).absolute())
