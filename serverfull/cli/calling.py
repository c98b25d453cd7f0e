"""The commands that invoke a function and ask how a host is: ``invoke``, ``status`` and ``wait``."""

from __future__ import annotations

import base64
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click

from serverfull.cli.client import Answer, Client, NoAnswer
from serverfull.cli.connecting import client_of, connection_options, endpoint_option, timeout_option
from serverfull.cli.options import config_option, not_empty, seconds
from serverfull.cli.tables import output_option, table

FUNCTION_FAILED = 4


@click.command()
@click.argument("name", type=not_empty)
@click.argument("payload", default="")
@click.option("--qualifier", help="Version or alias.")
@click.option(
    "--type",
    "invocation_type",
    type=click.Choice(["RequestResponse", "Event", "DryRun"]),
    default="RequestResponse",
    show_default=True,
    help="Wait for the result, queue the event, or only check.",
)
@click.option("--tail", is_flag=True, help="Print the last 4 KB of the function's log to standard error.")
@click.option("--client-context", metavar="JSON", help="What context.client_context shows.")
@click.option("--output", type=click.File("wb"), help="Write the result to this file instead of standard output.")
@connection_options
def invoke(
    name: str,
    payload: str,
    qualifier: str | None,
    invocation_type: str,
    tail: bool,
    client_context: str | None,
    output: BinaryIO | None,
    **flags: Any,
) -> int:
    """Invoke a function.

    NAME is a function name or an ARN. PAYLOAD is the event as JSON, @FILE to read it from a file, or - to read it from
    standard input. The result goes to standard output; exit code 4 tells that the function failed.

    \b
    serverfull invoke hello '{"name": "Ada"}'
    """
    headers = {"X-Amz-Invocation-Type": invocation_type}
    if tail:
        headers["X-Amz-Log-Type"] = "Tail"
    if client_context is not None:
        headers["X-Amz-Client-Context"] = _encoded_context(client_context)
    answer = client_of(flags).invoke(name, _payload(payload), qualifier, headers)
    sys.stderr.write(answer.log_tail.decode(errors="replace"))
    _write(answer.body, output)
    if answer.function_error is None:
        return 0
    sys.stderr.write(f"Error: the function failed: {_failure(answer)}\n")
    return FUNCTION_FAILED


def _payload(text: str) -> bytes:
    if text == "-":
        return sys.stdin.buffer.read()
    if not text.startswith("@"):
        return text.encode()
    try:
        return Path(text[1:]).read_bytes()
    except OSError as wrong:
        raise click.UsageError(f"the payload {text[1:]} cannot be read: {wrong.strerror}") from None


def _encoded_context(text: str) -> str:
    try:
        json.loads(text)
    except ValueError as wrong:
        raise click.UsageError(f"--client-context is no JSON: {wrong}") from None
    return base64.b64encode(text.encode()).decode()


def _write(body: bytes, output: BinaryIO | None) -> None:
    target = output or sys.stdout.buffer
    target.write(body)
    if output is None and body and sys.stdout.isatty():
        target.write(b"\n")
    target.flush()


def _failure(answer: Answer) -> str:
    try:
        error = json.loads(answer.body)
        return f"{error['errorType']}: {error['errorMessage']}"
    except (ValueError, KeyError, TypeError):
        return str(answer.function_error)


@click.command()
@endpoint_option
@timeout_option
@config_option
@output_option
def status(output: str, **flags: Any) -> int:
    """Say whether a host is up, and what it is. The exit code is 1 where it is not ready."""
    client = client_of(flags)
    ready = client.call("GET", "/_serverfull/ready").status == 200
    # A host tells other machines whether it is ready, and keeps what it is to its own machine.
    info = client.document("/_serverfull/info", unless=403)
    if output == "json":
        click.echo(json.dumps({"endpoint": client.endpoint, "ready": ready, **info}, indent=2))
    else:
        click.echo(table((client.endpoint, "ready" if ready else "not ready"), _rows(info)))
    return 0 if ready else 1


def _rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    """Give what fits into a line each; nested tables, such as the settings, are for ``--output json``."""
    plain = {key: value for key, value in info.items() if not isinstance(value, dict)}
    return [(key, value if isinstance(value, str) else json.dumps(value)) for key, value in plain.items()]


@click.command()
@endpoint_option
@click.option(
    "--timeout", type=seconds, metavar="DURATION", default="30s", show_default=True, help="How long to wait in all."
)
@config_option
def wait(timeout: float, **flags: Any) -> int:
    """Wait until a host is ready. The exit code is 1 where it is not in time."""
    endpoint = client_of(flags).endpoint
    deadline = time.monotonic() + timeout
    pause = 0.02
    while True:
        reason = _not_ready(Client(endpoint, max(0.1, deadline - time.monotonic())))
        if reason is None:
            return 0
        if time.monotonic() + pause > deadline:
            sys.stderr.write(f"Error: {endpoint} is not ready after {timeout:g} s: {reason}\n")
            return 1
        time.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311, nothing secret depends on it
        pause = min(pause * 1.5, 0.5)


def _not_ready(client: Client) -> str | None:
    try:
        answer = client.call("GET", "/_serverfull/ready")
    except NoAnswer as reason:
        return str(reason)
    return None if answer.status == 200 else f"it answers {answer.status}"
