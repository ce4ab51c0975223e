"""Answers of servers have an end."""

from __future__ import annotations

from typing import Any

from v2v.types import KiB, MiB

MAX_ANSWER = 32 * MiB  # bytes; a page of a thousand volumes has three
PIECE = 64 * KiB


def bound_answers(connection: Any) -> None:
    """The library itself reads whatever comes into memory."""
    connection.session.session.hooks["response"].append(_read)


def _read(answer: Any, **_: Any) -> None:
    from requests.exceptions import ContentDecodingError

    content = bytearray()
    for piece in answer.iter_content(PIECE):
        content += piece
        if len(content) > MAX_ANSWER:
            answer.close()
            raise ContentDecodingError(f"it answers with more than {MAX_ANSWER} bytes")
    answer._content = bytes(content)  # where requests itself keeps what it has read
