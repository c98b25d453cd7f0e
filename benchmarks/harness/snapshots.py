"""Measures what SnapStart spares: the first call of a function that imports boto3, with a snapshot and without one."""

from __future__ import annotations

import time
from importlib.util import find_spec
from pathlib import Path

from benchmarks.harness.deploying import deploy
from benchmarks.harness.environments import cold_ms, listening, serving, url
from benchmarks.harness.load import NotMeasured
from benchmarks.harness.machine import cores, pinned

RUNTIME = "python3.12"
"""SnapStart is for this one and later; where it is not installed, the server's own Python runs it."""

DEADLINE = 60.0

_BROUGHT = ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six")
_HANDLER = "import boto3\n\ndef handler(event, context):\n    return 'hello'\n"


def boto3_package() -> dict[str, str]:
    """Give the files of a function that imports boto3, which it brings: not every Python here has it."""
    files = {"app.py": _HANDLER}
    for name in _BROUGHT:
        found = find_spec(name)
        if found is None or found.origin is None:
            raise NotMeasured(f"{name} is not installed beside the benchmarks")
        origin = Path(found.origin)
        is_package = origin.name == "__init__.py"
        top = origin.parent.parent if is_package else origin.parent
        paths = origin.parent.rglob("*.py") if is_package else [origin]
        files |= {str(path.relative_to(top)): path.read_text() for path in paths}
    return files


def published(server_url: str, name: str) -> None:
    """Publish version 1 of a function, and wait until its snapshot is there.

    :raises NotMeasured: there is none.
    """
    from serverfull.testing.clients import lambda_client

    caller = lambda_client(server_url)
    try:
        caller.publish_version(FunctionName=name)
        until = time.monotonic() + DEADLINE
        while (found := caller.get_function_configuration(FunctionName=name, Qualifier="1"))["State"] == "Pending":
            if time.monotonic() > until:
                break
            time.sleep(0.02)
    finally:
        caller.close()
    if found["SnapStart"]["OptimizationStatus"] != "On":
        raise NotMeasured(f"{name} has no snapshot: {found.get('StateReason')}")


def restores(functions: int, heard: list[float]) -> tuple[float, ...]:
    """Compare first calls of fresh functions by turns, on the server's core: cold starts over restores.

    :param heard: gets the share of the machine that was busy with other things.
    """
    server_core, our_core = cores()
    files, ratios = boto3_package(), []
    with serving(server_core) as server, listening(server, heard), pinned(our_core):
        for number in range(functions + 1):  # the first one fills the caches
            cold, snapped = f"imports{number}", f"snapped{number}"
            for name, options in ((cold, {}), (snapped, {"SnapStart": {"ApplyOn": "PublishedVersions"}})):
                deploy(url(server), name, "app.handler", runtime=RUNTIME, files=files, MemorySize=512, **options)
            published(url(server), snapped)
            ratios.append(cold_ms(server, cold) / cold_ms(server, f"{snapped}:1"))
    return tuple(ratios[1:])
