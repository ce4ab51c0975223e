"""The journal: durable values, a torn end, and one owner at a time."""

from __future__ import annotations

import dataclasses
import os
import resource
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from v2v import types
from v2v.errors import JobError
from v2v.journal import Journal, is_locked, read_entries
from v2v.types import BootEvidence, DiskFormat, Firmware, Nic, Source, SourceDisk

SOURCE = Source(
    name="wéb",
    input="disk",
    disks=(SourceDisk("/a b", DiskFormat.QCOW2, 1 << 40, details={"packed": "gzip"}),),
    nics=(Nic(mac="52:54:00:00:00:01", name="ens192"),),
    firmware=Firmware.UEFI,
)


def open_journal(folder: Path) -> Journal:
    return Journal(folder / "journal")


def test_values_are_read_back_as_they_were(tmp_path: Path) -> None:
    evidence = BootEvidence(True, "login", 32.5, "tcg", nic_drivers={"ens192": "virtio_net"})
    journal = open_journal(tmp_path)
    for key, value in {"source": SOURCE, "boot": evidence}.items():
        journal.put(key, value)
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.get("source", Source) == SOURCE
    assert journal.get("boot", BootEvidence) == evidence
    assert "source" in journal and "other" not in journal
    journal.close()


def test_the_last_value_of_a_key_counts(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    for number in (1, 2, 3):
        journal.put("n", number)
    journal.close()
    journal = open_journal(tmp_path)
    assert journal.get("n", int) == 3
    journal.close()


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(cut=st.integers(1, 10_000))
def test_a_torn_end_is_cut_off_wherever_it_is(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    path.unlink(missing_ok=True)
    journal = open_journal(tmp_path)
    journal.put("one", SOURCE)
    good = path.stat().st_size
    journal.put("two", SOURCE)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: good + cut % (len(whole) - good)])
    journal = open_journal(tmp_path)
    assert "one" in journal and "two" not in journal
    assert path.stat().st_size == good
    journal.put("two", 2)
    journal.close()
    assert [e["key"] for e in read_entries(path)[0]] == ["one", "two"]


def test_a_journal_has_one_owner(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(JobError) as caught:
        open_journal(tmp_path)
    assert caught.value.id == "job-running"
    assert read_entries(tmp_path / "journal") == ([], 0)  # looking at it needs no lock
    journal.close()
    open_journal(tmp_path).close()


def test_who_looks_whether_a_job_runs_does_not_keep_it_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the look does, the job begins in the middle of it."""
    path, begun = tmp_path / "journal", list[Journal]()
    path.touch()
    close = os.close

    def begin_and_close(fd: int) -> None:
        monkeypatch.setattr(os, "close", close)
        begun.append(open_journal(tmp_path))
        close(fd)

    monkeypatch.setattr(os, "close", begin_and_close)
    assert not is_locked(path)
    (journal,) = begun
    assert is_locked(path)
    journal.close()
    assert not is_locked(path)


def test_a_value_of_another_version_is_an_error(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.put("source", {"name": 1})
    with pytest.raises(JobError) as caught:
        journal.get("source", Source)
    assert caught.value.id == "journal-unreadable"
    journal.close()


def test_a_full_disk_leaves_no_torn_line_before_the_next_one(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.put("one", 1)
    size = (tmp_path / "journal").stat().st_size
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, unlimited[1]))
    try:
        with pytest.raises(JobError) as caught:
            journal.put("two", 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert caught.value.id == "journal-write"
    assert "two" not in journal
    journal.put("three", 3)
    journal.close()
    assert [e["key"] for e in read_entries(tmp_path / "journal")[0]] == ["one", "three"]


def test_an_entry_that_was_never_written_is_an_error(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(JobError) as caught:
        journal.get("job", Source)
    assert caught.value.id == "journal-incomplete"
    journal.close()


def test_nobody_else_may_read_it(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    assert (tmp_path / "journal").stat().st_mode & 0o777 == 0o600


def test_all_values_are_frozen() -> None:
    kinds = [k for k in vars(types).values() if dataclasses.is_dataclass(k)]
    assert kinds
    for kind in kinds:
        assert kind.__dataclass_params__.frozen, kind  # type: ignore[union-attr]
