"""Files that are sent by a client library: progress, and stopping."""

from __future__ import annotations

from pathlib import Path

import pytest
from requests.utils import super_len

from v2v.errors import Cancelled, TargetError
from v2v.events import CopyProgress
from v2v.outputs._staged import OutgoingFile, StagedOptions, StagedOutput
from v2v.types import MiB


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(b"v2v!" * (MiB // 4))
    return path


def read_all(file: OutgoingFile) -> bytes:
    return b"".join(iter(lambda: file.read(64 * 1024), b""))


def test_progress_is_told_from_the_beginning_to_the_end(path, run, events_seen) -> None:
    with OutgoingFile(path, 1, run) as file:
        assert super_len(file) == file.size == MiB  # requests sends a length, not chunks
        assert read_all(file) == path.read_bytes()
    told = [event for event in events_seen if isinstance(event, CopyProgress)]
    assert {(event.disk, event.phase, event.total) for event in told} == {(1, "send", MiB)}
    assert (told[0].done, told[-1].done) == (0, MiB)
    assert told[-1].all_total == 0  # what was copied is not counted twice


def test_a_library_may_start_again(path, run, events_seen) -> None:
    with OutgoingFile(path, 0, run) as file:
        file.read(MiB // 2)
        file.seek(0)
        buffer = bytearray(MiB)
        assert file.readinto(buffer) == MiB
        assert file.readinto(buffer) == 0
    told = [event.done for event in events_seen if isinstance(event, CopyProgress)]
    assert told == [0, 0, MiB]


def test_a_cancelled_job_stops_sending(path, run) -> None:
    with OutgoingFile(path, 0, run) as file:
        file.read(1)
        run.cancel.cancel()
        with pytest.raises(Cancelled):
            file.read(1)


def test_a_lost_file_is_told(tmp_path, run) -> None:
    with pytest.raises(TargetError) as error:
        OutgoingFile(tmp_path / "gone", 0, run)
    assert error.value.id == "target-lost"


def test_a_folder_for_images_that_takes_none_is_told_at_once(run) -> None:
    class Sent(StagedOutput):
        mode = "sent"

    Sent.__abstractmethods__ = frozenset()
    with pytest.raises(TargetError) as error:
        Sent(StagedOptions(staging=Path("/proc"))).check_staging(run)
    assert error.value.id == "target-unwritable" and "-oo staging" in error.value.message
