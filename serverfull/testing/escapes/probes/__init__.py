"""Attempts to get out of a sandbox, for Python 3.8 or later: the handler ``probes.handler``.

Each is a function that gives what it got hold of, and raises where it was kept from it. Each runs in a process of its
own that is killed when it takes too long, and takes back what it has changed, so that it may also be run where nothing
holds it. None needs more than the standard library, and this package no other module of serverfull.

The event says where the baits are: files, sockets, ports and processes of the machine that a function must not reach.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import tempfile
from typing import Any

from . import files, kernel, network, processes, rights, shared
from .trying import PROBES, Probe

__all__ = ["PROBES", "attempt", "files", "handler", "kernel", "network", "processes", "rights", "shared"]

PATIENCE = 5.0
"""Seconds that an attempt may take."""


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Try what the event names, or everything; gives what came of each, as ``[got through, what it was]``."""
    return {name: attempt(PROBES[name][1], event["bait"]) for name in event.get("probes") or PROBES}


def attempt(function: Probe, bait: Any) -> Any:
    """Try one in a process of its own."""
    reading, writing = os.pipe()
    folder = tempfile.mkdtemp()
    child = os.fork()
    if child == 0:
        os.close(reading)
        tempfile.tempdir = folder
        try:
            told = [True, str(function(bait))[:200]]
        except BaseException as error:
            told = [False, f"{type(error).__name__}: {error}"[:200]]
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    there = select.select([reading], [], [], PATIENCE)[0]
    said = os.read(reading, 4096) if there else b""
    os.close(reading)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(said) if said else [False, f"ended with status {status}" if there else "took too long"]
