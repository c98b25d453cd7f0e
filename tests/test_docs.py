"""The documentation does what it says: its files are written, its hosts started, its commands run.

The first word after the language of a fenced block tells what is done with it:

- ``file=NAME``: the block is written to NAME in the page's own folder;
- ``serve``: the command of the block starts the host that the following blocks talk to;
- ``run``: every line that starts with ``$`` (or, in Python, the block) is run and must succeed; what follows a command
  is its output, in which a line ``...`` stands for anything.

Pages name port 8080; the hosts here listen on a free one, and commands are told.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from serverfull.testing.process import HostProcess, plain_environment

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "examples").rglob("README.md")),
]
ONLY_OUR_PLUGIN = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "serverfull.testing.pytest_plugin"}
"""For pages that run pytest: the plugin is there whether serverfull is installed or not, and once."""

BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    action: str
    text: str

    def commands(self) -> Iterator[tuple[str, str]]:
        """Give each command with the output that the page shows for it."""
        for part in re.split(r"^\$ ", self.text, flags=re.MULTILINE)[1:]:
            lines = part.splitlines(keepends=True)
            end = next(number for number, line in enumerate(lines) if not line.endswith("\\\n")) + 1
            yield "".join(lines[:end]).strip(), "".join(lines[end:]).strip()


def blocks(page: Path) -> list[Block]:
    return [Block(language, action, text) for language, action, text in BLOCK.findall(page.read_text())]


def pages_that_do_something() -> list[Path]:
    return [page for page in PAGES if any(block.action for block in blocks(page))]


class Reader:
    """Follows one page from its top to its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host: HostProcess | None = None

    def follow(self, block: Block) -> None:
        if block.action.startswith("file="):
            path = self.folder / block.action.removeprefix("file=")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        elif block.action == "serve":
            self.serve(block)
        elif block.action != "run":
            return
        elif block.language == "python":
            self.run([sys.executable, "-c", self.address(block.text)])
        else:
            for command, output in block.commands():
                printed = self.run(["bash", "-euo", "pipefail", "-c", self.address(command)])
                assert re.fullmatch(pattern(output), printed.strip()), (command, printed)

    def serve(self, block: Block) -> None:
        self.close()
        ((command, _),) = block.commands()
        words = command_of_make(command) if command.startswith("make ") else command.split()
        begins = words.index("serverfull")
        variables = [word.replace("$PWD", str(self.folder)).partition("=") for word in words[:begins]]
        words = words[begins:]
        assert words[:2] == ["serverfull", "serve"]
        cwd = ROOT if command.startswith("make ") else self.folder
        env = {name: value for name, _, value in variables}
        self.host = HostProcess.start(*(words[2:] or [None]), env=env, cwd=cwd)

    def address(self, text: str) -> str:
        return text.replace("localhost:8080", f"127.0.0.1:{self.host.port}") if self.host else text

    def run(self, command: list[str]) -> str:
        folder = Path(sys.executable).parent
        env = {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", **ONLY_OUR_PLUGIN}
        if self.host:
            env["SERVERFULL_ENDPOINT"] = self.host.url
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=plain_environment() | env,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def close(self) -> None:
        if self.host:
            self.host.stop()
        self.host = None


def pattern(output: str) -> str:
    return "".join(r"(.*)" if line == "..." else re.escape(line) + r"\n?" for line in output.splitlines())


def command_of_make(command: str) -> list[str]:
    """Say which command ``make TARGET`` ends with."""
    done = subprocess.run(
        [*command.split(), "--dry-run", "PYTHON=python3"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    *_, last = done.stdout.splitlines()
    return re.sub(r"\S*/bin/", "", last.removeprefix("exec ")).split()


@pytest.mark.parametrize("page", pages_that_do_something(), ids=lambda page: page.name)
def test_a_page_does_what_it_says(page: Path, tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for block in blocks(page):
            reader.follow(block)
    finally:
        reader.close()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


def test_the_first_screen_of_the_readme_has_both_commands_and_a_curl() -> None:
    screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    for words in ("make run", "make test", "$ curl "):
        assert words in screen


def test_every_example_is_in_their_list() -> None:
    text = (ROOT / "examples/README.md").read_text()
    for path in (ROOT / "examples").glob("*.py"):
        assert f"[{path.name}]({path.name})" in text


def test_every_command_in_the_list_of_examples_works(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    reader.host = HostProcess.start("examples/app.py:functions", cwd=ROOT)
    try:
        commands = re.findall(r"`(serverfull invoke [^`]+)`", (ROOT / "examples/README.md").read_text())
        assert len(commands) == 5
        for command in commands:
            if "coffee" not in command:  # that one shows an error, and its exit code says so
                assert reader.run(["bash", "-c", command])
    finally:
        reader.close()


async def test_the_program_of_the_quick_start_serves_functions_and_its_own_route() -> None:
    from aiohttp.test_utils import TestClient, TestServer

    (program,) = (block for block in blocks(ROOT / "docs/quick-start.md") if block.action == "file=program.py")
    names: dict[str, Any] = {"__name__": "program"}
    exec(program.text, names)
    async with TestClient(TestServer(names["build"]())) as client:
        answer = await client.post("/2015-03-31/functions/hello/invocations", data=b'{"name": "Ada"}')
        assert await answer.json(content_type=None) == "Hello Ada!"
        answer = await client.get("/version")
        assert await answer.json() == {"version": 7}
