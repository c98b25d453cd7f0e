"""Threads for plain handlers: hand-over, abandonment and the end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

from serverfull.runtimes.threads import Completions, HandlerThreads, Job, interrupt


def submit(threads: HandlerThreads, work: Any) -> Job[Any]:
    job: Job[Any] = Job(work, asyncio.get_running_loop().create_future())
    threads.submit(job)
    return job


async def result(job: Job[Any]) -> Any:
    return await asyncio.wait_for(job.waiter, 10)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.002)


async def test_many_jobs_all_come_back_with_their_own_results() -> None:
    threads = HandlerThreads(asyncio.get_running_loop())
    jobs = [submit(threads, lambda number=number: number) for number in range(500)]
    assert [await result(job) for job in jobs] == list(range(500))
    threads.close()


async def test_there_are_as_many_threads_as_jobs_at_once_and_they_are_kept() -> None:
    threads = HandlerThreads(asyncio.get_running_loop())
    together = threading.Barrier(5)
    jobs = [submit(threads, together.wait) for _ in range(5)]
    for job in jobs:
        await result(job)
    for _ in range(20):
        await result(submit(threads, int))
    assert threads._born == 5
    threads.close()


async def test_each_job_has_a_fresh_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")
    threads = HandlerThreads(asyncio.get_running_loop())

    def work() -> str:
        before = variable.get()
        variable.set("set")
        return before

    assert [await result(submit(threads, work)) for _ in range(3)] == ["unset"] * 3
    threads.close()


async def test_an_abandoned_job_loses_its_thread_and_another_one_takes_its_place() -> None:
    threads = HandlerThreads(asyncio.get_running_loop())
    entered, go = threading.Event(), threading.Event()

    def stuck() -> str:
        entered.set()
        go.wait(20)
        return "late"

    job = submit(threads, stuck)
    await until(entered.is_set)
    lost = threads.abandon(job)
    assert lost is not None
    assert await result(submit(threads, lambda: threading.current_thread())) is not lost
    assert not job.waiter.done()
    go.set()
    await until(lambda: not lost.is_alive())
    assert not job.waiter.done()
    threads.close()


async def test_a_job_that_has_ended_or_not_begun_loses_no_thread() -> None:
    threads = HandlerThreads(asyncio.get_running_loop())
    done = submit(threads, lambda: "done")
    await until(lambda: done.finished)
    assert threads.abandon(done) is None
    ran: list[int] = []
    waiting: Job[Any] = Job(lambda: ran.append(1), asyncio.get_running_loop().create_future())
    assert threads.abandon(waiting) is None
    threads.submit(waiting)
    assert await result(submit(threads, lambda: "next")) == "next"
    await until(lambda: waiting.finished)
    assert not ran
    threads.close()


async def test_an_interrupted_loop_ends_its_thread() -> None:
    threads = HandlerThreads(asyncio.get_running_loop())
    entered = threading.Event()

    def spin() -> None:
        entered.set()
        while True:
            pass

    def _execute_handler() -> None:  # by this name it is known where the user's code begins
        spin()

    job = submit(threads, _execute_handler)
    await until(entered.is_set)
    lost = threads.abandon(job)
    assert lost is not None
    await until(lambda: interrupt(lost))
    await until(lambda: not lost.is_alive())
    assert interrupt(lost)  # of a thread that has ended: nothing
    threads.close()


async def test_closing_ends_idle_threads_at_once_and_busy_ones_after_their_job() -> None:
    threads = HandlerThreads(asyncio.get_running_loop(), name="closing")
    entered, go = threading.Event(), threading.Event()

    def busy() -> str:
        entered.set()
        go.wait(20)
        return "done"

    job = submit(threads, busy)
    await result(submit(threads, int))
    await until(entered.is_set)
    threads.close()
    threads.close()
    await until(lambda: sum(t.name.startswith("closing") for t in threading.enumerate()) == 1)
    go.set()
    assert await result(job) == "done"
    await until(lambda: not any(t.name.startswith("closing") for t in threading.enumerate()))


def test_a_result_for_a_loop_that_is_closed_is_dropped() -> None:
    loop = asyncio.new_event_loop()
    completions = Completions(loop)
    job: Job[Any] = Job(int, loop.create_future())
    loop.close()
    completions.add(job)
    assert not job.waiter.done()
