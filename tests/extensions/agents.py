"""Extensions that several tests have beside functions."""

from __future__ import annotations

import textwrap
from typing import Any

WATCHING = """
extension = Extension("INVOKE", "SHUTDOWN")
while True:
    event = extension.next()
    tell("event", event)
    if event["eventType"] == "SHUTDOWN":
        sys.exit(0)
"""

SUBSCRIBING = """
extension = Extension("INVOKE", "SHUTDOWN")
port = listen()
answer = subscribe(extension, destination={"protocol": "HTTP", "URI": f"http://sandbox.localdomain:{port}/in?a=b"})
tell("subscribed", [answer[0], json.loads(answer[2])])
print("agent ready", flush=True)
serve(extension)
"""


def agent(deployed: Any, code: str = SUBSCRIBING) -> str:
    return str(deployed.python(deployed.program("agent.py") + textwrap.dedent(code)))


def records(events: list[dict[str, Any]], kind: str) -> list[Any]:
    return [event["record"] for event in events if event["type"] == kind]
