"""virt-v2v's users type what they know."""

from __future__ import annotations

import pytest

from v2v.cli.argv import Option, Takes, normalise
from v2v.errors import UsageError

OPTIONS = [
    Option("-o", Takes.VALUE, "o"),
    Option("-oo", Takes.VALUE, "oo"),
    Option("-os", Takes.VALUE, "os"),
    Option("-i", Takes.VALUE, "i"),
    Option("-m", Takes.VALUE, "memsize"),
    Option("--memsize", Takes.VALUE, "memsize"),
    Option("--mac", Takes.VALUE, "mac"),
    Option("--machine-readable", Takes.MAY, "machine"),
    Option("-n", Takes.VALUE, "network"),
    Option("--network", Takes.VALUE, "network"),
    Option("--no-fstrim", Takes.NOTHING, "fstrim"),
    Option("--color", Takes.NOTHING, "color"),
    Option("--colors", Takes.NOTHING, "color"),
    Option("-v", Takes.NOTHING, "verbose"),
    Option("-x", Takes.NOTHING, "trace"),
]
UNSUPPORTED = {"firstboot": "run it later"}


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["-oo", "x"], ["-oo=x"]),
        (["--oo", "x"], ["-oo=x"]),
        (["-oo=x=y"], ["-oo=x=y"]),
        (["--network=a:b"], ["--network=a:b"]),
        (["-network", "a"], ["--network=a"]),
        (["--net", "a"], ["--network=a"]),
        (["--colo"], ["--color"]),  # two spellings of one option are not ambiguous
        (["--no-f"], ["--no-fstrim"]),
        (["-vx"], ["-v", "-x"]),
        (["-m2048"], ["-m=2048"]),
        (["-vm", "2048"], ["-v", "-m=2048"]),
        (["-onull"], ["-o=null"]),
        (["-o=null"], ["-o=null"]),
        (["-os", "-odd"], ["-os=-odd"]),
        (["-os="], ["-os="]),
        (["--machine-readable", "guest"], ["--machine-readable", "--", "guest"]),
        (["--machine-readable=fd:3"], ["--machine-readable=fd:3"]),
        (["a", "-i", "disk", "b", "-v"], ["-i=disk", "-v", "--", "a", "b"]),
        (["-v", "--", "-i"], ["-v", "--", "-i"]),
        (["-"], ["--", "-"]),
    ],
)
def test_spellings(typed: list[str], expected: list[str]) -> None:
    assert normalise(typed, OPTIONS, UNSUPPORTED) == expected


@pytest.mark.parametrize(
    ("typed", "id", "words"),
    [
        (["--ma", "x"], "option-ambiguous", "--mac, --machine-readable"),
        (["--netwrok", "x"], "option-unknown", "did you mean --network?"),
        (["-z"], "option-unknown", "see --help"),
        (["-vz"], "option-unknown", "see --help"),
        (["--o"], "option-value", "-o needs a value"),
        (["-os"], "option-value", "-os needs a value"),
        (["--no-fstrim=yes"], "option-value", "takes no value"),
        (["--firstboot", "x"], "option-unsupported", "run it later"),
        (["-firstboot=x"], "option-unsupported", "-firstboot is not supported yet"),
        (["--="], "option-unknown", "no such option"),
    ],
)
def test_refused(typed: list[str], id: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        normalise(typed, OPTIONS, UNSUPPORTED)
    assert caught.value.id == id
    assert words in f"{caught.value.message} {caught.value.hint}"


def test_errors_do_not_repeat_values() -> None:
    """A value may be a passphrase."""
    with pytest.raises(UsageError) as caught:
        normalise(["--kye=all:key:secret"], OPTIONS, UNSUPPORTED)
    assert "secret" not in f"{caught.value.message} {caught.value.hint}"
