"""The Host gate and the Origin gate: what keeps web pages of other sites away from a host without authentication.

A browser is the one client that sends requests on behalf of strangers. Two gates stop it, and both look at headers that
only browsers send truthfully and that a page cannot forge:

Host gate (DNS rebinding)
    The Host header, and the authority of an absolute-form request target, must be one that the host goes by:

    - ``localhost``, any name below ``.localhost``, 127.0.0.0/8 and ``[::1]``;
    - the address that the host is bound to, and each name of ``allowed_hosts``;
    - where the bind is not loopback: the machine's own host name, and any IP address of a single machine. An address
      cannot be rebound, since there is no name whose meaning could change, and behind address translation (a
      published port of a container) it is not one that this machine knows. Other names must be listed.

    The port is not compared: port forwarding changes it, and rebinding does not need it. ``0.0.0.0`` and ``[::]`` are
    never accepted unless listed, because browsers reach loopback by them. A request without Host (HTTP/1.0) passes:
    every browser sends one.

Origin gate (cross-site request forgery)
    A request with an ``Origin`` passes only if the value is one of ``allowed_origins``, letter by letter, or if the
    page came from this very host and port (a page that an extended application serves). ``null``, ``file://`` and
    ``http://localhost:9999`` are other origins. ``Sec-Fetch-Site`` must say ``same-origin`` or ``none`` (the address
    bar) where no listed Origin comes with it. No CORS header is ever sent, so preflights are refused like the rest.

`serverfull.api.app` calls `Gates.check` for each request before anything else happens. SDKs send neither Origin nor
Sec-Fetch-Site, and a Host that was accepted once is remembered, so a request of theirs costs three look-ups in its
headers. ``X-Forwarded-*`` and ``Forwarded`` are ignored: anyone can send them.
"""

from __future__ import annotations

import re
import socket
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Protocol

from multidict import istr

from serverfull.errors import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serverfull.config import ServerSettings

Address = IPv4Address | IPv6Address

HOSTS_KEPT = 256
HOST = istr("Host")
ORIGIN = istr("Origin")
SEC_FETCH_SITE = istr("Sec-Fetch-Site")
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]{2,45})\]|(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}))(?::[0-9]{0,5})?"
)
_OWN_SITES = ("same-origin", "none")


class Headers(Protocol):
    """The headers of a request, looked up without regard to case; aiohttp's fit."""

    def get(self, key: str, /) -> str | None:
        """Give the first value of a header."""

    def getall(self, key: str, /) -> Sequence[str]:
        """Give all values of a header that is there."""


class Gates:
    """Both gates; one instance for a host.

    :param settings: ``allowed_hosts`` and ``allowed_origins`` are used.
    :param bound_host: the address or name that the host listens on, without port.
    :param machine: the machine's host name; the default asks the system.
    """

    def __init__(self, settings: ServerSettings, bound_host: str, machine: str | None = None) -> None:
        bound = _without_brackets(bound_host)
        names = {_canonical(name) for name in settings.allowed_hosts}
        self._names = frozenset(names)
        bound_address = _address(bound)
        self._open = not _is_loopback(bound, bound_address)
        own = {_canonical(bound)} if not (bound_address is not None and bound_address.is_unspecified) else set()
        if self._open:
            own.add(_canonical(machine if machine is not None else socket.gethostname()))
        self._own = frozenset(own - {""})
        self._origins = frozenset(settings.allowed_origins)
        # Host values that passed. Values that did not are not kept: they cost the attacker's connection, not memory.
        self._passed: set[str] = set()

    def check(self, headers: Headers, host_from_absolute_uri: str | None = None) -> None:
        """Let a request pass or refuse it, before anything happens.

        :param host_from_absolute_uri: the authority of a request target like ``http://host:port/path``.
        :raises RequestRefused: a gate refuses the request.
        """
        host = headers.get(HOST)
        if host is not None and host not in self._passed:
            self._check_host(host)
        if host_from_absolute_uri is not None:
            self._check_host(host_from_absolute_uri)
        origin = headers.get(ORIGIN)
        site = headers.get(SEC_FETCH_SITE)
        if origin is not None:
            self._check_origins(headers, host_from_absolute_uri or host, site)
        elif site is not None and site not in _OWN_SITES:
            raise RequestRefused(
                "A web page of another site made this request (Sec-Fetch-Site). "
                "Only pages of server.allowed_origins may."
            )

    def _check_host(self, host: str) -> None:
        if not self._goes_by(host):
            raise RequestRefused(
                f"This host does not go by the name in the Host header ({_shown(host)}). "
                "Names beyond loopback and the bind address are listed in server.allowed_hosts."
            )
        if len(self._passed) >= HOSTS_KEPT:
            self._passed.clear()
        self._passed.add(host)

    def _goes_by(self, host: str) -> bool:
        match = _AUTHORITY.fullmatch(host)
        if match is None:
            return False
        if match["six"] and not isinstance(_address(match["six"]), IPv6Address):
            return False
        name = _canonical(match["six"] or match["name"])
        address = _address(name)
        if name in self._names or name in self._own or _is_loopback(name, address):
            return True
        return self._open and address is not None and _is_single_machine(address)

    def _check_origins(self, headers: Headers, host: str | None, site: str | None) -> None:
        for origin in headers.getall(ORIGIN):
            if origin in self._origins:
                continue
            same = host is not None and origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")
            if not same or (site is not None and site not in _OWN_SITES):
                raise RequestRefused(
                    f"A web page made this request (Origin {_shown(origin)}). Only pages of server.allowed_origins may."
                )


def _canonical(name: str) -> str:
    """Write names and addresses in one way: lower case, no final dot, IPv6 shortened, IPv4 in IPv6 as IPv4."""
    name = _without_brackets(name.strip()).lower()
    address = _address(name)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    if address is not None:
        return str(address)
    return name.removesuffix(".")


def _without_brackets(name: str) -> str:
    return name[1:-1] if name.startswith("[") and name.endswith("]") else name


def _address(name: str) -> Address | None:
    try:
        return ip_address(name)
    except (ValueError, AddressValueError):
        return None


def _is_loopback(name: str, address: Address | None) -> bool:
    if address is not None:
        return address.is_loopback
    return name == "localhost" or name.endswith(".localhost")


def _is_single_machine(address: Address) -> bool:
    return not (address.is_unspecified or address.is_multicast or address.is_reserved)


def _shown(value: str) -> str:
    """Cut a client's value short and keep it to printable ASCII, for messages and logs."""
    return ascii(value[:80])
