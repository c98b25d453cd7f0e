from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import FunctionSettings, LoggingSettings, Settings
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.domain.runtimes import host_runtime
from serverfull.errors import ExtraMissing, FunctionNotReady, InternalFailure, NotFoundError, TargetNotFound
from serverfull.fetchers import directory
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.directory import DirectoryFetcher
from serverfull.fetchers.targets import load_target
from serverfull.interfaces import Watch, Watching
from serverfull.reload.watching import Watcher
from serverfull.testing.fetcher_suite import FetcherSuite, NoLog, surroundings
from serverfull.testing.hosts import ThreadHost

HANDLER = "def handler(event, context):\n    return {result}\n"


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def handler_of(function: Function) -> DeployedHandler:
    assert isinstance(function.handler, DeployedHandler)
    return function.handler


async def failures(fetcher: DirectoryFetcher) -> dict[str, str]:
    return {found.name: found.failure for found in await fetcher.survey() if found.failure is not None}


class Nobody(Watching):
    """Stands for a host that has nothing to watch with."""

    def watch(self, *_: Any, **__: Any) -> Watch:
        raise ExtraMissing("watching folders", "watchfiles", "reload")

    async def aclose(self) -> None:
        """There is nothing."""


async def until(found: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(4000):
        if await found():
            return
        await asyncio.sleep(0.005)
    raise TimeoutError


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    error = warning


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {"hello/app.py": HANDLER.format(result=1), "order.py": HANDLER.format(result=2)}
    return write(tmp_path / "functions", files)


class TestDirectoryFetcher(FetcherSuite):
    @pytest.fixture
    def fetcher(self, root: Path) -> DirectoryFetcher:
        return DirectoryFetcher(root)


class TestDirectoryFetcherThatLooksEachTime(FetcherSuite):
    @pytest.fixture
    def fetcher(self, root: Path) -> DirectoryFetcher:
        return DirectoryFetcher(root, age=0.0)


async def test_a_folder_is_a_function_and_so_is_a_python_file(root: Path) -> None:
    write(root, {"hello/function.json": json.dumps({"Timeout": 9, "Tags": {"a": "b"}, "Layers": ["_layers/one"]})})
    write(root, {"order.json": '{"MemorySize": 256}', "_layers/one/python/one.py": "", "_other.py": "", ".git/x": ""})
    write(root, {"README.md": "", "nothing/.keep": ""})
    (root / "nothing/.keep").unlink()
    functions = await DirectoryFetcher(str(root), region="eu-west-1").list()
    assert sorted(functions) == ["hello", "order"]
    hello, order = handler_of(functions["hello"]), handler_of(functions["order"])
    assert (hello.name, hello.root, hello.runtime, hello.region) == (
        "app.handler",
        root / "hello",
        host_runtime(),
        "eu-west-1",
    )
    assert hello.layers == (root / "_layers/one",)
    assert (functions["hello"].timeout, functions["hello"].tags) == (9, {"a": "b"})
    assert (order.name, order.root, order.source) == ("order.handler", root, root / "order.py")
    assert functions["order"].memory_size == 256


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"lambda_function.py": "def lambda_handler(e, c): ...", "app.py": ""}, "lambda_function.lambda_handler"),
        ({"my_own.py": "handler = lambda event: 1", "app.py": ""}, "my_own.handler"),
        ({"app.py": "from other import lambda_handler", "other.py": ""}, "app.lambda_handler"),
        ({"main.py": "async def handler(e): ...", "util.py": ""}, "main.handler"),
        ({"main.py": "def main(e): ...\ndef util(): ..."}, "main.main"),
        ({"square.py": "import math\ndef _inner(): ...\ndef anything(e): ..."}, "square.anything"),
        ({"square.py": "def a(): ...\ndef b(): ..."}, "square.lambda_handler"),
        ({"app.py": "def my_own(e): ...\ndef b(): ..."}, "app.my_own"),
        ({"app.py": "def handler(:"}, "app.lambda_handler"),
        ({"a.py": "", "b.py": "", "function.json": '{"Handler": "b.run"}'}, "b.run"),
        ({"bootstrap": ""}, "bootstrap"),
        ({"index.mjs": "", "function.json": '{"Runtime": "nodejs22.x"}'}, "index.handler"),
    ],
)
async def test_the_handler_is_guessed_where_it_is_not_said(
    tmp_path: Path, files: dict[str, str], expected: str
) -> None:
    write(tmp_path, {f"my-own/{name}": text for name, text in files.items()})
    assert handler_of(await DirectoryFetcher(tmp_path).fetch("my-own")).name == expected


@pytest.mark.parametrize(
    ("files", "name", "why"),
    [
        ({"a/function.json": "{"}, "a", "{root}/a/function.json: it is no JSON: "),
        ({"a/function.json": "[]", "a/app.py": ""}, "a", "{root}/a/function.json: it has to be an object, not a list"),
        ({"b.py": "", "b.json": "null"}, "b", "{root}/b.json: it has to be an object, not null"),
        ({"a/function.json": "[" * 100_000}, "a", "{root}/a/function.json: it is no JSON: "),
        ({"a/function.json": " " * (1 << 20) + " "}, "a", "{root}/a/function.json: it is longer than 1048576 bytes"),
        ({"a/function.json": '{"Timeout": 0}', "a/app.py": ""}, "a", "{root}/a/function.json: Timeout: it has to be"),
        ({"a/function.json/x": "", "a/app.py": ""}, "a", "{root}/a/function.json: it is no file"),
        ({"b.py": "", "b.json": '{"Role": "x"}'}, "b", "{root}/b.json: Role is no member of a function's config"),
        ({"a/index.js": ""}, "a", "{root}/a: Runtime: say which one runs it"),
        ({"a/x.py": "", "a/y.py": ""}, "a", "{root}/a: Handler: say which of x.py or y.py has it, and its name"),
        ({"a.b/app.py": ""}, "a.b", "{root}/a.b: its name takes letters, digits, hyphens and underscores, 64 at most"),
        ({"a" * 65 + ".py": ""}, "a" * 65, "{root}/" + "a" * 65 + ".py: its name takes letters, digits"),
        ({"a/app.py": "", "a.py": ""}, "a", "{root}/a.py: there is {root}/a too: rename one of them"),
        ({"a/function.json": '{"Layers": ["_no"]}', "a/b.py": ""}, "a", "{root}/a/function.json: Layers[0]: there is"),
        (
            {"a/function.json": '{"Layers": ["../x"]}', "a/b.py": ""},
            "a",
            "{root}/a/function.json: Layers[0]: ../x is no",
        ),
        (
            {"a/function.json": '{"Layers": ["/"]}', "a/b.py": ""},
            "a",
            "{root}/a/function.json: Layers[0]: / is no fold",
        ),
    ],
)
async def test_one_function_that_cannot_be_served_says_why_and_others_are(
    root: Path, files: dict[str, str], name: str, why: str
) -> None:
    log = Log()
    fetcher = DirectoryFetcher(write(root, files))
    await fetcher.open(surroundings(logger=log, watching=Nobody()))
    why = why.replace("{root}", str(root))
    assert (await failures(fetcher))[name].startswith(why)
    with pytest.raises(FunctionNotReady) as refused:
        await fetcher.fetch(name)
    assert refused.value.state == "Failed"
    assert refused.value.why.startswith(why)
    assert not fetcher.lacks(name)
    assert sorted(await fetcher.list()) == ["hello", "order"]
    ((event, fields),) = log.lines
    assert (event, fields["function"]) == ("function cannot be served", name)


@pytest.mark.parametrize("place", ["outside", "outside.py", "inside/function.json"])
async def test_links_that_lead_out_of_the_folder_are_refused(tmp_path: Path, root: Path, place: str) -> None:
    outside = write(tmp_path / "other", {"app.py": HANDLER.format(result=3), "function.json": "{}"})
    write(root, {"inside/app.py": HANDLER.format(result=4)})
    target = outside if place == "outside" else outside / {"outside.py": "app.py"}.get(place, "function.json")
    (root / place).symlink_to(target)
    found = await failures(DirectoryFetcher(root))
    assert list(found.values()) == [f"{root / place}: it is a link that leads out of {root}"]


async def test_links_within_the_folder_are_followed(root: Path) -> None:
    (root / "alias").symlink_to("hello")
    (root / "gone").symlink_to("nowhere")
    (root / "circle.py").symlink_to("circle.py")
    (root / "hello/function.json").symlink_to("not-there")
    fetcher = DirectoryFetcher(root, age=0.0)
    assert sorted(await fetcher.list()) == ["order"]
    found = await failures(fetcher)
    assert sorted(found) == ["alias", "circle", "hello"]
    assert "it is a link that leads nowhere" in found["hello"]
    assert re.search("leads to itself|symbolic links", found["circle"])
    (root / "hello/function.json").unlink()
    alias = await fetcher.fetch("alias")
    assert handler_of(alias).root == root / "hello"
    write(root, {"hello/app.py": "# another\n" + HANDLER.format(result=1)})
    assert await fetcher.fetch("alias") is not alias


async def test_a_folder_that_was_reached_by_a_link_is_served(tmp_path: Path, root: Path) -> None:
    current = tmp_path / "current"
    current.symlink_to(root)
    fetcher = DirectoryFetcher(current, age=0.0)
    assert sorted(await fetcher.list()) == ["hello", "order"]
    write(tmp_path / "next", {"other.py": ""})
    (tmp_path / "new").symlink_to("next")
    os.replace(tmp_path / "new", current)
    assert list(await fetcher.list()) == ["other"]


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere", Path(__file__)):
        with pytest.raises(TargetNotFound, match=f"there is no folder {path}"):
            DirectoryFetcher(path)


async def test_what_changes_is_another_function_and_nothing_else_is(root: Path) -> None:
    changed: list[str] = []
    fetcher = DirectoryFetcher(root, age=0.0)
    await fetcher.open(surroundings(changed=changed.append, watching=Nobody()))
    before = dict(await fetcher.list())
    assert sorted(changed) == ["hello", "order"]
    changed.clear()

    write(root, {"hello/inner/data.txt": "new"})
    write(root, {"hello/__pycache__/app.pyc": "", "hello/.venv/x.py": "", "hello/node_modules/a/index.js": ""})
    hello = await fetcher.fetch("hello")
    assert (before["hello"].generation, hello.generation) == (1, 2)
    assert await fetcher.fetch("order") is before["order"]
    assert changed == ["hello"]

    os.utime(root / "hello/app.py", ns=(1, 1))
    assert await fetcher.fetch("hello") is not hello
    write(root, {"_common.py": "X = 1"})
    assert await fetcher.fetch("order") is not before["order"]
    changed.clear()

    write(root, {"order.json": "{"})
    with pytest.raises(FunctionNotReady):
        await fetcher.fetch("order")
    (root / "order.json").unlink()
    await fetcher.fetch("order")
    assert changed == ["order", "order"]
    changed.clear()

    write(root, {"late/app.py": HANDLER.format(result=5)})
    (root / "order.py").unlink()
    assert sorted(await fetcher.list()) == ["hello", "late"]
    assert sorted(changed) == ["late", "order"]
    with pytest.raises(NotFoundError):
        await fetcher.fetch("order")


async def test_a_layer_that_changes_changes_the_functions_that_have_it(root: Path) -> None:
    write(root, {"_layers/one/python/one.py": "X = 1", "hello/function.json": '{"Layers": ["_layers/one"]}'})
    fetcher = DirectoryFetcher(root, age=0.0)
    before = dict(await fetcher.list())
    write(root, {"_layers/one/python/one.py": "X = 10"})
    assert await fetcher.fetch("hello") is not before["hello"]


async def test_the_disk_is_looked_at_once_in_a_while_and_once_for_all(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []

    def look(place: Path) -> directory.Looked:
        looks.append(place)
        return real(place)

    real = directory.look
    monkeypatch.setattr(directory, "look", look)
    fetcher = DirectoryFetcher(root, age=3600.0)
    await asyncio.gather(*(fetcher.fetch("hello") for _ in range(20)), fetcher.list())
    write(root, {"late.py": ""})
    assert fetcher.lacks("late")
    for _ in range(20):
        await fetcher.fetch("order")
    assert looks == [root]


async def test_what_is_watched_is_looked_at_when_it_changes_and_not_before(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, real = [], directory.look

    def look(place: Path) -> directory.Looked:
        looks.append(place)
        return real(place)

    monkeypatch.setattr(directory, "look", look)
    watcher = Watcher(debounce=0.01, logger=NoLog())
    changed: list[str] = []
    fetcher = DirectoryFetcher(root, age=0.0)
    try:
        await fetcher.open(surroundings(changed=changed.append, watching=watcher))

        async def is_watched() -> bool:
            before = len(looks)
            await fetcher.list()
            return len(looks) == before

        await until(is_watched)
        changed.clear()
        before = {name: await fetcher.fetch(name) for name in ("hello", "order")}

        write(root, {"hello/app.py": HANDLER.format(result=100)})

        async def is_another() -> bool:
            return await fetcher.fetch("hello") is not before["hello"]

        await until(is_another)
        assert await fetcher.fetch("order") is before["order"]
        assert set(changed) == {"hello"}

        write(root, {"late.py": ""})

        async def is_there() -> bool:
            return not fetcher.lacks("late")

        await until(is_there)
        await fetcher.fetch("late")

        await fetcher.aclose()
        write(root, {"later.py": ""})
        assert "later" in await fetcher.list()
    finally:
        await fetcher.aclose()
        await watcher.aclose()


async def test_a_folder_that_is_gone_is_said_and_heals(root: Path) -> None:
    fetcher = DirectoryFetcher(root, age=0.0)
    await fetcher.list()
    away = shutil.move(root, root.with_name("away"))
    with pytest.raises(FunctionNotReady, match=f"the folder {root} cannot be read: No such file or directory"):
        await fetcher.fetch("hello")
    with pytest.raises(NotFoundError):
        await fetcher.fetch("never-there")
    assert await fetcher.list() == {}
    shutil.move(away, root)
    assert sorted(await fetcher.list()) == ["hello", "order"]


async def test_a_disk_that_does_not_answer_keeps_no_call_for_long(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "PATIENCE", 0.01)
    answers = threading.Event()
    real = directory.look

    def hanging(place: Path) -> directory.Looked:
        answers.wait(30.0)
        return real(place)

    known = DirectoryFetcher(root, age=0.0)
    seen = await known.fetch("hello")
    monkeypatch.setattr(directory, "look", hanging)
    try:
        with pytest.raises(InternalFailure, match=f"The folder {root} does not answer"):
            await DirectoryFetcher(root).list()
        assert await known.fetch("hello") is seen
    finally:
        answers.set()
    await known.aclose()


async def test_a_bug_while_it_looks_leaves_what_was_seen(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log()
    fetcher = DirectoryFetcher(root, age=0.0)
    await fetcher.open(surroundings(logger=log, watching=Nobody()))
    seen = await fetcher.fetch("hello")
    monkeypatch.setattr(directory, "look", lambda _place: 1 // 0)
    assert await fetcher.fetch("hello") is seen
    event, fields = log.lines[-1]
    assert (event, type(fields["exc_info"])) == ("folder not looked at", ZeroDivisionError)


async def test_functions_reach_aws_where_the_host_says(root: Path) -> None:
    fetcher = DirectoryFetcher(root)
    assert handler_of(await fetcher.fetch("hello")).region == "us-east-1"
    await fetcher.open(surroundings(Settings(functions=FunctionSettings(region="eu-north-1"))))
    assert handler_of(await fetcher.fetch("hello")).region == "eu-north-1"


def test_a_host_runs_them_and_tells_where_they_lie(root: Path) -> None:
    write(root, {"own.py": "def own(event):\n    return 'hidden'\n", "torn/function.json": "{"})
    write(root.parent, {"app.py": "def own(event):\n    return 'shown'\n"})
    fetcher = ChainFetcher(load_target(f"{root.parent}/app.py:own"), DirectoryFetcher(root, age=0.05))
    write(root, {"facts.py": "import os\ndef facts(event, context): return os.getpid(), os.environ['AWS_REGION']\n"})
    settings = Settings(functions=FunctionSettings(region="eu-north-1"), logging=LoggingSettings(functions="NULL"))
    with ThreadHost(fetcher, settings=settings) as host:
        client = host.client()

        def call(name: str) -> Any:
            return json.load(client.invoke(FunctionName=name, Payload=b"{}")["Payload"])

        write(root, {"hello/.venv/lib/python3.X/site-packages/beside.py": "X = 1"})
        installed = root / "hello/.venv/lib/python3.X"
        installed.rename(installed.with_name(f"python3.{sys.version_info.minor}"))
        write(root, {"hello/app.py": "import beside\n" + HANDLER.format(result="beside.X")})
        assert (call("hello"), call("order"), call("own")) == (1, 2, "shown")
        with pytest.raises(client.exceptions.ResourceConflictException, match=r"function\.json: it is no JSON"):
            client.invoke(FunctionName="torn")
        process, region = call("facts")
        assert region == "eu-north-1"
        write(root, {"facts.py": "def facts(event, context): return 'edited'\n"})
        until = time.monotonic() + 20
        while Path(f"/proc/{process}").exists():  # nobody has called it since
            assert time.monotonic() < until
            time.sleep(0.005)
        with pytest.raises(client.exceptions.ResourceConflictException, match="the directory fetcher"):
            client.delete_function(FunctionName="hello")
        code = client.get_function(FunctionName="hello")["Code"]
        assert code == {"RepositoryType": "directory", "Location": (root / "hello").as_uri()}
        static = client.get_function(FunctionName="own")["Code"]
        assert static == {"RepositoryType": "static", "Location": (root.parent / "app.py").as_uri()}
        shown = client.get_function_configuration(FunctionName="order")
        assert (shown["Handler"], shown["Runtime"], shown["CodeSize"]) == ("order.handler", host_runtime(), 42)
        listed = client.list_functions()["Functions"]
        assert [function["FunctionName"] for function in listed] == ["facts", "hello", "order", "own"]

        with urllib.request.urlopen(f"{host.url}/_serverfull/functions") as answer:
            survey = [tuple(each.values()) for each in json.load(answer)["Functions"]]
        place = str(root)
        assert survey[:5] == [
            ("own", "static"),
            ("facts", "directory", place),
            ("hello", "directory", place),
            ("order", "directory", place),
            ("own", "directory", place, "static"),
        ]
        assert survey[5][:3] == ("torn", "directory", place)
        with urllib.request.urlopen(f"{host.url}/_serverfull/contracts") as answer:
            assert list(json.load(answer)) == ["own"]

        write(root, {"hello/app.py": HANDLER.format(result=7)})
        until = time.monotonic() + 20
        while call("hello") != 7:
            assert time.monotonic() < until
        again = client.get_function_configuration(FunctionName="order")
        assert again["CodeSha256"] == shown["CodeSha256"]
        assert not (root / "hello/__pycache__").exists()
        shutil.rmtree(root / "hello")
        while "hello" in [function["FunctionName"] for function in client.list_functions()["Functions"]]:
            assert time.monotonic() < until
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            call("hello")
