"""What every input must do. A test module makes it concrete:

class TestMyInput(InputSuite):
    @pytest.fixture
    def case(self, ...) -> InputCase: ...
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from v2v import nbd_client
from v2v.cancel import Cancel
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled
from v2v.extents import Extent
from v2v.input import Input
from v2v.run import Run
from v2v.types import MiB, Source


@dataclass(frozen=True)
class InputCase:
    """An input, what its disks must read as, and the files it must not change."""

    input: Input
    contents: Sequence[bytes]  # of each disk; a disk may go on with zeroes
    name: str
    sources: Sequence[Path] = ()  # files and folders that belong to the source
    slack: int = 0  # bytes a disk may be larger than its content, where formats round up
    expect: dict[str, object] = field(default_factory=dict)  # fields of the Source


class ContentSuite:
    """The part of the contract that depends on the format of the disks."""

    @pytest.fixture
    def case(self) -> InputCase:
        raise NotImplementedError

    def test_read_source_describes_the_vm(self, case: InputCase, run: Run) -> None:
        source = case.input.read_source(run)
        assert source.name == case.name
        assert source.input == case.input.mode
        assert len(source.disks) == len(case.contents)
        for key, value in case.expect.items():
            assert getattr(source, key) == value
        for disk, content in zip(source.disks, case.contents, strict=True):
            assert disk.size is None or 0 <= disk.size - len(content) <= case.slack

    def test_serves_every_disk_in_order_with_its_content(self, case: InputCase, run: Run) -> None:
        source = case.input.read_source(run)
        with case.input.serve(source, run) as endpoints:
            assert len(endpoints) == len(case.contents)
            for endpoint, disk, content in zip(endpoints, source.disks, case.contents, strict=True):
                assert endpoint.size % 512 == 0
                assert 0 <= endpoint.size - len(content) <= max(case.slack, 511)
                assert disk.size is None or endpoint.size - disk.size in range(512)
                assert read_all(endpoint) == content.ljust(endpoint.size, b"\0")

    def test_a_file_that_may_be_read_directly_is_the_disk(self, case: InputCase, run: Run) -> None:
        source = case.input.read_source(run)
        with case.input.serve(source, run) as endpoints:
            for endpoint in endpoints:
                if endpoint.file is not None:
                    assert endpoint.file.read_bytes() == read_all(endpoint)

    def test_leaves_the_source_as_it_was(self, case: InputCase, run: Run) -> None:
        before = fingerprint(case.sources)
        source = case.input.read_source(run)
        with case.input.serve(source, run) as endpoints:
            for endpoint in endpoints:
                read_all(endpoint)
        assert fingerprint(case.sources) == before

    def test_extents_cover_the_disk_and_zeroes_are_zero(self, case: InputCase, run: Run) -> None:
        source = case.input.read_source(run)
        with case.input.serve(source, run) as endpoints:
            for endpoint, content in zip(endpoints, case.contents, strict=True):
                check_extents(list(nbd_client.extents(endpoint)), endpoint.size, content)


class InputSuite(ContentSuite):
    """The contract of v2v.input.Input."""

    @pytest.fixture
    def others(self, case: InputCase) -> set[int]:
        """Processes that belong to the test, such as the host that is read from."""
        return children()

    def test_read_source_starts_no_server_and_is_repeatable(
        self, case: InputCase, run: Run, others: set[int]
    ) -> None:
        first = case.input.read_source(run)
        assert children() == others
        assert list(run.tmp.iterdir()) == []
        assert case.input.read_source(run) == first

    def test_source_survives_the_journal(self, case: InputCase, run: Run) -> None:
        source = case.input.read_source(run)
        run.journal.put("source", source)
        assert run.journal.get("source", Source) == source
        assert msgspec.json.decode(msgspec.json.encode(source), type=Source) == source

    def test_refuses_writes(self, case: InputCase, run: Run) -> None:
        import nbd

        source = case.input.read_source(run)
        with case.input.serve(source, run) as endpoints:
            for endpoint in endpoints:
                assert endpoint.read_only
                handle = nbd_client.connect(endpoint)
                handle.set_strict_mode(0)  # let the server refuse, not the client
                assert handle.is_read_only()
                with pytest.raises(nbd.Error):
                    handle.pwrite(b"x" * 512, 0)
                handle.shutdown()

    def test_several_clients_at_once(self, case: InputCase, run: Run) -> None:
        source = case.input.read_source(run)
        with case.input.serve(source, run) as endpoints:
            handles = [nbd_client.connect(e) for e in endpoints for _ in range(4)]
            first = [bytes(handle.pread(512, 0)) for handle in handles]
            assert first == [c[:512] for c in case.contents for _ in range(4)]
            for handle in handles:
                handle.shutdown()

    def test_servers_end_with_the_block(self, case: InputCase, run: Run, others: set[int]) -> None:
        source = case.input.read_source(run)
        with case.input.serve(source, run):
            assert children() > others
        assert children() == others
        assert list(run.tmp.iterdir()) == []

    def test_servers_end_when_the_block_fails(
        self, case: InputCase, run: Run, others: set[int]
    ) -> None:
        source = case.input.read_source(run)
        with pytest.raises(ZeroDivisionError), case.input.serve(source, run):
            raise ZeroDivisionError
        assert children() == others

    def test_can_serve_again_after_it_ended(self, case: InputCase, run: Run) -> None:
        source = case.input.read_source(run)
        for _ in range(2):
            with case.input.serve(source, run) as endpoints:
                assert len(endpoints) == len(case.contents)

    def test_a_cancelled_job_starts_nothing(
        self, case: InputCase, run: Run, others: set[int], tmp_path: Path
    ) -> None:
        source = case.input.read_source(run)
        cancel = Cancel()
        cancel.cancel()
        with (
            Run.create(tmp_path / "cancelled", "test", cancel=cancel) as cancelled,
            pytest.raises(Cancelled),
            case.input.serve(source, cancelled),
        ):
            pass
        assert children() == others


def read_all(endpoint: Endpoint) -> bytes:
    handle = nbd_client.connect(endpoint)
    try:
        spans = [(at, min(MiB, endpoint.size - at)) for at in range(0, endpoint.size, MiB)]
        return b"".join(bytes(handle.pread(length, at)) for at, length in spans)
    finally:
        handle.shutdown()


def check_extents(extents: list[Extent], size: int, content: bytes) -> None:
    """Sorted, without gaps, whole; what is called zero is zero; neighbours differ."""
    assert extents[0].offset == 0
    assert extents[-1].end == size
    for one, other in pairwise(extents):
        assert one.end == other.offset
        assert one.zero != other.zero
    for extent in extents:
        assert extent.length > 0
        if extent.zero:
            assert not content[extent.offset : extent.end].strip(b"\0")


def children() -> set[int]:
    """The processes that this one started and that still run."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread just ended
            found |= {int(pid) for pid in (task / "children").read_text().split()}
    return found


def fingerprint(paths: Sequence[Path]) -> dict[str, tuple[str, float]]:
    """Content and change time of files, and of all files in folders."""
    files = [f for path in paths for f in ([path] if path.is_file() else path.rglob("*"))]
    return {
        str(file): (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime)
        for file in files
        if file.is_file()
    }
