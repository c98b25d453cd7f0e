"""What every state does with records, in memory and in a directory."""

from __future__ import annotations

import asyncio
import secrets
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from serverfull.domain.deployed import ALIASES, FUNCTIONS, VERSIONS, Alias, DeployedFunction, FunctionVersion
from serverfull.domain.records import Kind, Partition
from serverfull.errors import InternalFailure
from serverfull.interfaces import Records, StateStore

HERE = Partition("111122223333", "us-east-1")
SIGNED = "arn:aws:lambda:us-east-1:111122223333:code-signing-config:csc-1"


def function(name: str, **fields: Any) -> DeployedFunction:
    return DeployedFunction(name=name, **fields)


def version(name: str, number: int, **fields: Any) -> FunctionVersion:
    return FunctionVersion(
        **{"function": name, "number": number, "role": "r", "last_modified": "now", "revision_id": "1"} | fields
    )


def alias(name: str, alias: str) -> Alias:
    return Alias(function=name, name=alias, version="1", revision_id="1")


def insert(*rows: tuple[Kind[Any], Any]) -> Callable[[Records], None]:
    def work(records: Records) -> None:
        for kind, record in rows:
            records.insert(kind, record)

    return work


async def names(state: StateStore, **options: Any) -> list[str]:
    return await state.read(HERE, lambda r: [found.name for found in r.list(FUNCTIONS, **options)])


async def test_a_record_comes_back_as_it_was(state: StateStore) -> None:
    kept = version(
        "hello",
        3,
        environment={"A": "ä€😀", "half": "\ud800"},
        settings={"VpcConfig": {"SubnetIds": ["a", "b"]}, "Share": 0.25, "On": True, "Nothing": None},
        state_reason=None,
        timeout=900,
    )
    await state.write(HERE, insert((VERSIONS, kept)))
    assert await state.read(HERE, lambda r: r.get(VERSIONS, "hello", 3)) == kept
    assert await state.read(HERE, lambda r: r.get(VERSIONS, "hello", 4)) is None


async def test_partitions_never_see_each_other(state: StateStore) -> None:
    others = [Partition("999999999999", HERE.region), Partition(HERE.account, "eu-west-1")]
    await state.write(HERE, insert((FUNCTIONS, function("hello"))))
    for other in others:
        assert await state.read(
            other, lambda r: (r.get(FUNCTIONS, "hello"), r.list(FUNCTIONS), r.count(FUNCTIONS))
        ) == (
            None,
            [],
            0,
        )
        assert await state.write(other, lambda r: r.delete(FUNCTIONS)) == 0
        await state.write(other, insert((FUNCTIONS, function("hello", last_version=7))))
    assert await state.read(HERE, lambda r: r.get(FUNCTIONS, "hello")) == function("hello")
    found = await state.everywhere(FUNCTIONS)
    assert sorted((p.account, p.region, f.last_version) for p, f in found) == [
        ("111122223333", "eu-west-1", 7),
        ("111122223333", "us-east-1", 0),
        ("999999999999", "us-east-1", 7),
    ]


async def test_lists_are_sorted_by_the_key_and_numbers_as_numbers(state: StateStore) -> None:
    rows = [(VERSIONS, version(name, number)) for number in (10, 9, 0, 100) for name in ("b", "a", "B")]
    await state.write(HERE, insert(*rows))
    found = await state.read(HERE, lambda r: [(v.function, v.number) for v in r.list(VERSIONS)])
    assert found == sorted(found)
    assert len(found) == 12
    assert await state.read(HERE, lambda r: [v.number for v in r.list(VERSIONS, "a")]) == [0, 9, 10, 100]


@pytest.mark.parametrize(
    ("prefix", "after", "expected"),
    [
        ((), ("b", 1), [("b", 2), ("c", 1)]),
        ((), ("b", 5), [("c", 1)]),
        ((), ("", 0), [("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1)]),
        ((), ("z", 0), []),
        (("b",), ("b", 1), [("b", 2)]),
        (("b",), ("a", 9), [("b", 1), ("b", 2)]),
        (("b",), ("c", 0), []),
        (("b", 2), ("b", 1), [("b", 2)]),
        (("b", 2), ("b", 2), []),
    ],
)
async def test_a_list_begins_behind_a_key_that_need_not_be_there(
    state: StateStore, prefix: tuple[Any, ...], after: tuple[Any, ...], expected: list[tuple[str, int]]
) -> None:
    rows = [(VERSIONS, version(*key)) for key in (("a", 1), ("a", 2), ("b", 1), ("b", 2), ("c", 1))]
    await state.write(HERE, insert(*rows))
    found = await state.read(HERE, lambda r: [(v.function, v.number) for v in r.list(VERSIONS, *prefix, after=after)])
    assert found == expected


async def test_pages_put_together_are_the_list(state: StateStore) -> None:
    await state.write(HERE, insert(*((FUNCTIONS, function(f"f{i:02}")) for i in range(25))))
    pages: list[str] = []
    after = None
    while page := await names(state, after=after, limit=10):
        assert len(page) <= 10
        pages += page
        after = (page[-1],)
    assert pages == await names(state) == [f"f{i:02}" for i in range(25)]


async def test_lists_and_counts_are_narrowed_by_indexed_fields(state: StateStore) -> None:
    rows = [function(f"f{i}", code_signing_config=SIGNED if i % 2 else None) for i in range(6)]
    await state.write(HERE, insert(*((FUNCTIONS, row) for row in rows)))
    where = {"code_signing_config": SIGNED}
    assert await names(state, where=where) == ["f1", "f3", "f5"]
    assert await names(state, where=where, after=("f1",), limit=1) == ["f3"]
    assert await state.read(HERE, lambda r: (r.count(FUNCTIONS, where=where), r.count(FUNCTIONS))) == (3, 6)
    moved = replace(rows[1], code_signing_config=None)
    await state.write(HERE, lambda r: r.replace(FUNCTIONS, moved))
    assert await names(state, where=where) == ["f3", "f5"]


async def test_a_total_is_the_sum_of_a_field_here_and_of_no_other_partition(state: StateStore) -> None:
    await state.write(HERE, insert(*((VERSIONS, version("f", number, code_size=10**9 * number)) for number in (1, 3))))
    await state.write(Partition(HERE.account, "eu-west-1"), insert((VERSIONS, version("f", 1, code_size=7))))
    assert await state.read(HERE, lambda r: (r.total(VERSIONS, "code_size"), r.total(FUNCTIONS, "last_version"))) == (
        4 * 10**9,
        0,
    )
    with pytest.raises(ValueError, match="functions has no field code_size"):
        await state.read(HERE, lambda r: r.total(FUNCTIONS, "code_size"))


async def test_what_no_index_serves_is_refused(state: StateStore) -> None:
    with pytest.raises(ValueError, match="functions has no index of last_version"):
        await names(state, where={"last_version": "1"})


async def test_inserting_twice_and_replacing_nothing_are_key_errors_that_leave_the_transaction_usable(
    state: StateStore,
) -> None:
    def work(records: Records) -> None:
        records.insert(FUNCTIONS, function("one"))
        with pytest.raises(KeyError):
            records.insert(FUNCTIONS, function("one", last_version=1))
        with pytest.raises(KeyError):
            records.replace(FUNCTIONS, function("two"))
        records.insert(FUNCTIONS, function("three"))

    await state.write(HERE, work)
    assert await names(state) == ["one", "three"]
    assert await state.read(HERE, lambda r: r.get(FUNCTIONS, "one")) == function("one")


async def test_deleting_by_a_prefix_says_how_many_there_were(state: StateStore) -> None:
    await state.write(HERE, insert(*((ALIASES, alias(f, a)) for f in ("f", "g") for a in ("x", "y", "z"))))
    assert await state.write(HERE, lambda r: r.delete(ALIASES, "f", "y")) == 1
    assert await state.write(HERE, lambda r: r.delete(ALIASES, "f", "y")) == 0
    assert await state.write(HERE, lambda r: r.delete(ALIASES, "f")) == 2
    assert await state.read(HERE, lambda r: [(a.function, a.name) for a in r.list(ALIASES)]) == [
        ("g", "x"),
        ("g", "y"),
        ("g", "z"),
    ]
    assert await state.write(HERE, lambda r: r.delete(ALIASES)) == 3


async def test_a_write_that_raises_leaves_nothing_and_its_error_comes_out_as_it_is(state: StateStore) -> None:
    def work(records: Records) -> None:
        records.insert(FUNCTIONS, function("half"))
        raise LookupError("not today")

    with pytest.raises(LookupError, match="not today"):
        await state.write(HERE, work)
    assert await names(state) == []


async def test_a_read_that_changes_something_is_refused(state: StateStore) -> None:
    for change in (
        lambda r: r.insert(FUNCTIONS, function("f")),
        lambda r: r.replace(FUNCTIONS, function("f")),
        lambda r: r.delete(FUNCTIONS),
    ):
        with pytest.raises(RuntimeError, match=r"StateStore\.write"):
            await state.read(HERE, change)


async def test_transactions_are_serial_so_that_check_then_write_is_safe(state: StateStore) -> None:
    await state.write(HERE, insert((FUNCTIONS, function("f"))))

    def next_version(records: Records) -> int:
        found = records.get(FUNCTIONS, "f")
        assert found is not None
        records.replace(FUNCTIONS, replace(found, last_version=found.last_version + 1))
        return found.last_version

    numbers = await asyncio.gather(*(state.write(HERE, next_version) for _ in range(50)))
    assert sorted(numbers) == list(range(50))


async def test_work_never_runs_on_the_event_loop_and_always_on_the_same_thread(state: StateStore) -> None:
    threads = {await state.read(HERE, lambda _: threading.get_ident())}
    threads.add(await state.write(HERE, lambda _: threading.get_ident()))
    assert len(threads) == 1
    assert threading.get_ident() not in threads


async def test_the_loop_turns_while_a_transaction_waits(state: StateStore) -> None:
    let_go = threading.Event()
    waiting = asyncio.ensure_future(state.write(HERE, lambda _: let_go.wait(10)))
    await asyncio.sleep(0)
    let_go.set()  # were the loop blocked, nobody could
    assert await waiting is True


async def test_a_caller_that_goes_away_neither_stops_its_transaction_nor_the_next(state: StateStore) -> None:
    begun, let_go = threading.Event(), threading.Event()

    def work(records: Records) -> None:
        begun.set()
        let_go.wait(10)
        records.insert(FUNCTIONS, function("kept"))

    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    caller = asyncio.ensure_future(state.write(HERE, work))
    await asyncio.to_thread(begun.wait, 10)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    let_go.set()
    assert await names(state) == ["kept"]
    assert not complaints


async def test_records_are_of_no_use_after_their_transaction(state: StateStore) -> None:
    kept = await state.read(HERE, lambda r: r)
    with pytest.raises(Exception, match="thread"):
        kept.get(FUNCTIONS, "f")


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", float("nan"), float("inf")], ids=str)
async def test_what_json_does_not_hold_is_refused_and_nothing_kept(state: StateStore, value: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        await state.write(HERE, insert((FUNCTIONS, function("f", tags={"a": value}))))
    assert await names(state) == []


async def test_closing_twice_is_fine_and_a_closed_state_is_of_no_use(state: StateStore) -> None:
    await state.aclose()
    await state.aclose()
    with pytest.raises(InternalFailure):
        await state.read(HERE, lambda r: r.list(FUNCTIONS))


async def test_a_failure_of_the_database_shows_none_of_what_was_written(state: StateStore) -> None:
    password = secrets.token_hex(8)  # in no line of source that a traceback would show

    def work(records: Any) -> None:
        records._connection.exec_driver_sql("DROP TABLE functions")
        records.insert(FUNCTIONS, function("hello", tags={"PASSWORD": password}))

    with pytest.raises(InternalFailure) as failed:
        await state.write(HERE, work)
    logged = "".join(traceback.format_exception(failed.value))
    assert "no such table" in logged
    assert password not in logged
