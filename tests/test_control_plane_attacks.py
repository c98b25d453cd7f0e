"""Hostile packages, races, code that spoils its process, and failing disks, against a real host process."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import itertools
import json
import sqlite3
import stat
import threading
import warnings
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from botocore.exceptions import ClientError

from serverfull.testing.clients import lambda_client
from serverfull.testing.deployments import ROLE, invoke, wait_until_ready
from serverfull.testing.process import HostProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

ACCOUNT = "123456789012"
NOT_UNZIPPED = "Could not unzip uploaded file. Please check your file, then try to upload again."
GOOD = "def h(event, context): return 'good'"


def archive(*entries: tuple[str, str] | tuple[str, str, int], method: int = zipfile.ZIP_STORED) -> bytes:
    """Zip entries: name, content, and where wanted the mode with its type."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as written, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some names are there twice
        for name, content, *mode in entries:
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.create_system = method, 3
            entry.external_attr = (mode[0] if mode else 0o644) << 16
            written.writestr(entry, content)
    return made.getvalue()


def module(text: str = GOOD, **others: str) -> bytes:
    return archive(("m.py", text), *((f"{name}.py", content) for name, content in others.items()))


def creation(name: str, package: bytes, **members: Any) -> dict[str, Any]:
    code = {"ZipFile": package}
    return {"FunctionName": name, "Runtime": "python3.11", "Role": ROLE, "Handler": "m.h", "Code": code, **members}


def deploy(client: Any, name: str, package: bytes, **members: Any) -> None:
    client.create_function(**creation(name, package, **members))
    wait_until_ready(client, name)


def refusal(call: Callable[..., Any], **members: Any) -> tuple[str, str]:
    with pytest.raises(ClientError) as refused:
        call(**members)
    return refused.value.response["Error"]["Code"], refused.value.response["Error"]["Message"]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    folder = tmp_path_factory.mktemp("attacks")
    with HostProcess.start(None, "--state", "state", cwd=folder) as process:  # relative: it has to stay found
        deploy(client_of(process), "good", module())
        yield process


def client_of(host: HostProcess) -> Any:
    return lambda_client(host.url, access_key=ACCOUNT, region="eu-west-1", max_pool_connections=32)


@pytest.fixture
def client(shared: HostProcess) -> Any:
    return client_of(shared)


HOSTILE = {
    "parent": archive(("../x", "1")),
    "absolute": archive(("/x", "1")),
    "drive": archive(("C:\\x", "1")),
    "backslashes": archive(("..\\x", "1")),
    "link out": archive(("l", "/etc/passwd", stat.S_IFLNK | 0o777)),
    "through a link": archive(("d", "/tmp", stat.S_IFLNK | 0o777), ("d/x", "1")),
    "pipe": archive(("p", "", stat.S_IFIFO | 0o644)),
    "device": archive(("p", "", stat.S_IFCHR | 0o644)),
    "twice": archive(("a", "1"), ("a", "2")),
    "case": archive(("A", "1"), ("a", "2")),
    "file and folder": archive(("a", "1"), ("a/b", "2")),
    "unknown method": archive(("a", "1" * 100), method=zipfile.ZIP_LZMA),
    "cut off": module()[:-10],
    "wrong sum": module()[:45] + b"X" + module()[46:],
    "text": b"no archive",
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_package_is_refused_by_every_operation_and_leaves_nothing(
    shared: HostProcess, client: Any, case: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    state = tmp_path_factory.getbasetemp() / "attacks0" / "state"

    def files() -> set[str]:
        return {str(path) for path in state.rglob("*") if not path.name.startswith("state.db-")}

    before, package = files(), HOSTILE[case]
    for code, message in (
        refusal(client.create_function, **creation("hostile", package)),
        refusal(client.update_function_code, FunctionName="good", ZipFile=package),
        refusal(client.publish_layer_version, LayerName="hostile", Content={"ZipFile": package}),
    ):
        assert code == "InvalidParameterValueException"
        assert message.startswith(NOT_UNZIPPED)
    assert files() == before
    assert client.list_layers()["Layers"] == []


@pytest.mark.parametrize(
    ("method", "path", "operation"),
    [
        ("POST", "/2015-03-31/functions", "CreateFunction"),
        ("PUT", "/2015-03-31/functions/good/code", "UpdateFunctionCode"),
        ("POST", "/2018-10-31/layers/l/versions", "PublishLayerVersion"),
    ],
)
def test_a_request_that_says_it_is_too_large_is_refused_before_it_is_read(
    shared: HostProcess, method: str, path: str, operation: str
) -> None:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", shared.port, timeout=20)) as link:
        link.putrequest(method, path)
        link.putheader("Content-Type", "application/json")
        link.putheader("Content-Length", "70167212")
        link.endheaders()
        answer = link.getresponse()
        assert (answer.status, answer.headers["x-amzn-ErrorType"]) == (413, "RequestEntityTooLargeException")
        expected = f"Request must be smaller than 70167211 bytes for the {operation} operation"
        assert json.loads(answer.read())["message"] == expected


def at_once(count: int, call: Callable[[int], Any]) -> Counter[str]:
    """Make a call so many times at once; gives how many ended with which error, or with none."""
    together = threading.Barrier(count)

    def one(number: int) -> str:
        together.wait(20)
        try:
            call(number)
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "done"

    with ThreadPoolExecutor(count) as pool:
        return Counter(pool.map(one, range(count)))


def test_of_many_who_make_or_delete_one_function_one_succeeds(client: Any) -> None:
    made = at_once(20, lambda number: client.create_function(**creation("one", module(f"h = {number}"))))
    assert made == {"done": 1, "ResourceConflictException": 19}
    wait_until_ready(client, "one")
    deleted = at_once(20, lambda _: client.delete_function(FunctionName="one"))
    assert deleted == {"done": 1, "ResourceNotFoundException": 19}


def test_of_many_who_change_one_revision_one_succeeds(client: Any) -> None:
    deploy(client, "revised", module())
    seen = client.get_function_configuration(FunctionName="revised")["RevisionId"]

    def change(number: int) -> None:
        if number % 2:
            client.update_function_code(FunctionName="revised", ZipFile=module(f"h = {number}"), RevisionId=seen)
        else:
            client.update_function_configuration(FunctionName="revised", MemorySize=200 + number, RevisionId=seen)

    changed = at_once(20, change)
    assert changed.pop("done") == 1
    assert set(changed) <= {"PreconditionFailedException", "ResourceConflictException"}
    wait_until_ready(client, "revised")
    assert at_once(20, lambda _: client.publish_version(FunctionName="revised")) == {"done": 20}
    listed = client.list_versions_by_function(FunctionName="revised")["Versions"]
    assert [version["Version"] for version in listed] == ["$LATEST", "1"]


TIMING = """
import time
def h(event, context):
    began = time.monotonic()
    time.sleep(0.02)
    return [began, time.monotonic()]
"""


def most_at_once(times: list[tuple[float, float]]) -> int:
    """Say how many of these ran at the same time, by the clock that all processes share."""
    changes = sorted([(began, 1) for began, _ in times] + [(ended, -1) for _, ended in times])
    return max(itertools.accumulate(change for _, change in changes))


async def test_no_more_run_at_once_than_are_reserved_also_while_that_changes(shared: HostProcess, client: Any) -> None:
    deploy(client, "limited", module(TIMING))
    client.put_function_concurrency(FunctionName="limited", ReservedConcurrentExecutions=3)
    credential = f"AWS4-HMAC-SHA256 Credential={ACCOUNT}/20260101/eu-west-1/lambda/aws4_request, SignedHeaders=host"
    headers = {"Authorization": f"{credential}, Signature=0"}
    url = f"{shared.url}/2015-03-31/functions/limited/invocations"
    times: list[tuple[float, float]] = []

    async def one(session: aiohttp.ClientSession) -> Any:
        async with session.post(url, data=b"{}", headers=headers) as answer:
            document = await answer.json()
            if answer.status == 429:
                return document["Reason"]
            times.append(document)
            return "done"

    def change() -> None:
        for limit in (1, 0, 3, 2, 3):
            client.put_function_concurrency(FunctionName="limited", ReservedConcurrentExecutions=limit)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        answers = Counter(await asyncio.gather(*(one(session) for _ in range(300))))
        changing = asyncio.create_task(asyncio.to_thread(change))
        while not changing.done():
            answers += Counter(await asyncio.gather(*(one(session) for _ in range(20))))
        await changing
        assert set(answers) == {"done", "ReservedFunctionConcurrentInvocationLimitExceeded"}
        assert most_at_once(times) == 3
        last = await asyncio.gather(*(one(session) for _ in range(3)))  # every permit came back
        assert "ReservedFunctionConcurrentInvocationLimitExceeded" not in last


SPOILING = {
    "raises": "raise ValueError('no')",
    "exits": "import sys; sys.exit(3)",
    "interrupts": "raise KeyboardInterrupt",
    "starts threads": "import _thread, time\nfor _ in range(9): _thread.start_new_thread(time.sleep, (2,))",
    "empties sys.path": "import sys\ndef h(e, c): sys.path.clear()",
    "empties the finders": "import sys\ndef h(e, c): sys.meta_path.clear()",
    "forgets modules": "import sys\ndef h(e, c):\n    for name in ('json', 'm', 'email'): sys.modules.pop(name, 0)",
    "empties os.environ": "import os\ndef h(e, c): os.environ.clear()",
    "spoils json": "import json\ndef h(e, c): json.dumps = json.loads = None",
    "spoils open": "import builtins\ndef h(e, c): builtins.open = None",
    "spoils importlib": "import importlib\ndef h(e, c): importlib.import_module = None",
    "goes elsewhere": "import os, tempfile\ndef h(e, c): d = tempfile.mkdtemp(); os.chdir(d); os.rmdir(d)",
    "closes streams": "import sys\ndef h(e, c): sys.stdout.close(); sys.stderr.close()",
}


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostProcess]:
    """A host in which one spoils after the other."""
    with HostProcess.start(None, "--state", "state", cwd=tmp_path_factory.mktemp("spoiled")) as process:
        deploy(client_of(process), "before", module("import util\ndef h(e, c): return util.V", util="V = 'before'"))
        yield process


@pytest.mark.parametrize("how", SPOILING)
def test_code_that_spoils_its_process_harms_neither_the_host_nor_other_functions(
    spoiled: HostProcess, how: str
) -> None:
    client, name = client_of(spoiled), how.replace(" ", "-").replace(".", "-")
    assert invoke(client, "before") == "before"
    deploy(client, f"spoils-{name}", module(SPOILING[how]))
    for _ in range(2):
        invoke(client, f"spoils-{name}")
    deploy(client, f"after-{name}", module("import util\ndef h(e, c): return util.V", util=f"V = {name!r}"))
    assert (invoke(client, "before"), invoke(client, f"after-{name}")) == ("before", name)


def test_a_package_that_hides_the_standard_library_hides_it_from_itself_alone(client: Any) -> None:
    names = (
        "json",
        "logging",
        "asyncio/__init__",
        "typing",
        "sitecustomize",
        "serverfull/__init__",
        "botocore/__init__",
    )
    hiding = dict.fromkeys(names, "raise SystemExit('loaded')") | {"logging": "V = 'its own'"}
    inside = {"serverfull:execution": "inprocess"}  # a process has loaded json and logging before, as on AWS
    deploy(client, "hiding", module("def h(e, c):\n    import logging\n    return logging.V", **hiding), Tags=inside)
    deploy(client, "falling", module("import json\ndef h(e, c): pass", **hiding), Tags=inside)
    assert invoke(client, "hiding") == "its own"
    assert invoke(client, "falling")["errorType"] == "Runtime.ExitError"
    using = module("import json, logging, typing\ndef h(e, c): return json.dumps([logging.INFO])")
    deploy(client, "using", using, Tags=inside)
    assert invoke(client, "using") == "[20]"


def test_a_package_comes_before_the_standard_library_in_a_process_of_its_own(client: Any) -> None:
    own = module("def h(e, c):\n    import csv\n    return csv.V", csv="V = 'its own'", serverfull="raise SystemExit")
    deploy(client, "own-csv", own)
    deploy(client, "usual-csv", module("import csv\ndef h(e, c): return csv.QUOTE_ALL"))
    assert [invoke(client, name) for name in ("own-csv", "usual-csv")] == ["its own", 1]


def test_a_state_that_is_locked_or_gone_fails_management_alone_until_it_is_back(tmp_path: Path) -> None:
    with HostProcess.start(None, "--state", "state", cwd=tmp_path) as host:
        client, database = client_of(host), tmp_path / "state" / "state.db"
        deploy(client, "good", module())
        assert invoke(client, "good") == "good"
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            assert client.get_function(FunctionName="good")["Configuration"]["State"] == "Active"
            code, _ = refusal(client.publish_version, FunctionName="good")
            assert code == "ServiceException"
            assert invoke(client, "good") == "good"
            other.execute("ROLLBACK")
        assert client.publish_version(FunctionName="good")["Version"] == "1"
        assert invoke(client, "good") == "good"  # as it is now; what is not known is asked of the state
        aside = tmp_path / "aside"
        aside.mkdir()
        files = list((tmp_path / "state").glob("state.db*"))
        for file in files:
            file.rename(aside / file.name)
        assert refusal(client.list_functions)[0] == "ServiceException"
        assert invoke(client, "good") == "good"
        for file in files:
            (aside / file.name).rename(file)
        assert [
            version["Version"] for version in client.list_versions_by_function(FunctionName="good")["Versions"]
        ] == [
            "$LATEST",
            "1",
        ]


def test_a_full_disk_fails_what_writes_and_nothing_else(tmp_path: Path) -> None:
    # A limit on files' sizes fails a write as a full disk does, and needs no rights.
    (tmp_path / "full.py").write_text(
        "import resource\n"
        "def limit(event):\n"
        "    limit = event or resource.RLIM_INFINITY\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))\n"
        "functions = {'limit': limit}\n"
    )
    with HostProcess.start("full.py", "--state", "state", cwd=tmp_path) as host:
        client = client_of(host)
        deploy(client, "good", module())
        assert invoke(client, "good") == "good"
        client.invoke(FunctionName="limit", Payload=b"4096")
        large = module(GOOD, large="# " + "x" * 100_000)
        assert refusal(client.create_function, **creation("large", large))[0] == "ServiceException"
        assert refusal(client.publish_version, FunctionName="good")[0] == "ServiceException"
        assert client.get_function(FunctionName="good")["Configuration"]["State"] == "Active"
        assert invoke(client, "good") == "good"
        client.invoke(FunctionName="limit", Payload=b"0")
        assert not list((tmp_path / "state").rglob(".new-*"))
        deploy(client, "large", large)
        assert client.publish_version(FunctionName="good")["Version"] == "1"
        assert invoke(client, "large") == "good"
