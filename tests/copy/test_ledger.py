"""What is durable on the target is known again after a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from v2v.copy.ledger import Ledger
from v2v.errors import JobError
from v2v.extents import Extent, Ranges
from v2v.types import KiB, MiB

FIRST = [Extent(0, 10), Extent(30, 5)]
SECOND = [Extent(50, 7), Extent(100, 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


def test_ranges_are_known_again_by_phase(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record("source", FIRST)
    ledger.record("overlay", [Extent(32, 10)])
    ledger.record("source", SECOND)
    for one in (ledger, Ledger(path)):
        assert list(one.done("source")) == FIRST + SECOND
        assert list(one.done("overlay")) == [Extent(32, 10)]
        assert list(one.done("another")) == []
        assert list(one.touched()) == [Extent(0, 10), Extent(30, 12), *SECOND]


def test_data_and_zeroes_in_any_order_become_one_range(path: Path) -> None:
    Ledger(path).record("source", [Extent(20, 10), Extent(0, 10), Extent(10, 10, zero=True)])
    assert path.read_text() == '{"phase":"source","ranges":[[0,30]]}\n'
    assert list(Ledger(path).done("source")) == [Extent(0, 30)]


def test_what_is_given_out_is_a_copy() -> None:
    ledger = Ledger(None)
    ledger.record("source", FIRST)
    ledger.done("source").add(1000, 1)
    ledger.touched().add(1000, 1)
    assert list(ledger.done("source")) == list(ledger.touched()) == FIRST


def test_nothing_to_record_writes_nothing(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record("source", [])
    ledger.record("source", [Extent(5, 0)])
    assert not ledger and not ledger.touched()
    assert path.read_bytes() == b""


def test_what_is_forgotten_counts_for_no_phase(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record("source", FIRST)
    ledger.record("overlay", [Extent(32, 10)])
    ledger.forget([Extent(33, 4)])
    for one in (ledger, Ledger(path)):
        assert list(one.done("source")) == [Extent(0, 10), Extent(30, 3)]
        assert list(one.done("overlay")) == [Extent(32, 1), Extent(37, 5)]


def test_clearing_is_durable(path: Path) -> None:
    ledger = Ledger(path)
    assert not ledger
    ledger.record("source", FIRST)
    assert ledger and Ledger(path)
    ledger.clear()
    assert not ledger and not Ledger(path)
    ledger.record("overlay", SECOND)
    assert list(Ledger(path).touched()) == SECOND


def test_in_memory_only() -> None:
    ledger = Ledger(None)
    ledger.record("source", FIRST)
    ledger.record("overlay", SECOND)
    assert list(ledger.touched()) == FIRST + SECOND
    ledger.clear()
    assert not ledger


def test_a_torn_last_line_is_cut_off(path: Path) -> None:
    ledger = Ledger(path)
    ledger.record("source", FIRST)
    good = path.read_bytes()
    ledger.record("source", SECOND)
    whole = path.read_bytes()
    for end in range(len(good), len(whole)):
        path.write_bytes(whole[:end])
        assert list(Ledger(path).done("source")) == FIRST
        assert path.read_bytes() == good


@pytest.mark.parametrize(
    "tail", [b"\0" * 4096, b"\xff\xfe\n", b"{\n"], ids=["nul", "bytes", "half"]
)
def test_what_follows_a_damaged_end_is_read(path: Path, tail: bytes) -> None:
    Ledger(path).record("source", FIRST)
    with path.open("ab") as file:
        file.write(tail)
    Ledger(path).record("source", SECOND)
    assert list(Ledger(path).done("source")) == FIRST + SECOND


@pytest.mark.parametrize(
    "line",
    [
        {"phase": "source"},
        {"phase": "source", "ranges": [[1]]},
        {"phase": "source", "ranges": [[-1, 1]]},
        {"phase": "source", "ranges": [[0, 2**64]]},
        {"phase": 1, "ranges": []},
        ["source"],
    ],
    ids=str,
)
def test_a_file_of_something_else_is_refused(path: Path, line: object) -> None:
    path.write_text(json.dumps(line) + "\n")
    with pytest.raises(JobError) as error:
        Ledger(path)
    assert error.value.id == "journal-unreadable" and str(path) in error.value.message


def test_a_full_filesystem_loses_nothing_that_was_recorded(small: Path) -> None:
    path, ballast = small / "ledger", small / "ballast"
    ledger = Ledger(path)
    ledger.record("source", FIRST)
    good = path.read_bytes()
    many = [Extent(n * MiB, 64 * KiB) for n in range(10_000)]
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
        while True:
            file.write(bytes(4 * KiB))
    with pytest.raises(JobError) as error:
        ledger.record("source", many)
    assert error.value.id == "journal-write" and error.value.hint
    assert path.read_bytes() == good
    assert list(ledger.done("source")) == FIRST  # it does not tell what it could not note

    ballast.unlink()
    ledger.record("source", many)
    assert Ledger(path).done("source").covers(many[-1].offset, 64 * KiB)


def test_a_missing_folder_is_told(path: Path) -> None:
    with pytest.raises(JobError) as error:
        Ledger(path / "ledger")
    assert error.value.id == "journal-write"


def test_many_threads_record(path: Path) -> None:
    ledger = Ledger(path)
    ranges = [Extent(n * 10, 5) for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda extent: ledger.record("source", [extent]), ranges))
    assert list(ledger.done("source")) == list(Ledger(path).done("source")) == ranges


def test_what_a_killed_process_had_recorded_is_there(path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from v2v.copy.ledger import Ledger; from v2v.extents import Extent\n"
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "for n in range(1_000_000):\n"
        "    ledger.record('source', [Extent(n * 10, 5)])\n"
        "    print(n, flush=True)\n"
    )
    argv = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(50)]
        process.kill()
        said += [line for line in process.stdout if line.endswith("\n")]
    done = Ledger(path).done("source")
    assert len(said) >= 50
    assert all(done.covers(int(line) * 10, 5) for line in said)


RANGES = st.lists(st.builds(Extent, st.integers(0, 60), st.integers(0, 12)), max_size=5)
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["source", "overlay", "forget"]), RANGES),
    st.sampled_from(["reopen", "clear"]),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(actions=st.lists(ACTIONS, max_size=12))
def test_it_holds_what_was_recorded_and_not_forgotten_since(path: Path, actions: list) -> None:
    path.unlink(missing_ok=True)
    ledger = Ledger(path)
    model: dict[str, set[int]] = {"source": set(), "overlay": set()}
    for action in actions:
        if action == "reopen":
            ledger = Ledger(path)
        elif action == "clear":
            ledger.clear()
            model = {"source": set(), "overlay": set()}
        else:
            phase, extents = action
            there = {number for one in extents for number in range(one.offset, one.end)}
            if phase == "forget":
                ledger.forget(extents)
                model = {name: known - there for name, known in model.items()}
            else:
                ledger.record(phase, extents)
                model[phase] |= there
    for phase, expected in model.items():
        assert numbers(ledger.done(phase)) == expected
    assert numbers(ledger.touched()) == model["source"] | model["overlay"]
    assert bool(ledger) == bool(model["source"] or model["overlay"])


def numbers(ranges: Ranges) -> set[int]:
    return {n for extent in ranges for n in range(extent.offset, extent.end)}
