"""The loops that handlers run on, and what handlers do to them."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
import time
from typing import Any

import pytest

from serverfull.runtimes.loops import Heart, LoopRunner, OwnLoop, run_in_spite_of_exits


async def leave(how: type[BaseException]) -> None:
    raise how(3)


@pytest.mark.parametrize("how", [SystemExit, KeyboardInterrupt])
def test_a_task_that_exits_does_not_end_the_main_coroutine(how: type[BaseException]) -> None:
    async def main() -> str:
        with pytest.raises(how):
            await asyncio.gather(leave(how))
        asyncio.get_running_loop().call_soon(sys.exit, 4)
        await asyncio.sleep(0.01)
        return "done"

    with LoopRunner() as runner:
        assert runner.run(main()) == "done"


def test_what_the_main_coroutine_raises_is_raised() -> None:
    with LoopRunner() as runner:
        for error in (LookupError, SystemExit, KeyboardInterrupt):
            with pytest.raises(error):
                runner.run(leave(error))


def test_ctrl_c_ends_the_main_coroutine() -> None:
    cancelled: list[bool] = []

    async def main() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    with LoopRunner() as runner, pytest.raises(KeyboardInterrupt):
        runner.run(main())
    assert cancelled


def test_tasks_left_behind_are_cancelled_at_the_end() -> None:
    ends: list[str] = []

    async def left() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ends.append("cancelled")

    tasks = []

    async def main() -> None:
        tasks.append(asyncio.create_task(left()))
        await asyncio.sleep(0)

    with LoopRunner() as runner:
        runner.run(main())
    assert ends == ["cancelled"]


def test_threads_left_in_the_executor_do_not_keep_the_end_waiting() -> None:
    go = threading.Event()

    async def main() -> None:
        asyncio.get_running_loop().run_in_executor(None, go.wait, 30)

    with LoopRunner() as runner:
        runner.run(main())
    assert not go.is_set()
    go.set()


def test_a_loop_is_run_again_after_each_exit() -> None:
    results: list[Any] = [SystemExit(), KeyboardInterrupt(), "done"]

    def run() -> Any:
        result = results.pop(0)
        if isinstance(result, BaseException):
            raise result
        return result

    assert run_in_spite_of_exits(run) == "done"


def spawn(own: OwnLoop, coroutine: Any) -> list[Any]:
    return own.spawn(coroutine, contextvars.Context(), "task")


def test_an_own_loop_runs_tasks_in_its_thread_and_ends_when_closed() -> None:
    own, done, seen = OwnLoop("own"), threading.Event(), []

    async def work() -> None:
        seen.append((threading.current_thread(), asyncio.current_task().get_name()))  # type: ignore[union-attr]
        done.set()

    spawn(own, work())
    assert done.wait(10)
    assert seen == [(own.thread, "task")]
    own.close()
    own.thread.join(10)
    assert not own.thread.is_alive()
    assert own.ended
    own.close()


def test_an_own_loop_cancels_what_runs_when_it_is_closed() -> None:
    own, entered, ended = OwnLoop("own"), threading.Event(), threading.Event()

    async def work() -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    spawn(own, work())
    assert entered.wait(10)
    own.close()
    assert ended.wait(10)
    own.thread.join(10)


async def test_a_heart_beats_and_is_silent_when_its_loop_is() -> None:
    beats: list[float] = []
    heart = Heart(asyncio.get_running_loop(), beats.append)
    heart.start()
    async with asyncio.timeout(10):
        while len(beats) < 3:  # noqa: ASYNC110 - it is the beats that are waited for
            await asyncio.sleep(0.01)
    assert heart.thread_id == threading.get_ident()
    time.sleep(0.2)  # noqa: ASYNC251 - blocks the loop on purpose
    assert heart.silence() >= 0.1
    heart.stop()
    heart.stop()
    count = len(beats)
    await asyncio.sleep(0.15)
    assert len(beats) == count
