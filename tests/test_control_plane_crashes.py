"""A host that is killed at any point of any write of the management API starts again with all of it or nothing of it.

The hosts are processes that are forked from one that has imported everything, so that a start takes little. Each kill
has an account of its own. The same call, made in another region of that account where nobody dies, tells what it should
do.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, Queue
from typing import TYPE_CHECKING, Any, TypeAlias

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, EndpointConnectionError

from serverfull.testing.deployments import ROLE, wait_until_ready, zipped
from serverfull.testing.process import READY_MARK, plain_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Call: TypeAlias = Callable[[Any, dict[str, str]], Any]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

# Reads lines, each the file that arms a host, and forks a host for each. An armed host kills itself at the point and
# the time that the file names; each transaction of the state and each file that is put in place passes points.
FORKING = """
import os, signal, sys
from functools import partial, wraps
from pathlib import Path
import sqlalchemy.dialects.sqlite, botocore.session, serverfull.serving, serverfull.cli.serving, serverfull.host
import serverfull.api.protocol, serverfull.control_plane.wiring as wiring, serverfull.storage.s3
from serverfull.cli import main
from serverfull.storage import code, database, durable, migrating, packages, state, trees

directory = sys.argv[1]

class Killer:
    def __init__(self, file):
        self.file, self.left = Path(file), None
    def reached(self, point):
        if self.file.exists():
            if self.left is None:
                self.point, left = self.file.read_text().split(",")
                self.left = int(left)
            if self.point == point:
                self.left -= 1
                if not self.left:
                    os.kill(os.getpid(), signal.SIGKILL)
    def before(self, owner, attribute, point):
        plain = getattr(owner, attribute)
        def replacement(*arguments, **named):
            self.reached(point)
            return plain(*arguments, **named)
        setattr(owner, attribute, replacement)

def host(file):
    killer = Killer(file)
    state.open_state = partial(state.open_state, reached=killer.reached)
    killer.before(durable, "flush_folder", "flush a folder")
    killer.before(packages, "place", "place a tree")
    killer.before(packages, "flush_tree", "flush a tree")
    killer.before(code, "write_file", "write a package")
    wiring._SWEEP_AFTER = 0.2
    sys.exit(main(["serve", "--port", "0", "--state", directory]))

for line in sys.stdin:
    child = os.fork()
    if not child:
        host(line.strip())
    print("ended", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

PROFILE = "arn:aws:signer:eu-west-1:123456789012:/signing-profiles/mine/abcdefghij"
HERE, REFERENCE = "eu-west-1", "us-west-2"


def package(text: str) -> bytes:
    return zipped({"m.py": f"def h(event, context): return {text!r}"})


@dataclass(frozen=True)
class Case:
    """An operation and what is there before it.

    :param call: makes it; gets a client and the ids that `setup` noted.
    :param writes: the transactions that it takes, of which the last one decides.
    :param prepares: whether a version has to be prepared after it, in one more transaction.
    :param puts: whether it keeps a package.
    """

    name: str
    setup: tuple[Call, ...]
    call: Call
    writes: int = 1
    prepares: bool = False
    puts: bool = False

    def kills(self) -> Iterator[tuple[str, int, bool]]:
        """Give each point to die at, its number, and whether the operation has taken place by then."""
        yield "before commit", self.writes, False
        yield "after commit", self.writes, True
        if self.prepares:
            for point in ("flush a tree", "place a tree") if self.puts else ():
                yield point, 1, True
            yield "before commit", self.writes + 1, True
            yield "after commit", self.writes + 1, True
        if self.puts:
            yield "write a package", 1, False
            yield "flush a folder", 1, False


def function(client: Any, ids: dict[str, str], text: str = "made") -> None:
    code = {"ZipFile": package(text + client.meta.config.user_agent_extra)}
    client.create_function(FunctionName="f", Runtime="python3.11", Role=ROLE, Handler="m.h", Code=code)
    wait_until_ready(client, "f")


def version(client: Any, ids: dict[str, str]) -> None:
    client.publish_version(FunctionName="f")
    wait_until_ready(client, "f")


def noting(member: str, call: Call, inside: str | None = None) -> Call:
    """Keep a member of the answer, for later calls."""

    def noted(client: Any, ids: dict[str, str]) -> None:
        answer = call(client, ids)
        ids[member] = (answer[inside] if inside else answer)[member]

    return noted


def simple(operation: str, **members: Any) -> Call:
    """Make a call with these members; what is in braces is taken from the ids that were noted."""

    def call(client: Any, ids: dict[str, str]) -> Any:
        filled = {n: v.format(**ids) if isinstance(v, str) else v for n, v in members.items()}
        return getattr(client, operation)(**filled)

    return call


def arn(client: Any) -> str:
    found: str = client.get_function_configuration(FunctionName="f")["FunctionArn"]
    return found


def f(operation: str, **members: Any) -> Call:
    return simple(operation, FunctionName="f", **members)


def map_queue(client: Any, ids: dict[str, str]) -> Any:
    queue = f"arn:aws:sqs:{client.meta.region_name}:123456789012:queue"
    return client.create_event_source_mapping(FunctionName="f", EventSourceArn=queue)


ALIAS = f("create_alias", Name="live", FunctionVersion="1")
GRANT = f("add_permission", StatementId="s", Action="lambda:InvokeFunction", Principal="s3.amazonaws.com")
URL = f("create_function_url_config", AuthType="NONE")
INVOKES = f("put_function_event_invoke_config", MaximumRetryAttempts=1)
MAPPING = noting("UUID", map_queue)
SIGNING = noting(
    "CodeSigningConfigArn",
    simple("create_code_signing_config", AllowedPublishers={"SigningProfileVersionArns": [PROFILE]}),
    "CodeSigningConfig",
)
SIGNED = f("put_function_code_signing_config", CodeSigningConfigArn="{CodeSigningConfigArn}")
RESERVED = f("put_function_concurrency", ReservedConcurrentExecutions=3)
PROVISIONED = f("put_provisioned_concurrency_config", Qualifier="1", ProvisionedConcurrentExecutions=1)


def layer(client: Any, ids: dict[str, str]) -> Any:
    return client.publish_layer_version(
        LayerName="l", Content={"ZipFile": package("layer" + client.meta.config.user_agent_extra)}
    )


LAYER_GRANT = simple(
    "add_layer_version_permission",
    LayerName="l",
    VersionNumber=1,
    StatementId="s",
    Action="lambda:GetLayerVersion",
    Principal="*",
)

CASES = [
    Case("CreateFunction", (), lambda c, _: c.create_function(**creation(c)), 2, prepares=True, puts=True),
    Case(
        "CreateFunction and Publish",
        (),
        lambda c, _: c.create_function(**creation(c), Publish=True),
        2,
        prepares=True,
        puts=True,
    ),
    Case(
        "UpdateFunctionCode",
        (function,),
        lambda c, _: c.update_function_code(
            FunctionName="f", ZipFile=package("new" + c.meta.config.user_agent_extra), Publish=True
        ),
        prepares=True,
        puts=True,
    ),
    Case(
        "UpdateFunctionConfiguration",
        (function,),
        f("update_function_configuration", MemorySize=256, Environment={"Variables": {"COLOR": "b"}}),
        prepares=True,
    ),
    Case("PublishVersion", (function,), f("publish_version")),
    Case(
        "DeleteFunction",
        (function, version, ALIAS, GRANT, URL, INVOKES, RESERVED, PROVISIONED),
        f("delete_function"),
    ),
    Case("DeleteFunction of a version", (function, version, PROVISIONED), f("delete_function", Qualifier="1")),
    Case("CreateAlias", (function, version), ALIAS),
    Case("UpdateAlias", (function, version, ALIAS), f("update_alias", Name="live", FunctionVersion="$LATEST")),
    Case("DeleteAlias", (function, version, ALIAS), f("delete_alias", Name="live")),
    Case("AddPermission", (function,), GRANT),
    Case("RemovePermission", (function, GRANT), f("remove_permission", StatementId="s")),
    Case("CreateEventSourceMapping", (function,), MAPPING),
    Case(
        "UpdateEventSourceMapping",
        (function, MAPPING),
        simple("update_event_source_mapping", UUID="{UUID}", BatchSize=3),
    ),
    Case("DeleteEventSourceMapping", (function, MAPPING), simple("delete_event_source_mapping", UUID="{UUID}")),
    Case("PublishLayerVersion", (), layer, puts=True),
    Case("DeleteLayerVersion", (layer,), simple("delete_layer_version", LayerName="l", VersionNumber=1)),
    Case("AddLayerVersionPermission", (layer,), LAYER_GRANT),
    Case(
        "RemoveLayerVersionPermission",
        (layer, LAYER_GRANT),
        simple("remove_layer_version_permission", LayerName="l", VersionNumber=1, StatementId="s"),
    ),
    Case("CreateFunctionUrlConfig", (function,), URL),
    Case("UpdateFunctionUrlConfig", (function, URL), f("update_function_url_config", AuthType="AWS_IAM")),
    Case("DeleteFunctionUrlConfig", (function, URL), f("delete_function_url_config")),
    Case("PutFunctionEventInvokeConfig", (function,), INVOKES),
    Case(
        "UpdateFunctionEventInvokeConfig",
        (function, INVOKES),
        f("update_function_event_invoke_config", MaximumRetryAttempts=2),
    ),
    Case("DeleteFunctionEventInvokeConfig", (function, INVOKES), f("delete_function_event_invoke_config")),
    Case("PutFunctionConcurrency", (function,), RESERVED),
    Case("DeleteFunctionConcurrency", (function, RESERVED), f("delete_function_concurrency")),
    Case("PutProvisionedConcurrencyConfig", (function, version), PROVISIONED),
    Case(
        "DeleteProvisionedConcurrencyConfig",
        (function, version, PROVISIONED),
        f("delete_provisioned_concurrency_config", Qualifier="1"),
    ),
    Case("TagResource", (function,), lambda c, _: c.tag_resource(Resource=arn(c), Tags={"team": "blue"})),
    Case(
        "UntagResource",
        (function, lambda c, _: c.tag_resource(Resource=arn(c), Tags={"team": "blue"})),
        lambda c, _: c.untag_resource(Resource=arn(c), TagKeys=["team"]),
    ),
    Case("CreateCodeSigningConfig", (), SIGNING),
    Case(
        "UpdateCodeSigningConfig",
        (SIGNING,),
        simple("update_code_signing_config", CodeSigningConfigArn="{CodeSigningConfigArn}", Description="other"),
    ),
    Case(
        "DeleteCodeSigningConfig",
        (SIGNING,),
        simple("delete_code_signing_config", CodeSigningConfigArn="{CodeSigningConfigArn}"),
    ),
    Case("PutFunctionCodeSigningConfig", (function, SIGNING), SIGNED),
    Case("DeleteFunctionCodeSigningConfig", (function, SIGNING, SIGNED), f("delete_function_code_signing_config")),
    Case("PutFunctionRecursionConfig", (function,), f("put_function_recursion_config", RecursiveLoop="Allow")),
    Case(
        "PutRuntimeManagementConfig", (function,), f("put_runtime_management_config", UpdateRuntimeOn="FunctionUpdate")
    ),
]


def creation(client: Any) -> dict[str, Any]:
    code = {"ZipFile": package("created" + client.meta.config.user_agent_extra)}
    return {"FunctionName": "f", "Runtime": "python3.11", "Role": ROLE, "Handler": "m.h", "Code": code}


class Hosts:
    """Hosts on one state, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.state, self.armed = folder / "state", folder / "armed"
        self._session = boto3.Session()
        self._lines: Queue[str] = Queue()
        self._errors = (folder / "stderr").open("w")
        command = [sys.executable, "-c", FORKING, str(self.state)]
        self._forking = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=plain_environment(),
            cwd=folder,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.url, self.serving = "", False

    def _read(self) -> None:
        assert self._forking.stdout is not None
        with self._forking.stdout as lines:
            for line in lines:
                self._lines.put(line)

    def start(self) -> None:
        assert self._forking.stdin is not None
        self._forking.stdin.write(f"{self.armed}\n")
        self._forking.stdin.flush()
        self.url, self.serving = self._line(READY_MARK).split()[0].rstrip("/"), True

    def ended(self) -> int:
        """Wait until the host has ended; gives its exit code."""
        code, self.serving = int(self._line("ended ")), False
        return code

    def _line(self, start: str) -> str:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                line = self._lines.get(timeout=1)
            except Empty:
                continue
            if line.startswith(start):
                return line.removeprefix(start)
            assert not line.startswith("ended"), line
        raise AssertionError(f"no line {start!r}")

    def client(self, account: str, region: str) -> Any:
        return self._session.client(
            "lambda",
            endpoint_url=self.url,
            region_name=region,
            aws_access_key_id=account,
            aws_secret_access_key="x",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=30, user_agent_extra=account + region),
        )

    def close(self) -> None:
        os.killpg(self._forking.pid, signal.SIGKILL)
        self._forking.wait(20)
        assert self._forking.stdin is not None
        self._forking.stdin.close()
        self._reader.join(20)
        self._errors.close()

    def files(self, where: str) -> list[str]:
        """Give the SHA-256 of what is in a folder, or the names that begin so in any."""
        if where.startswith("."):
            # Unlike Path.rglob, this takes no offence at a folder that goes away while it looks.
            seen = [name for _, folders, files in os.walk(self.state) for name in (*folders, *files)]
            return [name for name in seen if name.startswith(where)]
        return [path.stem for path in (self.state / where).iterdir() if not path.name.startswith(".")]

    def swept(self) -> bool:
        """Tell whether there is nothing on the disk but what the state refers to."""
        left = self.files(".new-") + self.files(".old-")
        return set(self.files("code")) == self.used() >= set(self.files("unpacked")) and not left

    def used(self) -> set[str]:
        """Give the SHA-256 of the packages that versions of functions and of layers have."""
        with closing(sqlite3.connect(self.state / "state.db")) as database:
            query = "SELECT document FROM {}"
            rows = [row for t in ("function_versions", "layer_versions") for row in database.execute(query.format(t))]
        return {json.loads(document)["code_sha256"] for (document,) in rows}

    def rows(self, account: str, region: str) -> list[str]:
        """Give everything that the state has of an account in a region, without what is new each time."""
        found = []
        with closing(sqlite3.connect(f"file:{self.state / 'state.db'}?mode=ro", uri=True)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                columns = [column[1] for column in database.execute(f"PRAGMA table_info({table})")]
                if "account" in columns:
                    query = f"SELECT * FROM {table} WHERE account = ? AND region = ?"
                    found += [f"{table} {row}" for row in database.execute(query, (account, region))]
        return sorted(plain(row) for row in found)


def plain(row: str) -> str:
    row = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(\+0000|Z)?|\b\d{10}\.\d+|\b17\d{8,11}\b", "TIME", row)
    row = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", row)
    row = re.sub(r"\bcsc-[0-9a-f]{17}\b", "CSC", row)
    row = re.sub(r"\b[0-9a-f]{64}\b", "SHA", row)
    row = re.sub(r"\b[a-z0-9]{32}\b", "ID", row)
    return row.replace(REFERENCE, HERE)


@pytest.fixture
def hosts(process: Hosts) -> Iterator[Hosts]:
    yield process
    process.armed.unlink(missing_ok=True)
    if not process.serving:  # a test has failed in between
        process.start()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    made = Hosts(tmp_path_factory.mktemp("crashes"))
    made.start()
    yield made
    made.close()


def sites() -> Iterator[Any]:
    account = 100_000_000_000
    for case in CASES:
        for point, number, done in case.kills():
            account += 1
            yield pytest.param(case, point, number, done, str(account), id=f"{case.name}-{point}-{number}")


def prepared(hosts: Hosts, account: str, region: str) -> list[str]:
    """Give the state when nothing is being prepared: a function that a killed host left so gets ready all the same."""
    deadline = time.monotonic() + 20
    while True:
        rows = hosts.rows(account, region)
        if not any("preparations" in row or '"Pending"' in row or '"InProgress"' in row for row in rows):
            return rows
        assert time.monotonic() < deadline, rows
        time.sleep(0.01)


@pytest.mark.parametrize(("case", "point", "number", "done", "account"), list(sites()))
def test_a_call_that_is_killed_takes_place_whole_or_not_at_all(
    hosts: Hosts, case: Case, point: str, number: int, done: bool, account: str
) -> None:
    here, there = hosts.client(account, HERE), hosts.client(account, REFERENCE)
    ids: dict[str, str] = {}
    ids_there: dict[str, str] = {}
    for step in case.setup:
        step(here, ids)
        step(there, ids_there)
    before = prepared(hosts, account, HERE)
    case.call(there, ids_there)
    after = prepared(hosts, account, REFERENCE)
    assert after != before
    hosts.armed.write_text(f"{point},{number}")
    try:
        case.call(here, ids)
    except (ConnectionClosedError, EndpointConnectionError):
        answered = False
    else:
        answered = True
    assert hosts.ended() == -signal.SIGKILL
    hosts.armed.unlink()
    hosts.start()
    kept = prepared(hosts, account, HERE)
    assert kept == (after if done else before)
    assert not answered or done  # what was acknowledged is kept
    if any('"handler": "m.h"' in row for row in kept):
        hosts.client(account, HERE).invoke(FunctionName="f")


@pytest.mark.parametrize(
    ("case", "point"), [(CASES[0], "flush a folder"), (CASES[0], "place a tree"), (layer, "flush a folder")]
)
def test_what_a_killed_host_left_on_the_disk_is_swept_after_the_next_start(
    hosts: Hosts, case: Case | Call, point: str
) -> None:
    call = case.call if isinstance(case, Case) else case
    account = "2" * 11 + str(len(point) % 10) if isinstance(case, Case) else "3" * 12
    hosts.armed.write_text(f"{point},1")
    with contextlib.suppress(ConnectionClosedError):
        call(hosts.client(account, HERE), {})
    assert hosts.ended() == -signal.SIGKILL
    hosts.armed.unlink()
    orphan = set(hosts.files("code")) - hosts.used() if point == "flush a folder" else set(hosts.files(".new-"))
    assert orphan
    hosts.start()
    prepared(hosts, account, HERE)
    deadline = time.monotonic() + 20
    while not hosts.swept():
        assert time.monotonic() < deadline, "not swept"
        time.sleep(0.02)
