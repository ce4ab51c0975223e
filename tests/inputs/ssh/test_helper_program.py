"""The program that the other host's Python runs: old Pythons, and whoever speaks to it."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from v2v.inputs._ssh import helper_program as far
from v2v.inputs._ssh.helper_far import COMMAND, PROGRAM

OLDEST = (3, 5)
# Names that came after 3.5, of the modules that it uses.
TOO_NEW = {"preadv", "pwritev", "waitstatus_to_exitcode", "SimpleQueue", "posix_spawn", "fsdecode_"}


def pythons() -> list[str]:
    """Every Python 3 of this machine."""
    others = [which for minor in range(5, 15) if (which := shutil.which(f"python3.{minor}"))]
    pyenv = Path.home().glob(".pyenv/versions/3.*/bin/python3")
    found = {str(Path(one).resolve()) for one in (sys.executable, *others, *pyenv)}
    return sorted(one for one in found if "shims" not in one)


@pytest.fixture(params=pythons())
def program(request: pytest.FixtureRequest) -> Iterator[subprocess.Popen[bytes]]:
    command = COMMAND.format(python=request.param)
    with subprocess.Popen(
        ["sh", "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(PROGRAM)
        process.stdin.flush()
        assert process.stdout.read(len(far.HELLO)) == far.HELLO
        yield process
        process.stdin.close()
        assert process.wait(20) == 0
        assert process.stderr
        assert process.stderr.read() == b""


def ask(
    program: subprocess.Popen[bytes],
    operation: int,
    *,
    file: int = 0,
    offset: int = 0,
    length: int = 0,
    compress: int = 0,
    text: bytes = b"",
) -> tuple[int, int, bytes]:
    """(kind, count, what follows) of the answer."""
    assert program.stdin and program.stdout
    head = far.REQUEST.pack(7, operation, compress, file, offset, len(text) or length)
    program.stdin.write(head + text)
    program.stdin.flush()
    number, kind, count, size = far.REPLY.unpack(program.stdout.read(far.REPLY.size))
    assert number == 7
    return kind, count, program.stdout.read(size)


def open_file(program: subprocess.Popen[bytes], path: Path) -> tuple[int, bytes]:
    kind, _, body = ask(program, far.OPEN, file=1, text=bytes(far.FOUND.size) + os.fsencode(path))
    return kind, body


def test_syntax_is_that_of_the_oldest_python() -> None:
    tree = ast.parse(PROGRAM, feature_version=OLDEST)
    for node in ast.walk(tree):
        assert not isinstance(node, ast.JoinedStr | ast.NamedExpr | ast.AnnAssign)
        name = getattr(node, "attr", getattr(node, "id", ""))
        assert name not in TOO_NEW
    assert "annotations" not in PROGRAM.decode().split("import")[1]  # __future__, of 3.7


def test_it_uses_the_standard_library_only() -> None:
    tree = ast.parse(PROGRAM)
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert names == {
        *("errno", "os", "queue", "resource", "stat", "struct", "sys", "threading", "zlib")
    }


def test_the_command_is_always_the_same() -> None:
    assert "'" not in COMMAND.split("'")[1]
    assert len(COMMAND) < 200


def test_reading(program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    file = tmp_path / "disk"
    data = b"x" * far.BLOCK + bytes(3 * far.BLOCK) + os.urandom(100)
    file.write_bytes(data)
    kind, body = open_file(program, file)
    size, written, _, inode = far.FOUND.unpack(body)
    assert (kind, size, inode) == (far.DONE, len(data), file.stat().st_ino)
    assert written == file.stat().st_mtime_ns
    kind, count, body = ask(program, far.READ, file=1, length=len(data), compress=1)
    assert (kind, count) == (far.DONE, 3)
    table = list(far.PIECE.iter_unpack(body[: count * far.PIECE.size]))
    assert [(kind, plain) for kind, plain, _ in table] == [
        (far.PACKED, far.BLOCK),
        (far.ZERO, 3 * far.BLOCK),
        (far.RAW, 100),
    ]
    assert body.endswith(data[-100:])
    assert len(body) < 500


def test_what_is_no_file_is_not_opened(program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "none", Path("/dev/tty")):
        kind, body = open_file(program, path)
        assert kind == far.FAILED
        assert far.ERRNO.unpack_from(body)[0] > 0
        kind, _, again = ask(program, far.READ, file=1, length=10)
        assert (kind, again) == (far.FAILED, body)


def test_odd_requests_are_answered(program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    assert ask(program, far.READ, file=99, length=10)[0] == far.FAILED
    assert ask(program, 77, text=b"what?")[0] == far.FAILED
    assert ask(program, far.OPEN, text=b"short")[0] == far.FAILED
    assert ask(program, far.REAL_PATH, text=b"/\0")[0] in (far.DONE, far.FAILED)
    (tmp_path / "file").write_bytes(b"abc")
    assert open_file(program, tmp_path / "file")[0] == far.DONE
    assert ask(program, far.READ, file=1, offset=2**64 - 1, length=10)[0] == far.FAILED
    assert ask(program, far.READ, file=1, offset=1, length=10)[0] == far.FAILED  # ends before


def test_a_folder(program: subprocess.Popen[bytes], tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(5))
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "c").mkdir()
    kind, count, body = ask(program, far.ENTRIES, text=os.fsencode(tmp_path))
    assert (kind, count) == (far.DONE, 3)
    found = {}
    while body:
        entry, size, _, length = far.ENTRY.unpack_from(body)
        name, body = body[far.ENTRY.size :][:length], body[far.ENTRY.size + length :]
        found[name] = entry, size if entry == far.FILE else 0
    assert found == {b"a": (far.FILE, 5), b"b": (far.LINK, 0), b"c": (far.FOLDER, 0)}


WATCHED = """
import os, sys
def watch(event, args):
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
        print("opened for writing:", args, file=sys.stderr)
    elif event.startswith(("os.remove", "os.rename", "os.mkdir", "os.link", "subprocess")):
        print(event, args, file=sys.stderr)
sys.addaudithook(watch)
exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), "v2v", "exec"))
"""


def test_it_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "disk"
    file.write_bytes(b"abc")
    argv = [sys.executable, "-IBS", "-c", WATCHED, str(len(PROGRAM))]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(PROGRAM)
        process.stdin.flush()
        assert process.stdout.read(len(far.HELLO)) == far.HELLO
        assert open_file(process, file)[0] == far.DONE
        assert ask(process, far.READ, file=1, length=3)[2].endswith(b"abc")
        assert ask(process, far.ENTRIES, text=os.fsencode(tmp_path))[0] == far.DONE
        process.stdin.close()
        assert process.stderr.read() == b""
