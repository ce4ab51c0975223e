"""Disks that nbdkit serves by our own code, from files of this host."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.vmdk import write_vmdk
from tests.contract.input_suite import InputCase, InputSuite, check_extents, children, read_all
from tests.fakes.disks import disk_content
from tests.inputs.reader.reading import ReaderInput
from tests.integration import processes
from v2v import events, nbd_client
from v2v.errors import CopyError, GuestError, SourceError, TargetError, V2VError
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import read_vmdk, serve_recipe
from v2v.run import Run
from v2v.types import MiB

CONTENT = disk_content()
NEWER = CONTENT[: 2 * MiB] + bytes(MiB) + b"\7" * MiB + CONTENT[4 * MiB :]
ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def tools(need_tool) -> None:
    need_tool("nbdkit")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A VM of ESXi with a snapshot."""
    path = tmp_path / "data store" / "web [1]"
    base = write_vmdk(path, "web", CONTENT)
    dig_holes(path / "web-flat.vmdk")
    write_vmdk(
        path,
        "web-000001",
        NEWER,
        below=CONTENT,
        parent=base.name,
        kind="vmfsSparse",
        cid=2,
        parent_cid=1,
    )
    return path


def dig_holes(path: Path) -> None:
    content = path.read_bytes()
    with path.open("wb") as file:
        for at in range(0, len(content), 4096):
            if content[at : at + 4096].strip(b"\0"):
                file.seek(at)
                file.write(content[at : at + 4096])
        file.truncate(len(content))


@pytest.fixture
def recipe(folder: Path) -> Recipe:
    return Recipe(str(folder / "web.vmdk"), ())


@pytest.fixture
def failing(folder: Path) -> Iterator[Path]:
    """Of this file, which is the data of web.vmdk, somebody can take the end away."""
    yield folder / "web-flat.vmdk"


class TestReader(InputSuite):
    """The contract of inputs, on a disk and its snapshot."""

    @pytest.fixture
    def case(self, folder: Path) -> InputCase:
        recipes = [Recipe(str(folder / f"{one}.vmdk"), ()) for one in ("web", "web-000001")]
        return InputCase(ReaderInput(*recipes), [CONTENT, NEWER], name="reader", sources=[folder])


def test_what_the_server_promises(recipe: Recipe, run: Run) -> None:
    with serve_recipe(recipe, run, "disk") as endpoint:
        assert endpoint.multi_conn and endpoint.read_only
        assert endpoint.request_size == MiB
        assert endpoint.minimum_block == 1
        assert endpoint.maximum_block == 32 * MiB
        assert any(one.zero for one in nbd_client.extents(endpoint))


def test_reading_what_headers_tell_starts_no_server(recipe: Recipe, run: Run) -> None:
    facts = read_vmdk(recipe, run)
    assert facts.size == len(CONTENT)
    assert facts.version
    assert {Path(name).name for name in facts.files} == {"web.vmdk", "web-flat.vmdk"}


def test_a_disk_with_more_extents_than_one_answer_holds(tmp_path: Path, run: Run) -> None:
    content = (b"\1" * 4096 + bytes(4096)) * 20_000
    path = tmp_path / "web"
    write_vmdk(path, "web", content)
    dig_holes(path / "web-flat.vmdk")
    with serve_recipe(Recipe(str(path / "web.vmdk"), ()), run, "disk") as endpoint:
        found = list(nbd_client.extents(endpoint))
        check_extents(found, len(content), content)
        if len(found) == 1:
            pytest.skip("this filesystem does not tell of small holes")
        assert len(found) == 40_000


# Errors -------------------------------------------------------------------------------------------


def ended(recipe: Recipe, run: Run, error: V2VError, *, read: int | None = None) -> V2VError:
    """What a block ends with that raises `error`, after a read that fails."""
    with pytest.raises(V2VError) as caught, serve_recipe(recipe, run, "disk") as endpoint:
        with nbd_client.ExportReader(endpoint, "disk") as reader:
            if read is not None:
                os.truncate(recipe.path.replace(".vmdk", "-flat.vmdk"), read)
                with pytest.raises(SourceError):
                    reader.read(read, 512)
        raise error
    assert children() == set()
    assert list(run.tmp.iterdir()) == []
    return caught.value


COPY = CopyError("disk 1: cannot read", id="copy-read")
NO_OS = GuestError("no operating system", id="no-os")


def test_a_disk_that_cannot_be_opened_is_told_at_once(folder: Path, run: Run) -> None:
    (folder / "web-flat.vmdk").unlink()
    gone = Recipe(str(folder / "web.vmdk"), ())
    with pytest.raises(SourceError) as caught, serve_recipe(gone, run, "disk"):
        pass
    assert caught.value.id == "image-file-missing"
    assert caught.value.hint
    assert "web-flat.vmdk" in caught.value.message
    assert children() == set()
    assert list(run.tmp.iterdir()) == []


@pytest.mark.parametrize("error", [COPY, NO_OS])
def test_a_read_that_failed_is_told_in_the_words_of_who_tried(
    recipe: Recipe, run: Run, error: V2VError
) -> None:
    found = ended(recipe, run, error, read=MiB)
    assert isinstance(found, SourceError)
    assert found.id == "source-read"
    assert "web-flat.vmdk" in found.message
    assert found.__cause__ is error


@pytest.mark.parametrize("error", [COPY, NO_OS])
def test_without_a_failed_read_an_error_stays_what_it_is(
    recipe: Recipe, run: Run, error: V2VError
) -> None:
    assert ended(recipe, run, error) is error


def test_an_error_of_the_target_stays_what_it_is(recipe: Recipe, run: Run) -> None:
    error = TargetError("full", id="target-full")
    assert ended(recipe, run, error, read=MiB) is error


def test_what_could_be_read_at_last_is_no_reason(recipe: Recipe, run: Run, failing: Path) -> None:
    with pytest.raises(GuestError), serve_recipe(recipe, run, "disk") as endpoint:
        with nbd_client.ExportReader(endpoint, "disk") as reader:
            whole = failing.read_bytes()
            os.truncate(failing, MiB)
            with pytest.raises(SourceError):
                reader.read(2 * MiB, 512)
            failing.write_bytes(whole)
            assert reader.read(2 * MiB - 512, 4096) == whole[2 * MiB - 512 :][:4096]
        raise NO_OS


def test_what_could_be_read_in_smaller_pieces_is_no_reason(
    recipe: Recipe, run: Run, failing: Path
) -> None:
    with pytest.raises(GuestError), serve_recipe(recipe, run, "disk") as endpoint:
        with nbd_client.ExportReader(endpoint, "disk") as reader:
            whole = failing.read_bytes()
            os.truncate(failing, MiB)
            with pytest.raises(SourceError):
                reader.read(2 * MiB, 4096)
            failing.write_bytes(whole)
            for at in range(2 * MiB, 2 * MiB + 4096, 512):
                assert reader.read(at, 512) == whole[at : at + 512]
        raise NO_OS


def test_other_programs_that_failed_to_read_are_told_why(
    recipe: Recipe, tmp_path: Path, failing: Path
) -> None:
    """To v2v all is well: they may not even say that they failed."""
    seen: list[events.Event] = []
    with (
        Run.create(tmp_path / "told", "x", emit=seen.append) as run,
        serve_recipe(recipe, run, "disk") as endpoint,
    ):
        os.truncate(failing, MiB)
        with pytest.raises(SourceError), nbd_client.ExportReader(endpoint, "disk") as reader:
            reader.read(2 * MiB, 512)
    (warning,) = [one for one in seen if isinstance(one, events.Warned)]
    assert warning.id == "source-read"
    assert failing.name in warning.text


def test_a_client_goes_on_after_a_failed_read(recipe: Recipe, run: Run, failing: Path) -> None:
    whole = failing.read_bytes()
    with serve_recipe(recipe, run, "disk") as endpoint:
        os.truncate(failing, MiB)
        with pytest.raises(SourceError), nbd_client.ExportReader(endpoint, "disk") as reader:
            reader.read(2 * MiB, 512)
        failing.write_bytes(whole)
        assert read_all(endpoint) == CONTENT


# The host -----------------------------------------------------------------------------------------

CHECK = "from v2v import nbdkit; nbdkit.check_python()"
WRAPPER = """#!/bin/sh
/usr/bin/nbdkit "$@" | sed 's/^{key}=.*/{key}={value}/'
"""


def complaint(folder: Path, key: str, value: str) -> str:
    """What a check says on a host whose nbdkit tells something else of itself."""
    wrapper = folder / "nbdkit"
    wrapper.write_text(WRAPPER.format(key=key, value=value))
    wrapper.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    return done.stderr.strip().splitlines()[-1] if done.returncode else ""


def test_a_host_that_can_read(tmp_path: Path) -> None:
    assert complaint(tmp_path, "nothing", "") == ""


def test_a_host_without_the_python_plugin(tmp_path: Path) -> None:
    assert "python plugin is not installed" in complaint(tmp_path, "plugindir", "\\/none")


def test_a_host_whose_nbdkit_has_another_python(tmp_path: Path) -> None:
    assert "runs Python 3.6, but v2v" in complaint(tmp_path, "python_version", "3.6.8")


# The end ------------------------------------------------------------------------------------------

HOLD = """
import sys
from pathlib import Path
from v2v.inputs._reader.recipe import Recipe
from v2v.inputs._reader.serve import serve_recipe
from v2v.run import Run
with Run.create(Path(sys.argv[1]), "hold") as run:
    with serve_recipe(Recipe(sys.argv[2], ()), run, "disk") as endpoint:
        print(endpoint.socket, flush=True)
        sys.stdin.read()
"""


def test_nothing_is_left_when_v2v_is_killed(recipe: Recipe, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", HOLD, str(tmp_path / "jobs"), recipe.path]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        socket = process.stdout.readline().strip()
        assert socket
        assert processes.mentioning(str(Path(socket).parent))
        process.send_signal(signal.SIGKILL)
    assert processes.gone(str(Path(socket).parent))
