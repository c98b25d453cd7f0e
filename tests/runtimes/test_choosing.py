"""Which runtime a function is given to, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.domain.functions import Function
from serverfull.interfaces import Environment, FunctionIdentity, Runtime
from serverfull.invocation.invoker import identify
from serverfull.runtimes.choosing import EXECUTION_TAG, ChoosingRuntime


class Broken(Runtime):
    def check(self, function: Function) -> None:
        """Nothing to say."""

    def environment(self, identity: FunctionIdentity) -> Environment:
        raise NotImplementedError

    async def unfit(self, identity: FunctionIdentity) -> None:
        raise TypeError("a fault of this host's own")


def tagged(**tags: str) -> FunctionIdentity:
    handler = DeployedHandler("app.handler", Path(), runtime="python3.11")
    return identify("f", Function(handler, tags={EXECUTION_TAG: mode for mode in tags.values()}), 3, 128)


async def test_a_function_that_chooses_what_a_host_does_not_have_is_told_what_there_is() -> None:
    unfit = await ChoosingRuntime(Broken(), {"process": Broken}, "auto").unfit(tagged(mode="docker"))
    assert unfit is not None
    assert unfit.code == "InvalidConfiguration"
    assert unfit.reason.endswith("says 'docker': this host has process.")


async def test_a_fault_of_a_runtime_is_not_taken_for_one_of_the_function() -> None:
    with pytest.raises(TypeError, match="own"):
        await ChoosingRuntime(Broken(), {"process": Broken}, "auto").unfit(tagged(mode="process"))
