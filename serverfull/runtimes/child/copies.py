"""How the zygote and a snapshot speak: orders with descriptors one way, the births of processes the other.

`snapshots` is the side of the snapshot, and says what it does. Nothing that comes from there can be trusted, but for
the kernel's word on who has sent it.
"""

from __future__ import annotations

import array
import socket
import struct

_SENDER = struct.Struct("3i")
"""How the kernel says who has sent a message: process, user and group."""


class Original:
    """A launched process that others are made of.

    :param mark: the number of its launch, which it and what it makes carry.
    :param control: the socket that it gets orders by; it is closed there when the process ends.
    """

    def __init__(self, mark: int, control: socket.socket) -> None:
        control.setblocking(False)
        control.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.mark = mark
        self.control = control

    def order(self, mark: int, number: int, descriptors: list[int]) -> None:
        """Have it make a process.

        :param mark: that the process is to carry.
        :param number: of the launch.

        :raises OSError: it is gone, or does not read.
        """
        beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
        self.control.sendmsg([b"%d %d" % (mark, number)], beside)

    def hear(self) -> tuple[int, int] | None:
        """Give the next process that it has made, and the launch that it says to be; None: there is none now.

        :raises EOFError: there will be none.
        """
        try:
            said, ancillary, _, _ = self.control.recvmsg(32, socket.CMSG_SPACE(_SENDER.size))
        except BlockingIOError:
            return None
        except OSError:
            raise EOFError from None
        if not said:
            raise EOFError
        for _, kind, packed in ancillary:
            if kind == socket.SCM_CREDENTIALS and said.isdigit():
                return _SENDER.unpack(packed[: _SENDER.size])[0], int(said)
        return 0, 0
