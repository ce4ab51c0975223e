"""Addresses: what is written is read again as it was, and what is none is refused."""

from __future__ import annotations

import string
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from v2v.address import NBD_SCHEMES, OUTPUT_LOGIN, Address, parse
from v2v.errors import UsageError
from v2v.registry import check_no_password

SCHEMES = (*NBD_SCHEMES, "http", "https", "ssh", "rbd", "qemu+ssh")
TEXT = st.text(max_size=12)
NAMES = st.from_regex(r"[a-zé_0-9][a-zé_0-9.-]{0,11}", fullmatch=True)
HOSTS = st.one_of(NAMES, st.sampled_from(["", "::1", "fd00::1", "fe80::1%eth0", "127.0.0.1"]))
USERS = st.none() | st.text(min_size=1, max_size=12).filter(lambda name: name[0] != "-")
PATHS = st.just("") | TEXT.map(lambda text: f"/{text}")
QUERIES = st.dictionaries(st.text(min_size=1, max_size=5), TEXT, max_size=3)


@settings(max_examples=300)
@given(
    st.builds(
        Address,
        st.sampled_from(SCHEMES),
        HOSTS,
        st.none() | st.integers(1, 65535),
        USERS,
        PATHS,
        QUERIES,
    )
)
def test_what_is_written_is_read_again_as_it_was(address: Address) -> None:
    uri = address.write()
    assert uri.isascii()
    assert parse(uri) == address
    assert parse(uri).write() == uri


@given(
    user=st.text(string.ascii_letters + "%25", max_size=5),
    password=st.text(string.printable, min_size=1, max_size=8),
    scheme=st.sampled_from(SCHEMES),
)
def test_a_password_is_refused_and_not_repeated(user: str, password: str, scheme: str) -> None:
    secret = f"<{password}>"
    if "/" in secret:  # then it is a port, and no number
        secret = secret.replace("@", "")
    with pytest.raises(UsageError) as caught:
        check_no_password([f"{scheme}://{user}:{secret}@host/disk"])
    assert caught.value.id in ("password-in-uri", "uri-invalid")
    assert secret not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("uri", "id"),
    [
        ("nbd://h:ten/", "uri-invalid"),
        ("nbd://h:0/", "uri-invalid"),
        ("nbd://h:65536/", "uri-invalid"),
        ("nbd://[::1/", "uri-invalid"),
        ("ssh://-oProxyCommand=x/disk", "uri-invalid"),
        ("ssh://%2DoProxyCommand=x/disk", "uri-invalid"),
        ("ssh://-oProxyCommand=x@h/disk", "uri-invalid"),
        ("ssh://%2Dl@h/disk", "uri-invalid"),
        ("ssh://a b/disk", "uri-invalid"),
        ("ssh://h%2Fx/disk", "uri-invalid"),
        ("iscsi://joe%25sesame@h/iqn.a/0", "password-in-uri"),
        ("http://:sesame@h/", "password-in-uri"),
    ],
)
def test_what_is_no_address_is_refused(uri: str, id: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(uri)
    assert caught.value.id == id
    assert caught.value.hint


@pytest.mark.parametrize(
    ("scheme", "given", "taken"),
    [
        ("qemu+ssh", {}, "-ip"),
        ("qemu+ssh", {"login": OUTPUT_LOGIN}, "-op"),
        ("nbds", {"login": OUTPUT_LOGIN}, "?tls-psk-file="),
    ],
)
@pytest.mark.parametrize("place", ["me:sesame@h/", "h:ten/"])
def test_it_is_told_where_a_secret_goes(
    scheme: str, given: dict[str, str], taken: str, place: str
) -> None:
    with pytest.raises(UsageError) as caught:
        parse(f"{scheme}://{place}", **given)
    options = [word for word in ("-ip", "-op", "?tls-psk-file=") if word in str(caught.value.hint)]
    assert options == [taken]


def test_files_of_this_host_do_not_depend_on_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse("nbds+unix:///a+b?socket=s&tls-psk-file=/k&tls-certificates=")
    query = {"socket": str(tmp_path / "s"), "tls-psk-file": "/k", "tls-certificates": ""}
    assert address.anchored() == replace(address, query=query)
    assert address.path == "/a+b"
