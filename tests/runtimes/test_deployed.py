"""Deployed code in the host's own process: loaded by its first invocation, then run like the operator's own."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from serverfull import Fetcher, Function
from serverfull.domain.deployed_handler import DeployedHandler
from serverfull.runtimes import deployed
from serverfull.runtimes.deployed import Code

if TYPE_CHECKING:
    from pathlib import Path


def deploy(root: Path, handler: str = "lambda_function.handler", /, **files: str) -> DeployedHandler:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / f"{name}.py").write_text(text)
    return DeployedHandler(handler, root)


@pytest.fixture
def start_host(start_host: Any) -> Any:
    return partial(start_host, execution={"mode": "inprocess"})


async def test_the_code_is_loaded_once_for_many_calls_at_once(start_host: Any, tmp_path: Path) -> None:
    code = deploy(
        tmp_path,
        lambda_function="import os\nCOUNT = [0]\nprint('loading')\n"
        "def handler(event, context):\n    COUNT[0] += 1\n    return COUNT[0]\n",
    )
    host = await start_host({"f": Function(code)})
    answers = await asyncio.gather(*(host.invoke("f") for _ in range(8)))
    assert sorted(answer.json() for answer in answers) == list(range(1, 9))


async def test_async_handlers_and_typed_events_work_as_for_the_operators_own(start_host: Any, tmp_path: Path) -> None:
    code = deploy(
        tmp_path,
        lambda_function="import dataclasses\n@dataclasses.dataclass\nclass Order:\n    count: int\n"
        "async def handler(event: Order, context) -> dict:\n    return {'twice': event.count * 2}\n",
    )
    host = await start_host({"f": Function(code)})
    assert (await host.invoke("f", {"count": 4})).json() == {"twice": 8}
    refused = await host.invoke("f", {"count": "many"})
    assert (refused.function_error, refused.json()["errorType"]) == ("Unhandled", "ValidationError")


async def test_the_module_sees_its_functions_variables_and_logs_to_the_first_invocation(
    start_host: Any, tmp_path: Path
) -> None:
    text = (
        "import os\nTABLE = os.environ['TABLE']\nprint('loading for', TABLE)\nos.environ['ADDED'] = 'while loading'\n"
        "def handler(event, context):\n"
        "    return [TABLE, os.environ['ADDED'], os.environ['_HANDLER'], os.environ['LAMBDA_TASK_ROOT']]\n"
    )
    one = Function(deploy(tmp_path / "1", lambda_function=text), environment={"TABLE": "one"})
    two = Function(deploy(tmp_path / "2", lambda_function=text), environment={"TABLE": "two"})
    host = await start_host({"one": one, "two": two})
    first = await host.tail("one")
    assert first.json() == ["one", "while loading", "lambda_function.handler", str(tmp_path / "1")]
    assert "loading for one" in first.tail()
    assert (await host.invoke("two")).json()[0] == "two"
    again = await host.tail("one")
    assert "loading" not in again.tail()


async def test_code_that_cannot_be_loaded_fails_the_call_and_is_tried_again_by_the_next(
    start_host: Any, tmp_path: Path
) -> None:
    code = deploy(tmp_path, lambda_function="import helper\ndef handler(event, context): return helper.X\n")
    host = await start_host({"f": Function(code)})
    failed = await host.invoke("f")
    assert (failed.status, failed.function_error) == (200, "Unhandled")
    assert failed.json() == {
        "errorMessage": "Unable to import module 'lambda_function': No module named 'helper'",
        "errorType": "Runtime.ImportModuleError",
        "requestId": failed.request_id,
        "stackTrace": [],
    }
    deploy(tmp_path, helper="X = 5")
    assert (await host.invoke("f")).json() == 5


async def test_a_handler_of_another_shape_fails_the_call(start_host: Any, tmp_path: Path) -> None:
    host = await start_host(
        {"f": Function(deploy(tmp_path, lambda_function="def handler(event, context, third): pass"))}
    )
    answer = await host.invoke("f")
    assert (answer.function_error, answer.json()["errorType"]) == ("Unhandled", "TypeError")


async def test_annotations_are_read_on_the_thread_that_loads_the_code_not_on_the_loop(
    start_host: Any, tmp_path: Path
) -> None:
    code = deploy(
        tmp_path,
        lambda_function="import threading\nfrom pydantic_core import core_schema\nSEEN = set()\n"
        "class Order:\n"
        "    @classmethod\n"
        "    def __get_pydantic_core_schema__(cls, source, handler):\n"
        "        SEEN.add(threading.current_thread().name.rpartition('-')[0])\n"
        "        return core_schema.int_schema()\n"
        "def handler(event: Order, context): return sorted(SEEN)\n",
    )
    host = await start_host({"f": Function(code)})
    assert (await host.invoke("f", 1)).json() == ["serverfull-handler"]


async def test_code_that_ends_the_process_while_it_is_loaded_ends_the_call_alone(
    start_host: Any, tmp_path: Path
) -> None:
    code = deploy(tmp_path, lambda_function="import sys\nsys.exit(3)\n")
    host = await start_host({"f": Function(code), "other": lambda: 1})
    answer = await host.invoke("f")
    assert (answer.function_error, answer.json()["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert (await host.invoke("other")).status == 200


async def test_calls_that_waited_for_code_that_hangs_are_refused_and_do_not_hang_too(
    start_host: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = ModuleType("gate_of_this_test")
    vars(gate)["OPEN"] = opened = threading.Event()
    monkeypatch.setitem(sys.modules, gate.__name__, gate)
    monkeypatch.setattr(deployed, "INIT_TIMEOUT", 0.2)
    code = deploy(tmp_path, lambda_function="import gate_of_this_test\ngate_of_this_test.OPEN.wait()\n")
    host = await start_host({"f": Function(code)}, limits={"max_lost_threads": 1})
    answers = await asyncio.gather(*(host.invoke("f") for _ in range(3)))
    opened.set()
    assert sorted(answer.status for answer in answers) == [200, 409, 409]


async def test_a_new_limit_keeps_the_code_that_is_loaded(start_host: Any, tmp_path: Path) -> None:
    code = deploy(tmp_path, lambda_function="N = [0]\ndef handler(event, context):\n    N[0] += 1\n    return N[0]\n")

    class OneFunction(Fetcher):
        function = Function(code)

        async def fetch(self, name: str, qualifier: str | None = None) -> Function:
            return self.function

        async def list(self) -> dict[str, Function]:
            return {"f": self.function}

    fetcher = OneFunction()
    host = await start_host(fetcher)
    assert (await host.invoke("f")).json() == 1
    fetcher.function = Function(code, max_concurrency=1)
    assert (await host.invoke("f")).json() == 2
    fetcher.function = Function(deploy(tmp_path))
    assert (await host.invoke("f")).json() == 1


def test_modules_go_with_the_last_user_of_the_code(tmp_path: Path) -> None:
    code = Code(deploy(tmp_path, lambda_function="def handler(event, context): return 1"), "gone", "")
    code.load()
    assert [name for name in sys.modules if name.startswith("gone-")]
    del code
    gc.collect()
    assert not [name for name in sys.modules if name.startswith("gone-")]
