"""Logging in: keys of the agent and of files, a password, or questions that ask for one.

A password that the user gave is tried first, and a wrong one once only, however many connections
there are: ESXi locks an account after five failures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from v2v.errors import SourceError, UsageError, V2VError
from v2v.inputs._ssh.config import Settings
from v2v.password import (
    find_password,
    forget_password,
    given_password,
    is_refused,
    refuse_password,
)

KEY, PASSWORD, QUESTIONS = "publickey", "password", "keyboard-interactive"
MAX_STEPS = 4  # a host may want several proofs, one after another
ANSWER_SECONDS = 60.0  # a host may look us up before it answers, or delay those who fail

# Accounts that this process was in: if a login ends early there, it was the network.
_let_in: set[str] = set()


@dataclass(slots=True)
class Login:
    """One attempt to log in, and what was tried."""

    transport: Any  # paramiko.Transport, with its host verified
    settings: Settings
    password_file: Path | None
    jump: bool  # on the way to the host that is meant: V2V_PASSWORD is not for this one
    tried: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # why a key was not tried

    def run(self) -> None:
        """SourceError `ssh-login` if the host does not let us in; ConnectionError if it is lost."""
        from paramiko import SSHException

        self.transport.auth_timeout = ANSWER_SECONDS
        try:
            wanted = self._none()
            for _ in range(MAX_STEPS):
                if not wanted:
                    return _let_in.add(self.settings.account)
                wanted = self._step(wanted)
        except (SSHException, EOFError, OSError) as exc:
            ended = not self.transport.is_active()  # they end what fails too often
            if ended and self.tried and self.settings.account not in _let_in:
                raise self._refused() from exc
            raise ConnectionError(str(exc) or "the connection has ended") from exc
        raise self._refused()

    def _none(self) -> list[str]:
        """What the host wants of us; asking is an attempt that proves nothing."""
        from paramiko import BadAuthenticationType

        try:
            self.transport.auth_none(self.settings.user)
        except BadAuthenticationType as exc:
            return list(exc.allowed_types)
        return []

    def _step(self, wanted: list[str]) -> list[str]:
        """Give one proof; what the host wants besides, nothing if we are in."""
        file, who = self.password_file, self.settings.who
        word = given_password(file, what=who, environment=not self.jump)
        if word == "":
            raise _empty(file)
        if word is not None and (left := self._by_password(word, wanted)) is not None:
            return left
        if KEY in wanted and (left := self._by_keys()) is not None:
            return left
        if word is None and (PASSWORD in wanted or QUESTIONS in wanted):
            word = find_password(file, what=who, environment=not self.jump)
            if word is not None and (left := self._by_password(word, wanted)) is not None:
                return left
            forget_password(who)
        raise self._refused()

    def _by_password(self, word: str, wanted: list[str]) -> list[str] | None:
        """None if the host refuses it, or did so before, or wants none."""
        from paramiko import SSHException

        if not {PASSWORD, QUESTIONS} & set(wanted):
            return None
        if is_refused(self.settings.account, word):
            self.notes.append("the password was refused before, and is not tried again")
            return None
        try:
            left = self._with_password(word, wanted)
        except SSHException:  # the connection has ended
            if self.settings.account not in _let_in:
                refuse_password(self.settings.account, word)
            raise
        if left is None:
            refuse_password(self.settings.account, word)
        return left

    def _with_password(self, word: str, wanted: list[str]) -> list[str] | None:
        user = self.settings.user
        if PASSWORD in wanted:
            self.tried.append("the password")
            return self._left(lambda: self.transport.auth_password(user, word, fallback=False))
        self.tried.append("the password, as the answer to the host's question")
        answers = [word]

        def answer(title: str, text: str, fields: list[tuple[str, bool]]) -> list[str]:
            """One hidden question is that for the password; others we cannot answer."""
            hidden = [not shown for _, shown in fields]
            return [answers.pop() if hide and answers else "" for hide in hidden]

        return self._left(lambda: self.transport.auth_interactive(user, answer))

    def _by_keys(self) -> list[str] | None:
        for name, key in self._keys():
            self.tried.append(name)
            left = self._left(lambda: self.transport.auth_publickey(self.settings.user, key))  # noqa: B023
            if left is not None:
                return left
        return None

    def _left(self, attempt: Any) -> list[str] | None:
        from paramiko import AuthenticationException

        try:
            return list(attempt())
        except AuthenticationException:
            if not self.transport.is_active():
                raise
            return None

    def _keys(self) -> Iterator[tuple[str, Any]]:
        """Those of files first if somebody named them, else those of the agent."""
        agents = _agent_keys()
        files = list(self._file_keys({key.asbytes(): key for key in agents}))
        others = (
            [] if self.settings.identities_only else [("a key of the agent", k) for k in agents]
        )
        seen = set()
        for name, key in [*files, *others] if self.settings.identity_named else [*others, *files]:
            if key.asbytes() not in seen:
                seen.add(key.asbytes())
                yield name, key

    def _file_keys(self, agents: dict[bytes, Any]) -> Iterator[tuple[str, Any]]:
        from paramiko import PasswordRequiredException, PKey, SSHException

        for path in self.settings.identities:
            try:
                yield str(path), PKey.from_path(path)
            except FileNotFoundError:
                if self.settings.identity_named:
                    self.notes.append(f"{path} is not there")
            except (PasswordRequiredException, TypeError):  # TypeError: as cryptography says it
                if (key := agents.get(_public(path))) is not None:
                    yield f"{path} by the agent", key
                else:
                    self.notes.append(
                        f"{path} is encrypted, and not in the agent: `ssh-add {path}`"
                    )
            except ValueError:  # which cryptography tells at length
                self.notes.append(f"{path} is no private key that v2v can read")
            except (SSHException, OSError) as exc:
                self.notes.append(f"{path} cannot be used: {exc}")

    def _refused(self) -> V2VError:
        tried = ", ".join(self.tried) or "nothing, as there was neither a key nor a password"
        return SourceError(
            f"{self.settings.shown}: the host does not let {self.settings.user} in. Tried: {tried}"
            + "".join(f"; {note}" for note in self.notes),
            id="ssh-login",
            hint=f"{self._remedy()}; "
            f"`ssh -p {self.settings.port} {self.settings.who}` must work from here",
        )

    def _remedy(self) -> str:
        """-ip is the vCenter's password where one tells of the VM."""
        if any("the password" in one for one in [*self.tried, *self.notes]):
            return (
                "is the password right? ESXi refuses even the right one for some minutes after "
                "several wrong ones. A key is -io ssh-identity=FILE"
            )
        return (
            "give a file with the password (-ip FILE; beside -ic vpx:// -io ssh-password=FILE), "
            "or a key (-io ssh-identity=FILE)"
        )


def _empty(file: Path | None) -> UsageError:
    return UsageError(
        f"-ip {file}: the password is empty",
        id="password-file",
        hint="name a file whose first line is the password",
    )


def _agent_keys() -> list[Any]:
    from paramiko import Agent, SSHException

    try:
        return list(Agent().get_keys())
    except (SSHException, OSError):
        return []


def _public(path: Path) -> bytes:
    """The public half of a key, from the file beside it."""
    import base64
    import binascii

    try:
        return base64.b64decode(Path(f"{path}.pub").read_text().split()[1])
    except (OSError, IndexError, binascii.Error, UnicodeDecodeError):
        return b""
