"""A program that runs on the other host, as seen from here: bytes to it, bytes from it."""

from __future__ import annotations

from typing import Protocol


class Channel(Protocol):
    """One thread may write while another reads."""

    def send(self, data: bytes | memoryview) -> None:
        """All of it. ConnectionError when the program or the connection has ended."""
        ...

    def receive_into(self, buffer: memoryview) -> int:
        """At least one byte, as many as there are; 0 when the program has ended."""
        ...

    def errors(self) -> str:
        """What the program printed to stderr so far, at most its last 4 KiB."""
        ...

    def close(self) -> None:
        """End the program, if it has not ended. Never raises."""
        ...
