"""A guest of one small disk on its way into a cluster."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes import Fake
from v2v.errors import V2VError
from v2v.events import Warned
from v2v.output import Output
from v2v.run import Run
from v2v.types import DiskFormat, MiB, Source, SourceDisk, TargetDisk

SIZES = (3 * MiB + 512,)


def source(name: str = "web", **changes: Any) -> Source:
    disks = (SourceDisk("/x", DiskFormat.RAW, SIZES[0]),)
    return Source(name=name, input="disk", disks=disks, nics=(), **changes)


def filled(output: Output, vm: Source, run: Run) -> tuple[tuple[TargetDisk, ...], bytes]:
    """Created and copied; raw files, so that no copy engine is needed."""
    output.check_source(vm, run)
    disks = output.create_disks(vm, SIZES, run)
    content = os.urandom(SIZES[0])
    Path(disks[0].working).write_bytes(content)
    return disks, content


def refused(output: Output, run: Run, vm: Source | None = None) -> V2VError:
    with pytest.raises(V2VError) as error:
        output.check_source(vm or source(), run)
    assert error.value.hint
    return error.value


def warnings(events_seen) -> list[str]:
    return [event.id for event in events_seen if isinstance(event, Warned)]


def check_image(fake: Fake, content: bytes, namespace: str = "default") -> None:
    whole = fake.image("web-sda", namespace).read_bytes()
    assert whole[: len(content)] == content and not any(whole[len(content) :])
