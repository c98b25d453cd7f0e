"""`serve_mock` in programs of users, as processes of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from serverfull.testing.process import HostProcess, plain_environment

PROGRAM = """
import sys
from dataclasses import replace
from serverfull import MockAnswers, Settings, serve_mock

class Loud(MockAnswers):
    def answer(self, name, contract):
        return lambda event: [name, event]

def hello(event) -> list[str]:
    print("the handler ran")
    raise SystemExit(3)

settings = Settings()
settings = replace(settings, server=replace(settings.server, port=0, workers=WORKERS))
sys.exit(serve_mock({"hello": hello}, settings, ANSWERS))
"""
ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(("answers", "expected"), [("Loud()", ["hello", {"a": 1}]), ("None", [])])
def test_a_program_serves_mocks_until_it_is_told_to_end(
    tmp_path: Path, workers: str, answers: str, expected: object
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.replace("WORKERS", workers).replace("ANSWERS", answers))
    host = HostProcess([sys.executable, str(program)], plain_environment() | {"PYTHONPATH": str(ROOT)}, tmp_path)
    try:
        host._wait_until_ready(20)
        assert "(mock mode: no handler runs)" in host.wait_for_stdout("serverfull ready")
        answer = host.invoke("hello", b'{"a": 1}')
        assert (answer.status, answer.json()) == (200, expected)
        assert host.stop() == 0
    finally:
        if host.process.poll() is None:
            host.kill()
    assert not any("the handler ran" in line for line in host.stdout_lines())
