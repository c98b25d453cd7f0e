"""Functions that change the process that they are in: it is theirs alone, and ends with what they have made of it."""

from __future__ import annotations

import os
from typing import Any

import pytest

CHANGES = {
    "variables": ("os.environ['CHANGED'] = 'yes'", "os.environ.get('CHANGED')"),
    "all variables": ("os.environ.clear()", "sorted(os.environ)"),
    "the working directory": ("os.chdir('/')", "os.getcwd()"),
    "the umask": ("os.umask(0o777)", "[mask := os.umask(0), os.umask(mask)][0]"),
    "signal handlers": (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)",
        "str(__import__('signal').getsignal(15))",
    ),
    "the locale": (
        "import locale; locale.setlocale(locale.LC_NUMERIC, 'C.UTF-8')",
        "__import__('locale').setlocale(__import__('locale').LC_NUMERIC)",
    ),
    "limits": (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
        "__import__('resource').getrlimit(7)[0]",
    ),
    "priority": ("os.nice(19)", "os.nice(0)"),
    "modules": ("import sys; sys.modules['colorsys'] = sys", "__import__('colorsys').__name__"),
    "the path of modules": ("import sys; sys.path.insert(0, '/nowhere')", "'/nowhere' in __import__('sys').path"),
    "what json does": ("import json; json.dumps = json.loads = None", "str(__import__('json').dumps is None)"),
    "sockets": ("import socket; socket.socket = None", "str(__import__('socket').socket is None)"),
    "open": ("import builtins; builtins.open = None", "str(__builtins__['open'] is None)"),
    "time": ("import time; time.time = time.monotonic = lambda: 0", "__import__('time').time() == 0"),
    "loops": (
        "import asyncio; asyncio.set_event_loop_policy = asyncio.run = asyncio.new_event_loop = None",
        "str(__import__('asyncio').run is None)",
    ),
}


@pytest.mark.parametrize(("change", "look"), list(CHANGES.values()), ids=list(CHANGES))
def test_what_a_function_changes_is_seen_in_its_own_process_alone(host: Any, change: str, look: str) -> None:
    deed = f"""
        if event == "change": {change}
        elif event == "exit": os._exit(0)
        else: return {look}
    """
    first, second = host.doing(deed), host.doing(deed, before="# another package")
    before, others = first.call("look").result, second.call("look").result
    assert first.call("change").result is None
    assert first.call("look").result != before
    assert second.call("look").result == others
    assert first.call("exit").error
    assert first.call("look").result == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_function_that_becomes_another_user_is_held_as_before(host: Any) -> None:
    deed = """
        if event == "change": os.setgid(65534), os.setuid(65534)
        if event == "loop":
            if os.fork(): os.setsid() if os.getsid(0) != os.getpid() else None
            while True: pass
        return os.geteuid()
    """
    function = host.doing(deed, Timeout=1)
    assert function.call("change").result == function.call("look").result == 65534
    assert function.call("loop").failure[0] == "Sandbox.Timedout"
    assert function.call("look").result == 0


BREAKS = {
    "all modules": "import sys; sys.modules.clear()",
    "all descriptors": "os.closerange(0, 256)",
    "all descriptors, for something else": """
        for number in range(3, 64):
            os.dup2(os.open("/dev/zero", os.O_RDWR), number)
    """,
    "no descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))",
    "no memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))",
    "no time": """
        import resource
        resource.setrlimit(resource.RLIMIT_CPU, (1, 1))
        while True: pass
    """,
    "no files": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); print('x')",
    "everything that is thrown": """
        import sys
        sys.excepthook = sys.unraisablehook = sys.settrace = None
        sys.stdout = sys.stderr = None
        raise ValueError("no")
    """,
    "builtins": """
        import builtins
        for name in ("len", "int", "str", "bytes", "isinstance", "Exception", "print", "__import__"):
            delattr(builtins, name)
    """,
    "its own frames": """
        import sys
        frame = sys._getframe()
        while frame.f_back: frame = frame.f_back
        frame.f_globals.clear()
    """,
    "a fork that returns twice": "os.fork()",
    "a trace function that raises": """
        import sys
        def trace(*_): raise RuntimeError("traced")
        sys.settrace(trace)
        sys.setprofile(trace)
    """,
    "the memory that it runs in": """
        import ctypes, sys
        ctypes.memset(id(None), 0, 16)
        return None
    """,
}


@pytest.mark.parametrize("deed", list(BREAKS.values()), ids=list(BREAKS))
def test_a_function_that_breaks_its_process_gets_another_one(host: Any, deed: str) -> None:
    function, other = host.doing(deed, Timeout=5), host.doing("return os.getpid()")
    pid = other.call().result
    assert function.is_good()
    reply = function.call()
    assert reply.payload
    assert f"END RequestId: {reply.request_id}" in reply.log
    for _ in range(3):  # one that ends is told by what comes next, at the latest
        again = function.call("be good")
        assert again.error or again.result == "good"
    assert other.call().result == pid


def test_functions_may_have_modules_of_the_same_name(host: Any) -> None:
    app = "import util, {own}\ndef handler(event, context): return [util.NAME, {own}.__file__ == util.__file__]"
    functions = [
        host.deploy({"app.py": app.format(own="util"), "util.py": f"NAME = {name!r}"}, good=False)
        for name in ("one", "two")
    ]
    for _ in range(2):
        assert [function.call().result for function in functions] == [["one", True], ["two", True]]


def test_a_module_with_the_name_of_one_of_pythons_or_of_ours_is_the_functions_own(host: Any) -> None:
    names = ("random", "decimal", "serverfull", "client", "births", "confine", "zygote", "uuid", "base64")
    files = {f"{name}.py": f"NAME = {name!r} + ' of the function'" for name in names}
    imports = "\n".join(f"import {name}" for name in names)
    values = ", ".join(f"{name}.NAME" for name in names)
    app = f"{imports}\ndef handler(event, context): return [{values}]"
    function = host.deploy({"app.py": app, **files}, good=False)
    assert function.call().result == [f"{name} of the function" for name in names]


def test_functions_may_have_extensions_of_the_same_name(host: Any) -> None:
    code = """
import _ctypes, sys
COUNT = [0]
def handler(event, context):
    COUNT[0] += 1
    _ctypes.seen = COUNT[0]
    return [_ctypes.seen, hasattr(_ctypes, "Structure")]
"""
    functions = [host.deploy(code + f"# {number}\n", good=False) for number in range(2)]
    assert [function.call().result for function in (*functions, functions[0])] == [[1, True], [1, True], [2, True]]
