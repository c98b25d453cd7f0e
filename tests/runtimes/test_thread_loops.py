"""The event loop that a ``def`` handler finds, as it does on AWS."""

from __future__ import annotations

import asyncio
import threading
from typing import Any


async def ask() -> str:
    await asyncio.sleep(0)
    return threading.current_thread().name


async def test_a_plain_handler_finds_an_event_loop(start_host: Any) -> None:
    def handler(event: Any) -> Any:
        return asyncio.get_event_loop().run_until_complete(ask())

    def both(event: Any) -> Any:
        return [asyncio.run(ask()), handler(event)]

    host = await start_host({"f": handler, "both": both})
    name = (await host.invoke("f")).json()
    assert name.startswith("serverfull-handler")
    assert (await host.invoke("both")).json() == [name, name]
    assert (await host.invoke("f")).json() == name


async def test_calls_at_the_same_time_have_loops_of_their_own_and_one_thread_has_one(start_host: Any) -> None:
    together = threading.Barrier(2)
    found: list[tuple[threading.Thread, asyncio.AbstractEventLoop]] = []

    def handler(event: Any) -> None:
        loop = asyncio.get_event_loop()
        found.append((threading.current_thread(), loop))
        loop.run_until_complete(ask())
        if event == "together":
            together.wait(20)

    host = await start_host({"f": handler})
    await asyncio.gather(host.invoke("f", "together"), host.invoke("f", "together"))
    for _ in range(4):
        await host.invoke("f", "alone")
    assert len(set(found)) == len({loop for _, loop in found}) == 2
    loops = {loop for _, loop in found}
    await host.close()
    await host.until(lambda: all(loop.is_closed() for loop in loops))


async def test_threads_of_a_handler_have_none_and_the_loop_of_the_host_stays_its_own(start_host: Any) -> None:
    mine = asyncio.get_running_loop()
    real = type(asyncio.get_event_loop_policy()).get_event_loop

    def handler(event: Any) -> Any:
        told: list[str] = []

        def look() -> None:
            try:
                asyncio.get_event_loop()
            except RuntimeError as none:
                told.append(str(none))

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
        return told

    async def on_the_host(event: Any) -> bool:
        return asyncio.get_event_loop() is mine

    host = await start_host({"f": handler, "g": on_the_host})
    assert "no current event loop" in (await host.invoke("f")).json()[0]
    assert (await host.invoke("g")).json() is True
    await host.close()
    assert asyncio.get_event_loop_policy().get_event_loop.__func__ is real  # type: ignore[attr-defined]
