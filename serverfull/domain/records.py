"""What the control plane keeps: records of several kinds, apart for each account and region.

A record is a frozen dataclass whose fields hold what JSON holds (texts, numbers, booleans, None, lists and mappings of
these), so that every store can keep it as one document. A `Kind` says which of its fields tell it from others. Fields
that are added later need a default: older documents lack them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeAlias, TypeVar

Record = TypeVar("Record")
KeyPart: TypeAlias = "str | int"


class Partition(NamedTuple):
    """An account in a region: records of two partitions never see each other.

    A tuple, because every invocation looks for several things by it.

    :param account: twelve digits.
    :param region: such as ``us-east-1``.
    """

    account: str
    region: str


@dataclass(frozen=True, slots=True, eq=False)
class Kind(Generic[Record]):
    """One kind of record.

    :param name: a plural noun in snake case; in a database the table's name.
    :param record: the dataclass.
    :param key: its fields that tell records of a partition apart, in the order in which they are sorted. Each is a
        ``str`` or an ``int``.
    :param indexed: further fields (``str``, or None) that lists are narrowed by.
    :param of_function: whether the first field of the key is the name of a function, and the record ends with it.
    """

    name: str
    record: type[Record]
    key: tuple[str, ...]
    indexed: tuple[str, ...] = ()
    of_function: bool = False

    def key_of(self, record: Record) -> tuple[KeyPart, ...]:
        """Give the key of a record."""
        return tuple(getattr(record, field) for field in self.key)
