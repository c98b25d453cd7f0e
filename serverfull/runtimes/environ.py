"""``os.environ`` as each function sees it: its own variables over the host's.

The object ``os.environ`` keeps its identity, so that ``from os import environ`` made anywhere sees the same; only its
class changes while a host runs. Outside of an invocation it behaves as ever. Inside, reads look at the function's
variables first, and writes go there, so that no function changes another's environment or the host's.

Child processes that ``subprocess`` and asyncio start inside an invocation without an ``env`` get what ``os.environ``
shows there.

Not covered: what reads the C environment directly, such as ``os.system`` and extensions.
"""

from __future__ import annotations

import asyncio
import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from serverfull.observability.handles import CURRENT
from serverfull.runtimes.activity import Activity
from serverfull.runtimes.patches import Patch

TRACE_VARIABLE = "_X_AMZN_TRACE_ID"
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
_RESERVED_PREFIXES = ("AWS_LAMBDA_", "_HANDLER", "_X_AMZN_")
_ABSENT: Any = object()
_Plain: Any = type(os.environ)


class FunctionEnviron(_Plain):  # type: ignore[misc]
    """The class that ``os.environ`` has while a host runs."""

    def __getitem__(self, key: str) -> str:
        activity = CURRENT.get()
        if activity.__class__ is not Activity:
            return str(_Plain.__getitem__(self, key))
        value = _of_function(activity, key)
        if value is _ABSENT:
            return str(_Plain.__getitem__(self, key))
        if value is None:
            raise KeyError(key)
        return str(value)

    def __setitem__(self, key: str, value: str) -> None:
        activity = CURRENT.get()
        if activity.__class__ is not Activity:
            _Plain.__setitem__(self, key, value)
            return
        self.encodekey(key), self.encodevalue(value)  # the same TypeError for what is no string
        if key == TRACE_VARIABLE:
            activity.trace_id = value
        else:
            activity.variables[key] = value

    def __delitem__(self, key: str) -> None:
        activity = CURRENT.get()
        if activity.__class__ is not Activity:
            _Plain.__delitem__(self, key)
            return
        self[key]  # KeyError for what is not there
        if key == TRACE_VARIABLE:
            activity.trace_id = ""
        else:
            activity.variables[key] = None

    def __iter__(self) -> Iterator[str]:
        activity = CURRENT.get()
        hosts = _Plain.__iter__(self)
        if activity.__class__ is not Activity:
            return iter(hosts)
        return iter(self._visible(list(hosts), activity))

    def __len__(self) -> int:
        activity = CURRENT.get()
        if activity.__class__ is not Activity:
            return int(_Plain.__len__(self))
        return len(self._visible(list(_Plain.__iter__(self)), activity))

    def __repr__(self) -> str:
        return f"environ({dict(self)!r})"

    @staticmethod
    def _visible(hosts: list[str], activity: Activity) -> list[str]:
        variables: dict[str, str | None] = dict.fromkeys(REGION_VARIABLES, activity.region)
        variables.update(activity.variables)
        variables[TRACE_VARIABLE] = activity.trace() or None
        kept = [key for key in hosts if key not in variables]
        return kept + [key for key, value in variables.items() if value is not None]


def _of_function(activity: Activity, key: str) -> Any:
    """Give the function's own value of a variable, None where it deleted it, `_ABSENT` where the host's counts."""
    if key == TRACE_VARIABLE:
        return activity.trace() or None
    value = activity.variables.get(key, _ABSENT)
    return activity.region if value is _ABSENT and key in REGION_VARIABLES else value


class EnvironPatch(Patch):
    """Gives ``os.environ`` its per-function view, and its own class back."""

    @classmethod
    def _apply(cls) -> Sequence[Callable[[], None]]:
        os.environ.__class__ = FunctionEnviron
        return [_give_class_back, _route_children()]


def _give_class_back() -> None:
    os.environ.__class__ = _Plain


_ENV_POSITION = 11
"""Where ``env`` is among the positional arguments of ``Popen.__init__``."""


def _route_children() -> Callable[[], None]:
    """Let child processes inherit the function's variables; gives what takes that back."""
    places: list[tuple[Any, str, int]] = [(subprocess.Popen, "__init__", _ENV_POSITION)]
    for name in ("create_subprocess_exec", "create_subprocess_shell"):  # uvloop does without Popen
        places += [(asyncio, name, sys.maxsize), (asyncio.subprocess, name, sys.maxsize)]
    real = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, position in places:
        setattr(owner, name, _with_environment(getattr(owner, name), position))

    def undo() -> None:
        for owner, name, function in real:
            setattr(owner, name, function)

    return undo


def _with_environment(start: Any, position: int) -> Any:
    @functools.wraps(start)
    def with_environment(*args: Any, **options: Any) -> Any:
        given = len(args) > position or options.get("env") is not None
        if not given and CURRENT.get().__class__ is Activity:
            options["env"] = dict(os.environ)
        return start(*args, **options)

    return with_environment


def function_variables(
    environment: MutableMapping[str, str] | dict[str, str], reserved: dict[str, str]
) -> dict[str, str | None]:
    """Make the variables of a function: its own, under AWS's reserved ones.

    The region and the trace are each invocation's own and not among them.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/configuration-envvars.html#configuration-envvars-runtime
    """
    return {name: value for name, value in {**environment, **reserved}.items() if name not in REGION_VARIABLES}


def add_to_process(environment: Mapping[str, str]) -> None:
    """Set a function's own variables for the whole process, where it runs nothing else: a native Lambda.

    AWS's reserved variables stay as they are.
    """
    for name, value in environment.items():
        if not name.startswith(_RESERVED_PREFIXES) and name not in REGION_VARIABLES:
            os.environ[name] = value
