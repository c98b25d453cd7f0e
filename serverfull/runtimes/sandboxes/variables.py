"""The environment variables of an instance that runs a function: AWS's, then the function's, and none of the host's.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from serverfull.runtimes import child

if TYPE_CHECKING:
    from serverfull.interfaces import FunctionIdentity

OPT = Path("/opt")
"""Where functions see their layers."""

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_RUNTIME_DIR = next(iter(child.__path__))
_LIBRARIES = ("{root}", "{root}/lib", "{opt}/lib")


def function_variables(
    identity: FunctionIdentity,
    *,
    handler: str,
    runtime: str,
    root: Path,
    opt: Path | None,
    region: str,
    log_level: str | None = None,
    aws: Mapping[str, str] = MappingProxyType({}),
    runtime_dir: str = _RUNTIME_DIR,
    image: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Give all variables but those of a single process.

    :param handler: as the function's configuration has it.
    :param runtime: such as ``python3.12``; empty: it is a container image.
    :param root: the folder of the unpacked package.
    :param opt: where the process finds its layers: ``/opt``, or a folder where it can have no ``/opt`` of its own.
    :param log_level: of a function whose log is JSON, the level from which on it is kept.
    :param aws: the host's credentials and endpoints for functions, as `AwsAccess` gives them.
    :param runtime_dir: where the runtime client is.
    :param image: the variables of the container image, which know better what is where in it.
    """
    layers = opt or OPT
    usual = {
        "PATH": f"{_SYSTEM_PATH}:{layers}/bin",
        "LD_LIBRARY_PATH": ":".join(place.format(opt=layers, root=root) for place in _LIBRARIES),
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
    }
    reserved = {
        "_HANDLER": handler,
        "LAMBDA_TASK_ROOT": str(root),
        "LAMBDA_RUNTIME_DIR": runtime_dir,
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": identity.name,
        "AWS_LAMBDA_FUNCTION_VERSION": identity.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(identity.memory_size),
        "AWS_LAMBDA_LOG_GROUP_NAME": identity.log_group,
        "AWS_LAMBDA_LOG_FORMAT": identity.log_format,
    }
    if log_level:
        reserved["AWS_LAMBDA_LOG_LEVEL"] = log_level
    if runtime and not runtime.startswith("provided"):
        reserved["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{runtime}"
    if runtime.startswith("node"):
        of_version = runtime.removesuffix(".x").replace("nodejs", f"{layers}/nodejs/node")
        folders = (f"{of_version}/node_modules", f"{layers}/nodejs/node_modules", f"{root}/node_modules", str(root))
        usual["NODE_PATH"] = ":".join(folders)
    return {**usual, **image, **aws, **identity.function.environment, **reserved}


def virtualenvs(root: Path) -> list[str]:
    """Give the folders beside a function's code that are virtual environments, if they are there."""
    return [f"{root}/{name}" for name in (".venv", "venv")]


def python_path(root: Path, opt: Path | None, version: str) -> list[str]:
    """Give the folders that Python code of a function is imported from, before Python's own.

    :param version: of Python, such as ``3.12``.
    """
    layers = opt or OPT
    return [str(root), f"{layers}/python/lib/python{version}/site-packages", f"{layers}/python"]
