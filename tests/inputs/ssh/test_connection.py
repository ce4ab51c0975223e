"""Logging in to a real SSH server, and running programs there."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.tcp_proxy import tcp_proxy
from tests.inputs.ssh.hosts import after_its_end
from tests.sshd import Sshd, sshd
from v2v.cancel import Cancel
from v2v.errors import Cancelled, UsageError, V2VError
from v2v.inputs._ssh.connection import Done, ProgramRefused, connect
from v2v.inputs._ssh.hostkeys import HostKey, is_wanted
from v2v.inputs._ssh.link import DEAD_SECONDS
from v2v.inputs._ssh.pipe import WINDOW
from v2v.inputs._ssh.place import SshPlace
from v2v.password import forget_password
from v2v.types import MiB

WORD = "open sesame"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("ssh"), keys=("ed25519", "ecdsa", "rsa")) as server:
        yield server


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """It takes the password as the answer to a question only."""
    folder = tmp_path_factory.mktemp("asking")
    with sshd(folder, password=WORD, questions=True) as server:
        yield server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing of this host's own ~/.ssh, agent, terminal and password counts."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.delenv("V2V_PASSWORD", raising=False)
    monkeypatch.setattr("v2v.password.TERMINAL", tmp_path / "no-terminal")
    forget_password("V2V_PASSWORD")
    (tmp_path / "home/.ssh").mkdir(parents=True)
    return tmp_path / "home"


def place_of(host: Sshd) -> SshPlace:
    return SshPlace(
        host="127.0.0.1",
        port=host.port,
        user=host.user,
        known_hosts=host.known_hosts,
        identity=host.identity,
    )


def works(place: SshPlace) -> None:
    with connect(place, cancel=Cancel()) as there:
        assert there.run("echo in") == Done(0, b"in\n", "")


def refused(id: str, place: SshPlace) -> V2VError:
    with pytest.raises(V2VError) as caught, connect(place, cancel=Cancel()):
        pass
    assert caught.value.id == id, caught.value
    assert caught.value.hint
    assert "127.0.0.1" in caught.value.message
    return caught.value


def host_key(host: Sshd, name: str = "host-key") -> HostKey:
    import base64

    kind, blob, *_ = (host.identity.with_name(f"{name}.pub")).read_text().split()
    return HostKey(kind, base64.b64decode(blob))


# ---- programs


def test_a_program(host: Sshd) -> None:
    with connect(place_of(host), cancel=Cancel()) as there:
        assert there.run("cat; echo no >&2; exit 3", input=b"words") == Done(3, b"words", "no\n")
        assert there.run("kill -9 $$").status == -1


def test_a_program_that_ends_before_it_is_spoken_to(
    host: Sshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    after_its_end(monkeypatch, "open")
    with connect(place_of(host), cancel=Cancel()) as there:
        assert there.run("echo no >&2; exit 3", input=b"words") == Done(3, b"", "no\n")


def test_more_than_a_window_goes_both_ways(host: Sshd) -> None:
    data = os.urandom(MiB) * 40
    with connect(place_of(host), cancel=Cancel()) as there:
        program = there.open("cat")
        sender = threading.Thread(target=program.send, args=(data,))
        sender.start()
        found, buffer = bytearray(), memoryview(bytearray(3 * MiB))
        while len(found) < len(data) and (count := program.receive_into(buffer)):
            found += buffer[:count]
        sender.join()
        program.end_input()
        assert program.receive_into(buffer) == 0
        program.close()
    assert found == data


def test_many_programs_at_once(host: Sshd) -> None:
    """More than a server lets run on one connection."""
    with connect(place_of(host), cancel=Cancel(), connections=3) as there:
        programs = [there.open("read word; echo $word") for _ in range(14)]
        buffer = memoryview(bytearray(100))
        for number, program in enumerate(programs):
            program.send(b"%d\n" % number)
            assert bytes(buffer[: program.receive_into(buffer)]) == b"%d\n" % number
            program.close()


def test_a_server_that_allows_one_program_on_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("v2v.inputs._ssh.connection.ROOM_SECONDS", 60.0)  # until one has ended
    with (
        sshd(tmp_path / "ssh", extra="MaxSessions 1") as server,
        connect(place_of(server), cancel=Cancel(), connections=2) as there,
    ):
        first, second = there.open("cat"), there.open("cat")
        first.close()
        second.close()
        assert there.run("echo again").stdout == b"again\n"


def test_errors_of_a_program_do_not_stop_it(host: Sshd) -> None:
    with connect(place_of(host), cancel=Cancel()) as there:
        done = there.run("yes mistake | head -c 10000000 >&2; echo done")
        assert done.stdout == b"done\n"
        assert len(done.stderr) <= 4096


def test_a_command_that_says_too_much_or_takes_too_long(host: Sshd) -> None:
    with connect(place_of(host), cancel=Cancel()) as there:
        with pytest.raises(V2VError) as caught:
            there.run("yes", limit=MiB)
        assert caught.value.id == "ssh-command-output"
        with pytest.raises(V2VError) as caught:
            there.run("exec sleep 100", seconds=0.2)
        assert caught.value.id == "ssh-command-timeout"


def test_a_program_whose_connection_breaks(host: Sshd) -> None:
    """It has not ended, as far as anybody knows; the next one gets a connection again."""
    with connect(place_of(host), cancel=Cancel()) as there:
        program = there.open("echo; exec sleep 100")
        buffer = memoryview(bytearray(10))
        assert program.receive_into(buffer) == 1
        host.end_sessions()
        with pytest.raises(ConnectionError):
            program.receive_into(buffer)
        program.close()
        assert there.run("echo again").stdout == b"again\n"


def test_a_connection_that_breaks_and_still_looks_alive(
    host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the host's no to a program does not end it: it is asked whether it is there."""
    from paramiko import Channel, SSHException

    unlink, wait, broken = Channel._unlink, Channel._wait_for_event, threading.Event()

    def late(channel: Any) -> None:
        unlink(channel)
        time.sleep(1.0)  # the thread that learns of it is held up before it tells

    def breaks(channel: Any) -> None:
        if broken.is_set():
            wait(channel)
            return
        broken.set()
        wire.cut()
        raise SSHException("Channel closed.")

    with tcp_proxy(host.port) as wire:
        known = _known_on(wire.port, host, tmp_path)
        place = replace(place_of(host), port=wire.port, known_hosts=known)
        with connect(place, cancel=Cancel()) as there:
            monkeypatch.setattr(Channel, "_unlink", late)
            monkeypatch.setattr(Channel, "_wait_for_event", breaks)
            assert there.run("echo again").stdout == b"again\n"


def test_a_host_that_never_comes_back(tmp_path: Path) -> None:
    with sshd(tmp_path / "ssh") as server, tcp_proxy(server.port) as wire:
        known = _known_on(wire.port, server, tmp_path)
        place = replace(place_of(server), port=wire.port, known_hosts=known)
        with connect(place, cancel=Cancel(), patience=0.5) as there:
            os.kill(server.pid, 9)
            wire.cut()
            with pytest.raises(ConnectionError):
                while True:
                    there.run("true")


def test_a_host_that_vanishes_without_a_word(
    host: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection is closed: it is asked whether it is there."""
    monkeypatch.setattr("v2v.inputs._ssh.config.ALIVE_SECONDS", 0.1)
    monkeypatch.setattr("v2v.inputs._ssh.link.DEAD_SECONDS", 15.0)  # a busy host is there
    with tcp_proxy(host.port) as wire:
        known = _known_on(wire.port, host, tmp_path)
        place = replace(place_of(host), port=wire.port, known_hosts=known)
        with connect(place, cancel=Cancel()) as there:
            program = there.open("exec cat")
            wire.stall()
            with monkeypatch.context() as vanished:
                vanished.setattr("v2v.inputs._ssh.link.DEAD_SECONDS", 0.5)
                with pytest.raises(ConnectionError):
                    program.receive_into(memoryview(bytearray(1)))
            wire.flow()
            assert there.run("echo again").stdout == b"again\n"


def test_a_program_that_says_nothing_for_long(host: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host answers meanwhile, so that none of the alarms ends the connection."""
    alarms: list[Alarm] = []

    class Alarm(threading.Timer):
        def __init__(self, seconds: float, end: Callable[[], None]) -> None:
            super().__init__(seconds, end)
            alarms.append(self)

    monkeypatch.setattr("v2v.inputs._ssh.config.ALIVE_SECONDS", 0.05)
    with connect(place_of(host), cancel=Cancel()) as there:
        with monkeypatch.context() as watched:
            watched.setattr(threading, "Timer", Alarm)
            program = there.open("read word; echo $word")
            for number in range(5):
                deadline = time.monotonic() + DEAD_SECONDS / 2
                while len(alarms) <= number or not alarms[number].finished.is_set():
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
        program.send(b"done\n")
        buffer = memoryview(bytearray(10))
        assert bytes(buffer[: program.receive_into(buffer)]) == b"done\n"


def test_a_job_that_is_cancelled_waits_for_no_host(host: Sshd) -> None:
    cancel = Cancel()
    with connect(place_of(host), cancel=cancel) as there:
        program = there.open("exec sleep 100")
        threading.Timer(0.1, cancel.cancel).start()
        with pytest.raises(ConnectionError):
            program.receive_into(memoryview(bytearray(1)))
        with pytest.raises(Cancelled):
            there.open("true")


def test_a_server_that_starts_no_programs(tmp_path: Path) -> None:
    with (
        sshd(tmp_path / "ssh", sftp=False) as server,
        connect(place_of(server), cancel=Cancel()) as there,
    ):
        with pytest.raises(ProgramRefused):
            there.subsystem("sftp")
        assert there.run("echo still").stdout == b"still\n"


def _known_on(port: int, host: Sshd, folder: Path) -> Path:
    known = folder / f"known_hosts.{port}"
    known.write_text(host.known_hosts.read_text().replace(str(host.port), str(port)))
    return known


# ---- whether it is the host


def test_a_host_that_is_not_known_is_not_trusted(host: Sshd, home: Path) -> None:
    error = refused("ssh-host-key", replace(place_of(host), known_hosts=None))
    key = host_key(host)
    assert f"ssh-ed25519 {key.fingerprint}" in error.message
    assert f"-io ssh-hostkey={key.fingerprint}" in str(error.hint)
    assert list((home / ".ssh").iterdir()) == []
    works(replace(place_of(host), known_hosts=None, host_key=key.fingerprint))


def test_the_fingerprint_is_that_of_ssh_keygen(host: Sshd) -> None:
    file = str(host.identity.with_name("host-key.pub"))
    shown = subprocess.run(["ssh-keygen", "-lf", file], capture_output=True, text=True, check=True)
    assert is_wanted(host_key(host), shown.stdout.split()[1])


@pytest.mark.parametrize("name", ["host-key", "host-key1", "host-key2"])
def test_the_fingerprint_of_any_key_that_the_host_has(host: Sshd, name: str) -> None:
    given = host_key(host, name).fingerprint
    works(replace(place_of(host), known_hosts=None, host_key=given))


def test_a_fingerprint_of_another_host(host: Sshd) -> None:
    given = host_key(host, "client-key").fingerprint
    error = refused("ssh-host-key", replace(place_of(host), host_key=given))
    for name in ("host-key", "host-key1", "host-key2"):
        assert host_key(host, name).fingerprint in error.message


@pytest.mark.parametrize("word", ["SHA256:abc", "MD5:00:11", "", "ssh-ed25519 AAAA"])
def test_what_is_no_fingerprint(host: Sshd, word: str) -> None:
    with (
        pytest.raises(UsageError),
        connect(replace(place_of(host), host_key=word), cancel=Cancel()),
    ):
        pass


@pytest.mark.parametrize("name", ["host-key1", "host-key2"])
def test_a_host_that_is_known_by_one_of_its_keys(host: Sshd, tmp_path: Path, name: str) -> None:
    """It would offer another one first."""
    key = (host.identity.with_name(f"{name}.pub")).read_text()
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{host.port} {key}\n")
    works(replace(place_of(host), known_hosts=known))


def known_lines(host: Sshd) -> dict[str, str]:
    kind_and_key = " ".join(host.known_hosts.read_text().split()[1:])
    return {
        "wildcards": f"[127.0.*]:{host.port} {kind_and_key}",
        "several": f"other,[127.0.0.1]:{host.port},third {kind_and_key}",
        "comment": f"# a comment\n\n[127.0.0.1]:{host.port} {kind_and_key} me@here",
        "odd lines": f"garbage\n[127.0.0.1]:{host.port} ssh-ed25519 !!!\n"
        f"[127.0.0.1]:{host.port} {kind_and_key}",
    }


@pytest.mark.parametrize("form", ["wildcards", "several", "comment", "odd lines"])
def test_forms_of_known_hosts(host: Sshd, tmp_path: Path, form: str) -> None:
    known = tmp_path / "known"
    known.write_text(known_lines(host)[form] + "\n")
    works(replace(place_of(host), known_hosts=known))


def test_hashed_names(host: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(host.known_hosts.read_text())
    subprocess.run(["ssh-keygen", "-Hf", str(known)], check=True, capture_output=True)
    assert "127.0.0.1" not in known.read_text()
    works(replace(place_of(host), known_hosts=known))


@pytest.mark.parametrize("names", ["127.0.0.1", "[127.0.0.1]:1", "!{},*", "@cert-authority {}"])
def test_lines_about_others(host: Sshd, tmp_path: Path, names: str) -> None:
    name, *rest = host.known_hosts.read_text().split()
    known = tmp_path / "known"
    known.write_text(" ".join([names.format(name), *rest]) + "\n")
    assert (
        "is not known"
        in refused("ssh-host-key", replace(place_of(host), known_hosts=known)).message
    )


def test_a_host_whose_key_has_changed(host: Sshd, tmp_path: Path) -> None:
    key = (host.identity.with_name("client-key.pub")).read_text()
    known = tmp_path / "known"
    known.write_text(f"[127.0.0.1]:{host.port} {key}")
    error = refused("ssh-host-key", replace(place_of(host), known_hosts=known))
    assert "another host may have taken its place" in error.message
    assert f"{known}:1" in error.message
    assert f"ssh-keygen -R '[127.0.0.1]:{host.port}'" in str(error.hint)


def test_a_revoked_key(host: Sshd, tmp_path: Path) -> None:
    known = tmp_path / "known"
    line = host.known_hosts.read_text()
    known.write_text(f"{line}@revoked * {' '.join(line.split()[1:])}\n")
    assert "revoked" in refused("ssh-host-key", replace(place_of(host), known_hosts=known)).message


# ---- logging in


def password_file(tmp_path: Path, word: str = WORD) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{word}\n")
    return file


def test_a_password_as_the_answer_to_a_question(asking: Sshd, tmp_path: Path) -> None:
    place = replace(place_of(asking), identity=tmp_path / "none")
    works(replace(place, password_file=password_file(tmp_path)))
    error = refused("ssh-login", replace(place, password_file=password_file(tmp_path, "barley")))
    assert "answer to the host's question" in error.message
    assert "barley" not in f"{error.message}{error.hint}"


def test_a_password(tmp_path: Path) -> None:
    with sshd(tmp_path / "ssh", password=WORD) as server:
        place = replace(place_of(server), identity=None)
        works(replace(place, password_file=password_file(tmp_path)))
        error = refused("ssh-login", replace(place, password_file=password_file(tmp_path, "x")))
        assert "Tried: the password" in error.message
        assert (tmp_path / "ssh/log").read_text().count("Failed password") == 1


def test_a_password_of_the_environment(
    asking: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No program that is started inherits it, whoever starts it."""
    monkeypatch.setenv("V2V_PASSWORD", WORD)
    works(replace(place_of(asking), identity=tmp_path / "none"))
    assert "V2V_PASSWORD" not in os.environ
    works(replace(place_of(asking), identity=tmp_path / "none"))


def test_a_key_besides_a_password_that_is_wrong(asking: Sshd, tmp_path: Path) -> None:
    works(replace(place_of(asking), password_file=password_file(tmp_path, "barley")))


def test_a_wrong_password_is_tried_once_by_all_connections(tmp_path: Path) -> None:
    """ESXi locks an account after five failures; the key goes on to work."""
    with sshd(tmp_path / "ssh", password=WORD) as server:
        place = replace(place_of(server), password_file=password_file(tmp_path, "barley"))
        for _ in range(3):
            works(place)
        error = refused("ssh-login", replace(place, identity=tmp_path / "none"))
        assert "not tried again" in error.message
        assert (tmp_path / "ssh/log").read_text().count("Failed password") == 1
        works(replace(place, identity=None, password_file=password_file(tmp_path)))


def test_an_empty_password_is_not_tried(tmp_path: Path) -> None:
    with sshd(tmp_path / "ssh", password=WORD) as server:
        place = replace(place_of(server), password_file=password_file(tmp_path, ""))
        with pytest.raises(UsageError, match="empty"), connect(place, cancel=Cancel()):
            pass
        assert "Failed" not in (tmp_path / "ssh/log").read_text()


def test_a_password_that_can_be_read_once(tmp_path: Path) -> None:
    """-ip <(pass show esxi)"""
    ours, theirs = os.pipe()
    os.write(theirs, f"{WORD}\n".encode())
    os.close(theirs)
    with sshd(tmp_path / "ssh", password=WORD) as server:
        place = replace(place_of(server), identity=None, password_file=Path(f"/dev/fd/{ours}"))
        works(place)
        works(place)
    os.close(ours)


def test_a_login_that_the_network_ends_is_tried_again(asking: Sshd, tmp_path: Path) -> None:
    place = replace(place_of(asking), identity=None, password_file=password_file(tmp_path))
    with tcp_proxy(asking.port) as wire:
        known = tmp_path / "known"
        known.write_text(place.known_hosts.read_text().replace(str(asking.port), str(wire.port)))
        with connect(
            replace(place, port=wire.port, known_hosts=known), cancel=Cancel(), connections=1
        ) as there:
            cuts = 0
            for size in range(1000, 3000, 100):  # in the middle of this or that
                before = wire.connections()
                wire.cut()
                wire.cut_after(size)
                with suppress(ConnectionError):  # in the middle of the command
                    assert there.run("echo in").stdout == b"in\n"
                cuts += wire.connections() > before + 1
        assert cuts


def test_a_key_and_a_password(tmp_path: Path) -> None:
    both = "AuthenticationMethods publickey,password"
    with sshd(tmp_path / "ssh", password=WORD, extra=both) as server:
        works(replace(place_of(server), password_file=password_file(tmp_path)))
        assert str(server.identity) in refused("ssh-login", place_of(server)).message


def test_a_user_who_is_not_there(host: Sshd) -> None:
    error = refused("ssh-login", replace(place_of(host), user="nobody-here"))
    assert "nobody-here" in error.message
    assert "nobody-here" in str(error.hint)


def test_nothing_to_log_in_with(host: Sshd) -> None:
    error = refused("ssh-login", replace(place_of(host), identity=None))
    assert "neither a key nor a password" in error.message


def test_a_key_that_is_not_there_or_none(host: Sshd, tmp_path: Path) -> None:
    error = refused("ssh-login", replace(place_of(host), identity=tmp_path / "none"))
    assert f"{tmp_path / 'none'} is not there" in error.message
    (tmp_path / "text").write_text("buy milk\n")
    error = refused("ssh-login", replace(place_of(host), identity=tmp_path / "text"))
    assert f"{tmp_path / 'text'} is no private key" in error.message


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    address = tmp_path / "agent"
    with subprocess.Popen(
        ["ssh-agent", "-D", "-a", str(address)], stdout=subprocess.DEVNULL
    ) as process:
        monkeypatch.setenv("SSH_AUTH_SOCK", str(address))
        while not listens(address):
            assert process.poll() is None
        yield
        process.terminate()


def listens(address: Path) -> bool:
    """An agent's socket is there before anybody may connect to it."""
    with socket.socket(socket.AF_UNIX) as one:
        return one.connect_ex(str(address)) == 0


def test_a_key_of_the_agent(host: Sshd, agent: None, tmp_path: Path) -> None:
    """Also that of a file that is encrypted."""
    locked = tmp_path / "locked"
    locked.write_bytes(host.identity.read_bytes())
    locked.chmod(0o600)
    Path(f"{locked}.pub").write_bytes(host.identity.with_name("client-key.pub").read_bytes())
    argv = ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", str(locked)]
    subprocess.run(argv, check=True, capture_output=True)
    error = refused("ssh-login", replace(place_of(host), identity=locked))
    assert f"ssh-add {locked}" in error.message
    subprocess.run(["ssh-add", "-q", str(host.identity)], check=True)
    works(replace(place_of(host), identity=locked))
    works(replace(place_of(host), identity=None))


def test_more_keys_than_a_server_takes(tmp_path: Path, agent: None) -> None:
    with sshd(tmp_path / "ssh", extra="MaxAuthTries 1") as server:
        for name in ("one", "two", "three"):
            file = str(tmp_path / name)
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file]
            subprocess.run(argv, check=True)
            subprocess.run(["ssh-add", "-q", file], check=True)
        refused("ssh-login", replace(place_of(server), identity=None))
        works(place_of(server))


# ---- connecting


def test_no_ssh_server(host: Sshd) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = replace(place_of(host), port=unused.getsockname()[1])
        assert "refused" in refused("ssh-unreachable", place).message
    place = replace(place_of(host), host="host.invalid")
    with pytest.raises(V2VError) as caught, connect(place, cancel=Cancel()):
        pass
    assert caught.value.id == "ssh-unreachable"
    assert "host.invalid" in caught.value.message


def test_another_kind_of_server(host: Sshd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            with suppress(OSError):
                while True:
                    end, _ = server.accept()
                    with end:
                        end.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=speak, daemon=True).start()
        refused("ssh-unreachable", replace(place_of(host), port=server.getsockname()[1]))


@contextmanager
def hostile(answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """The port of a host that says what it likes to the first who comes, until he goes."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            with suppress(OSError):
                end, _ = server.accept()
                with end:
                    answer(end)

        thread = threading.Thread(target=speak)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def endless_greeting(end: socket.socket) -> None:
    while True:
        end.sendall(b"x" * MiB)


def endless_packet(end: socket.socket) -> None:
    end.sendall(b"SSH-2.0-x\r\n\xff\xff\xff\xf4")
    while True:
        end.sendall(bytes(MiB))


@pytest.mark.parametrize(
    ("answer", "words"), [(endless_greeting, "does not end"), (endless_packet, "4294967280 bytes")]
)
def test_a_host_that_talks_without_end(
    host: Sshd, answer: Callable[[socket.socket], object], words: str
) -> None:
    """Whoever it is: that is not known before a key was agreed on."""
    with hostile(answer) as port:
        assert words in refused("ssh-unreachable", replace(place_of(host), port=port)).message


@pytest.mark.parametrize("errors", [False, True])
def test_a_host_that_sends_more_than_it_may(tmp_path: Path, *, errors: bool) -> None:
    with hostile(lambda end: flood(end, host_key_of(tmp_path), errors=errors)) as port:
        known = tmp_path / "known"
        known.write_text(f"[127.0.0.1]:{port} {host_key_of(tmp_path).get_name()} ")
        with known.open("a") as out:
            out.write(host_key_of(tmp_path).get_base64())
        place = SshPlace(host="127.0.0.1", port=port, user="root", known_hosts=known)
        with connect(place, cancel=Cancel(), connections=1) as there:
            program = there.open("flood")
            lane = there._lanes[0]
            program.send(b"!")
            deadline = time.monotonic() + 30
            while lane.alive and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not lane.alive
            assert len(program._channel.in_buffer) <= WINDOW + MiB
            assert len(program._channel.in_stderr_buffer) <= WINDOW + MiB


def host_key_of(folder: Path) -> Any:
    import paramiko

    file = folder / "flood-key"
    if not file.exists():
        paramiko.ECDSAKey.generate().write_private_key_file(str(file))
    return paramiko.ECDSAKey(filename=str(file))


def flood(end: socket.socket, key: Any, *, errors: bool) -> None:
    """Let everybody in, start everything, and send 64 MiB of its output, whatever the window is."""
    import paramiko

    class Server(paramiko.ServerInterface):
        def check_auth_none(self, username: str) -> int:
            return int(paramiko.AUTH_SUCCESSFUL)

        def check_channel_request(self, kind: str, chanid: int) -> int:
            return int(paramiko.OPEN_SUCCEEDED)

        def check_channel_exec_request(self, channel: Any, command: bytes) -> bool:
            return True

    transport = paramiko.Transport(end)
    transport.add_server_key(key)
    transport.start_server(server=Server())
    channel = transport.accept(30)
    channel.recv(1)  # it has started: a connection that breaks before would be made anew
    message = paramiko.Message()
    message.add_byte(bytes([95 if errors else 94]))  # CHANNEL_EXTENDED_DATA, CHANNEL_DATA
    message.add_int(channel.remote_chanid)
    if errors:
        message.add_int(1)
    message.add_string(bytes(32768))
    with suppress(OSError, EOFError, paramiko.SSHException):
        for _ in range(2048):
            transport._send_user_message(message)
        transport.join(30)
    transport.close()


def test_a_host_that_takes_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshd's MaxStartups counts those who are not in yet: other jobs that begin."""
    monkeypatch.setattr("v2v.inputs._ssh.connection.BUSY_SECONDS", 60.0)
    with sshd(tmp_path / "ssh", starts="1:100:1") as server, socket.socket() as other:
        other.connect(("127.0.0.1", server.port))
        assert other.recv(4) == b"SSH-"
        with pytest.raises(Cancelled), connect(place_of(server), cancel=soon(0.5)):
            pass
        threading.Timer(0.5, lambda: other.shutdown(socket.SHUT_RDWR)).start()
        works(place_of(server))


def soon(seconds: float) -> Cancel:
    cancel = Cancel()
    threading.Timer(seconds, cancel.cancel).start()
    return cancel


def test_a_host_that_says_nothing(host: Sshd, home: Path) -> None:
    (home / ".ssh/config").write_text("ConnectTimeout 1\n")
    with socket.create_server(("127.0.0.1", 0)) as server:
        refused("ssh-unreachable", replace(place_of(host), port=server.getsockname()[1]))


def test_a_job_that_is_cancelled_while_it_connects(host: Sshd) -> None:
    cancel = Cancel()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            with server.accept()[0]:
                cancel.cancel()

        threading.Thread(target=take, daemon=True).start()
        place = replace(place_of(host), port=server.getsockname()[1])
        with pytest.raises(Cancelled), connect(place, cancel=cancel):
            pass


def test_nothing_is_left_of_connections(host: Sshd) -> None:
    works(place_of(host))
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        works(place_of(host))
        with pytest.raises(V2VError), connect(replace(place_of(host), user="x"), cancel=Cancel()):
            pass
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_no_cipher_in_common(tmp_path: Path) -> None:
    with sshd(tmp_path / "ssh", extra="Ciphers chacha20-poly1305@openssh.com") as server:
        refused("ssh-algorithms", place_of(server))


# ---- ~/.ssh/config


def config_of(host: Sshd, *lines: str) -> str:
    own = [
        "HostName 127.0.0.1",
        f"Port {host.port}",
        f"User {host.user}",
        f"IdentityFile {host.identity}",
        f'UserKnownHostsFile "{host.known_hosts}"',
    ]
    return "Host esxi\n" + "".join(f"  {line}\n" for line in [*own, *lines])


def test_the_users_configuration(host: Sshd, home: Path) -> None:
    (home / ".ssh/config").write_text(config_of(host))
    works(SshPlace(host="esxi"))


def test_files_that_it_includes(host: Sshd, home: Path) -> None:
    (home / ".ssh/config").write_text("Include conf.d/*\nInclude config\n")
    (home / ".ssh/conf.d").mkdir()
    (home / ".ssh/conf.d/esxi").write_text(config_of(host))
    works(SshPlace(host="esxi"))


def test_no_command_of_the_configuration_is_run_to_match(host: Sshd, home: Path) -> None:
    mark = home / "mark"
    (home / ".ssh/config").write_text(
        f'Match exec "touch {mark}"\n  Port 1\nMatch host esxi !exec "touch {mark}"\n  Port 1\n'
        + config_of(host)
    )
    works(SshPlace(host="esxi"))
    assert not mark.exists()


def test_another_name_among_known_hosts(host: Sshd, home: Path, tmp_path: Path) -> None:
    known = tmp_path / "known"
    known.write_text(f"the-esxi {' '.join(host.known_hosts.read_text().split()[1:])}\n")
    (home / ".ssh/config").write_text(config_of(host, "HostKeyAlias the-esxi"))
    works(SshPlace(host="esxi", known_hosts=known))


@pytest.mark.parametrize(
    "ciphers", ["aes256-ctr", "+chacha20-poly1305@openssh.com", "^aes256-*", "-aes128-gcm*"]
)
def test_chosen_ciphers(host: Sshd, home: Path, ciphers: str) -> None:
    (home / ".ssh/config").write_text(config_of(host, f"Ciphers {ciphers}"))
    works(SshPlace(host="esxi"))


@pytest.mark.parametrize("line", ["Port many", "Ciphers none-such", "Match host", "Port"])
def test_a_configuration_that_makes_no_sense(host: Sshd, home: Path, line: str) -> None:
    (home / ".ssh/config").write_text(f"Host *\n  {line}\n")
    with pytest.raises(UsageError) as caught, connect(SshPlace(host="esxi"), cancel=Cancel()):
        pass
    assert caught.value.id == "ssh-config"


def test_through_another_host(host: Sshd, home: Path, tmp_path: Path) -> None:
    with sshd(tmp_path / "jump") as jump:
        known = tmp_path / "both"
        known.write_text(host.known_hosts.read_text() + jump.known_hosts.read_text())
        (home / ".ssh/config").write_text(
            config_of(host, "ProxyJump nearer")
            + f"Host nearer\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {jump.user}\n"
            f"  IdentityFile {jump.identity}\nHost *\n  UserKnownHostsFile {known}\n"
        )
        works(SshPlace(host="esxi"))
        assert "Accepted publickey" in (tmp_path / "jump/log").read_text()
        jump.known_hosts.write_text("")
        known.write_text(host.known_hosts.read_text())
        with pytest.raises(V2VError) as caught, connect(SshPlace(host="esxi"), cancel=Cancel()):
            pass
        assert caught.value.id == "ssh-host-key"
        assert "nearer" in caught.value.message


def test_the_password_is_not_for_the_host_on_the_way(
    host: Sshd, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sshd(tmp_path / "jump", password=WORD) as jump:
        known = tmp_path / "both"
        known.write_text(host.known_hosts.read_text() + jump.known_hosts.read_text())
        (home / ".ssh/config").write_text(
            config_of(host, "ProxyJump nearer")
            + f"Host nearer\n  HostName 127.0.0.1\n  Port {jump.port}\n  User {jump.user}\n"
            f"Host *\n  UserKnownHostsFile {known}\n"
        )
        monkeypatch.setenv("V2V_PASSWORD", WORD)
        for given in (None, password_file(tmp_path)):
            with pytest.raises(V2VError) as caught:
                works(SshPlace(host="esxi", password_file=given))
            assert "nearer" in caught.value.message
        assert "password" not in (tmp_path / "jump/log").read_text()


def test_through_itself(host: Sshd, home: Path) -> None:
    (home / ".ssh/config").write_text(config_of(host, "ProxyJump esxi"))
    with pytest.raises(UsageError) as caught, connect(SshPlace(host="esxi"), cancel=Cancel()):
        pass
    assert caught.value.id == "ssh-config"


def test_through_a_command(host: Sshd, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets no password, and ends with the connection."""
    seen = home / "seen"
    monkeypatch.setenv("V2V_PASSWORD", "")
    command = f"env > {seen}; exec python3 -c '{RELAY}' %h %p"
    (home / ".ssh/config").write_text(config_of(host, f"ProxyCommand {command}"))
    works(SshPlace(host="esxi"))
    assert "V2V_PASSWORD" not in seen.read_text()
    (home / ".ssh/config").write_text(config_of(host, "ProxyCommand exit 1"))
    with pytest.raises(V2VError) as caught, connect(SshPlace(host="esxi"), cancel=Cancel()):
        pass
    assert caught.value.id == "ssh-unreachable"


RELAY = (
    "import socket,sys,os,threading;"
    "s=socket.create_connection((sys.argv[1],int(sys.argv[2])));"
    "f=lambda a,b:[b(d) for d in iter(a,bytes())];"
    "threading.Thread(target=f,args=(lambda:os.read(0,65536),s.sendall),daemon=True).start();"
    "f(lambda:s.recv(65536),lambda d:os.write(1,d))"
)
