"""``os.environ`` as each function sees it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from serverfull import Function
from serverfull.domain.lineage import mark_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from serverfull.testing.fixtures import Serve

TRACE = "_X_AMZN_TRACE_ID"


def scope(region: str, account: str = "AKIDEXAMPLE") -> dict[str, str]:
    """Make the header of a request that was signed for a region."""
    credential = f"{account}/20261121/{region}/lambda/aws4_request"
    return {"Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0"}


async def run_in(host: Any, name: str, **headers: str) -> Any:
    answer = await host.request("POST", f"/2015-03-31/functions/{name}/invocations", b"", headers)
    assert answer.headers.get("x-amz-function-error") is None, answer.body
    return answer.json()


@pytest.fixture(params=["sync", "async", "own"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def of_kind(kind: str, body: Callable[[], Any], **options: Any) -> Function:
    if kind == "sync":
        return Function(lambda event: body(), **options)

    async def handler(event: Any) -> Any:
        return body()

    return Function(handler, loop="own" if kind == "own" else "host", **options)


def every_look() -> dict[str, Any]:
    """Read everything in each of the ways there are; all must say the same."""
    names = list(os.environ)
    views = [
        dict(os.environ),
        os.environ.copy(),
        {name: os.environ[name] for name in names},
        dict(os.environ.items()),
        {name: os.getenv(name) for name in os.environ},
        dict(zip(os.environ.keys(), os.environ.values(), strict=True)),
        os.environ | {},
    ]
    assert all(view == views[0] for view in views)
    assert len(os.environ) == len(names) == len(set(names))
    assert all(name in os.environ for name in names)
    assert repr(os.environ) == f"environ({views[0]!r})"
    return views[0]


async def test_each_function_sees_its_own_variables_over_the_hosts(
    start_host: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_HOST", "host")
    monkeypatch.setenv("OF_BOTH", "host")
    host = await start_host(
        {
            "a": of_kind(kind, every_look, environment={"OF_BOTH": "a", "OF_A": "1"}),
            "b": of_kind(kind, every_look, environment={"OF_BOTH": "b"}),
        }
    )
    a, b = await run_in(host, "a"), await run_in(host, "b")
    assert (a["OF_HOST"], a["OF_BOTH"], a["OF_A"]) == ("host", "a", "1")
    assert (b["OF_HOST"], b["OF_BOTH"]) == ("host", "b")
    assert "OF_A" not in b
    assert "OF_A" not in os.environ
    assert os.environ["OF_BOTH"] == "host"


async def test_writes_and_deletes_stay_with_the_function_and_last_as_in_a_warm_environment(
    start_host: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_HOST", "host")
    monkeypatch.setenv("TO_DELETE", "host")

    def write() -> Any:
        os.environ["NEW"] = "x"
        os.environ["OF_HOST"] = "changed"
        del os.environ["TO_DELETE"]
        os.environ.setdefault("NEW", "y")
        os.environ.setdefault("OTHER", "z")
        os.environ |= {"MERGED": "m"}
        os.environ.update(UPDATED="u")
        popped = os.environ.pop("OTHER"), os.environ.pop("ABSENT", None)
        with pytest.raises(KeyError):
            del os.environ["TO_DELETE"]
        with pytest.raises(KeyError):
            os.environ["TO_DELETE"]
        with pytest.raises(TypeError):
            os.environ["NUMBER"] = 5  # type: ignore[assignment]
        every_look()
        return popped

    host = await start_host({"writes": of_kind(kind, write), "reads": of_kind(kind, every_look)})
    before = dict(os.environ)
    assert await run_in(host, "writes") == ["z", None]
    assert dict(os.environ) == before
    seen = await run_in(host, "reads")
    assert (seen["OF_HOST"], seen["TO_DELETE"]) == ("host", "host")
    assert not {"NEW", "MERGED", "UPDATED"} & set(seen)


async def test_what_a_function_wrote_is_there_in_its_next_call(start_host: Any) -> None:
    def count() -> Any:
        os.environ["COUNT"] = str(int(os.environ.get("COUNT", "0")) + 1)
        return os.environ["COUNT"]

    host = await start_host({"f": Function(count), "g": Function(count)})
    assert [await run_in(host, name) for name in ("f", "f", "g", "f")] == ["1", "2", "1", "3"]


async def test_clearing_the_environment_clears_the_functions_alone(start_host: Any, kind: str) -> None:
    def clear() -> Any:
        os.environ.clear()
        assert list(os.environ) == []
        assert len(os.environ) == 0
        assert dict(os.environ) == {}
        os.environ["ONE"] = "1"
        return dict(os.environ)

    host = await start_host({"f": of_kind(kind, clear), "g": of_kind(kind, every_look)})
    before = dict(os.environ)
    assert await run_in(host, "f") == {"ONE": "1"}
    assert dict(os.environ) == before
    assert "AWS_LAMBDA_FUNCTION_NAME" in await run_in(host, "g")


async def test_the_reserved_variables_are_those_of_the_function(start_host: Any, kind: str) -> None:
    def handler() -> Any:
        return every_look()

    function = of_kind(kind, handler, memory_size=512, environment={"AWS_LAMBDA_FUNCTION_NAME": "forged"})
    seen = await run_in(await start_host({"hello": function}, functions={"region": "eu-central-1"}), "hello")
    assert {name: value for name, value in seen.items() if name.startswith("AWS_") or name == "_HANDLER"} == {
        "AWS_LAMBDA_FUNCTION_NAME": "hello",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/hello",
        "AWS_LAMBDA_LOG_STREAM_NAME": seen["AWS_LAMBDA_LOG_STREAM_NAME"],
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_FORMAT": "Text",
        "AWS_REGION": "eu-central-1",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "_HANDLER": seen["_HANDLER"],
    }
    assert "[$LATEST]" in seen["AWS_LAMBDA_LOG_STREAM_NAME"]


async def test_the_region_is_the_one_that_the_caller_signed_for_as_in_the_arn(start_host: Any, kind: str) -> None:
    def handler(context: Any = None) -> Any:
        seen = every_look()
        return [seen["AWS_REGION"], seen["AWS_DEFAULT_REGION"], os.environ["AWS_REGION"]]

    def own() -> Any:
        os.environ["AWS_REGION"] = "mars-north-1"
        return os.environ["AWS_REGION"]

    host = await start_host({"f": of_kind(kind, handler), "own": of_kind(kind, own)})
    for region in ("us-east-1", "eu-west-1", "cn-north-1"):
        assert await run_in(host, "f", **scope(region)) == [region] * 3
    assert await run_in(host, "own", **scope("eu-west-1")) == "mars-north-1"
    assert await run_in(host, "f") == ["us-east-1"] * 3


async def test_the_trace_variable_is_the_callers_header_else_a_new_one_for_each_call(
    start_host: Any, kind: str
) -> None:
    def handler() -> Any:
        seen = every_look()
        thread_sees: list[Any] = []
        thread = threading.Thread(target=lambda: thread_sees.append(os.environ.get(TRACE)))
        thread.start()
        thread.join()
        return [seen[TRACE], thread_sees[0]]

    host = await start_host({"f": of_kind(kind, handler)})
    given = "Root=1-5e34a614-10bdxmplf1fb44f07bc535a1;Parent=07f7e4d1xmpl7fca;Sampled=1"
    here = f"{given};Lineage=1:{mark_of('f')}:1"  # what tells that a function calls itself
    assert await run_in(host, "f", **{"X-Amzn-Trace-Id": given}) == [here] * 2
    made = [await run_in(host, "f") for _ in range(2)] + [await run_in(host, "f", **{"X-Amzn-Trace-Id": ""})]
    assert all(one[0] == one[1] for one in made)
    assert len({one[0] for one in made}) == 3
    assert all(one[0].startswith("Root=1-") and one[0].endswith(";Sampled=0") for one in made)
    assert TRACE not in os.environ


async def test_the_trace_variable_can_be_deleted_and_set_for_one_call(start_host: Any) -> None:
    def handler() -> Any:
        del os.environ[TRACE]
        assert TRACE not in os.environ
        every_look()
        with pytest.raises(KeyError):
            del os.environ[TRACE]
        os.environ[TRACE] = "mine"
        return every_look()[TRACE]

    host = await start_host({"f": handler, "g": lambda: os.environ[TRACE]})
    assert await run_in(host, "f") == "mine"
    assert (await run_in(host, "g")).startswith("Root=1-")


async def test_two_calls_at_once_have_traces_and_regions_of_their_own(start_host: Any) -> None:
    async def handler(event: Any) -> Any:
        await asyncio.sleep(0.01)
        return [os.environ[TRACE], os.environ["AWS_REGION"]]

    host = await start_host({"f": handler})
    headers = [{"X-Amzn-Trace-Id": f"Root=1-{n}", **scope(f"eu-test-{n}")} for n in range(9)]
    answers = await asyncio.gather(*[run_in(host, "f", **one) for one in headers])
    assert [[trace.partition(";")[0], region] for trace, region in answers] == [
        [f"Root=1-{n}", f"eu-test-{n}"] for n in range(9)
    ]


SHOW = 'echo "$MINE $AWS_LAMBDA_FUNCTION_NAME $HOSTS"'


async def test_child_processes_inherit_the_functions_variables(
    start_host: Any, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOSTS", "host")

    def handler() -> Any:
        with os.popen(SHOW) as opened:
            by_popen = opened.read()
        return [
            by_popen,
            subprocess.run(SHOW, shell=True, stdout=subprocess.PIPE, text=True, check=True).stdout,
            subprocess.check_output(["/bin/sh", "-c", SHOW], text=True, env=None),
            subprocess.check_output(SHOW, shell=True, text=True, env={"MINE": "given"}),
        ]

    before = subprocess.Popen.__init__
    host = await start_host({"f": of_kind(kind, handler, environment={"MINE": "m"})})
    assert await run_in(host, "f") == [*["m f host\n"] * 3, "given  \n"]
    assert await asyncio.to_thread(subprocess.check_output, SHOW, shell=True, text=True) == "  host\n"
    await host.close()
    assert subprocess.Popen.__init__ is before


ASYNCIO_CHILDREN = """
import asyncio
from asyncio import subprocess

async def by_asyncio(event):
    shell = await asyncio.create_subprocess_shell('echo "$MINE"', stdout=subprocess.PIPE)
    program = await subprocess.create_subprocess_exec("/bin/sh", "-c", 'echo "$MINE"', stdout=subprocess.PIPE)
    loop = type(asyncio.get_running_loop()).__module__
    return [loop, *[(await child.communicate())[0].decode() for child in (shell, program)]]
"""


@pytest.mark.parametrize(("loop", "module"), [("host", "uvloop"), ("own", "asyncio")])
def test_child_processes_of_asyncio_inherit_them_on_every_kind_of_loop(serve: Serve, loop: str, module: str) -> None:
    functions = f"from serverfull import Function\nf = Function(by_asyncio, loop={loop!r}, environment={{'MINE': 'm'}})"
    server = serve(f"{ASYNCIO_CHILDREN}\n{functions}\nfunctions = {{'f': f}}")
    used, *seen = server.invoke("f").json()
    assert used.partition(".")[0] == module
    assert seen == ["m\n", "m\n"]
