"""The deeds in Python 3.8 or later: ``deeds.handler``. `serverfull.testing.deeds` says what each of them does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

calls = 0  # what AWS's users keep in modules too: it tells one environment from another


class Refused(Exception):
    """What a failing deed raises."""


class NotToday(Exception):
    """Why the code cannot be loaded yet."""


def _load() -> None:
    os.umask(0)  # what one process leaves for others is theirs too, whatever user each of them has
    names = ("DEEDS_TEXT", "DEEDS_STARTS", "DEEDS_WAITS", "DEEDS_NEEDS")
    text, starts, waits, needs = (os.environ.get(name) for name in names)
    if text is not None:
        sys.stdout.write(text + "\n")
    if starts is not None:
        with open(starts, "a") as file:
            file.write("started\n")
    while waits is not None and not os.path.exists(waits):
        time.sleep(0.01)
    if needs is not None and not os.path.exists(needs):
        raise NotToday("not today")


_load()


def _number(pid: int) -> int:
    """Give the number that the machine knows a process by, where it shows its own /proc to code in a container.

    Where the package has a file named ``apart``, processes are in a namespace of their own, whose number comes first.
    """
    if os.path.exists(os.path.join(os.path.dirname(os.path.abspath(__file__)), "apart")):
        return os.stat("/proc/self/ns/pid").st_ino << 32 | pid
    machine = "/host/proc"
    if not os.path.exists(machine):
        return pid
    own = os.readlink(machine + "/self")
    with open(f"{machine}/{own}/task/{own}/children") as file:
        family = [own, *file.read().split()]
    for number in family:
        with open(f"{machine}/{number}/status") as file:
            if f"\t{pid}\n" in "".join(line for line in file if line.startswith("NSpid:")):
                return int(number)
    raise ProcessLookupError(pid)


def handler(event: Any, context: Any) -> Any:
    """Do what the event asks for."""
    global calls
    calls += 1
    deed = event.get("do") if isinstance(event, dict) else None
    return event if deed is None else _DEEDS[deed](event, context)


def _echo(event: Any, context: Any) -> Any:
    return event["value"]


def _count(event: Any, context: Any) -> Any:
    return {"calls": calls, "pid": _number(os.getpid())}


def _fail(event: Any, context: Any) -> Any:
    raise Refused(event["message"])


def _unwritable(event: Any, context: Any) -> Any:
    return object()


def _fill(event: Any, context: Any) -> Any:
    return "x" * (event["bytes"] - 2)


def _write(event: Any, context: Any) -> Any:
    sys.stdout.write(f"out {event['text']}\n")
    sys.stderr.write(f"err {event['text']}")


def _context(event: Any, context: Any) -> Any:
    sent, caller = context.client_context, context.identity
    return {
        "request_id": context.aws_request_id,
        "name": context.function_name,
        "version": context.function_version,
        "memory": context.memory_limit_in_mb,
        "log_group": context.log_group_name,
        "log_stream": context.log_stream_name,
        "arn": context.invoked_function_arn,
        "left": context.get_remaining_time_in_millis(),
        "custom": sent and sent.custom,
        "env": sent and sent.env,
        "installation": sent and sent.client and sent.client.installation_id,
        "identity": caller and caller.cognito_identity_id,
        "identity_pool": caller and caller.cognito_identity_pool_id,
        "tenant": context.tenant_id,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
    }


def _variables(event: Any, context: Any) -> Any:
    return [os.environ.get(name) for name in event["names"]]


def _set(event: Any, context: Any) -> Any:
    os.environ[event["name"]] = "changed"


def _stuck(event: Any, context: Any) -> Any:
    sys.stdout.write(event["text"])
    while True:  # in short steps: where threads run it, these can be asked to stop between two of them
        time.sleep(0.01)


def _leave(event: Any, context: Any) -> Any:
    sys.exit(event["status"])


def _vanish(event: Any, context: Any) -> Any:
    sys.stdout.write(event["text"])
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(3600)


def _grow(event: Any, context: Any) -> Any:
    held: list[bytes] = []
    while len(held) < 256:
        held.append(b"x" * (4 << 20))
        time.sleep(0.005)


def _spawn(event: Any, context: Any) -> Any:
    nowhere = subprocess.DEVNULL
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True, stdout=nowhere, stderr=nowhere)
    child.returncode = 0  # nobody waits for it, and Python need not say so
    return _number(child.pid)


def _meet(event: Any, context: Any) -> Any:
    sys.stdout.write(f"met {event['name']}\n")
    with open(os.path.join(event["folder"], event["name"]), "w"):
        pass
    while len(os.listdir(event["folder"])) < event["count"]:
        time.sleep(0.01)
    return event["name"]


_DEEDS = {
    "echo": _echo,
    "count": _count,
    "fail": _fail,
    "unwritable": _unwritable,
    "fill": _fill,
    "write": _write,
    "context": _context,
    "variables": _variables,
    "set": _set,
    "stuck": _stuck,
    "leave": _leave,
    "vanish": _vanish,
    "grow": _grow,
    "spawn": _spawn,
    "meet": _meet,
}
