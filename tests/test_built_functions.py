"""Functions in folders that are built of their sources: what is run when, and what is served meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from serverfull.config.settings import ReloadSettings
from serverfull.errors import CodeNotBuilt
from serverfull.fetchers.directory import DirectoryFetcher
from serverfull.invocation.sinks import NullSink
from serverfull.reload.builds import Builder
from serverfull.wiring.watching import builder_of

SOURCE = Path(__file__).parent / "runtimes" / "process" / "bootstraps" / "bootstrap.c"
HANDLER = "def handler(event, context):\n    return {word!r}\n"
DEADLINE = 30.0


class Log:
    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    warning = error = info

    def events(self) -> list[str]:
        return [event for event, _ in self.lines]


class Output(NullSink):
    def __init__(self) -> None:
        self.text = ""

    def write(self, record: Any) -> None:
        self.text += record.text


class Site:
    """A folder, and what builds it."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.log = Log()
        self.output = Output()
        self.builder: Builder = builder_of(ReloadSettings(**{"builds": True, **settings}), self.log, self.output)

    async def build(self, command: str) -> bool:
        return await asyncio.wait_for(self.builder.build("made", self.folder, command), DEADLINE)

    def runs(self) -> int:
        return self.log.events().count("built") + self.log.events().count("build failed")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    (tmp_path / "source").write_text("1")
    return Site(tmp_path)


async def test_a_build_runs_when_sources_have_changed_and_not_for_what_it_writes_itself(site: Site) -> None:
    command = "cp source made; date +%N > stamp; cat source"
    assert await site.build(command)
    assert (site.folder / "made").read_text() == "1"
    assert site.runs() == 1  # all that it wrote was new
    assert not await site.build(command)
    (site.folder / "source").write_text("22")
    assert await site.build(command)
    assert not await site.build(command)
    assert site.runs() == 2
    assert site.output.text == "1\n22\n"


async def test_outputs_that_were_there_before_are_known_after_two_builds(site: Site) -> None:
    (site.folder / "made").write_text("old")
    command = "date +%N > made"
    assert await site.build(command)
    assert site.runs() == 2
    (site.folder / "source").write_text("22")
    assert await site.build(command)
    assert site.runs() == 3


async def test_a_source_that_is_saved_while_it_is_built_is_built_again(site: Site) -> None:
    assert await site.build("cp source made; if [ ! -e saved ]; then echo 2 > saved; echo 2 > source; fi")
    assert (site.folder / "made").read_text() == "2\n"
    assert site.runs() == 2


async def test_a_failure_is_told_once_and_again_to_who_asks_until_a_source_is_another(site: Site) -> None:
    command = "cat source; test $(cat source) = 2"
    for _ in range(2):
        with pytest.raises(CodeNotBuilt, match="failed with exit code 1"):
            await site.build(command)
    assert site.log.events() == ["build failed"]
    assert site.log.lines[0][1]["reason"] == "failed with exit code 1"
    assert site.output.text == "1\n"
    (site.folder / "source").write_text("2")
    assert await site.build(command)


async def test_two_builds_of_a_folder_never_run_at_once(site: Site) -> None:
    command = "mkdir lock && sleep 0.05 && rmdir lock"
    ran = await asyncio.gather(*(site.build(command) for _ in range(4)))
    assert sorted(ran) == [False, False, False, True]
    assert "build failed" not in site.log.events()


@pytest.mark.parametrize("how", ["deadline", "cancel"])
async def test_nothing_of_a_build_lives_on(site: Site, how: str) -> None:
    if how == "deadline":
        site = Site(site.folder, build_timeout=0.3)
    building = asyncio.ensure_future(site.build("sleep 600 & echo $! > pid.new; mv pid.new pid; sleep 600"))
    async with asyncio.timeout(DEADLINE):
        while not (site.folder / "pid").exists():  # noqa: ASYNC110 - a program tells nobody
            await asyncio.sleep(0.005)
    pid = int((site.folder / "pid").read_text())
    if how == "cancel":
        building.cancel()
        with pytest.raises(asyncio.CancelledError):
            await building
    else:
        with pytest.raises(CodeNotBuilt, match=r"was not done within 0\.3 s"):
            await building
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIG_DFL)


async def test_nothing_is_built_where_the_settings_do_not_allow_it(site: Site) -> None:
    site = Site(site.folder, builds=False)
    assert not await site.build("touch made")
    assert not await site.build("touch made")
    assert site.log.events() == ["not built"]
    assert not (site.folder / "made").exists()


class Served:
    def __init__(self, folder: Path, host: Any) -> None:
        self.folder = folder
        self.host = host

    async def until(self, answer: object) -> None:
        async with asyncio.timeout(DEADLINE):
            while (await self.host.invoke("made", {"n": 1})).json() != answer:  # noqa: ASYNC110 - the point
                await asyncio.sleep(0.01)


Start = Callable[..., Awaitable[Served]]


@pytest.fixture
def serve(tmp_path: Path, start_host: Callable[..., Any]) -> Start:
    async def start(**manifest: str) -> Served:
        folder = tmp_path / "made"
        folder.mkdir(exist_ok=True)
        (folder / "function.json").write_text(json.dumps(manifest))
        fetcher = DirectoryFetcher(tmp_path)
        host = await start_host(fetcher, reload={"builds": True, "generation_header": True, "debounce_ms": 10})
        await asyncio.wait_for(fetcher._watch.active(), DEADLINE)
        return Served(folder, host)

    return start


async def test_a_bootstrap_in_c_is_compiled_when_its_source_is_saved(serve: Start, tmp_path: Path) -> None:
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler")
    (tmp_path / "made").mkdir()
    source = SOURCE.read_text()
    (tmp_path / "made" / "bootstrap.c").write_text(source)
    served = await serve(Runtime="provided.al2023", Handler="any", Build=f"{compiler} -o bootstrap bootstrap.c")
    first = await served.host.invoke("made", {"n": 1})
    assert (first.json(), first.headers["x-serverfull-code-generation"]) == ({"C": {"n": 1}}, "1")

    served.host.log.lines.clear()
    (served.folder / "bootstrap.c").write_text(source + "\nnonsense\n")
    await served.host.log.wait_for("build failed")
    assert (await served.host.invoke("made", {"n": 1})).json() == {"C": {"n": 1}}

    (served.folder / "bootstrap.c").write_text(source.replace('{\\"C\\":', '{\\"D\\":'))
    await served.until({"D": {"n": 1}})
    lines = [fields for _, event, fields in served.host.log.lines if event == "code reloaded"]
    assert [line["generation"] for line in lines] == [2]


async def test_code_may_be_built_into_a_folder_below_that_is_not_there_yet(serve: Start, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "app.src").write_text(HANDLER.format(word="one"))
    served = await serve(
        Runtime="python3.12",
        Handler="app.handler",
        Build="rm -rf build && mkdir -p build/hot && cp app.src build/hot/app.py",
        Code="build/hot",
    )
    assert (await served.host.invoke("made")).json() == "one"
    (served.folder / "app.src").write_text(HANDLER.format(word="two"))
    await served.until("two")


async def test_a_first_build_that_fails_leaves_a_function_that_says_so(serve: Start) -> None:
    served = await serve(Runtime="provided.al2023", Handler="any", Build="exit 3")
    answer = await served.host.invoke("made")
    assert (answer.status, answer.error_type) == (409, "ResourceConflictException")
    assert "its build command, exit 3, failed with exit code 3" in answer.body.decode()


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ({"Build": ""}, "Build: it has to be a text that is not empty"),
        ({"Build": ["make"]}, "Build: it has to be a text that is not empty"),
        ({"Code": "../other"}, "Code: ../other is no folder below"),
        ({"Code": "build"}, "Code: there is no folder"),
    ],
)
async def test_what_is_no_build_is_refused_by_name(tmp_path: Path, manifest: dict[str, Any], why: str) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "function.json").write_text(json.dumps(manifest))
    [found] = await DirectoryFetcher(tmp_path).survey()
    assert why in str(found.failure)
