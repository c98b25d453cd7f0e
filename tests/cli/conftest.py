from __future__ import annotations

import io
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from serverfull.cli import main

ROOT = Path(__file__).parents[2]
FOREIGN = ("SERVERFULL_", "AWS_", "PORT", "NO_COLOR")


@dataclass(frozen=True)
class Done:
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def environ() -> dict[str, str]:
    """The environment of a command: the machine's own settings do not count, and the checkout is importable."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    return {**clean, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def run(tmp_path: Path, capfd: pytest.CaptureFixture[str], environ: dict[str, str]) -> Run:
    """Run ``serverfull`` with arguments in an empty folder, in this process: most tests need no other one."""

    def run(*arguments: str, stdin: str = "", **variables: str) -> Done:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path)
            patch.setattr(os, "environ", {**environ, **variables})
            patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
            code = main(arguments)
        return Done(code, *capfd.readouterr())

    return run
