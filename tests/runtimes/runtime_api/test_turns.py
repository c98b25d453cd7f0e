"""A result and the question for the next invocation in one piece mean what they mean in two, whatever is in them."""

import asyncio
import re

import pytest

NEXT = b"GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: localhost\r\n\r\n"
OTHER = b"GET /2018-06-01/ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
OF_A_PAGE = NEXT.replace(b"\r\n\r\n", b"\r\nOrigin: http://localhost\r\n\r\n")
LAST = NEXT.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


def result(length="4", body=b'"ok"', request_id="id-1", more=""):
    path = f"/2018-06-01/runtime/invocation/{request_id}/response"
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{more}"
    return f"{head}Content-Length: {length}\r\n\r\n".encode() + body


TURNS = {
    "as our client words it": result() + NEXT,
    "no bytes": result("0", b"") + NEXT,
    "an empty line in the result": result("8", b"a\r\n\r\nbcd") + NEXT,
    "the question as the result": result(str(len(NEXT)), NEXT) + NEXT,
    "the question within the result only": result(str(len(NEXT)), NEXT),
    "half a result": result("9", b'"ok"'),
    "more than half a question": result() + NEXT[:-1],
    "two questions": result() + NEXT + NEXT,
    "a result that is shorter than it says": result("5") + NEXT,
    "a result that is longer than it says": result("3") + NEXT,
    "a length with a sign": result("+4") + NEXT,
    "a length with a space": result(" 4") + NEXT,
    "a length with a score": result("0_4") + NEXT,
    "a length in another script": result("٤") + NEXT,
    "no length": result("") + NEXT,
    "a length of many digits": result("4".zfill(18)) + NEXT,
    "a header behind the length": result("4\r\nX-A: b") + NEXT,
    "a header before it": result(more="X-A: b\r\n") + NEXT,
    "a mode that is not known": result(more="Lambda-Runtime-Function-Response-Mode: none\r\n") + NEXT,
    "another id": result(request_id="id-2") + NEXT,
    "an error": result().replace(b"/response", b"/error") + NEXT,
    "another question": result() + OTHER,
    "the question of a page": result() + OF_A_PAGE,
    "a last question": result() + LAST,
    "twice the result": result() + result() + NEXT,
    "over the limit": result("2000", b"x" * 2000) + NEXT,
    "at the limit": result("1000", b"x" * 1000) + NEXT,
}


async def seen(served, asked, pieces, before):
    """Say everything that can be seen after a runtime has sent some bytes."""
    line = await served.polled() if asked == NEXT else await served.connect()
    if asked != NEXT:
        await line.ask(asked)
        line.send(NEXT)
    task = served.run("id-1")
    assert (await line.hear()).status == 200
    [connection] = served.api._connections
    if asked != NEXT:  # what is repeated is the other question
        connection._reader.known = asked, connection._reader._request_of(asked[:-4])
    if before == "interrupted":
        served.api.interrupt(InterruptedError())
    elif before == "given up":
        task.cancel()
        await asyncio.sleep(0)
    for piece in pieces:
        connection.data_received(piece)
    served.api.end(EOFError())
    outcome = await settled(task)
    closing = connection._transport is None or connection._transport.is_closing() or connection._closing
    held = re.sub(rb"Date: [^\r]*", b"", connection._held)
    waits = connection._request is not None
    polls, state = len(served.api._polls), served.api._state
    connection.abort()
    said = re.sub(rb"Date: [^\r]*", b"", await line.ended())
    return outcome, closing, held, waits, polls, state, said


async def settled(task):
    try:
        return await task
    except (EOFError, InterruptedError, asyncio.CancelledError) as error:
        return type(error)


@pytest.mark.parametrize("before", ["", "interrupted", "given up"])
@pytest.mark.parametrize("asked", [NEXT, OTHER, OF_A_PAGE], ids=["next", "other", "page"])
@pytest.mark.parametrize("turn", TURNS.values(), ids=TURNS)
async def test_one_piece_means_what_pieces_mean(open_api, turn, asked, before):
    in_one = await seen(await open_api(limit=1000), asked, [turn], before)
    in_pieces = await seen(await open_api(limit=1000), asked, [turn[:30], turn[30:]], before)
    assert in_one == in_pieces


async def test_our_clients_turn_is_taken_in_one_go(open_api, monkeypatch):
    served = await open_api()
    line = await served.polled()
    task = served.run("id-1")
    assert (await line.hear()).status == 200
    [connection] = served.api._connections
    monkeypatch.delattr(type(connection._reader), "feed")
    connection.data_received(result() + NEXT)
    assert (await task).payload == b'"ok"'
