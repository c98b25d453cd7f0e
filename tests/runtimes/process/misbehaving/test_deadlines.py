"""Functions that do not end in time: all that they have started is killed, whatever it does about that."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

TIMED_OUT = ("Sandbox.Timedout", "Task timed out after 1.00 seconds")

ENDLESS = {
    "a loop": "while True: pass",
    "a loop that catches everything": """
        while True:
            try:
                while True: pass
            except BaseException: pass
    """,
    "a sleep that heeds no signal": """
        import signal, time
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        signal.alarm(1)
        while True: time.sleep(3600)
    """,
    "a handler of SIGTERM and SIGALRM that goes on": """
        import faulthandler, signal
        faulthandler.enable()
        faulthandler.dump_traceback_later(0.5)
        for number in (signal.SIGTERM, signal.SIGALRM, signal.SIGINT):
            signal.signal(number, lambda *_: None)
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        while True: pass
    """,
    "a sleep in C with the interpreter lock": "import ctypes; ctypes.PyDLL(None).sleep(3600)",
    "a loop in C": "import itertools, collections; collections.deque(itertools.repeat(0), 0)",
    "a regular expression": "import re; re.match('(a+)+$', 'a' * 40 + 'b')",
    "a lock that nobody opens": "import threading; lock = threading.Lock(); lock.acquire(); lock.acquire()",
    "a coroutine that nobody wakes": "import asyncio; asyncio.run(asyncio.Event().wait())",
    "a process that has stopped itself": "import signal; os.kill(os.getpid(), signal.SIGSTOP)",
    "a thread that keeps the process": """
        import threading, time
        threading.Thread(target=time.sleep, args=(3600,)).start()
        time.sleep(3600)
    """,
}


@pytest.fixture(scope="module")
def together(running: Any) -> Any:
    """Call them all at the same time: each takes a second."""
    functions = {name: running.doing(deed, Timeout=1) for name, deed in ENDLESS.items()}
    for function in functions.values():
        assert function.is_good()
    running.deployed.clear()

    def call(function: Any) -> tuple[Any, float]:
        began = time.monotonic()
        reply = function.call()
        return reply, time.monotonic() - began

    with ThreadPoolExecutor(len(functions)) as pool:
        replies = dict(zip(functions, pool.map(call, functions.values()), strict=True))
    yield functions, replies
    for function in functions.values():
        running.client.delete_function(FunctionName=function.name)
    running.has_no_more_than(running.at_rest)


@pytest.mark.parametrize("name", list(ENDLESS))
def test_what_does_not_end_is_killed_at_its_deadline(
    running: Any, together: Any, name: str, record_property: Any
) -> None:
    functions, replies = together
    reply, took = replies[name]
    assert reply.failure == TIMED_OUT
    assert "Task timed out after 1.00 seconds" in reply.log
    assert "Status: timeout" in reply.log
    record_property("overrun in milliseconds", round((took - 1) * 1000))
    assert took < 10  # of a machine that has much else to do; alone it is a few milliseconds
    assert functions[name].is_good()
