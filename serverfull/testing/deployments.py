"""Functions that tests deploy to a host with boto3: their packages, and the wait until they can be called.

::

    client = host.client()
    deploy(client, "greet", {"app.py": "def handler(event, context): return 'Hello!'"})
    assert invoke(client, "greet") == "Hello!"
"""

from __future__ import annotations

import io
import json
import stat
import sys
import time
import zipfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    Files = Mapping[str, str | bytes]

ROLE = "arn:aws:iam::123456789012:role/runner"
"""What functions get that name no other role. The host does not look at it."""

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
"""The runtime that is the Python of the test."""

DEADLINE = 30.0
"""Seconds until a wait is given up: an interpreter may have to be found, and a package unpacked, on a busy machine."""

_BETWEEN_LOOKS = 0.02


def zipped(files: Files, executable: Collection[str] = ()) -> bytes:
    """Make a package of a function or a layer. The same files give the same bytes.

    :param files: contents by paths in the package.
    :param executable: the paths of programs.
    """
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in files.items():
            entry = zipfile.ZipInfo(path)  # of no date
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | (0o755 if path in executable else 0o644)) << 16
            archive.writestr(entry, content)
    return made.getvalue()


def create(client: Any, name: str, files: Files, *, executable: Collection[str] = (), **members: Any) -> dict[str, Any]:
    """Create a function, which is Pending for a while, and give the answer.

    :param client: of boto3.
    :param files: see `zipped`, as for ``executable``.
    :param members: of the request; without them the handler is ``app.handler``, in the Python of the test.
    """
    usual = {"Runtime": PYTHON, "Role": ROLE, "Handler": "app.handler", "Code": {"ZipFile": zipped(files, executable)}}
    created: dict[str, Any] = client.create_function(**{"FunctionName": name, **usual, **members})
    return created


def deploy(client: Any, name: str, files: Files, *, executable: Collection[str] = (), **members: Any) -> dict[str, Any]:
    """Create a function as `create` does, wait until it can be called, and give its configuration.

    :raises AssertionError: it has failed; the message holds the reason.
    """
    create(client, name, files, executable=executable, **members)
    return wait_until_ready(client, name)


def wait_until_ready(client: Any, name: str) -> dict[str, Any]:
    """Wait until a function runs as it was last made or updated, and give its configuration.

    :raises AssertionError: it has failed, or is not ready in time; the message holds the reason.
    """
    found = wait_until_settled(client, name)
    reason = found.get("StateReason") or found.get("LastUpdateStatusReason")
    assert (found["State"], found["LastUpdateStatus"]) == ("Active", "Successful"), reason
    return found


def wait_until_settled(client: Any, name: str, version: str = "") -> dict[str, Any]:
    """Wait until a version of a function is made or updated, or that has failed, and give its configuration.

    :param version: its number; empty: ``$LATEST``.
    :raises AssertionError: it takes too long.
    """
    deadline = time.monotonic() + DEADLINE
    qualified = {"Qualifier": version} if version else {}
    while True:
        found: dict[str, Any] = client.get_function_configuration(FunctionName=name, **qualified)
        if found["State"] != "Pending" and found["LastUpdateStatus"] != "InProgress":
            return found
        assert time.monotonic() < deadline, found
        time.sleep(_BETWEEN_LOOKS)


def invoke(client: Any, name: str, **members: Any) -> Any:
    """Call a function, and give its result, or its error.

    :param members: of the request, such as ``Payload`` and ``Qualifier``.
    """
    return json.loads(client.invoke(FunctionName=name, **members)["Payload"].read())
