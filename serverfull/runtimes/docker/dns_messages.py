"""The few parts of DNS messages that a forwarder which knows some names itself has to understand. Pure functions.

Everything else in a message goes through as the bytes that it is.

DNS: https://www.rfc-editor.org/rfc/rfc1035, EDNS: https://www.rfc-editor.org/rfc/rfc6891
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum

HEADER = 12
"""Bytes before the question."""

MOST_BYTES = 65_535
"""Of a message over TCP."""

_LEAST_ROOM = 512
_MOST_NAME = 255
_MOST_LABEL = 63

_IS_ANSWER, _OPCODE, _AUTHORITATIVE, _TRUNCATED, _WANTS_RECURSION, _DOES_RECURSION = (
    0x8000,
    0x7800,
    0x0400,
    0x0200,
    0x0100,
    0x0080,
)
_HAS_QUESTION_AT = 0xC00C
"""A pointer to the name in the question."""

_IN, _ANY_CLASS = 1, 255
_A, _OPT, _ANY = 1, 41, 255
_TRANSFERS = (251, 252)


class Code(IntEnum):
    """What became of a question."""

    NO_ERROR = 0
    FORMAT_ERROR = 1
    SERVER_FAILURE = 2
    NOT_IMPLEMENTED = 4
    REFUSED = 5


class NoQuestion(Exception):
    """The message asks nothing that can be understood.

    :param answer: that says so; None: it gets none.
    """

    def __init__(self, answer: bytes | None = None) -> None:
        super().__init__("no question")
        self.answer = answer


@dataclass(frozen=True, slots=True)
class Question:
    """One question.

    :param message: all of its bytes.
    :param name: the labels in small letters.
    :param kind: the type of what is asked for.
    :param group: the class, which is nearly always IN.
    :param end: where the bytes of the question end.
    :param room: bytes that an answer over UDP may have; None: as few as without EDNS.
    :param version: of EDNS.
    """

    message: bytes
    name: tuple[bytes, ...]
    kind: int
    group: int
    end: int
    room: int | None = None
    version: int = 0

    @property
    def is_of_internet(self) -> bool:
        """Whether it asks about names as everybody means them."""
        return self.group in (_IN, _ANY_CLASS)

    @property
    def is_transfer(self) -> bool:
        """Whether it asks for a whole zone, which is answered by more than one message."""
        return self.kind in _TRANSFERS

    def answer(self, address: bytes, ttl: int) -> bytes:
        """Answer that the name has this address and nothing else.

        :param address: four bytes.
        :param ttl: seconds that the answer may be remembered.
        """
        if self.version:
            return self.failure(Code.NO_ERROR)
        record = b""
        if self.kind in (_A, _ANY):
            record = struct.pack("!HHHIH", _HAS_QUESTION_AT, _A, _IN, ttl, len(address)) + address
        return self._answer(Code.NO_ERROR, record, flags=_AUTHORITATIVE)

    def failure(self, code: Code) -> bytes:
        """Answer that there is no answer."""
        return self._answer(code)

    def fitting(self, answer: bytes) -> bytes:
        """Give an answer as it may go over UDP: whole, or as word that it is too long for that."""
        if len(answer) <= max(self.room or 0, _LEAST_ROOM):
            return answer
        flags = int.from_bytes(answer[2:4], "big") | _TRUNCATED
        return answer[:2] + struct.pack("!HHHHH", flags, 1, 0, 0, 0) + self.message[HEADER : self.end]

    def is_answered_by(self, answer: bytes, number: int) -> bool:
        """Whether bytes that came back are an answer to this question under a number, whatever it says."""
        if len(answer) < HEADER:
            return False
        its_number, flags, questions = struct.unpack_from("!HHH", answer)
        if its_number != number or not flags & _IS_ANSWER:
            return False
        if not questions:
            return code_of(answer) != Code.NO_ERROR
        asked = self.message[HEADER : self.end]
        return answer[HEADER : self.end].lower() == asked.lower()

    def _answer(self, code: Code, record: bytes = b"", flags: int = 0) -> bytes:
        number, asked_flags = struct.unpack_from("!HH", self.message)
        flags |= _IS_ANSWER | (asked_flags & _WANTS_RECURSION) | _DOES_RECURSION | code
        extra = b"" if self.room is None else self._edns()
        counts = struct.pack("!HHHHHH", number, flags, 1, bool(record), 0, bool(extra))
        return counts + self.message[HEADER : self.end] + record + extra

    def _edns(self) -> bytes:
        bad_version = 1 if self.version else 0  # the upper bits of the code BADVERS, 16
        return struct.pack("!BHHBBHH", 0, _OPT, _LEAST_ROOM, bad_version, 0, 0, 0)


def read_question(message: bytes) -> Question:
    """Read what a client asks.

    :raises NoQuestion: it is no question, or none that can be understood.
    """
    if len(message) < HEADER:
        raise NoQuestion
    _, flags, questions, answers, authorities, extras = struct.unpack_from("!HHHHHH", message)
    if flags & _IS_ANSWER:  # two servers would answer each other's answers for ever
        raise NoQuestion
    if flags & _OPCODE:
        raise NoQuestion(_refusal(message, Code.NOT_IMPLEMENTED))
    if questions != 1 or answers or authorities:
        raise NoQuestion(_refusal(message, Code.FORMAT_ERROR))
    name, position = _read_name(message)
    if len(message) < position + 4:
        raise NoQuestion(_refusal(message, Code.FORMAT_ERROR))
    kind, group = struct.unpack_from("!HH", message, position)
    end = position + 4
    room, version = _read_edns(message, end) if extras else (None, 0)
    return Question(message, name, kind, group, end, room, version)


def numbered(message: bytes, number: int) -> bytes:
    """Give a message under another number."""
    return number.to_bytes(2, "big") + message[2:]


def number_of(message: bytes) -> int:
    """Give the number of a message."""
    return int.from_bytes(message[:2], "big")


def code_of(answer: bytes) -> int:
    """Say what an answer says about its question; `Code` has the usual ones."""
    return answer[3] & 0xF


def _read_name(message: bytes) -> tuple[tuple[bytes, ...], int]:
    """Read the name in the question; gives its labels, and where it ends."""
    labels, position = [], HEADER
    while position < len(message) and (length := message[position]):
        label = message[position + 1 : position + 1 + length]
        position += 1 + length
        # Longer ones are pointers, which have nothing to point to here.
        if length > _MOST_LABEL or len(label) < length or position - HEADER >= _MOST_NAME:
            raise NoQuestion(_refusal(message, Code.FORMAT_ERROR))
        labels.append(label.lower())
    return tuple(labels), position + 1


def _read_edns(message: bytes, position: int) -> tuple[int | None, int]:
    """Look for EDNS right behind the question, where clients put it; gives room for an answer, and the version."""
    if len(message) < position + 11:
        return None, 0
    root, kind, room, _, version, _, _ = struct.unpack_from("!BHHBBHH", message, position)
    return (room, version) if (root, kind) == (0, _OPT) else (None, 0)


def _refusal(message: bytes, code: Code) -> bytes:
    """Refuse a message of which nothing but the header is understood."""
    number, flags = struct.unpack_from("!HH", message)
    return struct.pack("!HHHHHH", number, _IS_ANSWER | (flags & (_OPCODE | _WANTS_RECURSION)) | code, 0, 0, 0, 0)
