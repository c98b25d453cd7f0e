"""Hosts of functions whose module is edited while they serve it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serverfull.config import load
from serverfull.errors import ConfigurationError, TargetImportFailed
from serverfull.fetchers.reloading import ReloadingFetcher
from serverfull.serving import run_serve
from serverfull.testing.fetcher_suite import FetcherSuite

GENERATION = "x-serverfull-code-generation"

APP = """
import threading
from edited_helper import WORD

begun, go_on = threading.Event(), threading.Event()

def hello(event, context):
    return WORD

def slow(event, context):
    begun.set()
    go_on.wait(20)
    import edited_late
    return WORD

functions = {"hello": hello, "slow": slow}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder of modules, which are forgotten after the test."""
    path, modules, wrote = list(sys.path), set(sys.modules), sys.dont_write_bytecode
    (tmp_path / "edited_app.py").write_text(APP)
    (tmp_path / "edited_helper.py").write_text("WORD = 'one'\n")
    (tmp_path / "edited_late.py").write_text("")
    yield tmp_path
    sys.path[:], sys.dont_write_bytecode = path, wrote
    for name in set(sys.modules) - modules:
        if name.startswith("edited_"):
            del sys.modules[name]


class TestReloadingFetcher(FetcherSuite):
    @pytest.fixture
    def fetcher(self, folder: Path) -> ReloadingFetcher:
        return ReloadingFetcher(f"{folder}/edited_app.py:functions")


class Edited:
    """A host whose functions are in a folder, and what is done to that."""

    def __init__(self, folder: Path, host: Any) -> None:
        self.folder = folder
        self.host = host

    async def save(self, name: str, text: str, said: str = "code reloaded") -> None:
        """Save a file, and wait until the host has taken it up."""
        self.host.log.lines.clear()
        (self.folder / name).write_text(text)
        await self.host.log.wait_for(said)

    def said(self, event: str) -> dict[str, Any]:
        return next(fields for _, seen, fields in self.host.log.lines if seen == event)


@pytest.fixture
async def edited(folder: Path, start_host: Callable[..., Any]) -> Edited:
    fetcher = ReloadingFetcher(f"{folder}/edited_app.py:functions")
    host = await start_host(fetcher, reload={"generation_header": True, "debounce_ms": 10})
    await asyncio.wait_for(fetcher._watch.active(), 20)
    return Edited(folder, host)


async def test_an_edited_module_is_served_by_the_next_call_and_calls_that_run_go_on_with_the_old_one(
    edited: Edited,
) -> None:
    before = await edited.host.invoke("hello")
    assert (before.json(), before.headers[GENERATION]) == ("one", "1")
    running = asyncio.create_task(edited.host.invoke("slow"))
    app = sys.modules["edited_app"]
    assert await asyncio.to_thread(app.begun.wait, 20)
    await edited.save("edited_helper.py", "WORD = 'two'\n")
    after = await edited.host.invoke("hello")
    assert (after.json(), after.headers[GENERATION]) == ("two", "2")
    line = edited.said("code reloaded")
    assert (line["function"], line["generation"]) == ("hello", 2)
    assert line["milliseconds"] > 0
    app.go_on.set()
    old = await running
    assert (old.json(), old.headers[GENERATION]) == ("one", "1")
    await edited.save("edited_helper.py", "WORD = 'six'\n")  # as long as the one before, in the same second
    assert (await edited.host.invoke("hello")).json() == "six"


async def test_code_that_cannot_be_loaded_is_answered_as_on_aws_until_it_can(edited: Edited) -> None:
    await edited.save("edited_app.py", "def hello(event, context:\n", "code cannot be loaded")
    answer = await edited.host.invoke("hello")
    assert (answer.status, answer.function_error) == (200, "Unhandled")
    error = answer.json()
    assert error["errorType"] == "Runtime.UserCodeSyntaxError"
    assert error["errorMessage"].startswith("Syntax error in module 'edited_app': ")
    assert error["requestId"] == answer.request_id
    assert error["stackTrace"] == [
        f'  File "{edited.folder}/edited_app.py" Line 1\n    def hello(event, context:\n',
    ]
    assert edited.said("code cannot be loaded")["reason"].startswith(f"{edited.folder}/edited_app.py, line 1: ")

    await edited.save("edited_app.py", "import edited_nowhere\n", "code cannot be loaded")
    assert (await edited.host.invoke("slow")).json() == {
        "errorMessage": "Unable to import module 'edited_app': No module named 'edited_nowhere'",
        "errorType": "Runtime.ImportModuleError",
        "requestId": edited.host.output.records[-1].request_id,
        "stackTrace": [],
    }

    await edited.save("edited_app.py", "1 / 0\n", "code cannot be loaded")
    error = (await edited.host.invoke("hello")).json()
    assert (error["errorType"], error["errorMessage"]) == ("ZeroDivisionError", "division by zero")
    assert len(error["stackTrace"]) == 1
    assert "edited_app.py" in error["stackTrace"][0]

    await edited.save("edited_app.py", "functions = None\n", "code cannot be loaded")
    error = (await edited.host.invoke("hello")).json()
    assert error["errorType"] == "Runtime.ImportModuleError"

    (edited.folder / "edited_app.py").unlink()
    await edited.save("edited_app.py", APP)
    healed = await edited.host.invoke("hello")
    assert (healed.function_error, healed.json()) == (None, "one")


async def test_calls_while_files_are_saved_whole_and_half_get_old_code_new_code_or_a_function_error(
    edited: Edited,
) -> None:
    answers: set[str] = set()

    async def call() -> None:
        while not saved.is_set():
            answer = await edited.host.invoke("hello")
            assert answer.status == 200
            answers.add(answer.json()["errorType"] if answer.function_error else answer.json())

    saved = asyncio.Event()
    calls = [asyncio.create_task(call()) for _ in range(4)]
    for number in range(20):
        text = f"WORD = 'word{number}'\n"
        (edited.folder / "edited_helper.py").write_text(text[: len(text) // 2])
        await asyncio.sleep(0)
        (edited.folder / "edited_helper.py").write_text(text)
        await asyncio.sleep(0.01 * (number % 3))
    (edited.folder / "edited_helper.py").write_text("WORD = 'last'\n")
    async with asyncio.timeout(20):
        while "last" not in answers:  # noqa: ASYNC110 - the calls find it
            await asyncio.sleep(0.005)
    saved.set()
    await asyncio.gather(*calls)
    words = {"one", "last", *(f"word{number}" for number in range(20))}
    assert answers <= words | {"Runtime.UserCodeSyntaxError", "Runtime.ImportModuleError", "NameError"}
    assert (await edited.host.invoke("hello")).json() == "last"


OWN = """
from serverfull import Fetcher, Function, NotFoundError

class Mine(Fetcher):
    def __init__(self, word):
        self.word, self.state = word, "new"
        self.function = Function(lambda event, context: self.word)

    async def open(self, surroundings):
        self.state = "open"

    async def aclose(self):
        self.state = "closed"

    async def fetch(self, name, qualifier=None):
        if name != "own":
            raise NotFoundError(name)
        return self.function

    async def list(self):
        return {"own": self.function}

functions = Mine("WORD")
"""


async def test_a_fetcher_of_ones_own_is_opened_anew_and_the_old_one_closed(
    folder: Path, start_host: Callable[..., Any]
) -> None:
    (folder / "edited_own.py").write_text(OWN)
    fetcher = ReloadingFetcher(f"{folder}/edited_own.py")
    host = await start_host(fetcher)
    await asyncio.wait_for(fetcher._watch.active(), 20)
    old = sys.modules["edited_own"].functions
    assert ((await host.invoke("own")).json(), old.state) == ("WORD", "open")
    await Edited(folder, host).save("edited_own.py", OWN.replace("WORD", "SIXTH"))
    assert (await host.invoke("own")).json() == "SIXTH"
    assert (sys.modules["edited_own"].functions.state, old.state) == ("open", "closed")


async def test_mock_mode_answers_for_the_code_as_it_is_and_says_when_it_is_broken(
    folder: Path, start_host: Callable[..., Any]
) -> None:
    typed = "def hello(event) -> {result}:\n    raise AssertionError\n\nfunctions = [hello]\n"
    (folder / "edited_app.py").write_text(typed.format(result="int"))
    fetcher = ReloadingFetcher(f"{folder}/edited_app.py")
    host = await start_host(fetcher, mock={"enabled": True})
    await asyncio.wait_for(fetcher._watch.active(), 20)
    edited = Edited(folder, host)
    assert (await host.invoke("hello")).json() == 0
    await edited.save("edited_app.py", typed.format(result="str"))
    assert (await host.invoke("hello")).json() == ""
    await edited.save("edited_app.py", "nowhere\n", "code cannot be loaded")
    assert (await host.invoke("hello")).json()["errorType"] == "NameError"


async def test_functions_that_come_and_go_are_noticed(edited: Edited) -> None:
    await edited.host.invoke("slow", b"{")
    await edited.save("edited_app.py", APP.replace('"slow": slow', '"fresh": hello'))
    assert (await edited.host.invoke("fresh")).json() == "one"
    gone = await edited.host.invoke("slow")
    assert (gone.status, gone.error_type) == (404, "ResourceNotFoundException")
    assert edited.said("function is gone")["function"] == "slow"


async def test_a_file_that_is_not_imported_changes_nothing(edited: Edited) -> None:
    (edited.folder / "notes.txt").write_text("1")
    (edited.folder / "edited_by_nobody_imported.py").write_text("1")
    await edited.save("edited_helper.py", "WORD = 'two'\n")
    assert (await edited.host.invoke("hello")).headers[GENERATION] == "2"


async def test_what_is_saved_before_the_host_watches_is_served_too(
    folder: Path, start_host: Callable[..., Any]
) -> None:
    fetcher = ReloadingFetcher(f"{folder}/edited_app.py:functions")
    (folder / "edited_helper.py").write_text("WORD = 'two'\n")
    host = await start_host(fetcher)
    await host.log.wait_for("code reloaded")
    assert (await host.invoke("hello")).json() == "two"


async def test_versions_of_a_fetcher_of_ones_own_are_those_that_it_tells(folder: Path) -> None:
    (folder / "edited_app.py").write_text(
        "from serverfull import StaticFetcher\n"
        "from serverfull.interfaces import Published\n"
        "class Mine(StaticFetcher):\n"
        "    async def published(self, name):\n"
        "        return Published([1, 2])\n"
        "functions = Mine({'f': lambda event: event})\n"
    )
    assert (await ReloadingFetcher(f"{folder}/edited_app.py:functions").published("f")).versions == [1, 2]


async def test_code_that_is_broken_from_the_beginning_is_not_served(folder: Path) -> None:
    (folder / "edited_app.py").write_text("1 / 0\n")
    with pytest.raises(TargetImportFailed):
        ReloadingFetcher(f"{folder}/edited_app.py:functions")


async def test_no_header_where_it_was_not_asked_for(start_host: Callable[..., Any]) -> None:
    host = await start_host({"hello": lambda event, context: "hello"})
    assert GENERATION not in (await host.invoke("hello")).headers


@pytest.mark.parametrize(("targets", "workers", "why"), [([], 1, "TARGET"), (["app.py"], 2, "one worker")])
def test_what_cannot_be_reloaded_is_refused_by_name(targets: list[str], workers: int, why: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--reload .*{why}"):
        run_serve(targets, load({"server.workers": workers}), reload=True)
