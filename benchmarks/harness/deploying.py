"""Deploys functions on a server over the management API, as its users do."""

from __future__ import annotations

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.harness.load import NotMeasured

ROLE = "arn:aws:iam::123456789012:role/runner"
OWN_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""The runtime of the interpreter that the servers run in, so that no other one is measured."""

FOLDER = Path(__file__).parents[1] / "deployed"
FILES = {
    **{f"{name}.py": (FOLDER / f"{name}.py").read_text() for name in ("lambda_function", "gate", "computing")},
    "benchmarks/busy.py": (FOLDER.parent / "busy.py").read_text(),
}
"""The package of all functions in Python; each module is loaded only where its handler is asked for."""

BOOTSTRAP = {"bootstrap": f"#!{Path(sys.executable).resolve()} -IS\n{(FOLDER / 'bootstrap.py').read_text()}"}
"""The package of a function that is a program of its own: a fresh interpreter without site-packages. The path is that
of the interpreter itself: a virtual environment in ``/tmp`` is not there for a sandbox with a ``/tmp`` of its own."""


def package(files: Mapping[str, str]) -> bytes:
    """Make a deployment package; its files can be executed."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = 0o100755 << 16
            archive.writestr(entry, text)
    return made.getvalue()


def deploy(
    url: str, name: str, handler: str, *, runtime: str = OWN_PYTHON, files: Mapping[str, str] = FILES, **options: Any
) -> None:
    """Create a function and wait until it is Active.

    :param options: parameters of CreateFunction on top.
    :raises NotMeasured: the server refuses it, or it does not become Active.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    from serverfull.testing.clients import lambda_client

    caller = lambda_client(url)  # its account is the one of requests that nobody signed, as wrk sends them
    try:
        caller.create_function(
            FunctionName=name, Runtime=runtime, Role=ROLE, Handler=handler, Code={"ZipFile": package(files)}, **options
        )
        caller.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    except (ClientError, BotoCoreError) as failure:
        raise NotMeasured(f"{name} cannot be deployed: {failure}") from failure
    finally:
        caller.close()
