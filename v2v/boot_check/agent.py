"""The conversation with the QEMU guest agent: its version, and which NIC has which name.

https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
"""

from __future__ import annotations

import secrets
from typing import Any

import msgspec

from v2v.boot_check.channel import Channel

MAX_INTERFACES = 64
QUESTIONS = ("guest-info", "guest-network-get-interfaces")


class Agent:
    """Asks one question after the other; every answer is taken as hostile."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.version: str | None = None
        self.interfaces: dict[str, str] = {}  # MAC address: name
        self.connected = False  # the guest opened its end
        self._questions = list(QUESTIONS)
        self._token: int | None = None

    @property
    def done(self) -> bool:
        return self.channel.closed or (self.version is not None and not self._questions)

    def connect(self) -> None:
        """The guest opened its end: start with a mark that both sides can find."""
        self.connected = True
        self._token = secrets.randbelow(2**31)
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": self._token}}
        self.channel.send_bytes(b"\xff" + msgspec.json.encode(sync) + b"\n")

    def receive(self) -> None:
        for message in self.channel.receive():
            if self._token is not None:
                if message.get("return") == self._token:
                    self._token = None
                    self._ask()
            elif self._questions and ("return" in message or "error" in message):
                self._take(self._questions.pop(0), message.get("return"))
                self._ask()

    def _ask(self) -> None:
        if self._questions:
            self.channel.send(self._questions[0])

    def _take(self, question: str, answer: Any) -> None:
        if question == "guest-info":
            self.version = _word(answer.get("version")) if isinstance(answer, dict) else None
            self.version = self.version or "unknown"
        elif isinstance(answer, list):
            self.interfaces = interfaces(answer)


def interfaces(answer: list[Any]) -> dict[str, str]:
    """Names of interfaces by MAC address, from guest-network-get-interfaces."""
    found = {}
    for entry in answer[:MAX_INTERFACES]:
        if isinstance(entry, dict):
            mac, name = _word(entry.get("hardware-address")), _word(entry.get("name"))
            if mac and name:
                found[mac.lower()] = name
    return found


def _word(value: Any) -> str | None:
    """A short printable string, or None."""
    if not isinstance(value, str):
        return None
    return "".join(c for c in value[:64] if c.isprintable()) or None
