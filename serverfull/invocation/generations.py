"""Says with each outcome which generation of a function's code it is of: decorators for the time of development.

A host that does not show generations has none of this, so no call pays for it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from serverfull.domain.invocations import Outcome
from serverfull.interfaces import Environment, Runtime

if TYPE_CHECKING:
    from serverfull.domain.functions import Function
    from serverfull.domain.invocations import Invocation
    from serverfull.domain.readiness import Fitness, Readiness, Unfit
    from serverfull.interfaces import FunctionIdentity, InvocationLog


@dataclass(slots=True)
class GenerationOutcome(Outcome):
    """How an invocation ended, of code of a certain generation."""

    generation: int = 1


_FIELDS = tuple(field.name for field in fields(Outcome))


class GenerationRuntime(Runtime):
    """Decorates a runtime: what its environments give says of which generation of the function it is."""

    def __init__(self, inner: Runtime) -> None:
        self._inner = inner

    def check(self, function: Function) -> None:
        self._inner.check(function)

    def environment(self, identity: FunctionIdentity) -> Environment:
        return _Environment(self._inner.environment(identity), identity.function.generation)

    def get_ready(self) -> None:
        self._inner.get_ready()

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        return await self._inner.unfit(identity)

    async def snapshot(self, identity: FunctionIdentity) -> Fitness:
        return await self._inner.snapshot(identity)

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        self._inner.provision(identity, count, changed)


class _Environment(Environment):
    def __init__(self, inner: Environment, generation: int) -> None:
        self._inner = inner
        self._generation = generation

    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        outcome = await self._inner.run(invocation, log)
        values = {name: getattr(outcome, name) for name in _FIELDS}
        return GenerationOutcome(**values, generation=self._generation)

    @property
    def failure(self) -> str | None:
        return self._inner.failure

    async def warm(self) -> None:
        await self._inner.warm()

    async def aclose(self) -> None:
        await self._inner.aclose()
