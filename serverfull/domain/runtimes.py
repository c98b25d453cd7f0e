"""The runtimes that functions can be made for, and what this machine is in AWS's words.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
"""

from __future__ import annotations

import platform
import sys

RUNTIMES = (
    *(f"python3.{minor}" for minor in range(8, 16)),
    *(f"nodejs{major}.x" for major in range(16, 28, 2)),
    *("provided.al2", "provided.al2023"),
    *("java8.al2", "java8.al2023", "java11", "java11.al2023", "java17", "java17.al2023", "java21", "java25"),
    *("dotnet6", "dotnet8", "dotnet10"),
    *("ruby3.2", "ruby3.3", "ruby3.4", "ruby4.0"),
)
"""The runtimes that functions can be made for today."""

# Those for which "block function create" is past in the table of
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html#runtimes-deprecated
REFUSED_RUNTIMES = frozenset(
    (
        "nodejs",
        "nodejs4.3",
        "nodejs4.3-edge",
        "nodejs6.10",
        "nodejs8.10",
        "nodejs10.x",
        "nodejs12.x",
        "nodejs14.x",
        "java8",
        "python2.7",
        "python3.6",
        "python3.7",
        "dotnetcore1.0",
        "dotnetcore2.0",
        "dotnetcore2.1",
        "dotnetcore3.1",
        "go1.x",
        "ruby2.5",
        "ruby2.7",
        "provided",
    )
)
"""Those that AWS takes no more."""

ARCHITECTURES = ("x86_64", "arm64")
"""The machines that AWS has."""

_ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "aarch64": "arm64"}

# What AWS's console and its tutorials call the handler of a function that they make.
_HANDLERS = {
    "python": "lambda_function.lambda_handler",
    "nodejs": "index.handler",
    "ruby": "lambda_function.lambda_handler",
    "provided": "bootstrap",
}


def architecture() -> str:
    """Tell the machine's architecture by AWS's name for it, or by its own where AWS has none."""
    machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def host_runtime() -> str:
    """Tell the runtime of the Python that the host runs on, such as ``python3.12``."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def default_handler(runtime: str) -> str | None:
    """Give the handler of functions that name none; None: there is no usual one."""
    return next((handler for family, handler in _HANDLERS.items() if runtime.startswith(family)), None)
