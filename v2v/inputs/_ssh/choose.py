"""What reads the files of a host over SSH: the fastest that works there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from v2v.cancel import Cancel
from v2v.errors import Cancelled, SourceError
from v2v.inputs._ssh.connection import Connection, ProgramRefused, connect
from v2v.inputs._ssh.dd import DdStore
from v2v.inputs._ssh.helper import HelperStore
from v2v.inputs._ssh.helper_far import NoHello
from v2v.inputs._ssh.place import SshPlace, SshReader
from v2v.inputs._ssh.sftp import SftpStore
from v2v.texts import clean
from v2v.vmdk.store import ListingStore

log = logging.getLogger(__name__)

# Per disk. One is limited by a processor there (dense data: 120 to 220 MiB/s, two: 420), more than
# two by those here, and every disk has its own.
CONNECTIONS = 2

NAMES = {
    SshReader.HELPER: "by a program of ours that the Python there runs",
    SshReader.SFTP: "by SFTP",
    SshReader.DD: "by dd there",
}
LACKING = {
    SshReader.HELPER: "no Python runs there",
    SshReader.SFTP: "no SFTP is offered there",
    SshReader.DD: "no dd runs there",
}


@contextmanager
def open_store(
    place: SshPlace, *, cancel: Cancel, tell: Callable[[str], None]
) -> Iterator[ListingStore]:
    """Files of a host: of the readers (see SshReader) the first that works, or the one named.

    `tell` gets a sentence about the choice. Errors: those of `connect`; SourceError `ssh-reader`.
    """
    with ExitStack() as stack:
        connection = stack.enter_context(connect(place, cancel=cancel, connections=CONNECTIONS))
        yield _chosen(connection, stack, cancel, tell)


def _chosen(
    connection: Connection, stack: ExitStack, cancel: Cancel, tell: Callable[[str], None]
) -> ListingStore:
    place = connection.place
    wanted = [one for one in NAMES if place.reader in (one, SshReader.AUTO)]
    lacking: list[str] = []
    for reader in wanted:
        try:
            store = OPENED[reader](connection, stack, cancel)
        except (NoHello, ProgramRefused) as exc:
            cancel.check()
            log.info("%s: %s: %s", place.shown, LACKING[reader], clean(str(exc)))
            lacking.append(LACKING[reader])
        else:
            tell(_sentence(place, reader, lacking))
            return store
    raise SourceError(
        f"{place.shown}: files cannot be read: {', '.join(lacking)}",
        id="ssh-reader",
        hint="without -io ssh-reader the first that works is taken"
        if place.reader is not SshReader.AUTO
        else "allow one of them in the configuration of the SSH server there",
    )


def _sentence(place: SshPlace, reader: SshReader, lacking: list[str]) -> str:
    why = f" ({', '.join(lacking)})" if lacking else ""
    return f"{place.shown}: read {NAMES[reader]}{why}"


def _helper(connection: Connection, stack: ExitStack, cancel: Cancel) -> ListingStore:
    store = HelperStore(connection, programs=CONNECTIONS)
    stack.callback(store.close)
    stack.enter_context(cancel.calling(lambda: store.stop(Cancelled())))
    return store


def _sftp(connection: Connection, stack: ExitStack, cancel: Cancel) -> ListingStore:
    store = SftpStore(connection)
    stack.callback(store.close)
    return store


def _dd(connection: Connection, stack: ExitStack, cancel: Cancel) -> ListingStore:
    done = connection.run("exec dd if=/dev/null of=/dev/null count=0")
    if done.status != 0:
        raise ProgramRefused(done.stderr)
    return DdStore(connection)


OPENED: dict[SshReader, Callable[[Connection, ExitStack, Cancel], ListingStore]] = {
    SshReader.HELPER: _helper,
    SshReader.SFTP: _sftp,
    SshReader.DD: _dd,
}
