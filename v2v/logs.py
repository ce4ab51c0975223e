"""Where the lines go that developers log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PACKAGES = ("v2v", "conversion")


class LogFile(logging.FileHandler):
    """A file that misses lines when its disk is full: what matters of that is told elsewhere."""

    def handleError(self, record: logging.LogRecord) -> None:
        """The standard one prints a traceback for each line."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def logged_to(handler: logging.Handler, format: str) -> Iterator[None]:
    """Everything our packages log goes to `handler` too; it is closed at the end."""
    handler.setFormatter(logging.Formatter(format))
    loggers = [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        handler.close()
