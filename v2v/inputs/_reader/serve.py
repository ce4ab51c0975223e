"""VMDK disks in a store as NBD: a process of nbdkit for each, which reads by v2v's own code."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import v2v
from v2v import events, nbd_client, nbdkit
from v2v.endpoint import Endpoint
from v2v.errors import GuestError, V2VError
from v2v.inputs._reader import order as files
from v2v.inputs._reader.order import Failed, Order, Ready
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.stores import open_store
from v2v.password import given_password, is_refused, password_as_file
from v2v.run import Run
from v2v.vmdk import open_disk

PLUGIN = Path(__file__).with_name("plugin.py")
# For logging in, and for reading the headers of a chain of disks: more than the patience of any
# store, which says better what is wrong.
START_SECONDS = 600.0

# Errors that may only mean that the disk could not be read. Whoever looks into a guest whose disk
# cannot be read may not even notice: to find no operating system is one of them.
CONSEQUENCES = (
    "appliance-call",
    "appliance-died",
    "appliance-failed",
    "copy-read",
    "copy-stalled",
    "nbd-lost",
    "nbd-unreachable",
    "server-ended",
    "server-timeout",
    "source-read",
)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the headers of a disk tell."""

    size: int  # virtual size in bytes
    version: str  # another one when somebody wrote to one of its files; "" where nobody can tell
    files: tuple[str, ...]  # all that it consists of


def read_vmdk(recipe: Recipe, run: Run) -> Facts:
    """Look at a disk without serving it."""

    def tell(text: str) -> None:
        """Serving it tells the same."""

    with open_store(recipe, cancel=run.cancel, tell=tell) as store:
        disk = open_disk(store, recipe.path, roots=recipe.roots)
        return Facts(disk.size, disk.version, disk.files)


@contextmanager
def serve_recipe(recipe: Recipe, run: Run, name: str) -> Iterator[Endpoint]:
    """Serve a disk read-only until the block ends.

    What the block ends with because the disk could not be read is raised as the SourceError that
    tells why. If it ends well all the same, as with other programs that read, that is a warning.
    """
    nbdkit.check_python()
    folder = Path(tempfile.mkdtemp(prefix=f"{name}-order-", dir=run.tmp))
    try:
        with (
            _explaining(folder),
            _with_password(recipe) as known,
            _process(known, folder, run, name) as socket,
        ):
            ready = files.read(folder / files.READY, Ready)
            assert ready is not None  # noqa: S101  it is written before nbdkit listens
            heard = _tell(folder, run)
            try:
                endpoint = nbd_client.describe(socket, cancel=run.cancel)
                yield replace(endpoint, request_size=ready.request_size)
                _warn_of_failed(folder, run)
            finally:
                _tell(folder, run, after=heard)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _with_password(recipe: Recipe) -> Iterator[Recipe]:
    """The other process has no terminal to ask for one at, does not get our environment's, and
    cannot read <(pass show esxi) again. One that the host refused, it does not try."""
    if recipe.ssh is None:
        yield recipe
        return
    from v2v.inputs._ssh.config import settings_of

    settings = settings_of(recipe.ssh)
    word = given_password(recipe.ssh.password_file, what=settings.who)
    with ExitStack() as stack:
        file = None
        if word is not None and not is_refused(settings.account, word):
            file = stack.enter_context(password_as_file(word))
        yield replace(recipe, ssh=replace(recipe.ssh, password_file=file))


@contextmanager
def _process(recipe: Recipe, folder: Path, run: Run, name: str) -> Iterator[Path]:
    """nbdkit, until the block ends; then, or when the job is cancelled, its reads are given up
    rather than waited for."""
    stop, held = os.pipe()
    kept = [held]

    def give_up() -> None:
        with suppress(IndexError):
            os.close(kept.pop())

    try:
        file = folder / files.ORDER
        files.write(file, Order(recipe, folder, stop))
        with (
            run.cancel.calling(give_up),
            nbdkit.serve(
                "python",
                [f"script={PLUGIN}", f"order={file}"],
                run=run,
                name=name,
                env={"PYTHONPATH": os.pathsep.join(_import_path())},
                pass_fds=(stop,),
                seconds=START_SECONDS,
            ) as socket,
        ):
            try:
                yield socket
            finally:
                give_up()
    finally:
        give_up()
        os.close(stop)


def _import_path() -> list[str]:
    """Where our packages are, ourselves first: we may be installed by a hook, which nbdkit's
    Python does not have."""
    own = str(Path(v2v.__file__).parent.parent)
    return list(dict.fromkeys([own, *filter(None, sys.path)]))


def _tell(folder: Path, run: Run, after: int = 0) -> int:
    """Tell the user what the process has told since; gives how much that is in all."""
    told = files.lines(folder / files.TOLD)
    for text in told[after:]:
        run.emit(events.Message, text=text)
    return len(told)


def _warn_of_failed(folder: Path, run: Run) -> None:
    if failed := files.read(folder / files.FAILED, Failed):
        run.warn(failed.message, id=failed.id, hint=failed.hint)


@contextmanager
def _explaining(folder: Path) -> Iterator[None]:
    try:
        yield
    except V2VError as exc:
        failed = files.read(folder / files.FAILED, Failed)
        if failed is None or not (exc.id in CONSEQUENCES or isinstance(exc, GuestError)):
            raise
        raise failed.error() from exc
