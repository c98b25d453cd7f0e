"""Extensions that several tests have beside functions."""

from __future__ import annotations

WATCHING = """
extension = Extension("INVOKE", "SHUTDOWN")
while True:
    event = extension.next()
    tell("event", event)
    if event["eventType"] == "SHUTDOWN":
        sys.exit(0)
"""
