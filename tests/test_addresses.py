"""No message goes to an address that is not meant for the public, however the address is written or
a name is looked up.
"""

from __future__ import annotations

import _socket
import ssl
import time
from collections.abc import Iterable
from typing import Any

import pytest

from stripe_feed.delivery import addresses
from stripe_feed.delivery.addresses import (
    Blocked,
    Connections,
    Resolver,
    Target,
    check_url,
    may_call,
    resolve,
)
from stripe_feed.errors import SetupError, Unreachable, UsageError

PUBLIC = "8.8.8.8"

LOCAL = [
    "http://127.0.0.1/",
    "http://127.1/",
    "http://127.0.1/",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0x7f.0.0.1/",
    "http://0177.0.0.1/",
    "http://017700000001/",
    "http://127.0.0.1./",
    "http://①②⑦.⓪.⓪.①/",
    "http://127。0。0。1/",
    "http://127.255.255.254/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.0.1/",
    "http://0xc0a80001/",
    "http://[::ffff:10.0.0.1]/",
    "http://100.64.0.1/",
    "http://[fc00::1]/",
    "http://[fd12:3456::1]/",
]
NEVER = [
    "http://0.0.0.0/",
    "http://0/",
    "http://[::]/",
    "http://[::ffff:0.0.0.0]/",
    "http://169.254.169.254/",
    "http://2852039166/",
    "http://0xa9fea9fe/",
    "http://0251.0376.0251.0376/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://[::169.254.169.254]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[fd00:ec2::254]/",
    "http://100.100.100.200/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://192.0.2.1/",
    "http://192.88.99.1/",
    "http://198.18.0.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[3fff::1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::8.8.8.8]/",
    "http://[64:ff9b:1::10.0.0.1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[100::1]/",
    "http://[5f00::1]/",
]
GOOD = [
    "https://8.8.8.8/",
    "https://1.1.1.1:8443/x",
    "https://134744072/",
    "https://172.15.255.255/",
    "https://172.32.0.1/",
    "https://[2606:4700:4700::1111]/",
    "https://[::ffff:8.8.8.8]/",
]


def numbers(host: str, port: int, **more: Any) -> Iterable[Any]:
    """The system's own reading of an address, without a name server; the suite's guard would stop
    at the odd forms.
    """
    return _socket.getaddrinfo(host, port, type=more["type"], flags=_socket.AI_NUMERICHOST)


def answering(*answers: list[str]) -> tuple[Resolver, list[str]]:
    """A name server that gives these answers one after the other, and the names it was asked for."""
    left, asked = list(answers), []

    def lookup(host: str, port: int, **more: Any) -> Iterable[Any]:
        asked.append(host)
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(0, more["type"], 6, "", (address, port)) for address in found]

    return lookup, asked


@pytest.mark.parametrize("url", LOCAL + NEVER)
def test_no_local_address_is_called_however_it_is_written(url: str) -> None:
    target = check_url(url.replace("http:", "https:"))

    with pytest.raises(Blocked, match="not public") as refusal:
        resolve(target.host, target.port, lookup=numbers)

    assert str(refusal.value).startswith(target.host)


@pytest.mark.parametrize("url", LOCAL)
def test_a_tool_nearby_is_called_where_that_is_allowed(url: str) -> None:
    target = check_url(url, allow_private=True)

    assert len(resolve(target.host, target.port, True, numbers)) == 1


@pytest.mark.parametrize("url", NEVER)
def test_metadata_multicast_and_unspecified_addresses_are_never_called(url: str) -> None:
    target = check_url(url, allow_private=True)

    with pytest.raises(Blocked, match="never called"):
        resolve(target.host, target.port, True, numbers)


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("url", GOOD)
def test_public_addresses_are_called(url: str, allow_private: bool) -> None:
    target = check_url(url, allow_private)

    assert len(resolve(target.host, target.port, allow_private, numbers)) == 1


def test_a_local_name_is_judged_by_its_address() -> None:
    for name in ("localhost", "localhost.", "LOCALHOST", "ⓛocalhost"):
        with pytest.raises(Blocked):
            resolve(check_url(f"https://{name}/").host, 443)


@pytest.mark.parametrize(
    "found",
    [[PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC], [PUBLIC, "::1"], ["2606:4700::1", "fe80::1%1"]],
)
def test_one_address_that_may_not_be_called_blocks_the_name(found: list[str]) -> None:
    with pytest.raises(
        Blocked, match=r"^hooks\.example\.com leads to an address that is not public\."
    ):
        resolve("hooks.example.com", 443, lookup=answering(found)[0])


def test_public_addresses_come_once_each_in_the_order_of_the_name_server() -> None:
    lookup, asked = answering([PUBLIC, "2606:4700::1", PUBLIC, "1.1.1.1"])

    assert resolve("hooks.example.com", 443, lookup=lookup) == [PUBLIC, "2606:4700::1", "1.1.1.1"]
    assert asked == ["hooks.example.com"]


@pytest.mark.parametrize("fault", [OSError(8, "unknown"), UnicodeError()])
def test_a_name_without_an_address_may_have_one_later(fault: Exception) -> None:
    def fails(*_: Any, **__: Any) -> Iterable[Any]:
        raise fault

    for lookup in (fails, answering([])[0]):
        with pytest.raises(Unreachable, match=r"hooks\.example\.com"):
            resolve("hooks.example.com", 443, lookup=lookup)


@pytest.mark.parametrize("later", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1"])
def test_a_name_that_turns_private_is_not_followed(
    later: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: what is dialled is what was judged, and the next look-up is judged anew."""
    dialled: list[list[str]] = []
    seconds = [0.0]

    def refuses(target: Target, found: list[str], *_: Any) -> None:
        dialled.append(found)
        raise ConnectionRefusedError

    monkeypatch.setattr(addresses, "connect", refuses)
    lookup, asked = answering([PUBLIC], [later])
    connections = Connections(
        check_url("https://hooks.example.com/"), lookup=lookup, monotonic=lambda: seconds[0]
    )

    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            connections.post(b"{}", {}, 5)
    seconds[0] = 31.0
    for _ in range(2):
        with pytest.raises(Blocked):
            connections.post(b"{}", {}, 5)

    assert dialled == [[PUBLIC], [PUBLIC]]
    assert asked == ["hooks.example.com"] * 3


def test_the_socket_goes_to_the_judged_address_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second look-up under the connection, whatever the addresses do; the last fault is told."""
    dialled: list[Any] = []

    def refuses(self: Any, peer: Any) -> None:
        dialled.append(peer)
        raise ConnectionRefusedError

    monkeypatch.setattr(addresses.DeadlineSocket, "connect", refuses)
    lookup, asked = answering(["2606:4700::1", PUBLIC])

    with pytest.raises(ConnectionRefusedError):
        Connections(check_url("https://hooks.example.com:8443/"), lookup=lookup).post(b"{}", {}, 5)

    assert dialled == [("2606:4700::1", 8443), (PUBLIC, 8443)]
    assert asked == ["hooks.example.com"]


def test_a_silent_address_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[float] = []

    def silent(self: addresses.DeadlineSocket, _: Any) -> None:
        given.append(self.give_up_at - began)
        raise TimeoutError

    monkeypatch.setattr(addresses.DeadlineSocket, "connect", silent)
    began = time.monotonic()

    with pytest.raises(TimeoutError):
        addresses.connect(Target(False, "x", 80, "/"), [PUBLIC, "1.1.1.1"], None, began + 10)

    assert [round(one) for one in given] == [5, 10]


@pytest.mark.parametrize(
    ("url", "target", "authority"),
    [
        ("https://Example.com", Target(True, "example.com", 443, "/"), "example.com"),
        (
            "https://example.com.:8443/a?b=c",
            Target(True, "example.com", 8443, "/a?b=c"),
            "example.com:8443",
        ),
        (
            "https://bücher.example/ü/%20?q=é",
            Target(True, "xn--bcher-kva.example", 443, "/%C3%BC/%20?q=%C3%A9"),
            "xn--bcher-kva.example",
        ),
        (
            "https://[2606:4700::0:1]:444/",
            Target(True, "2606:4700::1", 444, "/"),
            "[2606:4700::1]:444",
        ),
        ("https://a_b.example?x=1", Target(True, "a_b.example", 443, "/?x=1"), "a_b.example"),
        ("https://example.com:80/", Target(True, "example.com", 80, "/"), "example.com:80"),
    ],
)
def test_a_url_is_split_as_it_goes_over_the_wire(url: str, target: Target, authority: str) -> None:
    assert check_url(url) == target
    assert check_url(url).authority == authority


def test_http_takes_leave() -> None:
    assert check_url("http://localhost:5678/webhook/x", allow_private=True) == Target(
        False, "localhost", 5678, "/webhook/x"
    )
    with pytest.raises(
        UsageError, match="must begin with https://; http:// takes allow_private = true"
    ):
        check_url("http://localhost:5678/webhook/x")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.com/s3cret",
        "https:///s3cret",
        "https://",
        "https:example.com",
        "//example.com/s3cret",
        "ftp://example.com/s3cret",
        "file:///s3cret",
        "https://user:s3cret@example.com/",
        "https://s3cret@example.com/",
        "https://@example.com/s3cret",
        "https://example.com/#s3cret",
        "https://example.com/s3cret#",
        "https://example.com:0/s3cret",
        "https://example.com:65536/s3cret",
        "https://example.com:-1/s3cret",
        "https://example.com:x/s3cret",
        "https://exa mple.com/s3cret",
        "https://example.com/s3cret x",
        "https://example.com/s3cret\r\nHost: x",
        "https://example.com/\ts3cret",
        " https://example.com/s3cret",
        "https://example.com\\@127.0.0.1/s3cret",
        "https://example.com/s3cret\\x",
        "https://a..example/s3cret",
        "https://.example.com/s3cret",
        "https://[::1/s3cret",
        "https://[fe80::1%25eth0]/s3cret",
        "https://[v1.x]/s3cret",
        "https://exa%6dple.com/s3cret",
        f"https://{'a' * 64}.com/s3cret",
        f"https://{'a.' * 127}com/s3cret",
        "https://example.com\u2100.x/s3cret",
        "https://a;b/s3cret",
        "https://example.com/s3cret\u200b",
        "https://example.com/s3cret\x00",
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_what_no_url_may_be_is_reported_in_one_line_without_its_secrets(
    url: str, allow_private: bool
) -> None:
    with pytest.raises(UsageError) as refusal:
        check_url(url, allow_private)

    text = str(refusal.value)
    assert text.startswith("The URL ")
    assert "s3cret" not in text and "\n" not in text


def test_a_blocked_name_is_a_matter_of_set_up() -> None:
    assert issubclass(Blocked, SetupError)
    assert (
        may_call(PUBLIC) and not may_call("127.0.0.1") and may_call("127.0.0.1", allow_private=True)
    )


def test_certificates_are_always_verified(tmp_path: Any) -> None:
    context = Connections(check_url("https://example.com/"))._context

    assert context is not None
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    (tmp_path / "ca.pem").write_text("nonsense")
    for name in ("ca.pem", "missing.pem"):
        with pytest.raises(SetupError, match="cannot be read"):
            Connections(check_url("https://example.com/"), ca_certs=str(tmp_path / name))
