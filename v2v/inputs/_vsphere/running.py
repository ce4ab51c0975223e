"""What becomes of a VM that runs: the words of -io running=."""

from __future__ import annotations

from enum import StrEnum


class Running(StrEnum):
    REFUSE = "refuse"
    SNAPSHOT = "snapshot"  # it goes on, and what a new snapshot keeps is read
    SHUTDOWN = "shutdown"  # by its own system, through VMware Tools
    POWER_OFF = "power-off"
