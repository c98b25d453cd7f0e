"""A host whose functions misbehave, and what it must be like after each of them.

One host serves a module. Each test deploys functions of its own with boto3, and when it is over the fixture looks
whether the host is as it was: all others are still served, and no process, descriptor, control group, folder or permit
is left of what was deleted.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import re
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from serverfull.runtimes.process.means import probe
from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import create, wait_until_ready, zipped
from serverfull.testing.process import HostProcess

DEADLINE = 30.0
"""Seconds until a test gives up waiting. Nothing takes that long."""

AT_REST = 6
"""Looks at a host, a tenth of a second apart, that must be the same for it to be at rest."""

MOST_GROWTH = 16 << 20
"""Bytes that the host may need more for whatever a function does."""

REGION = "eu-west-1"

FRAME = """
import os
{before}
def handler(event, context):
    if event == "be good":
        return "good"
{deed}
"""


@dataclass(frozen=True)
class Reply:
    """What a caller got.

    :param error: whether it is that of a function error.
    :param log: the end of the log, 4 KB at most.
    """

    request_id: str
    error: bool
    payload: bytes
    log: str

    @property
    def result(self) -> Any:
        """What the function gave back."""
        assert not self.error, self.payload[:2000]
        return json.loads(self.payload)

    @property
    def failure(self) -> tuple[str, str]:
        """The type and the message of the error; AWS's prefix of the latter is left out."""
        assert self.error, self.payload[:2000]
        document = json.loads(self.payload)
        return document["errorType"], document["errorMessage"].removeprefix(f"RequestId: {self.request_id} Error: ")

    @property
    def max_memory(self) -> int:
        """Megabytes, from the REPORT line."""
        return int(re.findall(r"Max Memory Used: (\d+) MB", self.log)[-1])


@dataclass(frozen=True)
class Holdings:
    """What a host has and holds."""

    processes: int
    descriptors: int
    groups: int
    folders: int
    permits: float

    def beyond(self, other: Holdings) -> bool:
        """Say whether it is more of anything."""
        return any(mine > others for mine, others in zip(astuple(self), astuple(other), strict=True))


@dataclass
class Function:
    """A deployed function.

    :param good: whether it can be asked to be good whatever it has done.
    """

    client: Any
    name: str
    good: bool = True

    def call(self, event: Any = None) -> Reply:
        """Invoke it."""
        answer = self.client.invoke(FunctionName=self.name, Payload=json.dumps(event), LogType="Tail")
        return Reply(
            answer["ResponseMetadata"]["RequestId"],
            "FunctionError" in answer,
            answer["Payload"].read(),
            base64.b64decode(answer["LogResult"]).decode(),
        )

    def is_good(self) -> bool:
        """Say whether it answers when it is asked to be good."""
        return self.call("be good").result == "good"


@dataclass
class Host:
    """A host that is driven with boto3.

    :ivar at_rest: what it holds when nothing misbehaves.
    :ivar may_say: what errors in its log a test expects.
    """

    process: HostProcess
    client: Any
    folder: Path
    deployed: list[Function] = field(default_factory=list)
    at_rest: Holdings = field(init=False)
    may_say: str = "nothing"
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def deploy(self, code: str | Mapping[str, str], *, good: bool = True, **members: Any) -> Function:
        """Deploy a function whose handler is ``app.handler``.

        :param code: the text of ``app.py``, or several files.
        :param good: whether it can be asked to be good after what it does.
        :param members: of CreateFunction.
        """
        name = members.pop("FunctionName", f"f{next(self._numbers)}")
        files = {"app.py": code} if isinstance(code, str) else code
        create(self.client, name, files, executable=files, **{"Timeout": 10, **members})
        self.deployed.append(Function(self.client, name, good))
        return self.deployed[-1]

    def doing(self, deed: str, before: str = "", **members: Any) -> Function:
        """Deploy a function that does something, unless it is asked to be good.

        :param deed: the handler's body; ``event`` and ``context`` are there.
        :param before: what stands before the handler.
        """
        body = textwrap.indent(textwrap.dedent(deed).strip(), "    ")
        return self.deploy(FRAME.format(before=textwrap.dedent(before), deed=body), **members)

    @property
    def pid(self) -> int:
        """Of the host."""
        return self.process.process.pid

    def family(self) -> list[int]:
        """Give all processes that have come from the host, those that have got away from their parents too."""
        children: dict[int, list[int]] = {}
        for pid, parent in parents():
            children.setdefault(parent, []).append(pid)
        family = [self.pid]
        for member in family:
            family += children.get(member, [])
        return family[1:]

    def holdings(self) -> Holdings:
        """Count what it has and holds now."""
        own = f"serverfull-*-{self.pid}-*"
        groups = {
            group
            for place in probe().places.values()
            for group in place.path.glob(f"{own}/sandbox-*")
            if group.is_dir()
        }
        return Holdings(
            processes=len(self.family()),
            descriptors=len(list(self._descriptors())),
            groups=len(groups),
            folders=len(list(Path(tempfile.gettempdir()).glob(f"{own}/sandbox-*"))),
            permits=self.figure("serverfull_account_concurrent_executions"),
        )

    def _descriptors(self) -> Iterator[str]:
        """Give what the descriptors of the host stand for, except connections of clients."""
        clients = {f"socket:[{inode}]" for inode in connections(self.process.port)}
        for link in Path(f"/proc/{self.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                if (what := str(link.readlink())) not in clients:
                    yield what

    def log_of(self, request_id: str) -> list[tuple[str, str]]:
        """Give the kind and the text of the records that belong to a call."""
        records = [json.loads(line) for line in self.process.stdout_lines() if line.startswith("{")]
        return [(record["type"], record["message"]) for record in records if record["requestId"] == request_id]

    def figure(self, name: str) -> float:
        """Give a figure of ``/metrics``, the sum of all labels."""
        text = self.process.request("GET", "/metrics").body.decode()
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE))

    @contextlib.contextmanager
    def not_growing(self) -> Iterator[None]:
        """Look that the host's own process needs no more memory meanwhile, at any time, than what it may."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # forgets the highest so far
        before = self._most_memory()
        yield
        grown = self._most_memory() - before
        assert grown <= MOST_GROWTH, f"the host has grown by {grown >> 20} MB"

    def _most_memory(self) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024

    def settled(self) -> Holdings:
        """Give what it holds when that has not changed for a while: it makes things ready after a call."""
        seen: list[Holdings] = []
        while len(seen) < AT_REST or len(set(seen[-AT_REST:])) > 1 or seen[-1].permits:
            assert len(seen) < 100 * AT_REST, seen[-AT_REST:]
            time.sleep(0.1)
            seen.append(self.holdings())
        return seen[-1]

    def has_no_more_than(self, before: Holdings) -> None:
        """Wait until the host has no more than it had."""
        until(lambda: not self.holdings().beyond(before), lambda: f"{self.holdings()}, and there was {before}")

    def update(self, function: Function, code: str) -> None:
        """Give a function other code, and wait until it has it."""
        self.client.update_function_code(FunctionName=function.name, ZipFile=zipped({"app.py": code}))
        wait_until_ready(self.client, function.name)


def parents() -> Iterator[tuple[int, int]]:
    """Give the living processes of the machine with their parents."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            state, parent, *_ = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if state != "Z":
            yield int(entry.name), int(parent)


def connections(port: int) -> Iterator[str]:
    """Give the inodes of the connections to a port, not that of the listener."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[3] != "0A":
                yield fields[9]


def until(condition: Callable[[], object], why: Callable[[], object] = lambda: "") -> None:
    """Wait for something that nobody tells of."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, why()
        time.sleep(0.02)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of a module that names ``LEVELS`` at each of these sandbox levels."""
    if "running" in metafunc.fixturenames:
        levels = getattr(metafunc.module, "LEVELS", ["limits"])
        metafunc.parametrize("running", levels, indirect=True, scope="module")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Host]:
    """Serve a module's tests, with a function that behaves and stays."""
    folder = tmp_path_factory.mktemp("host")
    settings = {"SERVERFULL_FUNCTIONS__REGION": REGION, "SERVERFULL_EXECUTION__SANDBOX": request.param}
    with HostProcess.start(None, "--state", str(folder / "state"), env=settings, cwd=folder) as process:
        host = Host(process, lambda_client(process.url, region=REGION, read_timeout=60), folder / "state")
        host.deploy("def handler(event, context): return 'good'", FunctionName="well")
        assert host.deployed.pop().is_good()
        host.at_rest = host.settled()
        yield host
        host.client.close()


@pytest.fixture
def host(running: Host) -> Iterator[Host]:
    """Lend the host to a test, and look what it is like afterwards."""
    said = len(running.process.stderr_lines())
    yield running
    deployed, running.deployed = running.deployed, []
    try:
        assert Function(running.client, "well").is_good()
        for function in deployed:
            assert not function.good or function.is_good()
    finally:
        for function in deployed:
            running.client.delete_function(FunctionName=function.name)
    running.has_no_more_than(running.at_rest)
    expected, running.may_say = running.may_say, "nothing"
    lines = [line for line in running.process.stderr_lines()[said:] if expected not in line]
    wrong = [line for line in lines if '"error"' in line or "Traceback" in line]
    assert not wrong
