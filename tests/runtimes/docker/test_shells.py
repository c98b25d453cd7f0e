"""The scripts that begin containers, in the shells of this machine: the statuses by which they tell what happened."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from serverfull.runtimes.docker.options import HOST
from serverfull.runtimes.docker.shells import HOLDING, LEADING, TELLING, said_by_shell

SHELLS = [command for command in (["sh"], ["bash"], ["bash", "--posix"], ["busybox", "sh"]) if shutil.which(command[0])]
GONE, DENIED = "no such file or directory", "permission denied"
COMMANDS = [
    (["/no/such/program"], GONE),
    (["no-such-program"], GONE),
    (["/etc/passwd"], DENIED),
    (["/"], DENIED),
    (["sh", "-c", "exit 127"], 127),
    (["sh", "-c", "exit 3"], 3),
    (["true"], 0),
    (["sh", "-c", "echo $0 $#", "100%", "a b", ""], 0),
]


def script(shell: Sequence[str], begin: Sequence[str], folder: Path) -> list[str]:
    return [*shell, "-c", begin[2].replace(HOST, str(folder))]


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(("command", "end"), COMMANDS)
def test_what_cannot_be_executed_is_told_from_what_ended(
    tmp_path: Path, shell: list[str], command: list[str], end: str | int
) -> None:
    done = subprocess.run([*script(shell, LEADING, tmp_path), *command], check=False)
    assert (said_by_shell(done.returncode) or done.returncode) == end
    assert "100% 2\n" in (tmp_path / "log").read_text() or "100%" not in command
    os.mkfifo(tmp_path / "go")
    go = os.open(tmp_path / "go", os.O_RDWR)
    try:
        os.write(go, b"go\ngo\n")
        held = [*script(shell, HOLDING, tmp_path), *script(shell, TELLING, tmp_path), *command]
        subprocess.run(held, check=True, capture_output=True, timeout=20)
    finally:
        os.close(go)
    status = int((tmp_path / "ended").read_text())
    assert (said_by_shell(status) or status) == end
