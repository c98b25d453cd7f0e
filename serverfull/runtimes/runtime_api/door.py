"""A port on loopback where extensions find their API, beside a Runtime API that only our own client can reach.

Our client has a Unix socket, and whatever else comes by that is taken for an attack. Extensions know host and port, and
so do the threads of a runtime's process that are internal ones. They get a port where nothing of the runtime is served.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serverfull.domain.limits import RESPONSE_PAYLOAD_BYTES
from serverfull.runtimes.runtime_api.connection import Connection, error_document
from serverfull.runtimes.runtime_api.extension_messages import ROUTES

if TYPE_CHECKING:
    import socket

    from serverfull.runtimes.runtime_api.extensions import Extensions
    from serverfull.runtimes.runtime_api.http import Request

MOST_CONNECTIONS = 64
"""Connections to one sandbox. An extension has one or two."""

_PATHS = frozenset(path for _, path in ROUTES)


class Door:
    """A listener for extensions; made by `open`.

    :ivar address: ``127.0.0.1:39121``: what ``AWS_LAMBDA_RUNTIME_API`` is set to.
    """

    expected = b""

    def __init__(self, extensions: Extensions) -> None:
        self.address = ""
        self._extensions = extensions
        self._connections: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._peer: str | None = None

    @classmethod
    async def open(cls, extensions: Extensions, host: str = "127.0.0.1") -> Door:
        """Listen on a port that the system chooses.

        :raises OSError: that is not possible.
        """
        door = cls(extensions)
        door._server = await asyncio.get_running_loop().create_server(door._connected, host, 0)
        door.address = f"{host}:{door._server.sockets[0].getsockname()[1]}"
        return door

    @classmethod
    def unheard(cls, extensions: Extensions, address: str) -> Door:
        """Make one that nobody can reach before `hear` is called.

        :param address: where it will listen.
        """
        door = cls(extensions)
        door.address = address
        return door

    async def hear(self, listener: socket.socket, peer: str) -> None:
        """Take connections, those that wait already too.

        :param listener: listens at the address; closed with this.
        :param peer: the address that they may come from; those from others are closed unread.
        """
        self._peer = peer
        self._server = await asyncio.get_running_loop().create_server(self._connected, sock=listener)

    def close(self) -> None:
        """Close the listener and all connections. Closing twice is fine."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for connection in tuple(self._connections):
            connection.abort()

    def _connected(self) -> Connection:
        welcome = len(self._connections) < MOST_CONNECTIONS
        connection = Connection(self, RESPONSE_PAYLOAD_BYTES, welcome=welcome, peer=self._peer)
        self._connections.add(connection)
        return connection

    # ------------------------------------------------------------------------------------------ what a connection calls

    def serve(self, connection: Connection, request: Request) -> None:
        """Answer a request, or keep it until there is an event."""
        if "origin" in request.fields or "sec-fetch-site" in request.fields:
            connection.answer(403, error_document("Forbidden", "Web pages may not call the Extensions API."))
        elif (request.method, request.path) in ROUTES:
            self._extensions.serve(connection, request)
        elif request.path in _PATHS:
            text = f"{request.path} does not take {request.method}."
            connection.answer(405, error_document("MethodNotAllowed", text))
        else:
            text = f"There is no {request.path} in the Extensions API."
            connection.answer(404, error_document("NotFound", text))

    def take_turn(self, connection: Connection, question: Request, body: bytes) -> bool:
        """Take none: no result is expected here."""
        return False

    def refuse_long(self, connection: Connection, request: Request) -> None:
        """Answer a request whose body is over the limit."""
        text = f"Exceeded maximum allowed payload size ({RESPONSE_PAYLOAD_BYTES} bytes)."
        connection.answer(413, error_document("RequestEntityTooLarge", text))

    def refused(self) -> None:
        """Hear that a request was not what it should be: anybody may be wrong here."""

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._connections.discard(connection)
        self._extensions.lost(connection)
