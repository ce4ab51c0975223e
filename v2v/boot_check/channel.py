"""JSON over a socket, as the QEMU monitor (QMP) and the guest agent speak it.

One object a line. A guest's agent is hostile: its lines are bounded, and what is not a JSON object
is dropped. https://www.qemu.org/docs/master/interop/qmp-spec.html
"""

from __future__ import annotations

import select
import socket
import time
from typing import Any

import msgspec

from v2v.process import ToolError
from v2v.types import MiB

MAX_MESSAGE = 4 * MiB  # bytes


class Channel:
    """One end of a monitor or an agent connection, used by one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = False
        self._buffer = b""
        sock.setblocking(False)

    def fileno(self) -> int:
        return self.sock.fileno()

    def send(self, command: str, arguments: dict[str, object] | None = None) -> None:
        """Send a command, without waiting for its answer."""
        message: dict[str, object] = {"execute": command}
        if arguments:
            message["arguments"] = arguments
        self.send_bytes(msgspec.json.encode(message) + b"\n")

    def send_bytes(self, data: bytes) -> None:
        """What does not fit into the socket's buffer is a peer that does not read: closed."""
        try:
            self.closed = self.closed or self.sock.send(data) != len(data)
        except OSError:
            self.closed = True

    def receive(self) -> list[dict[str, Any]]:
        """The objects that have come, without waiting. `closed` tells of the end."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.closed = self.closed or not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if len(self._buffer) > MAX_MESSAGE:
            self._buffer, self.closed = b"", True
        return [message for line in lines if (message := decode(line)) is not None]

    def ask(
        self, command: str, arguments: dict[str, object] | None = None, *, seconds: float
    ) -> Any:
        """Send a command and wait for its answer; events in between are dropped.

        For a peer we trust: QEMU itself. Raises ToolError on an error, an end or no answer.
        """
        self.send(command, arguments)
        deadline = time.monotonic() + seconds
        while not self.closed and (left := deadline - time.monotonic()) > 0:
            select.select([self.sock], [], [], left)
            for message in self.receive():
                if "return" in message:
                    return message["return"]
                if "error" in message:
                    raise ToolError(f"QEMU: {command}: {message['error']}", id="qmp-error")
        raise ToolError(f"QEMU did not answer {command}", id="qmp-no-answer")


def decode(line: bytes) -> dict[str, Any] | None:
    """A line as an object, or None. 0xFF is the agent's mark of a fresh start."""
    try:
        message = msgspec.json.decode(line.rpartition(b"\xff")[2])
    except (msgspec.DecodeError, RecursionError, ValueError):
        return None
    return message if isinstance(message, dict) else None
