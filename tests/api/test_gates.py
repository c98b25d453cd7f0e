"""Which Host and Origin headers pass: what browsers send on behalf of pages, against what SDKs send."""

from __future__ import annotations

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from serverfull.api.gates import HOSTS_KEPT, Gates
from serverfull.config import ServerSettings
from serverfull.errors import RequestRefused


def gates(bound: str = "127.0.0.1", **settings: object) -> Gates:
    return Gates(ServerSettings(**settings), bound, machine="build-7")


def passes(gate: Gates, *headers: tuple[str, str], target_host: str | None = None) -> bool:
    try:
        gate.check(CIMultiDictProxy(CIMultiDict(headers)), target_host)
    except RequestRefused:
        return False
    return True


LOOPBACK_HOSTS = [
    "localhost",
    "LOCALHOST:8080",
    "localhost.",
    "localhost:",
    "abc123.lambda-url.us-east-1.localhost:8080",
    "127.0.0.1",
    "127.0.0.1:1",
    "127.0.0.1.:8080",
    "127.8.9.10:8080",
    "[::1]",
    "[::1]:8080",
    "[0:0:0:0:0:0:0:1]:8080",
    "[::ffff:127.0.0.1]:8080",
]

STRANGE_HOSTS = [
    "evil.com",
    "evil.com:8080",
    "localhost.evil.com",
    "127.0.0.1.evil.com",
    "127.0.0.1.nip.io:8080",
    "notlocalhost",
    "localhost..",
    "",
    " ",
    "localhost localhost",
    "localhost,evil.com",
    "localhost@evil.com",
    "user:pass@localhost",
    "localhost:80@evil.com",
    "localhost/../",
    "localhost#",
    "localhost\\",
    "localhost:80:80",
    "localhost:abc",
    "localhost:123456",
    "::1",
    "[::1",
    "[::1]x",
    "[localhost]",
    "[127.0.0.1]",
    "[::1%25lo]",
    "0.0.0.0:8080",
    "[::]:8080",
    "[::ffff:0.0.0.0]",
    "2130706433",
    "0x7f.1",
    "127.1",
    "0177.0.0.1",
    "10.0.0.5",
    "build-7",
    "metadata.google.internal",
    "xn--lcalhost-54a",
    "löcalhost",
    "localhost\u3002",
]


@pytest.mark.parametrize("host", LOOPBACK_HOSTS)
def test_names_of_loopback_pass_on_any_port(host: str) -> None:
    assert passes(gates(), ("Host", host))


@pytest.mark.parametrize("host", STRANGE_HOSTS)
def test_a_host_that_is_not_ours_is_refused(host: str) -> None:
    assert not passes(gates(), ("Host", host))
    assert not passes(gates("::1"), ("Host", host))


def test_listed_names_and_the_bind_address_pass_without_regard_to_case_port_or_final_dot() -> None:
    listed = gates(allowed_hosts=("Lambda.Example.com", "0.0.0.0"))
    assert passes(listed, ("Host", "lambda.example.COM.:9000"))
    assert passes(listed, ("Host", "0.0.0.0:8080"))
    assert not passes(listed, ("Host", "sub.lambda.example.com"))
    assert passes(gates("10.1.2.3"), ("Host", "10.1.2.3:8080"))
    assert passes(gates("lambda.internal"), ("Host", "LAMBDA.internal:80"))


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "10.1.2.3", ""])
def test_a_host_that_other_machines_reach_takes_addresses_and_its_own_name_but_no_other_name(bound: str) -> None:
    gate = gates(bound)
    for host in (
        "192.168.1.5:8080",
        "172.17.0.2",
        "[2001:db8::5]:8080",
        "[fe80::1]",
        "build-7:8080",
        "BUILD-7",
        "localhost",
    ):
        assert passes(gate, ("Host", host)), host
    for host in ("evil.com", "build-7.evil.com", "0.0.0.0:8080", "[::]", "224.0.0.1", "255.255.255.255", "[ff02::1]"):
        assert not passes(gate, ("Host", host)), host


def test_the_host_of_an_absolute_target_is_checked_as_well() -> None:
    gate = gates()
    assert passes(gate, ("Host", "localhost"), target_host="127.0.0.1:8080")
    assert not passes(gate, ("Host", "localhost"), target_host="evil.com")
    assert not passes(gate, ("Host", "localhost"), target_host="localhost@evil.com")
    assert not passes(gate, ("Host", "evil.com"), target_host="localhost")


def test_a_request_without_host_passes_because_every_browser_sends_one() -> None:
    assert passes(gates(), ("User-Agent", "HAProxy"))


def test_forwarded_headers_change_nothing() -> None:
    assert not passes(gates(), ("Host", "evil.com"), ("X-Forwarded-Host", "localhost"), ("Forwarded", "host=localhost"))
    assert passes(gates(), ("Host", "localhost"), ("X-Forwarded-Host", "evil.com"), ("X-Forwarded-For", "127.0.0.1"))


HOST = ("Host", "127.0.0.1:8080")


@pytest.mark.parametrize(
    "headers",
    [
        # fetch() with text/plain, no-cors fetch, and a form's POST
        [("Origin", "https://evil.com"), ("Sec-Fetch-Site", "cross-site"), ("Content-Type", "text/plain")],
        [("Origin", "https://evil.com")],
        [("Origin", "null")],
        [("Origin", "null"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", "file://")],
        [("Origin", "")],
        [("Origin", "http://localhost.evil.com")],
        [("Origin", "http://localhost:9999"), ("Sec-Fetch-Site", "same-site")],
        [("Origin", "http://127.0.0.1:9999")],
        [("Origin", "http://127.0.0.1")],
        [("Origin", "http://127.0.0.1:8080.evil.com")],
        [("Origin", "http://127.0.0.1:8080@evil.com")],
        [("Origin", "http://127.0.0.1:8080/")],
        [("Origin", "chrome-extension://abcdef")],
        [("Origin", "https://app.example.com.evil.com")],
        [("Origin", "http://app.example.com")],
        [("Origin", "https://app.example.com:444")],
        [("Origin", "https://app.example.com, https://evil.com")],
        # a preflight, and Chrome's for private networks
        [("Origin", "https://evil.com"), ("Access-Control-Request-Method", "POST")],
        [("Origin", "https://evil.com"), ("Access-Control-Request-Private-Network", "true")],
        # <img>, <script>, a link: no Origin, but Sec-Fetch-Site
        [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")],
        [("Sec-Fetch-Site", "same-site")],
        [("Sec-Fetch-Site", "something-new")],
        # what claims to be of this host, but the browser says otherwise
        [("Origin", "http://127.0.0.1:8080"), ("Sec-Fetch-Site", "cross-site")],
        [("Origin", "https://app.example.com"), ("Origin", "https://evil.com")],
    ],
)
def test_pages_of_other_origins_are_refused(headers: list[tuple[str, str]]) -> None:
    assert not passes(gates(allowed_origins=("https://app.example.com",)), HOST, *headers)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("Sec-Fetch-Site", "none"), ("Sec-Fetch-Mode", "navigate")],
        [("Sec-Fetch-Site", "same-origin")],
        [("Origin", "http://127.0.0.1:8080"), ("Sec-Fetch-Site", "same-origin")],
        [("Origin", "http://127.0.0.1:8080")],
        [("Origin", "https://app.example.com")],
        [("Origin", "https://app.example.com"), ("Sec-Fetch-Site", "cross-site")],
        [("Referer", "https://evil.com/")],
    ],
)
def test_sdks_own_pages_and_listed_origins_pass(headers: list[tuple[str, str]]) -> None:
    assert passes(gates(allowed_origins=("https://app.example.com",)), HOST, *headers)


def test_a_rebound_page_is_same_origin_for_its_browser_and_still_refused() -> None:
    page = [("Host", "evil.com:8080"), ("Origin", "http://evil.com:8080"), ("Sec-Fetch-Site", "same-origin")]
    assert not passes(gates(), *page)


def test_a_refusal_says_what_to_do_and_shows_the_value_harmlessly() -> None:
    with pytest.raises(RequestRefused, match="allowed_hosts") as refused:
        gates().check(CIMultiDict([("Host", "évil\x1b[2J" + "x" * 500)]))
    assert refused.value.message.isascii()
    assert len(refused.value.message) < 300
    with pytest.raises(RequestRefused, match="allowed_origins"):
        gates().check(CIMultiDict([HOST, ("Origin", "https://evil.com")]))


def test_accepted_hosts_are_remembered_in_bounded_memory_and_refused_ones_not_at_all() -> None:
    gate = gates()
    for number in range(3 * HOSTS_KEPT):
        assert passes(gate, ("Host", f"f{number}.localhost"))
        assert not passes(gate, ("Host", f"f{number}.evil.com"))
    assert 0 < len(gate._passed) <= HOSTS_KEPT
    assert not passes(gate, ("Host", "evil.com"))
