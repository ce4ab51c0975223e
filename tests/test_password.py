"""Where a password comes from, and how it gets to programs that we start."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from v2v import password as _password
from v2v import process
from v2v.errors import UsageError
from v2v.password import find_password, given_password, password_as_file

WORD = "öpen sesame "
ASK = """
import threading
from v2v.password import find_password
found = []
threads = [threading.Thread(target=lambda: found.append(find_password(None, what="root@esxi")))
           for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("found", ascii(found))
"""


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_password, "_answers", {})
    monkeypatch.delenv("V2V_PASSWORD", raising=False)
    monkeypatch.setattr(_password, "TERMINAL", Path("/no-such/terminal"))


def test_the_first_line_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts for more than the environment."""
    monkeypatch.setenv("V2V_PASSWORD", "other")
    (tmp_path / "word").write_text(f"{WORD}\nmore\n")
    assert find_password(tmp_path / "word", what="root@esxi") == WORD
    with pytest.raises(UsageError) as caught:
        find_password(tmp_path / "none", what="root@esxi")
    assert caught.value.id == "password-file"


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs do not inherit it, neither before nor after it was needed."""
    monkeypatch.setenv("V2V_PASSWORD", WORD)
    assert "V2V_PASSWORD" not in process.environment()
    assert given_password(None, what="root@esxi") == WORD
    assert "V2V_PASSWORD" not in os.environ
    assert find_password(None, what="root@other") == WORD


def test_nobody_to_ask() -> None:
    assert find_password(None, what="root@esxi") is None


def test_the_user_is_asked_once_at_the_terminal() -> None:
    """Whatever stdin is, and however many threads want it."""
    pid, terminal = pty.fork()
    if pid == 0:
        argv = [sys.executable, "-c", ASK]
        os._exit(subprocess.run(argv, stdin=subprocess.DEVNULL, check=False).returncode)
    shown = b""
    while b"root@esxi: " not in shown:
        shown += os.read(terminal, 1000)
    os.write(terminal, b"open sesame\n")
    while b"]" not in shown:
        shown += os.read(terminal, 1000)
    os.waitpid(pid, 0)
    os.close(terminal)
    assert shown.count(b"Password") == 1
    assert b"found ['open sesame', 'open sesame', 'open sesame']" in shown
    assert shown.count(b"sesame") == 3  # it is not echoed


def test_a_file_in_memory_for_programs() -> None:
    with password_as_file(WORD) as file:
        done = process.run_tool(["cat", str(file)])
        assert done.stdout == WORD
        assert given_password(file, what="root@esxi") == WORD
    assert not file.exists()
