"""Copying while the guest is converted, and what is left when either of them fails.

The converter here is one that a test scripts: it writes to real overlays, over real sources.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.input_suite import children, read_all
from tests.contract.output_suite import GUEST, write_random_disk
from tests.fakes import nbd_server
from tests.fakes.nbd_server import NbdServer
from v2v import coordinator, nbd_client, qemu_img, registry
from v2v.cancel import Cancel
from v2v.copy import target
from v2v.copy.digests import Digests
from v2v.endpoint import Endpoint
from v2v.errors import Cancelled, CopyError, GuestError, HostError, UsageError, V2VError
from v2v.events import CopyProgress, Event, StepFinished, StepStarted, Warned
from v2v.input import tells_changes
from v2v.job import ConversionOptions, CopyOptions, Job, ModuleChoice
from v2v.run import Run
from v2v.types import ConvertedGuest, DiskFormat, Firmware, KiB, MiB, Source, SourceDisk

SIZE = 24 * MiB + 4 * KiB
SECONDS = 60.0  # the longest that anything here may take

Script = Callable[[Sequence[Endpoint], Run, Callable[[], None]], None]
Watch = Callable[[Event], None]


@dataclass
class Scripted:
    """A Converter that does what a test says."""

    script: Script
    guest: ConvertedGuest = GUEST

    def convert(
        self,
        source: Source,
        endpoints: Sequence[Endpoint],
        options: ConversionOptions,
        run: Run,
        trimmed: Callable[[], None] = lambda: None,
    ) -> ConvertedGuest:
        self.script(endpoints, run, trimmed)
        return self.guest

    def inspect(self, *_: Any) -> Any:
        raise NotImplementedError

    def add_serial_console(self, *_: Any) -> None:
        raise NotImplementedError


class Moments:
    """Events as they come, and waiting for one of them."""

    def __init__(self) -> None:
        self.seen: list[Event] = []
        self._change = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._change:
            self.seen.append(event)
            self._change.notify_all()

    def wait(self, kind: type[Event], step: str = "") -> None:
        with self._change:
            assert self._change.wait_for(lambda: self.steps(kind, step), SECONDS), step

    def steps(self, kind: type[Event], step: str = "") -> list[int]:
        """At which places of `seen` there is such an event."""
        return [
            place
            for place, event in enumerate(self.seen)
            if isinstance(event, kind) and step in ("", getattr(event, "step", ""))
        ]


class Bench:
    """A source, a target, and a job that can be run and resumed."""

    def __init__(self, folder: Path, words: dict[str, str], copy: CopyOptions) -> None:
        self.disk = folder / "disk.img"
        self.target = folder / "target"
        self.target.mkdir()
        self.jobs = folder / "jobs"
        self.moments = Moments()
        self.cancel = Cancel()
        write_random_disk(self.disk, SIZE, 7)
        with self.disk.open("r+b") as file:
            file.write(bytes(510) + b"\x55\xaa")
        self.job = Job(
            input=ModuleChoice("disk"),
            output=ModuleChoice("local", {"-os": str(self.target), **words}),
            guests=(str(self.disk),),
            name="guest",
            copy=copy,
        )
        self.folder: Path | None = None

    def run(
        self,
        converter: Scripted,
        *,
        watch: Watch = lambda event: None,
        source_unchanged: bool = False,
    ) -> coordinator.Outcome:
        """Start the job, or go on with it."""

        def emit(event: Event) -> None:
            self.moments(event)
            watch(event)

        opened = (
            Run.create(self.jobs, "test", emit=emit, cancel=self.cancel)
            if self.folder is None
            else Run.open(self.folder, emit=emit, cancel=self.cancel)
        )
        with opened as run:
            if self.folder is None:
                run.journal.put("job", self.job)
            self.folder = run.folder
            input_ = registry.make_input(self.job.input, self.job.guests)
            output = registry.make_output(self.job)
            return coordinator.migrate(
                self.job, input_, output, converter, run, source_unchanged=source_unchanged
            )

    def failed(self, converter: Scripted, **more: Any) -> BaseException:
        """Run it to its error; nothing goes on after that."""
        with pytest.raises(BaseException) as caught:
            self.run(converter, **more)
        assert [t.name for t in threading.enumerate() if t.name.startswith("cop")] == []
        assert children() == set()
        return caught.value

    def content(self) -> bytes:
        disk = self.target / "guest-sda"
        if self.job.output.options.get("-of") != "qcow2":
            return disk.read_bytes()
        raw = disk.with_suffix(".raw")
        argv = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(disk), str(raw)]
        qemu_img.process.run_tool(argv)
        return raw.read_bytes()

    def kept(self) -> list[str]:
        """What counts as copied, and what there is at the target."""
        assert self.folder is not None
        state = [*self.folder.glob("copied-*"), *self.folder.glob("digests-*")]
        return sorted(path.name for path in [*state, *self.target.iterdir()])


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    for tool in ("nbdkit", "qemu-nbd", "qemu-img"):
        need_tool(tool)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, {}, CopyOptions())


def change(endpoint: Endpoint, seed: int, count: int = 12) -> None:
    """Write, trim and zero here and there, on and off the edges of clusters and chunks."""
    chance = random.Random(seed)
    handle = nbd_client.connect(endpoint)
    for _ in range(count):
        offset = 512 * chance.randrange(endpoint.size // 512 - 1)
        length = min(512 * chance.choice([1, 7, 128, 200, 2100]), endpoint.size - offset)
        kind = chance.choice([handle.pwrite, handle.zero, handle.trim])
        if kind == handle.pwrite:
            handle.pwrite(chance.randbytes(length), offset)
        else:
            kind(length, offset)
    handle.shutdown()


def expected_after(bench: Bench, results: list[bytes], *, wait: bool = True) -> Scripted:
    """Changes the guest before and after the copy has begun; notes how the guest ends."""

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        change(endpoints[0], 1)
        trimmed()
        change(endpoints[0], 2)
        if wait and "-oo compressed" not in bench.job.output.options:
            bench.moments.wait(StepFinished, "ahead:0")
        change(endpoints[0], 3)
        results.append(read_all(endpoints[0]))

    return Scripted(script)


QCOW2 = {"-of": "qcow2"}


@pytest.mark.parametrize("verify", [0.0, 1.0], ids=["", "verified"])
@pytest.mark.parametrize(
    "words",
    [{}, {"-oa": "preallocated"}, QCOW2, {**QCOW2, "-oo compressed": ""}],
    ids=["raw", "preallocated", "qcow2", "compressed"],
)
def test_the_target_is_the_converted_guest(
    tmp_path: Path, words: dict[str, str], verify: float
) -> None:
    bench = Bench(tmp_path, words, CopyOptions(verify=verify))
    before, results = bench.disk.read_bytes(), []
    (copy,) = bench.run(expected_after(bench, results)).copies
    assert bench.content() == results[0]
    assert results[0] != before == bench.disk.read_bytes()
    assert copy.verified == verify
    if "-oo compressed" not in words:  # what QEMU compressed is not written over
        started = bench.moments.steps(StepStarted, "ahead:0")[0]
        assert started < bench.moments.steps(StepFinished, "guest")[0]
    totals = [event for event in bench.moments.seen if isinstance(event, CopyProgress)]
    assert totals[-1].done == totals[-1].total


def test_several_disks_are_copied_meanwhile(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, CopyOptions(parallel=2))
    second = tmp_path / "second.img"
    write_random_disk(second, 5 * MiB, 9)
    bench.job = replace(bench.job, guests=(str(bench.disk), str(second)))
    results: list[bytes] = []

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        bench.moments.wait(StepFinished, "ahead:0")
        bench.moments.wait(StepFinished, "ahead:1")
        change(endpoints[0], 3)
        results.extend(map(read_all, endpoints))

    bench.run(Scripted(script))
    assert bench.content() == results[0]
    assert (bench.target / "guest-sdb").read_bytes() == second.read_bytes() == results[1]


def test_a_conversion_may_end_before_the_copy(bench: Bench) -> None:
    results: list[bytes] = []
    bench.run(expected_after(bench, results, wait=False))
    assert bench.content() == results[0]


def test_without_overlap_nothing_is_copied_before_the_conversion_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, CopyOptions(overlap=False))
    results: list[bytes] = []
    bench.run(expected_after(bench, results, wait=False))
    assert bench.content() == results[0]
    assert bench.moments.steps(StepStarted, "ahead:0") == []
    converted = bench.moments.steps(StepFinished, "guest")[0]
    assert bench.moments.steps(StepStarted, "disks")[0] > converted


def test_a_compressed_image_is_not_written_before_the_conversion_ended(tmp_path: Path) -> None:
    """QEMU 7.2 damages compressed clusters of the same run when some of them are written over."""
    bench = Bench(tmp_path, {**QCOW2, "-oo compressed": ""}, CopyOptions())
    results: list[bytes] = []
    bench.run(expected_after(bench, results))
    assert bench.content() == results[0]
    converted = bench.moments.steps(StepFinished, "guest")[0]
    assert bench.moments.steps(StepStarted, "disks")[0] > converted


def test_what_the_conversion_did_not_touch_is_copied_once(bench: Bench) -> None:
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results)).copies
    again = 12 * 2 * (2100 * 512 + 128 * KiB)  # what the later changes may touch, at most
    assert copy.data <= SIZE + again
    sources = [e for e in bench.moments.seen if isinstance(e, CopyProgress)]
    assert sources


def test_what_lies_between_changes_keeps_its_digest(tmp_path: Path) -> None:
    """Long requests reach over chunks that are not the conversion's."""
    bench = Bench(tmp_path, {}, CopyOptions(verify=1.0, request_size=8 * MiB))

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        handle = nbd_client.connect(endpoints[0])
        for offset in (0, 2 * MiB, 5 * MiB, 7 * MiB):
            handle.pwrite(os.urandom(64 * KiB), offset)
        handle.shutdown()

    (copy,) = bench.run(Scripted(script)).copies
    assert copy.retries == 0
    digests = Digests(None, SIZE)
    digests.put(0, memoryview(bench.content()))
    assert copy.checksum == digests.root()
    digests.close()


# Failures -----------------------------------------------------------------------------------------


def fails(bench: Bench, error: BaseException) -> Scripted:
    """A conversion that ends with an error when a part of the disk is at the target."""

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        bench.moments.wait(StepFinished, "ahead:0")
        raise error

    return Scripted(script)


def test_a_refused_guest_leaves_nothing_at_the_target(bench: Bench) -> None:
    refusal = GuestError("a guest of no known kind", id="guest-unsupported")
    assert bench.failed(fails(bench, refusal)) is refusal
    assert bench.kept() == []
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results)).copies
    assert copy.resumed == 0
    assert bench.content() == results[0]


def test_a_conversion_that_failed_otherwise_is_resumed_with_what_was_copied(bench: Bench) -> None:
    failure = HostError("the appliance died", id="appliance-died")
    assert bench.failed(fails(bench, failure)) is failure
    assert "copied-0" in bench.kept()
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results)).copies
    assert copy.resumed > SIZE // 2
    assert bench.content() == results[0]


def test_a_guest_that_the_target_refuses_leaves_nothing_there(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, CopyOptions())
    bench.job = replace(bench.job, output=replace(bench.job.output, mode="qemu"))
    caps = replace(GUEST.caps, arch="s390x")
    guest = replace(GUEST, firmware=Firmware.UEFI, caps=caps)
    converter = replace(expected_after(bench, []), guest=guest)
    error = bench.failed(converter)
    assert isinstance(error, V2VError) and error.id == "target-firmware"
    assert bench.moments.steps(StepFinished, "ahead:0")
    assert bench.kept() == []


def test_a_full_target_ends_the_conversion_at_once(small: Path, tmp_path: Path) -> None:
    """Somebody else takes the room, after it was found to be enough."""
    bench = Bench(tmp_path, {}, CopyOptions())
    with bench.disk.open("r+b") as file:
        file.truncate(6 * MiB)
    output = replace(bench.job.output, options={"-os": str(small)})
    bench.job = replace(bench.job, output=output)
    bench.target = small

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        run.cancel.wait(SECONDS)
        pytest.fail("the conversion went on")

    def take_the_room(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step == "disks":
            (small / "other").write_bytes(bytes(7 * MiB))

    error = bench.failed(Scripted(script), watch=take_the_room)
    assert isinstance(error, CopyError) and error.id == "target-full"
    (small / "other").unlink()
    results: list[bytes] = []
    bench.run(Scripted(lambda endpoints, run, trimmed: results.append(read_all(endpoints[0]))))
    assert bench.content() == results[0]


def test_the_users_cancel_stops_both(bench: Bench) -> None:
    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        bench.moments.wait(StepStarted, "ahead:0")
        bench.cancel.cancel()
        run.cancel.wait(SECONDS)

    assert isinstance(bench.failed(Scripted(script)), Cancelled)


def test_a_bug_in_a_step_stops_the_copy(bench: Bench) -> None:
    assert isinstance(bench.failed(fails(bench, ZeroDivisionError())), ZeroDivisionError)


def test_the_copys_error_is_told_when_the_conversion_ended_well(bench: Bench) -> None:
    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        bench.target.rename(bench.target.with_name("gone"))
        trimmed()

    error = bench.failed(Scripted(script))
    bench.target.with_name("gone").rename(bench.target)
    assert not isinstance(error, Cancelled)
    assert isinstance(error, V2VError | OSError)


# Resuming inside a disk ---------------------------------------------------------------------------


@pytest.mark.parametrize("words", [{}, QCOW2], ids=["by the kernel", "by v2v"])
def test_a_disk_is_resumed_where_its_ledger_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, str]
) -> None:
    bench = Bench(tmp_path, words, CopyOptions())
    interval = 2 * MiB
    monkeypatch.setattr(target, "CHECKPOINT", interval)
    monkeypatch.setattr(target, "UNRECORDED", 2 * interval)
    bench.disk.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(SIZE - 512))
    bench.job = replace(bench.job, copy=CopyOptions(overlap=False, request_size=MiB))
    nothing = Scripted(lambda *_: None)

    class Stop(BaseException):
        """The machine stops here."""

    def stop(event: Event) -> None:
        if isinstance(event, CopyProgress) and event.done >= SIZE // 2:
            raise Stop

    monkeypatch.setattr("v2v.copy.progress.TELL_SECONDS", 0.0)
    bench.failed(nothing, watch=stop)
    (copy,) = bench.run(nothing).copies
    assert copy.resumed >= SIZE // 2 - 2 * interval
    assert copy.data + copy.resumed <= SIZE + interval
    assert bench.content() == bench.disk.read_bytes()


def test_a_working_file_that_is_gone_is_made_again(bench: Bench) -> None:
    bench.failed(fails(bench, HostError("the appliance died", id="appliance-died")))
    (working,) = bench.target.iterdir()
    working.unlink()
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results)).copies
    assert copy.resumed == 0
    assert bench.content() == results[0]
    warned = [event.id for event in bench.moments.seen if isinstance(event, Warned)]
    assert warned == ["target-part-lost"]


def test_digests_that_are_lost_are_made_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, CopyOptions(verify=1.0))
    bench.failed(fails(bench, HostError("the appliance died", id="appliance-died")))
    assert bench.folder is not None
    (bench.folder / "digests-0").unlink()
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results)).copies
    assert bench.content() == results[0]
    assert copy.checksum


# A source that changes ----------------------------------------------------------------------------


def edit(disk: Path) -> None:
    """As somebody who does not care whether it is being copied."""
    with disk.open("r+b") as file:
        file.seek(3 * MiB)
        file.write(os.urandom(MiB))
    os.utime(disk, ns=(0, disk.stat().st_mtime_ns + 1))


def test_a_source_that_changes_while_it_is_copied_is_told(bench: Bench) -> None:
    def edit_at_copy(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "copied:0":
            edit(bench.disk)

    error = bench.failed(expected_after(bench, []), watch=edit_at_copy)
    assert isinstance(error, V2VError) and error.id == "source-changed-while-copied"
    assert str(bench.disk) in error.message
    assert not (bench.target / "guest-sda").exists()
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results)).copies
    assert copy.resumed == 0
    assert bench.content() == results[0]
    assert results[0][:512] == bench.disk.read_bytes()[:512]


def test_a_source_that_is_replaced_while_it_is_copied_is_told(bench: Bench) -> None:
    """By a file that looks the same from outside."""

    def replace_at_copy(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "copied:0":
            other = bench.disk.with_name("other.img")
            other.write_bytes(bytes(510) + b"\x55\xaa" + os.urandom(SIZE - 512))
            times = bench.disk.stat()
            os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
            other.replace(bench.disk)

    error = bench.failed(expected_after(bench, []), watch=replace_at_copy)
    assert isinstance(error, V2VError) and error.id == "source-changed-while-copied"
    bench.run(Scripted(lambda *_: None))
    assert bench.content() == bench.disk.read_bytes()


def test_an_older_backing_file_put_in_place_of_another_is_a_change(bench: Bench) -> None:
    base = bench.disk.rename(bench.disk.with_name("base.img"))
    qemu_img.create(bench.disk, DiskFormat.QCOW2, SIZE, backing=(base, DiskFormat.RAW))
    bench.failed(fails(bench, HostError("the appliance died", id="appliance-died")))
    write_random_disk(base, SIZE, 11)
    os.utime(base, ns=(0, 1))
    bench.run(Scripted(lambda *_: None))
    assert bench.content() == base.read_bytes()


def test_only_the_disk_that_changed_is_copied_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, {}, CopyOptions())
    second = tmp_path / "second.img"
    write_random_disk(second, 5 * MiB, 9)
    bench.job = replace(bench.job, guests=(str(bench.disk), str(second)))

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        bench.moments.wait(StepFinished, "ahead:1")
        raise HostError("the appliance died", id="appliance-died")

    bench.failed(Scripted(script))
    edit(bench.disk)
    copies = bench.run(Scripted(lambda *_: None)).copies
    assert [copy.resumed > 0 for copy in copies] == [False, True]
    warnings = [event for event in bench.moments.seen if isinstance(event, Warned)]
    assert [(event.id, str(bench.disk) in event.text) for event in warnings] == [
        ("source-changed", True)
    ]
    assert bench.content() == bench.disk.read_bytes()
    assert (bench.target / "guest-sdb").read_bytes() == second.read_bytes()


@pytest.fixture
def export(bench: Bench) -> Iterator[NbdServer]:
    """The bench's disk behind a server, which tells nothing of changes."""
    with nbd_server.serve(bench.jobs.parent, bench.disk.read_bytes(), "source") as server:
        bench.job = replace(bench.job, guests=(f"nbd+unix:///?socket={server.path}",))
        yield server


def other_content() -> bytes:
    return bytes(510) + b"\x55\xaa" + os.urandom(SIZE - 512)


def warnings_of(bench: Bench) -> list[str]:
    return [event.id for event in bench.moments.seen if isinstance(event, Warned)]


def test_a_guest_is_converted_again_if_its_source_cannot_tell_whether_it_changed(
    bench: Bench, export: NbdServer
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "copied:0":
            raise HostError("no space", id="no-space-jobs")

    bench.failed(expected_after(bench, []), watch=stop)
    export.reset(other_content())
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results)).copies
    assert copy.resumed == 0
    assert bench.content() == results[0]
    assert warnings_of(bench) == ["source-unverifiable"]


def test_what_was_copied_of_a_source_that_cannot_tell_is_kept_if_the_user_vouches_for_it(
    bench: Bench, export: NbdServer
) -> None:
    bench.failed(fails(bench, HostError("the appliance died", id="appliance-died")))
    results: list[bytes] = []
    (copy,) = bench.run(expected_after(bench, results), source_unchanged=True).copies
    assert copy.resumed > 0
    assert bench.content() == results[0]
    assert warnings_of(bench) == []


def test_a_change_that_is_seen_counts_whatever_the_user_says(bench: Bench) -> None:
    bench.failed(fails(bench, HostError("the appliance died", id="appliance-died")))
    edit(bench.disk)
    (copy,) = bench.run(Scripted(lambda *_: None), source_unchanged=True).copies
    assert copy.resumed == 0
    assert bench.content() == bench.disk.read_bytes()
    assert warnings_of(bench) == ["source-changed"]


def test_only_disks_that_cannot_tell_are_copied_again(bench: Bench, export: NbdServer) -> None:
    second = bench.disk.with_name("second.img")
    write_random_disk(second, 5 * MiB, 9)
    bench.job = replace(bench.job, guests=(*bench.job.guests, str(second)))

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        bench.moments.wait(StepFinished, "ahead:1")
        raise HostError("the appliance died", id="appliance-died")

    bench.failed(Scripted(script))
    content = other_content()
    export.reset(content)
    copies = bench.run(Scripted(lambda *_: None)).copies
    assert [copy.resumed > 0 for copy in copies] == [False, True]
    assert bench.content() == content
    assert (bench.target / "guest-sdb").read_bytes() == second.read_bytes()
    (warning,) = [event for event in bench.moments.seen if isinstance(event, Warned)]
    assert warning.id == "source-unverifiable"
    assert str(export.path) in warning.text and str(second) not in warning.text


def test_disks_that_cannot_tell_are_copied_again_all_together(
    bench: Bench, export: NbdServer, tmp_path: Path
) -> None:
    """One of them is copied; with the other as it is now the VM would be torn."""
    with nbd_server.serve(tmp_path, other_content(), "second") as second:
        uri = f"nbd+unix:///?socket={second.path}"
        bench.job = replace(bench.job, guests=(*bench.job.guests, uri))

        def stop(event: Event) -> None:
            if isinstance(event, StepStarted) and event.step == "copied:1":
                raise HostError("no space", id="no-space-jobs")

        bench.failed(Scripted(lambda *_: None), watch=stop)
        contents = [other_content(), other_content()]
        export.reset(contents[0])
        second.reset(contents[1])
        bench.run(Scripted(lambda *_: None))
    assert bench.content() == contents[0]
    assert (bench.target / "guest-sdb").read_bytes() == contents[1]


def test_what_is_copied_whole_is_not_copied_again(bench: Bench, export: NbdServer) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "check-source":
            raise HostError("no space", id="no-space-jobs")

    results: list[bytes] = []
    bench.failed(expected_after(bench, results), watch=stop)
    bench.moments.seen.clear()
    export.reset(other_content())
    bench.run(Scripted(lambda *_: pytest.fail("it is converted already")))
    assert bench.content() == results[0]
    assert warnings_of(bench) == []
    assert not bench.moments.steps(StepStarted, "copied:0")


def test_nothing_is_told_where_nothing_was_made_of_the_source(
    bench: Bench, export: NbdServer
) -> None:
    def fail(*_: object) -> None:
        raise HostError("the appliance died", id="appliance-died")

    bench.failed(Scripted(fail))
    content = other_content()
    export.reset(content)
    bench.run(Scripted(lambda *_: None))
    assert bench.content() == content
    assert warnings_of(bench) == []


def test_block_devices_and_files_on_them_tell_no_changes(tmp_path: Path) -> None:
    file = SourceDisk("/a", DiskFormat.RAW, details={"modified": "1/2/3"}, files=(str(tmp_path),))
    assert tells_changes(file)
    assert not tells_changes(replace(file, details={"modified": ""}))
    assert not tells_changes(replace(file, details={}))
    devices = [path for path in Path("/dev").iterdir() if path.is_block_device()]
    if not devices:
        pytest.skip("no block device here")
    assert not tells_changes(replace(file, files=(str(tmp_path), str(devices[0]))))


def test_a_disk_that_grew_gets_a_new_target(bench: Bench) -> None:
    bench.failed(fails(bench, HostError("the appliance died", id="appliance-died")))
    with bench.disk.open("ab") as file:
        file.write(os.urandom(MiB))
    bench.run(Scripted(lambda *_: None))
    assert bench.content() == bench.disk.read_bytes()


def test_an_old_conversion_does_not_stay_in_a_disk_that_did_not_change(tmp_path: Path) -> None:
    """Disk 1 was copied with the changes of a conversion that is done again, otherwise."""
    bench = Bench(tmp_path, {}, CopyOptions())
    second = tmp_path / "second.img"
    write_random_disk(second, 5 * MiB, 9)
    bench.job = replace(bench.job, guests=(str(bench.disk), str(second)))

    def edit_at_copy(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == "copied:1":
            edit(second)

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        bench.moments.wait(StepFinished, "ahead:1")
        change(endpoints[0], 5)

    error = bench.failed(Scripted(script), watch=edit_at_copy)
    assert isinstance(error, V2VError) and error.id == "source-changed-while-copied"
    bench.run(Scripted(lambda endpoints, *_: change(endpoints[1], 6)))
    assert bench.content() == bench.disk.read_bytes()


def test_a_conversion_that_was_half_copied_does_not_stay_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before anything that the conversion wrote was recorded as being at the target."""
    monkeypatch.setattr("v2v.copy.progress.TELL_SECONDS", 0.0)
    bench = Bench(tmp_path, {}, CopyOptions())
    second = tmp_path / "second.img"
    write_random_disk(second, 5 * MiB, 9)
    bench.job = replace(bench.job, guests=(str(bench.disk), str(second)))
    told = iter(range(100))

    class Stop(BaseException):
        """The machine stops here."""

    def stop(event: Event) -> None:
        resting = isinstance(event, CopyProgress) and event.done < event.total
        if resting and bench.moments.steps(StepStarted, "copied:0") and next(told) == 8:
            raise Stop

    def script(endpoints: Sequence[Endpoint], run: Run, trimmed: Callable[[], None]) -> None:
        trimmed()
        bench.moments.wait(StepFinished, "ahead:0")
        handle = nbd_client.connect(endpoints[0])
        for offset in range(0, 20 * MiB, MiB):
            handle.pwrite(os.urandom(64 * KiB), offset)
        handle.shutdown()

    assert isinstance(bench.failed(Scripted(script), watch=stop), Stop)
    edit(second)
    first, _ = bench.run(Scripted(lambda *_: None)).copies
    assert first.resumed > 0
    assert bench.content() == bench.disk.read_bytes()


def test_verify_is_refused_where_nothing_is_kept(bench: Bench) -> None:
    bench.job = replace(
        bench.job, output=ModuleChoice("null"), copy=replace(bench.job.copy, verify=1.0)
    )
    error = bench.failed(Scripted(lambda *_: None))
    assert isinstance(error, UsageError) and error.id == "verify-impossible"
