"""The hooks around a snapshot: those of AWS's package ``snapshot_restore_py``, brought by the function or stood in for.

On AWS the package is in every Python runtime. Here it is the function's own where its package or a layer has it, and
otherwise a module of that name with the same functions, which nothing but an import of it makes.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart-runtime-hooks-python.html
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from typing import Any

NAME = "snapshot_restore_py"


class _StandIn:
    """Finds and loads the module where nothing else does."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        return ModuleSpec(NAME, self) if name == NAME else None  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """Take the usual kind of module."""

    def exec_module(self, module: Any) -> None:
        before: list[Any] = []
        after: list[Any] = []

        def register_before_snapshot(func: Any, *args: Any, **kwargs: Any) -> Any:
            """Have a function called before the snapshot is taken."""
            before.append((func, args, kwargs))
            return func

        def register_after_restore(func: Any, *args: Any, **kwargs: Any) -> Any:
            """Have a function called in each environment that is made of the snapshot."""
            after.append((func, args, kwargs))
            return func

        module.register_before_snapshot = register_before_snapshot
        module.register_after_restore = register_after_restore
        module.get_before_snapshot = lambda: before
        module.get_after_restore = lambda: after
        module.__all__ = ["register_after_restore", "register_before_snapshot"]


def offer() -> None:
    """Let the package be imported by functions that do not bring it."""
    sys.meta_path.append(_StandIn())


def run_before() -> None:
    """Run what is to be done before a snapshot, the last that was registered first."""
    registered = _registered("get_before_snapshot")
    while registered:
        call, positional, named = registered.pop()
        call(*positional, **named)


def run_after() -> None:
    """Run what is to be done after a restore, in the order of registration."""
    for call, positional, named in _registered("get_after_restore"):
        call(*positional, **named)


def _registered(which: str) -> list[Any]:
    module = sys.modules.get(NAME)
    return [] if module is None else getattr(module, which)()
