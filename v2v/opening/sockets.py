"""Unix sockets under names that can be typed.

The servers listen in the job's own folder under /tmp, which nobody else may enter; the names are
symbolic links to there. So who may connect does not depend on the folder that the names are in.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from v2v.endpoint import Endpoint, nbd_unix_uri
from v2v.errors import HostError, UsageError
from v2v.opening.place import Place
from v2v.run import Run

PATH_BYTES = 107  # of a Unix socket; the kernel's sun_path holds one more, a zero
OURS = re.compile(r"/v2v-[^/]+/[^/]+/s$")  # where a link leads: see Run.tmp and process.nbd_server


@contextmanager
def linked(
    folder: Path | None, served: Sequence[Endpoint], names: Sequence[str], run: Run
) -> Iterator[tuple[Place, ...]]:
    """FOLDER/sda, FOLDER/sdb, ... for as long as the block lasts."""
    with ExitStack() as stack:
        where = stack.enter_context(_made(folder)) if folder else run.tmp
        _clean(where)
        places = []
        for endpoint, name in zip(served, names, strict=True):
            assert endpoint.socket is not None  # noqa: S101  inputs serve on Unix sockets
            stack.enter_context(_link(where / name, endpoint.socket))
            places.append(Place(nbd_unix_uri(where / name, endpoint.export), where / name))
        yield tuple(places)


@contextmanager
def _made(folder: Path) -> Iterator[Path]:
    """The folder; if it was not there, only the user may enter it, and it goes at the end."""
    made = make_folder(folder)
    try:
        yield folder
    finally:
        if made:
            remove_folder(folder)


def make_folder(folder: Path) -> bool:
    """Whether it was not there."""
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if folder.is_dir():
            return False
        raise HostError(
            f"{folder} is no folder", id="open-folder", hint="choose another place"
        ) from None
    except OSError as exc:
        raise cannot_make(folder, exc) from exc
    return True


def cannot_make(path: Path, exc: OSError) -> HostError:
    return HostError(
        f"cannot make {path}: {exc.strerror}",
        id="open-folder",
        hint="choose another folder, where you may write",
    )


def remove_folder(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError:
        return  # somebody put something there


def _clean(folder: Path) -> None:
    """Take away the links that a v2v that was killed left there, and nothing else."""
    for path in folder.glob("sd*"):
        if path.is_symlink() and OURS.search(str(path.readlink())) and not _answers(path):
            path.unlink(missing_ok=True)


@contextmanager
def _link(name: Path, target: Path) -> Iterator[None]:
    if len(str(name).encode(errors="surrogateescape")) > PATH_BYTES:
        raise UsageError(
            f"{name}: longer than {PATH_BYTES} bytes, which is all that a Unix socket may have",
            id="open-socket-path",
            hint="choose a shorter --socket-dir",
        )
    try:
        name.symlink_to(target)
    except OSError as exc:
        raise HostError(
            f"cannot make {name}: {exc.strerror}",
            id="open-folder",
            hint="is another `v2v open` using it? Choose another --socket-dir",
        ) from exc
    try:
        yield
    finally:
        if name.is_symlink() and name.readlink() == target:
            name.unlink()


def _answers(path: Path) -> bool:
    """Whether somebody listens at this Unix socket."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)  # one who has too many callers would keep us waiting
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True
