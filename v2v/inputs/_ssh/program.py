"""A program on the host, over a channel of paramiko's."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from v2v.inputs._ssh.pipe import Pipe
from v2v.texts import clean_lines
from v2v.types import KiB

ERROR_TEXT = 4 * KiB  # of stderr that is kept
SEND_BLOCK = 128 * KiB


class Program:
    """A `Channel`: a program there, or a subsystem."""

    def __init__(self, channel: Any, release: Callable[[], None]) -> None:
        self._channel, self._release = channel, release
        self._stderr = b""
        self._lock = threading.Lock()  # of the two above
        channel.in_buffer, channel.in_stderr_buffer = Pipe(), Pipe()  # nothing has come yet

    def send(self, data: bytes | memoryview) -> None:
        from paramiko import SSHException

        view = memoryview(data).cast("B")
        while view:
            try:
                sent = self._channel.send(bytes(view[:SEND_BLOCK]))
            except (SSHException, EOFError, OSError) as exc:
                raise ConnectionError(str(exc) or "the connection was lost") from exc
            if sent == 0:
                raise ConnectionError("the program has ended")
            view = view[sent:]

    def end_input(self) -> None:
        """The program reads the end of its input."""
        from paramiko import SSHException

        try:
            self._channel.shutdown_write()
        except (SSHException, EOFError, OSError) as exc:
            raise ConnectionError(str(exc) or "the connection was lost") from exc

    def receive_into(self, buffer: memoryview) -> int:
        """ConnectionError if the connection was lost before the program had ended."""
        from paramiko import SSHException

        count = 0
        try:
            while count < len(buffer) and (count == 0 or self._channel.recv_ready()):
                packet = self._channel.recv(len(buffer) - count)
                if not packet:
                    break
                buffer[count : count + len(packet)] = packet
                count += len(packet)
                self._take_errors()
        except (SSHException, EOFError, OSError) as exc:
            raise ConnectionError(str(exc) or "the connection was lost") from exc
        if count == 0 and len(buffer) and not self._has_ended():
            raise ConnectionError("the connection was lost")
        return count

    def timeout(self, seconds: float | None) -> None:
        """From now on, sending or receiving that waits so long is a ConnectionError. Without it
        only the connection is watched: a program may have nothing to say for a long time."""
        self._channel.settimeout(seconds)

    def errors(self) -> str:
        self._take_errors()
        return clean_lines(self._stderr.decode(errors="replace"))

    def status(self, seconds: float) -> int:
        """The exit code; -1 if the host tells none in time, or a signal ended it."""
        self._channel.status_event.wait(seconds)
        return int(self._channel.exit_status)

    def close(self) -> None:
        from paramiko import SSHException

        with suppress(SSHException, EOFError, OSError):  # then it is closed already
            self._channel.close()
        with self._lock:
            release, self._release = self._release, lambda: None
        release()

    def _has_ended(self) -> bool:
        """Rather than the connection. An exit code tells nothing: it may overtake the output."""
        return bool(self._channel.eof_received)

    def _take_errors(self) -> None:
        """Keep up with stderr: a program that nobody listens to stops."""
        with self._lock:
            while self._channel.recv_stderr_ready():
                self._stderr = (self._stderr + self._channel.recv_stderr(64 * KiB))[-ERROR_TEXT:]
