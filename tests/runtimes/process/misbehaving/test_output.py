"""Functions that write too much, what is no text, and what looks like somebody else's lines."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

GIGABYTE = 1 << 30

FLOODS = {
    "lines": ("piece = (b'y' * 1023 + b'\\n') * 1024", GIGABYTE),
    "no newline": ("piece = b'x' * (1 << 20)", GIGABYTE),
    "binary": ("piece = bytes(range(256)) * 4096", GIGABYTE >> 2),
    "no UTF-8": ("piece = b'\\xff\\xc3\\x28\\xed\\xa0\\x80\\n' * 150_000", GIGABYTE >> 2),
}


@pytest.mark.parametrize(("piece", "size"), list(FLOODS.values()), ids=list(FLOODS))
def test_a_gigabyte_of_output_holds_up_nobody_and_is_cut(host: Any, piece: str, size: int) -> None:
    deed = f"""
        {piece}
        left = {size}
        while left > 0: left -= os.write(1 if event else 2, piece)
        return "written"
    """
    function, beside = host.doing(deed, Timeout=60), host.doing("return 'served'")
    assert function.is_good()
    with ThreadPoolExecutor(1) as pool, host.not_growing():
        flood = pool.submit(function.call, 1)
        while not flood.done():
            assert beside.call().result == "served"
    reply = flood.result()
    assert reply.result == "written"
    assert len(reply.log.encode()) <= 4096
    assert "more characters of this invocation's log were dropped]" in reply.log
    assert reply.log.rstrip().rpartition("\n")[2].startswith(f"REPORT RequestId: {reply.request_id}")


def test_output_is_written_while_nobody_reads_it_to_its_end(host: Any) -> None:
    deed = "for number in range(3): print('line', number)\nos.write(1, b'no newline')\nos._exit(0)"
    reply = host.doing(deed).call()
    assert "line 0\nline 1\nline 2\nno newline\nEND " in reply.log


FORGED = """START RequestId: {other} Version: 9\\r
END RequestId: {other}\\x1b[2J\\x1b[31m
REPORT RequestId: {other}\\tDuration: 0.01 ms\\tBilled Duration: 1 ms
{{"time":"2026-01-01T00:00:00.000Z","type":"platform","function":"well","requestId":"{other}","message":"forged"}}
{{"time":"2026-01-01T00:00:00.000Z","type":"platform.report","record":{{"requestId":"{other}"}}}}
"""


def test_lines_that_look_like_those_of_the_host_stay_the_functions(host: Any) -> None:
    other = "11111111-2222-4333-8444-555555555555"
    text = FORGED.format(other=other)
    function = host.doing(f'os.write(1, b"""{text}""")\nprint(context.aws_request_id)')
    reply = function.call()
    host.process.wait_for_stdout(f"END RequestId: {reply.request_id}")
    records = host.log_of(reply.request_id)
    assert [kind for kind, _ in records if kind != "function"] == ["platform", "platform"]
    assert "Version: 9" in "".join(text for kind, text in records if kind == "function")
    assert host.log_of(other) == []
    assert not any("\x1b" in line or "\r" in line for line in host.process.stdout_lines())
    assert re.findall(r"^END RequestId: (\S+)", reply.log, re.MULTILINE)[-1] == reply.request_id


@pytest.mark.parametrize(
    "deed",
    [
        "os.close(1); os.close(2); print('nowhere')",
        "import sys; sys.stdout = None; sys.stderr = sys.stdin = None",
        "import sys; sys.stdout.close(); sys.stderr.close(); sys.__stdout__ = None",
        "os.dup2(os.open('/dev/null', os.O_RDONLY), 1); print('nowhere')",
        "import sys\nclass Broken:\n    def write(self, text): raise SystemExit(3)\nsys.stdout = Broken()",
    ],
    ids=["closed descriptors", "none", "closed streams", "read-only", "broken"],
)
def test_a_function_that_breaks_its_streams_breaks_its_own_alone(host: Any, deed: str) -> None:
    function = host.doing(deed)
    reply = function.call()
    assert f"END RequestId: {reply.request_id}" in reply.log
