"""Programs on a host that is reached over SSH: several at once, over connections made anew."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from v2v.cancel import Cancel
from v2v.errors import SourceError
from v2v.inputs._ssh.config import settings_of
from v2v.inputs._ssh.link import Unreachable, link
from v2v.inputs._ssh.place import SshPlace
from v2v.inputs._ssh.program import Program
from v2v.texts import clean
from v2v.types import MiB

log = logging.getLogger(__name__)

CONNECTIONS = 2  # TCP connections at most
CHANNELS = 5  # programs on one of them; servers allow ten (MaxSessions)
PATIENCE_SECONDS = 120.0  # for a connection that was there once
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 10.0  # seconds between attempts
BUSY_SECONDS = 5.0  # that a host may drop the first connection again and again
START_SECONDS = 30.0  # for a program to be started
ROOM_SECONDS = 3.0  # for others to end, where a host lets few run at once
RUN_SECONDS = 60.0


class ProgramRefused(Exception):
    """The host starts no programs (or not this subsystem), though it lets us in."""


@dataclass(frozen=True, slots=True)
class Done:
    """A program that has ended."""

    status: int  # -1 when a signal ended it, or the host does not tell
    stdout: bytes
    stderr: str  # its last 4 KiB


@dataclass(slots=True)
class _Lane:
    """A TCP connection, or the place of one."""

    stack: ExitStack = field(default_factory=ExitStack)
    transport: Any = None  # paramiko.Transport
    programs: int = 0
    limit: int = CHANNELS
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while it is made

    @property
    def alive(self) -> bool:
        return self.transport is not None and self.transport.is_active()


class Connection:
    """To one host; several threads may use it at once. See `connect`."""

    def __init__(self, place: SshPlace, cancel: Cancel, connections: int, patience: float) -> None:
        self.place = place
        self._cancel, self._patience = cancel, patience
        self._lanes = [_Lane() for _ in range(connections)]
        self._choosing = threading.Lock()
        self._closed = False

    def open(self, command: str) -> Program:
        """Start a program there, by the user's shell there: never put names into `command`.

        ConnectionError if the host cannot be reached again within the patience; ProgramRefused if
        it starts none.
        """
        return self._started(lambda channel: channel.exec_command(command))

    def subsystem(self, name: str) -> Program:
        """The same with a subsystem: sftp."""
        return self._started(lambda channel: channel.invoke_subsystem(name))

    def run(
        self,
        command: str,
        *,
        input: bytes = b"",
        limit: int = 4 * MiB,
        seconds: float = RUN_SECONDS,
    ) -> Done:
        """A program to its end. `limit` is on what it writes.

        SourceError: `ssh-command-timeout`, `ssh-command-output`; and as `open`.
        """
        program = self.open(command)
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            program.close()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            stdout = self._spoken(program, input, limit)
            return Done(program.status(seconds), stdout, program.errors())
        except ConnectionError as exc:
            if overdue.is_set():
                raise self._slow(seconds) from exc
            raise
        finally:
            timer.cancel()
            program.close()
            self._cancel.check()

    def check(self) -> None:
        """Raise Cancelled if the job was asked to stop."""
        self._cancel.check()

    def _spoken(self, program: Program, input: bytes, limit: int) -> bytes:
        with suppress(ConnectionError):  # it may have ended; what is read next tells
            if input:
                program.send(input)
            program.end_input()
        stdout, buffer = bytearray(), memoryview(bytearray(min(limit, MiB) or 1))
        while count := program.receive_into(buffer):
            stdout += buffer[:count]
            if len(stdout) > limit:
                raise SourceError(
                    f"{self.place.shown}: a command there says more than {limit} bytes",
                    id="ssh-command-output",
                    hint="what does `ssh` say there, before anything is asked?",
                )
        return bytes(stdout)

    def _slow(self, seconds: float) -> SourceError:
        return SourceError(
            f"{self.place.shown}: a command there did not end within {seconds:.0f} s",
            id="ssh-command-timeout",
            hint="is the host overloaded, or one of its datastores not reachable?",
        )

    def _started(self, start: Callable[[Any], None]) -> Program:
        """On a lane that has room; a lane that is not alive is made anew."""
        from paramiko import ChannelException, SSHException

        begin = time.monotonic()
        while True:
            lane = self._take(begin + self._patience)
            try:
                return self._start_on(lane, start)
            except ChannelException as exc:  # no room there, whatever we thought
                self._release(lane)
                lane.limit = max(1, lane.programs)
                if time.monotonic() > begin + ROOM_SECONDS:
                    raise ProgramRefused(clean(str(exc))) from exc
                self._cancel.wait(FIRST_PAUSE / 10 if self._has_room() else FIRST_PAUSE)
            except (SSHException, EOFError, OSError) as exc:
                self._release(lane)
                if isinstance(exc, SSHException) and _is_there(lane):
                    raise ProgramRefused(clean(str(exc))) from exc
                lane.transport.close()
                if time.monotonic() > begin + self._patience:
                    raise ConnectionError(f"{self.place.shown}: {clean(str(exc))}") from exc

    def _has_room(self) -> bool:
        return any(one.programs < one.limit for one in self._lanes)

    def _start_on(self, lane: _Lane, start: Callable[[Any], None]) -> Program:
        channel = lane.transport.open_session(timeout=START_SECONDS)
        program = Program(channel, lambda: self._release(lane))
        start(channel)
        return program

    def _take(self, deadline: float) -> _Lane:
        """The lane with the fewest programs, connected."""
        with self._choosing:
            free = [one for one in self._lanes if one.programs < one.limit] or self._lanes
            lane = min(free, key=lambda one: (one.programs, not one.alive))
            lane.programs += 1
        try:
            self._make(lane, deadline)
        except BaseException:
            self._release(lane)
            raise
        return lane

    def _release(self, lane: _Lane) -> None:
        with self._choosing:
            lane.programs -= 1

    def _make(self, lane: _Lane, deadline: float) -> None:
        """Connect it unless it is, again and again until the deadline."""
        pause = FIRST_PAUSE
        with lane.lock:
            while not lane.alive:
                self._cancel.check()
                if self._closed:
                    raise ConnectionError("the connection was closed")
                lane.stack.close()
                lane.limit = CHANNELS
                try:
                    lane.transport = lane.stack.enter_context(
                        link(self.place, self._cancel.calling)
                    )
                except Unreachable as exc:
                    self._cancel.check()
                    if time.monotonic() + pause > deadline:
                        raise
                    log.info("%s: %s; again in %.2g s", self.place.shown, exc, pause)
                    self._cancel.wait(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)

    def _begin(self) -> None:
        """The first connection. Who does not answer is not waited for, but who is busy."""
        pause, deadline = FIRST_PAUSE, time.monotonic() + BUSY_SECONDS
        while True:
            try:
                return self._make(self._lanes[0], time.monotonic())
            except Unreachable as exc:
                if not exc.dropped or time.monotonic() + pause > deadline:
                    raise SourceError(
                        f"{self.place.shown}: cannot connect: {exc}",
                        id="ssh-unreachable",
                        hint="is the address right, and the host's SSH server running? ESXi's is "
                        "off until you start it: in the Host Client Manage, Services, TSM-SSH",
                    ) from exc
            self._cancel.wait(pause)
            pause *= 2

    def _close(self) -> None:
        self._closed = True
        for lane in self._lanes:
            if lane.transport is not None:
                lane.transport.close()
            with lane.lock:
                lane.stack.close()


def _is_there(lane: _Lane) -> bool:
    """Whether the host answers: a connection that breaks looks alive for a moment."""
    from paramiko import SSHException

    with suppress(SSHException, EOFError, OSError):
        lane.transport.global_request("keepalive@openssh.com", wait=True)
        return lane.alive
    return False


@contextmanager
def connect(
    place: SshPlace,
    *,
    cancel: Cancel,
    connections: int = CONNECTIONS,
    patience: float = PATIENCE_SECONDS,
) -> Iterator[Connection]:
    """Log in. At most `connections` TCP connections are made, the others when they are needed.

    A connection that breaks is made anew within `patience` seconds; what ran over it has ended.
    SourceError: `ssh-unreachable`, `ssh-host-key`, `ssh-login`, `ssh-algorithms`; UsageError
    `ssh-config`. When the job is cancelled, all that waits for the host ends with an error.
    """
    settings_of(place)  # its errors come before any other
    connection = Connection(place, cancel, connections, patience)
    try:
        connection._begin()
        yield connection
    finally:
        connection._close()
