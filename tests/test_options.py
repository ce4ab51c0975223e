"""Options of modules: from flags and words to values, with errors that help."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from v2v import options
from v2v.errors import UsageError
from v2v.options import OptionHelp, option
from v2v.types import Allocation, DiskFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    storage: Path = option("-os", "the folder")
    format: DiskFormat | None = option("-of", "the format", default=None)
    allocation: Allocation = option("-oa", "how", default=Allocation.SPARSE)
    compressed: bool = option("-oo compressed", "smaller", default=False)
    level: int = option("-oo level", "how small", default=6)
    name: str = option("-oo name", "a name", default="")


def parse(**given: str) -> Sample:
    flags = {"os": "-os", "of": "-of", "oa": "-oa"}
    words = {flags.get(key, f"-oo {key}"): word for key, word in given.items()}
    return options.parse(Sample, words, module="-o sample")


def test_words_become_values() -> None:
    got = parse(os="/srv", of="qcow2", oa="preallocated", compressed="", level="9", name="a=b")
    assert got == Sample(
        storage=Path("/srv"),
        format=DiskFormat.QCOW2,
        allocation=Allocation.PREALLOCATED,
        compressed=True,
        level=9,
        name="a=b",
    )


def test_defaults() -> None:
    got = parse(os="/srv")
    assert (got.format, got.allocation, got.compressed, got.level) == (None, "sparse", False, 6)


def test_paths_do_not_depend_on_the_current_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    monkeypatch.setenv("HOME", "/home/joe")
    assert parse(os="a").storage == Path("/usr/a")
    assert parse(os="~/a").storage == Path("/home/joe/a")


@pytest.mark.parametrize("word", ["", "true", "YES", "on", "1"])
def test_true(word: str) -> None:
    assert parse(os="/", compressed=word).compressed


@pytest.mark.parametrize("word", ["false", "No", "off", "0"])
def test_false(word: str) -> None:
    assert not parse(os="/", compressed=word).compressed


def refused(given: dict[str, str]) -> UsageError:
    with pytest.raises(UsageError) as caught:
        options.parse(Sample, given, module="-o sample")
    return caught.value


@pytest.mark.parametrize(
    ("given", "id", "message", "hint"),
    [
        ({}, "option-required", "-o sample needs -os", "the folder"),
        ({"-os": "/", "-oo compresed": ""}, "option-unknown", "-o sample", "-oo compressed?"),
        ({"-os": "/", "-oo zzz": ""}, "option-unknown", "-oo zzz", "it takes: -os, -of"),
        ({"-os": "/", "-of": "qcow"}, "option-value", "'qcow' is not one of raw", "qcow2?"),
        ({"-os": "/", "-oo level": "x"}, "option-value", "-oo level: 'x' is not a number", ""),
        ({"-os": "/", "-oo compressed": "perhaps"}, "option-value", "neither true nor false", ""),
    ],
)
def test_bad_options(given: dict[str, str], id: str, message: str, hint: str) -> None:
    error = refused(given)
    assert error.id == id
    assert message in str(error)
    assert hint in (error.hint or "")


def test_a_module_without_options() -> None:
    assert options.parse(options.NoOptions, {}, module="-o null") == options.NoOptions()
    with pytest.raises(UsageError, match="-o null does not take -os") as caught:
        options.parse(options.NoOptions, {"-os": "/"}, module="-o null")
    assert caught.value.hint == "it takes: no options"


def test_help_tells_of_every_option() -> None:
    rows = {row.flag: row for row in options.describe(Sample)}
    assert rows["-os"] == OptionHelp("-os", "PATH", "the folder", None)
    assert rows["-of"].metavar == "raw|qcow2|vmdk|vpc|vhdx|vdi"
    assert rows["-oo compressed"].metavar == ""
    assert rows["-oo level"] == OptionHelp("-oo level", "N", "how small", "6")


def test_did_you_mean() -> None:
    assert options.did_you_mean("locla", ["local", "null"]) == "did you mean local?"
    assert options.did_you_mean("xyz", ["local", "null"]) is None


# Keys that the module does not know, and words that may be given several times -------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    transport: str | None = option("-it", "how", default=None)
    snapshot: str | None = option("-io snapshot", "which", default=None)
    files: tuple[str, ...] = option("-io file", "a file", default=(), metavar="FILE")
    free: options.FREE = options.free_options(
        "-io", "a parameter of the plugin", only_with=("-it", "nbdkit:")
    )


def test_free_keys_are_taken_with_the_option_that_they_belong_to() -> None:
    words = {"-it": "nbdkit:nfc", "-io snapshot": "one", "-io server": "{server}", "-io a.b": ""}
    got = options.parse(Open, words, module="-i open")
    assert got.free == (("server", "{server}"), ("a.b", ""))
    assert got.snapshot == "one"


@pytest.mark.parametrize("transport", [{}, {"-it": "ssh"}])
def test_without_it_they_are_typing_errors(transport: dict[str, str]) -> None:
    with pytest.raises(UsageError) as caught:
        options.parse(Open, {**transport, "-io snapshoot": "x"}, module="-i open")
    assert (caught.value.id, caught.value.hint) == ("option-unknown", "did you mean -io snapshot?")


def test_free_keys_are_those_of_one_option_only() -> None:
    with pytest.raises(UsageError, match="does not take -oo a"):
        options.parse(Open, {"-it": "nbdkit:x", "-oo a": ""}, module="-i open")


def test_help_tells_that_there_are_free_keys() -> None:
    rows = options.describe(Open)
    assert OptionHelp("-io KEY", "VALUE", "a parameter of the plugin", "") in rows


def test_words_of_an_option_that_is_repeated() -> None:
    assert options.repeatable(Open) == {"-io file"}
    got = options.parse(
        Open, {"-io file": options.SEPARATOR.join(["a:b", "c d"])}, module="-i open"
    )
    assert got.files == ("a:b", "c d")
    assert options.parse(Open, {}, module="-i open").files == ()


def test_files_with_secrets_do_not_depend_on_the_current_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir("/usr")
    words = {"-io password": "+pw", "-io cookie": "+{password-file}", "-io a": "b", "-io c": "+/d"}
    assert options.anchored(Open, words) == {**words, "-io password": "+/usr/pw"}


@pytest.mark.parametrize("key", ["password", "ssh-Passphrase", "vddk-cookie", "session.token"])
def test_no_secret_is_taken_to_be_kept(key: str) -> None:
    words = {"-it": "nbdkit:x", f"-io {key}": "hunter2"}
    for take in (options.anchored, lambda cls, words: options.parse(cls, words, module="-i open")):
        with pytest.raises(UsageError) as caught:
            take(Open, words)
        assert caught.value.id == "option-secret"
        assert "hunter2" not in f"{caught.value} {caught.value.hint}"
        take(Open, {**words, f"-io {key}": "+/root/secret"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelled:
    cluster: str = option("-oo rhv-cluster", "where", default="", also=["-oo ovirt-cluster"])
    disks: options.REPEATED = option("-oo rhv-disk", "which", default=(), also=["-oo ovirt-disk"])


def test_an_option_of_two_spellings() -> None:
    assert options.anchored(Spelled, {"-oo ovirt-cluster": "a"}) == {"-oo rhv-cluster": "a"}
    words = {"-oo ovirt-cluster": "a", "-oo ovirt-disk": "b", "-oo rhv-disk": "c"}
    assert options.parse(Spelled, words, module="-o x") == Spelled(cluster="a", disks=("b", "c"))
    assert options.repeatable(Spelled) == {"-oo rhv-disk", "-oo ovirt-disk"}
    with pytest.raises(UsageError) as caught:
        options.parse(Spelled, {"-oo rhv-cluster": "a", "-oo ovirt-cluster": "b"}, module="-o x")
    assert caught.value.id == "option-conflict"
