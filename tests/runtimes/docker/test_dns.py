"""The containers' name server, asked by an independent implementation of DNS, with real sockets on both sides.

Its network here is 127.0.0.0/8, and the machine's address in it one that nothing else of the machine uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dns.asyncquery
import dns.edns
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import pytest

from serverfull.errors import StartupError
from serverfull.runtimes.docker import dns as dns_module
from serverfull.runtimes.docker import resolvers
from serverfull.runtimes.docker.dns import NameServer
from serverfull.runtimes.docker.resolvers import Resolvers, name_servers
from tests.conftest import DEADLINE, HostLog

SUFFIX = "localhost.localstack.cloud"
HERE = "127.0.0.73"
LOOPBACK = "127.0.0.0/8"
ELSEWHERE = "192.0.2.7"


class Upstream(asyncio.DatagramProtocol):
    """A resolver of the machine, which knows every name and, when told so, misbehaves."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.asked: list[dns.message.Message] = []
        self.answers = 1
        self.before: Callable[[dns.message.Message], bytes] | None = None
        self.code = dns.rcode.NOERROR
        self.silent = False
        self.came = asyncio.Event()
        self.port = 0
        self._transport: Any = None
        self._server: asyncio.Server | None = None

    async def open(self, port: int = 0) -> Upstream:
        loop = asyncio.get_running_loop()
        self._server = await asyncio.start_server(self._serve, self.address, port)
        self.port = self._server.sockets[0].getsockname()[1]
        await loop.create_datagram_endpoint(lambda: self, local_addr=(self.address, self.port))
        return self

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = self._take(data)
        if self.silent:
            return
        if self.before is not None:
            self._transport.sendto(self.before(query), addr)
        answer = self._answer(query)
        try:
            wire = answer.to_wire(max_size=max(query.payload, 512))
        except dns.exception.TooBig:
            answer = dns.message.make_response(query)
            answer.flags |= dns.flags.TC
            wire = answer.to_wire()
        self._transport.sendto(wire, addr)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(EOFError):
            query = self._take(await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big")))
            wire = self._answer(query).to_wire()
            if not self.silent:
                writer.write(len(wire).to_bytes(2, "big") + wire)
                await writer.drain()

    def _take(self, data: bytes) -> dns.message.Message:
        self.asked.append(dns.message.from_wire(data))
        self.came.set()
        return self.asked[-1]

    def _answer(self, query: dns.message.Message) -> dns.message.Message:
        answer = dns.message.make_response(query)
        answer.set_rcode(self.code)
        if self.code == dns.rcode.NOERROR:
            name = query.question[0].name
            addresses = [f"192.0.2.{number + 7}" for number in range(self.answers)]
            answer.answer.append(dns.rrset.from_text(name, 30, "IN", query.question[0].rdtype, *addresses))
        return answer


class Served:
    """A name server that listens, its resolvers, and the file that names them."""

    def __init__(self, server: NameServer, upstream: Upstream, asked: Resolvers, file: Path, log: HostLog) -> None:
        self.server, self.upstream, self.resolvers, self.file, self.log = server, upstream, asked, file, log

    async def ask(self, name: str, kind: str = "A", *, tcp: bool = False, **options: Any) -> dns.message.Message:
        return await self.send(dns.message.make_query(name, kind, **options), tcp=tcp)

    async def send(self, query: dns.message.Message, *, tcp: bool = False) -> dns.message.Message:
        ask = dns.asyncquery.tcp if tcp else dns.asyncquery.udp
        answer: dns.message.Message = await ask(query, HERE, timeout=DEADLINE, port=self.server.port)
        return answer


@pytest.fixture
async def served(tmp_path: Path) -> Any:
    upstream = await Upstream("127.0.0.2").open()
    file = tmp_path / "resolv.conf"
    file.write_text(f"nameserver {upstream.address}\n")
    log = HostLog()
    asked = Resolvers(HERE, file=file, port=upstream.port)
    server = NameServer([SUFFIX, "Example.Internal"], HERE, LOOPBACK, log, resolvers=asked, port=0)
    await server.open()
    yield Served(server, upstream, asked, file, log)
    await server.aclose()
    await upstream.aclose()
    await server.aclose()


def addresses(answer: dns.message.Message) -> list[str]:
    assert answer.rcode() == dns.rcode.NOERROR
    return [item.to_text() for found in answer.answer for item in found]


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize(
    "name",
    [SUFFIX, f"my-bucket.{SUFFIX}", f"a.b.c.{SUFFIX}", f"My-Bucket.{SUFFIX.upper()}", "x.example.internal"],
)
async def test_the_suffixes_and_all_names_below_them_are_this_machine(served: Served, name: str, tcp: bool) -> None:
    answer = await served.ask(name, tcp=tcp)
    assert addresses(answer) == [HERE]
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA
    assert answer.question[0].name.to_text() == f"{name}."
    assert served.upstream.asked == []


@pytest.mark.parametrize("kind", ["AAAA", "TXT", "HTTPS", "MX"])
async def test_the_suffixes_have_an_address_and_nothing_else(served: Served, kind: str) -> None:
    assert addresses(await served.ask(f"bucket.{SUFFIX}", kind)) == []
    assert served.upstream.asked == []


@pytest.mark.parametrize("tcp", [False, True])
@pytest.mark.parametrize("name", [f"not{SUFFIX}", "localstack.cloud", f"{SUFFIX}.example.com", "example.com", "."])
async def test_everything_else_is_what_the_machines_resolver_says(served: Served, name: str, tcp: bool) -> None:
    assert addresses(await served.ask(name, tcp=tcp)) == [ELSEWHERE]
    (asked,) = served.upstream.asked
    assert asked.question[0].name.to_text().rstrip(".") == name.rstrip(".")


async def test_what_a_resolver_says_of_names_that_there_are_not_comes_through(served: Served) -> None:
    served.upstream.code = dns.rcode.NXDOMAIN
    assert (await served.ask("gone.example")).rcode() == dns.rcode.NXDOMAIN


async def test_questions_go_out_under_numbers_of_their_own(served: Served) -> None:
    queries = [dns.message.make_query("example.com", "A", id=7) for _ in range(3)]
    for query in queries:
        assert (await served.send(query)).id == 7
    assert len({asked.id for asked in served.upstream.asked}) > 1


@pytest.mark.parametrize("forged", ["another question", "another number", "no answer", "nothing", "noise"])
async def test_answers_to_other_questions_are_not_taken_for_this_one(served: Served, forged: str) -> None:
    def forge(query: dns.message.Message) -> bytes:
        name = "other.example." if forged == "another question" else "example.com."
        answer = dns.message.make_response(dns.message.make_query(name, "A", id=query.id))
        answer.answer.append(dns.rrset.from_text(name, 30, "IN", "A", "192.0.2.66"))
        if forged == "another number":
            answer.id ^= 1
        if forged == "no answer":
            answer.flags ^= dns.flags.QR
        return {"nothing": b"", "noise": os.urandom(40)}.get(forged, answer.to_wire())

    served.upstream.before = forge
    assert addresses(await served.ask("example.com")) == [ELSEWHERE]


async def test_edns_is_answered_and_passed_on(served: Served) -> None:
    plain = await served.ask(f"b.{SUFFIX}")
    assert plain.edns == -1
    answer = await served.ask(f"b.{SUFFIX}", use_edns=0, payload=1232)
    assert (answer.edns, addresses(answer)) == (0, [HERE])
    unknown = await served.ask(f"b.{SUFFIX}", use_edns=1)
    assert unknown.rcode() == dns.rcode.BADVERS
    await served.ask("example.com", use_edns=0, payload=1400, want_dnssec=True)
    assert (served.upstream.asked[0].payload, bool(served.upstream.asked[0].ednsflags & dns.flags.DO)) == (1400, True)


async def test_what_is_too_long_for_a_datagram_is_asked_for_again_over_tcp(served: Served) -> None:
    served.upstream.answers = 100
    assert (await served.ask("many.example")).flags & dns.flags.TC
    assert len(addresses(await served.ask("many.example", use_edns=0, payload=4096))) == 100
    assert len(addresses(await served.ask("many.example", tcp=True))) == 100
    answer, over_tcp = await dns.asyncquery.udp_with_fallback(
        dns.message.make_query("many.example", "A"), HERE, timeout=DEADLINE, port=served.server.port
    )
    assert (over_tcp, len(addresses(answer))) == (True, 100)


async def test_an_answer_longer_than_its_client_takes_is_cut_here_if_the_resolver_did_not(served: Served) -> None:
    query = dns.message.make_query("many.example", "A")
    long = dns.message.make_response(query)
    long.answer.append(dns.rrset.from_text("many.example.", 1, "IN", "A", *(f"192.0.2.{n}" for n in range(60))))

    class Rude(Upstream):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            long.id = dns.message.from_wire(data).id
            self._transport.sendto(long.to_wire(), addr)

    rude = await Rude("127.0.0.3").open(served.upstream.port)
    served.file.write_text("nameserver 127.0.0.3\n")
    try:
        answer = await served.send(query)
        assert answer.flags & dns.flags.TC
        assert answer.answer == []
    finally:
        await rude.aclose()


async def test_several_questions_come_over_one_connection(served: Served) -> None:
    reader, writer = await asyncio.open_connection(HERE, served.server.port)
    names = [f"b.{SUFFIX}", "example.com", f"c.{SUFFIX}"]
    with contextlib.closing(writer):
        for number, name in enumerate(names):
            wire = dns.message.make_query(name, "A", id=number).to_wire()
            writer.write(len(wire).to_bytes(2, "big") + wire)
        for number, expected in enumerate([HERE, ELSEWHERE, HERE]):
            size = int.from_bytes(await asyncio.wait_for(reader.readexactly(2), DEADLINE), "big")
            answer = dns.message.from_wire(await reader.readexactly(size))
            assert (answer.id, addresses(answer)) == (number, [expected])


async def test_resolvers_that_do_not_answer_are_a_failure_in_time_and_said_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_PATIENCE", 0.05)
    served.upstream.silent = True
    for tcp in (False, True):
        assert (await served.ask("example.com", tcp=tcp)).rcode() == dns.rcode.SERVFAIL
        assert addresses(await served.ask(f"b.{SUFFIX}", tcp=tcp)) == [HERE]
    served.upstream.silent = False
    monkeypatch.undo()
    assert addresses(await served.ask("example.com")) == [ELSEWHERE]
    assert served.log.events() == [
        "warning: containers cannot look up names: no resolver answers",
        "info: containers can look up names again",
    ]


async def test_where_nobody_listens_the_next_resolver_is_asked(served: Served) -> None:
    served.file.write_text(f"nameserver 127.0.0.9\nnameserver {served.upstream.address}\n")
    assert addresses(await served.ask("example.com")) == [ELSEWHERE]
    assert addresses(await served.ask("example.com", tcp=True)) == [ELSEWHERE]


async def test_where_a_resolver_is_in_trouble_the_next_one_is_asked(served: Served) -> None:
    troubled = await Upstream("127.0.0.3").open(served.upstream.port)
    troubled.code = dns.rcode.SERVFAIL
    served.file.write_text(f"nameserver 127.0.0.3\nnameserver {served.upstream.address}\n")
    try:
        assert addresses(await served.ask("example.com")) == [ELSEWHERE]
        served.upstream.code = dns.rcode.REFUSED
        assert (await served.ask("example.com")).rcode() in (dns.rcode.SERVFAIL, dns.rcode.REFUSED)
    finally:
        await troubled.aclose()


async def test_a_server_never_asks_itself(served: Served) -> None:
    served.file.write_text("nameserver 127.0.0.73\n")
    assert served.resolvers.servers == ()
    assert (await served.ask("example.com")).rcode() == dns.rcode.SERVFAIL


async def test_the_machines_resolvers_are_looked_up_again_when_they_change(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "_LOOK_AGAIN", 0.0)
    await served.ask("example.com")
    served.file.write_text("nameserver 127.0.0.8\nnameserver 127.0.0.7\n")
    assert served.resolvers.servers == ("127.0.0.8", "127.0.0.7")
    served.file.unlink()
    assert served.resolvers.servers == ("127.0.0.8", "127.0.0.7")


def test_resolvers_that_the_operator_names_stand_for_the_machines() -> None:
    assert Resolvers(HERE, ["192.0.2.53", HERE]).servers == ("192.0.2.53",)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", []),
        ("# nameserver 1.1.1.1\n;nameserver 1.1.1.1\nsearch a b\noptions edns0\n", []),
        ("nameserver\nnameserver bad\n  nameserver\t9.9.9.9 # nine\n", ["9.9.9.9"]),
        ("nameserver fe80::1%lo\nnameserver ::1\n", ["fe80::1%lo", "::1"]),
        ("".join(f"nameserver 10.0.0.{number}\n" for number in range(5)), ["10.0.0.0", "10.0.0.1", "10.0.0.2"]),
    ],
)
def test_resolvers_are_read_as_the_c_library_does(text: str, servers: list[str]) -> None:
    assert list(name_servers(text)) == servers


async def test_only_the_containers_network_is_answered(served: Served) -> None:
    server = NameServer([SUFFIX], HERE, "127.55.0.0/16", served.log, port=0)
    await server.open()
    try:
        query = dns.message.make_query(f"b.{SUFFIX}", "A")
        inside = await dns.asyncquery.udp(query, HERE, DEADLINE, port=server.port, source="127.55.0.7")
        assert addresses(inside) == [HERE]
        with pytest.raises(dns.exception.Timeout):
            await dns.asyncquery.udp(query, HERE, 0.2, port=server.port, source="127.56.0.7")
        with pytest.raises((EOFError, OSError)):
            await dns.asyncquery.tcp(query, HERE, DEADLINE, port=server.port, source="127.56.0.7")
    finally:
        await server.aclose()


async def test_it_listens_on_the_address_of_the_network_and_on_no_other(served: Served) -> None:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(socket.AF_INET, kind) as other:
            other.bind(("127.0.0.5", served.server.port))


async def test_no_container_keeps_the_others_from_finding_names(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dns_module, "MOST_ASKED_OF_ONE", 4)
    served.upstream.silent = True

    def ask(source: str, name: str = "slow.example") -> asyncio.Task[dns.message.Message]:
        query = dns.message.make_query(name, "A")
        asking = dns.asyncquery.udp(query, HERE, DEADLINE, port=served.server.port, source=source)
        return asyncio.create_task(asking)

    waiting = [ask("127.0.0.31") for _ in range(4)]
    while sum(served.server._asking.values()) < 4:
        await served.upstream.came.wait()
        served.upstream.came.clear()
        await asyncio.sleep(0)
    assert (await ask("127.0.0.31", "one-too-many.example")).rcode() == dns.rcode.SERVFAIL
    assert {asked.question[0].name.to_text() for asked in served.upstream.asked} == {"slow.example."}
    assert addresses(await ask("127.0.0.31", f"b.{SUFFIX}")) == [HERE]
    served.upstream.silent = False
    assert addresses(await ask("127.0.0.32")) == [ELSEWHERE]
    for task in waiting:
        task.cancel()
    await asyncio.wait(waiting)


async def test_connections_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_module, "MOST_STREAMS_OF_ONE", 2)
    port = served.server.port
    held = [await asyncio.open_connection(HERE, port, local_addr=("127.0.0.41", 0)) for _ in range(2)]
    for reader, writer in held:
        wire = dns.message.make_query(SUFFIX, "A").to_wire()
        writer.write(len(wire).to_bytes(2, "big") + wire)
        await asyncio.wait_for(reader.readexactly(2), DEADLINE)
    refused, writer = await asyncio.open_connection(HERE, port, local_addr=("127.0.0.41", 0))
    writer.write(len(wire).to_bytes(2, "big") + wire)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(refused.read(), DEADLINE) == b""
    writer.close()
    assert addresses(await served.ask(SUFFIX, tcp=True)) == [HERE]
    for _, writer in held:
        writer.close()


async def test_silent_connections_are_closed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dns_module, "IDLE", 0.05)
    reader, writer = await asyncio.open_connection(HERE, served.server.port)
    writer.write(b"\0")
    assert await asyncio.wait_for(reader.read(), DEADLINE) == b""
    writer.close()


def malformed() -> list[tuple[str, bytes, int | None]]:
    """Give messages with what is answered to each; None: nothing."""
    query = dns.message.make_query("example.com", "A", id=9).to_wire()
    response = dns.message.make_response(dns.message.from_wire(query)).to_wire()
    update = query[:2] + b"\x28\x00" + query[4:]
    counts = query[:4] + b"\x00\x02" + query[6:]
    return [
        ("empty", b"", None),
        ("half a header", query[:7], None),
        ("an answer", response, None),
        ("an update", update, dns.rcode.NOTIMP),
        ("no question", query[:4] + b"\0\0" + query[6:12], dns.rcode.FORMERR),
        ("two questions", counts + query[12:], dns.rcode.FORMERR),
        ("a header alone", query[:12], dns.rcode.FORMERR),
        ("a name without end", query[:-5], dns.rcode.FORMERR),
        ("a question without class", query[:-1], dns.rcode.FORMERR),
        ("a pointer to itself", query[:12] + b"\xc0\x0c\0\x01\0\x01", dns.rcode.FORMERR),
        ("a label beyond its end", query[:12] + b"\x3fabc\0\0\x01\0\x01", dns.rcode.FORMERR),
        ("a name too long", query[:12] + b"\x01a" * 200 + b"\0\0\x01\0\x01", dns.rcode.FORMERR),
        ("a zone", dns.message.make_query("example.com", "AXFR", id=9).to_wire(), dns.rcode.NOTIMP),
    ]


@pytest.mark.parametrize(("message", "code"), [pytest.param(m, c, id=i) for i, m, c in malformed()])
async def test_what_is_no_question_is_refused_or_left_alone(served: Served, message: bytes, code: int | None) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((HERE, served.server.port))
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(client, message)
        await loop.sock_sendall(client, dns.message.make_query(SUFFIX, "A", id=77).to_wire())
        first = dns.message.from_wire(await asyncio.wait_for(loop.sock_recv(client, 512), DEADLINE))
    assert (first.id, first.rcode()) == ((77, dns.rcode.NOERROR) if code is None else (9, code))
    assert served.upstream.asked == []
    assert served.log.lines == []


async def test_random_bytes_do_no_harm(served: Served) -> None:
    rng = random.Random(7)
    seeds = [
        dns.message.make_query(name, kind, use_edns=0).to_wire() for name in (SUFFIX, "a.b") for kind in ("A", "ANY")
    ]
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.setblocking(False)
        client.connect((HERE, served.server.port))
        for number in range(3000):
            message = bytearray(rng.choice(seeds))
            for _ in range(rng.randrange(1, 6)):
                message[rng.randrange(len(message))] = rng.randrange(256)
            await loop.sock_sendall(client, bytes(message[: rng.randrange(len(message) + 1)]))
            if number % 50 == 0:
                await asyncio.sleep(0)
    for _ in range(40):
        with contextlib.suppress(OSError, EOFError):
            reader, writer = await asyncio.open_connection(HERE, served.server.port)
            with contextlib.closing(writer):
                writer.write(rng.randbytes(rng.randrange(200)))
                writer.write_eof()
                await asyncio.wait_for(reader.read(), DEADLINE)
    assert addresses(await served.ask(SUFFIX)) == [HERE]
    assert addresses(await served.ask(SUFFIX, tcp=True)) == [HERE]
    assert [event for event in served.log.events() if event.startswith("error")] == []


async def test_what_is_under_way_ends_with_the_server(served: Served) -> None:
    served.upstream.silent = True
    query = dns.message.make_query("slow.example", "A")
    asking = asyncio.create_task(dns.asyncquery.udp(query, HERE, 0.5, port=served.server.port))
    over_tcp = asyncio.create_task(dns.asyncquery.tcp(query, HERE, DEADLINE, port=served.server.port))
    async with asyncio.timeout(DEADLINE):
        while len(served.upstream.asked) < 2:
            served.upstream.came.clear()
            await served.upstream.came.wait()
    await served.server.aclose()
    with pytest.raises(dns.exception.Timeout):
        await asking
    with pytest.raises((EOFError, OSError)):
        await over_tcp
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind((HERE, served.server.port))


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
async def test_a_port_that_is_taken_is_said_with_what_to_do(kind: int) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind((HERE, 0))
        if kind == socket.SOCK_STREAM:
            taken.listen()
        port = taken.getsockname()[1]
        server = NameServer([SUFFIX], HERE, LOOPBACK, None, port=port)
        with pytest.raises(StartupError, match=f"cannot listen on 127.0.0.73:{port}: another name server has it"):
            await server.open()
    await server.open()
    await server.aclose()


async def test_an_address_of_another_machine_is_said_with_what_to_do() -> None:
    server = NameServer([SUFFIX], "192.0.2.1", "192.0.2.0/24", None)
    with pytest.raises(StartupError, match="this machine has no such address"):
        await server.open()


OPEN_AS_NOBODY = f"""
import asyncio
from serverfull.errors import StartupError
from serverfull.runtimes.docker.dns import NameServer
try:
    asyncio.run(NameServer(["a"], "127.0.0.71", {LOOPBACK!r}, None).open())
except StartupError as refused:
    print(refused)
"""


def test_a_host_that_may_not_use_port_53_says_what_would_allow_it() -> None:
    setpriv = shutil.which("setpriv")
    lowest = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if setpriv is None or os.geteuid() != 0 or lowest <= 53:
        pytest.skip("only root, with setpriv, can give up the right to use port 53")
    command = [setpriv, "--bounding-set", "-net_bind_service", sys.executable, "-c", OPEN_AS_NOBODY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert "CAP_NET_BIND_SERVICE" in done.stdout, done.stderr
    assert "ip_unprivileged_port_start=53" in done.stdout
