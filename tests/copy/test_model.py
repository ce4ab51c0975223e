"""Any disk, any sizes, any faults and any number of crashes: the target becomes the source.

Small disks and small units, so that a few hundred KiB have every border that a large disk has.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.copy.copying import Wrapped, nothing_left_over, pause, shared
from tests.fakes.nbd_server import HOLE_AND_ZERO, Act, Entries, NbdServer, serve
from tests.fakes.nbd_wire import Command
from v2v.copy import target as target_module
from v2v.copy.engine import DiskCopy, copy_disk, measure
from v2v.copy.ledger import Ledger
from v2v.copy.sinks import NbdSink
from v2v.endpoint import Endpoint
from v2v.extents import Extent, clip, data_bytes, intersect
from v2v.types import KiB

CELL = 64 * KiB  # what an overlay owns or not: a cluster

EXAMPLES = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass(frozen=True)
class Disk:
    """`parts`: length and kind of successive ranges."""

    parts: tuple[tuple[int, str], ...]
    seed: int

    @property
    def content(self) -> bytes:
        chance = random.Random(self.seed)
        return b"".join(
            chance.randbytes(length) if kind == "data" else bytes(length)
            for length, kind in self.parts
        )

    def entries(self, offset: int, length: int) -> Entries:
        """What a server tells: zeroes that are not known to be any are data."""
        found, position = [], 0
        for size, kind in self.parts:
            low, high = max(position, offset), min(position + size, offset + length)
            if low < high:
                found.append((high - low, HOLE_AND_ZERO if kind == "hole" else 0))
            position += size
        return found


@dataclass(frozen=True)
class Setting:
    """How a disk is copied."""

    disk: Disk
    source_blocks: tuple[int, int, int]
    target_blocks: tuple[int, int, int]
    request_size: int | None
    read_size: int | None
    connections: int
    alignment: int
    garbage: bool
    multi_conn: tuple[bool, bool] = (True, True)
    source_faults: tuple[dict, ...] = ()
    target_faults: tuple[dict, ...] = ()
    crashes: tuple[tuple[str, int], ...] = ()  # before which call of the sink, one per run
    keep: int = 0  # seed: which writes survive a crash of the target


LENGTHS = st.one_of(
    st.sampled_from([512, 4 * KiB, 8 * KiB, 32 * KiB, 64 * KiB]),
    st.integers(1, 20 * KiB),
)
KINDS = st.sampled_from(["data", "data", "zero", "hole"])


@st.composite
def disks(draw: st.DrawFn, block: int) -> Disk:
    """A multiple of `block`, which the borders inside it need not keep to."""
    parts = draw(st.lists(st.tuples(LENGTHS, KINDS), min_size=1, max_size=20))
    missing = -sum(length for length, _ in parts) % block
    return Disk((*parts, (missing, "data")) if missing else tuple(parts), draw(st.integers(0, 9)))


def faults(acts: list[Act], commands: list[Command]) -> st.SearchStrategy[tuple[dict, ...]]:
    """Few enough for the retries, whatever they hit."""
    one = st.fixed_dictionaries(
        {
            "act": st.sampled_from(acts),
            "command": st.sampled_from(commands),
            "skip": st.integers(0, 12),
            "every": st.integers(1, 6),
            "times": st.integers(1, 2),
        }
    )
    return st.lists(one, max_size=1).map(tuple)


@st.composite
def plain(draw: st.DrawFn) -> Setting:
    smallest = draw(st.sampled_from([1, 512, 4096]))
    return Setting(
        disk=draw(disks(smallest)),
        source_blocks=(smallest, 4096, draw(st.sampled_from([4, 16, 64])) * KiB),
        target_blocks=(draw(st.sampled_from([1, 512, 4096])), 4096, 64 * KiB),
        request_size=draw(st.sampled_from([None, 4 * KiB, 12 * KiB, 64 * KiB])),
        read_size=draw(st.sampled_from([None, 4 * KiB, 32 * KiB])),
        connections=draw(st.integers(1, 3)),
        alignment=draw(st.sampled_from([1, 512, 4 * KiB, 64 * KiB])),
        garbage=draw(st.booleans()),
        multi_conn=draw(st.tuples(st.booleans(), st.booleans())),
    )


@st.composite
def rough(draw: st.DrawFn) -> Setting:
    """With faults, and with crashes."""
    reading = [Act.DROP, Act.TEAR, Act.ERROR]
    return replace(
        draw(plain()),
        source_faults=draw(faults(reading, [Command.READ])),
        target_faults=draw(
            faults([Act.DROP, Act.TEAR, Act.RESTART], [Command.WRITE, Command.ZERO, Command.FLUSH])
        ),
        crashes=draw(
            st.lists(
                st.tuples(st.sampled_from(["write", "zero", "flush"]), st.integers(0, 12)),
                max_size=3,
            ).map(tuple)
        ),
        keep=draw(st.integers(0, 1000)),
    )


class Crash(Exception):
    """The job ends here."""


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Flushes are due after so few bytes that small disks see several; no waits."""
    with pytest.MonkeyPatch.context() as patch:
        small_constants(patch)
        yield


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NbdServer]:
    with serve(tmp_path_factory.mktemp("source")) as server:
        yield server


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NbdServer]:
    with serve(tmp_path_factory.mktemp("target")) as server:
        yield server


@pytest.fixture(scope="module")
def overlay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NbdServer]:
    with serve(tmp_path_factory.mktemp("overlay")) as server:
        yield server


@pytest.fixture(scope="module", autouse=True)
def no_leaks(quick: None) -> Iterator[None]:
    with nothing_left_over():
        yield


@dataclass
class World:
    """A source, a target and a ledger; every run is what a process would do of the job."""

    source: NbdServer
    target: NbdServer
    setting: Setting
    ledger_file: Path
    endpoint: Endpoint = field(init=False)

    def __post_init__(self) -> None:
        setting = self.setting
        content = setting.disk.content
        block = max(setting.alignment, setting.target_blocks[0])
        whole = -(-len(content) // block) * block
        self.source.reset(content)
        self.target.reset(b"\xdb" * whole if setting.garbage else bytes(whole))
        self.target.keeps = random.Random(setting.keep).choices([False, True], k=100_000).pop
        self.source.extents = setting.disk.entries
        self.source.blocks, self.target.blocks = setting.source_blocks, setting.target_blocks
        self.source.multi_conn, self.target.multi_conn = setting.multi_conn
        self.endpoint = replace(self.source.endpoint(), request_size=setting.read_size)
        for server, found in (
            (self.source, setting.source_faults),
            (self.target, setting.target_faults),
        ):
            for one in found:
                server.fault(**one)

    @contextmanager
    def sink(
        self, crash: tuple[str, int] | None = None, *, is_zero: bool | None = None
    ) -> Iterator[Wrapped]:
        def before(call: str, number: int) -> None:
            if crash == (call, number):
                raise Crash

        sink = NbdSink(
            self.target.endpoint(read_only=False),
            request_size=self.setting.request_size,
            is_zero=not self.setting.garbage if is_zero is None else is_zero,
            alignment=self.setting.alignment,
            zero_grain=4 * KiB,
            stall=10.0,
        )
        try:
            yield Wrapped(sink, before)
        finally:
            sink.hang_up()

    def run(self, crash: tuple[str, int] | None = None):
        """One process: from the ledger's file to its end or its crash."""
        common = shared(connections=self.setting.connections, stall_timeout=10.0)
        with self.sink(crash) as sink:
            ledger = Ledger(self.ledger_file)
            return copy_disk(0, self.endpoint, sink, common, ledger=ledger)

    def forget(self) -> Ledger:
        """The host of the target crashes too; gives what the ledger holds nevertheless."""
        self.target.restart()
        return Ledger(self.ledger_file)

    @property
    def whole(self) -> bytes:
        """The source's content, filled up to the target's size."""
        content = bytes(self.source.content)
        return content + bytes(len(self.target.content) - len(content))


@pytest.fixture(scope="module")
def ledgers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ledgers")
    yield (folder / str(number) for number in range(10**9))


@EXAMPLES
@given(plain())
def test_the_target_becomes_the_source(source, target, ledgers, setting: Setting) -> None:
    world = World(source, target, setting, next(ledgers))
    result = world.run()
    assert target.durable == world.whole
    assert source.refused == [] and target.refused == []
    assert result.size == len(source.content)
    assert result.data >= data_bytes(measure(world.endpoint, shared().cancel)) or result.size == 0


@EXAMPLES
@given(rough())
def test_whatever_fails_the_target_becomes_the_source(
    source, target, ledgers, setting: Setting
) -> None:
    world = World(source, target, setting, next(ledgers))
    for crash in setting.crashes:
        try:
            world.run(crash)
        except Crash:
            world.forget()
    world.run()
    assert target.durable == world.whole
    assert target.refused == []


@EXAMPLES
@given(rough())
def test_what_the_ledger_holds_is_durable_and_never_read_again(
    source, target, ledgers, setting: Setting
) -> None:
    setting = replace(setting, source_faults=(), target_faults=())
    world = World(source, target, setting, next(ledgers))
    for crash in setting.crashes:
        try:
            world.run(crash)
        except Crash:
            kept = world.forget().done("source")
        else:
            kept = Ledger(world.ledger_file).done("source")
        for part in kept:
            end = min(part.end, len(source.content))
            assert target.content[part.offset : end] == source.content[part.offset : end]
        source.requests.clear()
        resumed = world.run().resumed
        assert resumed == kept.length or not kept
        for offset, length in source.asked():
            assert not list(clip(kept, offset, offset + length)) or setting.source_blocks[0] > 1
        return


@dataclass(frozen=True)
class Conversion:
    """What a conversion does to a disk: the cells that it owns in the end, and early on."""

    setting: Setting
    owned: frozenset[int]
    early: frozenset[int]
    seed: int

    @property
    def content(self) -> bytes:
        """Of the converted guest: some cells that it owns are zero, others hold data."""
        content = bytearray(self.setting.disk.content)
        chance = random.Random(self.seed)
        for cell in sorted(self.owned):
            start, end = cell * CELL, min((cell + 1) * CELL, len(content))
            length = max(end - start, 0)
            content[start:end] = chance.choice([bytes(length), chance.randbytes(length)])
        return bytes(content)


@st.composite
def conversions(draw: st.DrawFn) -> Conversion:
    setting = draw(rough())
    cells = st.frozensets(st.integers(0, 8), max_size=6)
    return Conversion(setting, draw(cells), draw(cells), draw(st.integers(0, 99)))


def cells_of(world: World, numbers: Iterable[int]) -> list[Extent]:
    size = len(world.source.content)
    every = (Extent(number * CELL, CELL) for number in sorted(numbers))
    return list(clip(every, 0, size))


@EXAMPLES
@given(conversions())
def test_what_was_copied_ahead_and_then_converted_is_the_converted_guest(
    source, target, overlay, ledgers, conversion: Conversion
) -> None:
    """A part from the source, then the rest of it, then what the guest's overlay holds."""
    setting = conversion.setting
    world = World(source, target, setting, next(ledgers))
    overlay.reset(conversion.content)
    overlay.extents = overlay.true_extents
    everything = range(len(source.content) // CELL + 1)

    def run(crash: tuple[str, int] | None, *, ahead: bool, first: bool) -> None:
        with world.sink(crash, is_zero=first and not setting.garbage) as sink:
            common = shared(connections=setting.connections, stall_timeout=10.0)
            ledger = Ledger(world.ledger_file)
            disk = DiskCopy(0, world.endpoint.size, sink, common, ledger=ledger)
            known = list(measure(world.endpoint, common.cancel))
            if ahead:
                early = cells_of(world, set(everything) - conversion.early)
                disk.copy(world.endpoint, intersect(known, early))
            rest = cells_of(world, set(everything) - conversion.owned)
            disk.copy(world.endpoint, intersect(known, rest))
            guest = replace(overlay.endpoint(), request_size=setting.read_size)
            own = cells_of(world, conversion.owned)
            disk.copy(guest, intersect(measure(guest, common.cancel), own), phase="overlay")
            disk.finish()

    early_cells = conversion.early & conversion.owned
    conversion = replace(conversion, early=early_cells)
    for number, crash in enumerate([*setting.crashes, None]):
        try:
            run(crash, ahead=number == 0, first=number == 0)
        except Crash:
            world.forget()
    content = conversion.content
    assert target.durable == content + bytes(len(target.content) - len(content))


def small_constants(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(target_module, "CHECKPOINT", 64 * KiB)
    patch.setattr(target_module, "UNRECORDED", 128 * KiB)
    pause(patch, *[0.0] * 20)
