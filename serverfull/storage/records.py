"""Records in tables: the statements, each made once, and what a transaction does with them.

Used on the thread of a state alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.sql.expression import Executable

from serverfull.domain.json_functions import dumps, loads
from serverfull.domain.records import KeyPart, Kind, Partition, Record
from serverfull.errors import InternalFailure
from serverfull.interfaces import Records
from serverfull.storage.tables import DOCUMENT, PARTITION, metadata_of

_Shape = tuple[Any, ...]


class Statements:
    """The statements of a state by what they do, so that none is built twice."""

    def __init__(self) -> None:
        self.metadata = metadata_of()
        self._made: dict[_Shape, Executable] = {}
        self.note_fields = insert(self.metadata.tables["known_fields"]).prefix_with("OR REPLACE")

    def get(self, kind: Kind[Any]) -> Executable:
        """The document with a whole key."""
        return self._once(("get", kind), lambda table: select(table.c.document).where(*_same(table, kind.key)))

    def list(self, kind: Kind[Any], prefix: int, after: int, where: tuple[str, ...]) -> Executable:
        """The documents with a prefix of so many parts, behind so many parts of the rest of the key."""

        def make(table: Table) -> Executable:
            rest = [table.c[name] for name in kind.key[prefix : prefix + after]]
            behind = (
                [tuple_(*rest) > tuple_(*(bindparam(f"after_{c.name}", type_=c.type) for c in rest))] if rest else []
            )
            wanted = _same(table, (*kind.key[:prefix], *where))
            order = [table.c[name] for name in kind.key]
            return select(table.c.document).where(*wanted, *behind).order_by(*order).limit(bindparam("at_most"))

        return self._once(("list", kind, prefix, after, where), make)

    def count(self, kind: Kind[Any], prefix: int, where: tuple[str, ...]) -> Executable:
        """How many `list` would give."""
        return self._once(
            ("count", kind, prefix, where),
            lambda table: select(func.count()).select_from(table).where(*_same(table, (*kind.key[:prefix], *where))),
        )

    def total(self, kind: Kind[Any], field: str) -> Executable:
        """The sum of a field, which the database finds in the documents: a tenth of the time of reading them here."""

        def make(table: Table) -> Executable:
            held = func.json_extract(table.c.document, f"$.{field}")
            return select(func.coalesce(func.sum(held), 0)).select_from(table).where(*_same(table, ()))

        return self._once(("total", kind, field), make)

    def insert(self, kind: Kind[Any]) -> Executable:
        """A new row."""
        return self._once(("insert", kind), insert)

    def replace(self, kind: Kind[Any]) -> Executable:
        """New contents of a row."""

        def make(table: Table) -> Executable:
            news: dict[str, Any] = {name: bindparam(f"new_{name}") for name in (*kind.indexed, DOCUMENT)}
            return update(table).where(*_same(table, kind.key)).values(news)

        return self._once(("replace", kind), make)

    def delete(self, kind: Kind[Any], prefix: int) -> Executable:
        """The rows with a prefix away."""
        return self._once(("delete", kind, prefix), lambda table: delete(table).where(*_same(table, kind.key[:prefix])))

    def everywhere(self, kind: Kind[Any]) -> Executable:
        """All documents of a kind with where they belong."""

        def make(table: Table) -> Executable:
            order = [table.c[name] for name in (*PARTITION, *kind.key)]
            return select(table.c.account, table.c.region, table.c.document).order_by(*order)

        return self._once(("everywhere", kind), make)

    def _once(self, shape: _Shape, make: Callable[[Table], Executable]) -> Executable:
        found = self._made.get(shape)
        if found is None:
            found = self._made[shape] = make(self.metadata.tables[shape[1].name])
        return found


def _same(table: Table, columns: Sequence[str]) -> list[Any]:
    """Conditions that the partition and these columns are as the parameters ``is_NAME`` say."""
    return [table.c[name] == bindparam(f"is_{name}") for name in (*PARTITION, *columns)]


class SqlRecords(Records):
    """The records of a partition in one transaction.

    :param writable: whether changes are kept; where not, changing anything is refused.
    """

    def __init__(self, connection: Connection, statements: Statements, partition: Partition, *, writable: bool) -> None:
        self._connection = connection
        self._statements = statements
        self._partition = partition
        self._writable = writable

    def get(self, kind: Kind[Record], *key: KeyPart) -> Record | None:
        if len(key) != len(kind.key):
            raise ValueError(f"a key of {kind.name} has {len(kind.key)} parts, not {len(key)}")
        row = self._connection.execute(self._statements.get(kind), self._is(kind.key, key)).first()
        return None if row is None else restored(kind, row[0])

    def list(
        self,
        kind: Kind[Record],
        *prefix: KeyPart,
        after: Sequence[KeyPart] | None = None,
        limit: int | None = None,
        where: Mapping[str, str] | None = None,
    ) -> list[Record]:
        behind = self._behind(kind, prefix, after)
        if behind is None:
            return []
        narrowed = self._narrowed(kind, where)
        names = kind.key[len(prefix) : len(prefix) + len(behind)]
        statement = self._statements.list(kind, len(prefix), len(names), tuple(narrowed))
        values = self._is((*kind.key[: len(prefix)], *narrowed), (*prefix, *narrowed.values()))
        values |= {f"after_{name}": part for name, part in zip(names, behind, strict=True)}
        rows = self._connection.execute(statement, values | {"at_most": -1 if limit is None else limit})
        return [restored(kind, row[0]) for row in rows]

    def count(self, kind: Kind[Record], *prefix: KeyPart, where: Mapping[str, str] | None = None) -> int:
        narrowed = self._narrowed(kind, where)
        statement = self._statements.count(kind, len(prefix), tuple(narrowed))
        values = self._is((*kind.key[: len(prefix)], *narrowed), (*prefix, *narrowed.values()))
        found: int = self._connection.execute(statement, values).scalar_one()
        return found

    def total(self, kind: Kind[Any], field: str) -> int:
        if field not in {each.name for each in fields(kind.record)}:
            raise ValueError(f"{kind.name} has no field {field}")
        found: int = self._connection.execute(self._statements.total(kind, field), self._is((), ())).scalar_one()
        return found

    def insert(self, kind: Kind[Record], record: Record) -> None:
        self._refuse_unless_writable()
        values = {name: getattr(record, name) for name in (*kind.key, *kind.indexed)}
        values |= {"account": self._partition.account, "region": self._partition.region, DOCUMENT: document_of(record)}
        try:
            self._connection.execute(self._statements.insert(kind), values)
        except IntegrityError as taken:
            raise KeyError(kind.key_of(record)) from taken

    def replace(self, kind: Kind[Record], record: Record) -> None:
        self._refuse_unless_writable()
        values = self._is(kind.key, kind.key_of(record))
        values |= {f"new_{name}": getattr(record, name) for name in kind.indexed}
        values |= {f"new_{DOCUMENT}": document_of(record)}
        if not self._connection.execute(self._statements.replace(kind), values).rowcount:
            raise KeyError(kind.key_of(record))

    def delete(self, kind: Kind[Record], *prefix: KeyPart) -> int:
        self._refuse_unless_writable()
        statement = self._statements.delete(kind, len(prefix))
        return self._connection.execute(statement, self._is(kind.key[: len(prefix)], prefix)).rowcount

    def _is(self, names: Sequence[str], values: Sequence[KeyPart]) -> dict[str, Any]:
        found: dict[str, Any] = {f"is_{name}": value for name, value in zip(names, values, strict=True)}
        found["is_account"] = self._partition.account
        found["is_region"] = self._partition.region
        return found

    def _behind(
        self, kind: Kind[Any], prefix: tuple[KeyPart, ...], after: Sequence[KeyPart] | None
    ) -> tuple[KeyPart, ...] | None:
        """Give what the rest of the key must be behind; nothing of it where all are, None where none is."""
        if after is None:
            return ()
        if len(after) != len(kind.key):
            raise ValueError(f"a key of {kind.name} has {len(kind.key)} parts, not {len(after)}")
        start: Any = tuple(after[: len(prefix)])
        if start == prefix:
            return tuple(after[len(prefix) :]) or None
        return () if start < prefix else None

    def _narrowed(self, kind: Kind[Any], where: Mapping[str, str] | None) -> dict[str, str]:
        unknown = set(where or ()) - set(kind.indexed)
        if unknown:
            raise ValueError(f"{kind.name} has no index of {', '.join(sorted(unknown))}")
        return {name: where[name] for name in kind.indexed if name in where} if where else {}

    def _refuse_unless_writable(self) -> None:
        if not self._writable:
            raise RuntimeError("a read changes nothing: use StateStore.write")


def document_of(record: Any) -> str:
    """Write a record as JSON, its fields by their names.

    :raises TypeError: a field holds what JSON does not.
    """
    # Not dataclasses.asdict: it copies every mapping in depth, which costs more than all the rest. Non-ASCII is escaped
    # because a text may hold half of a surrogate pair, which SQLite does not take.
    values = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return dumps(values, separators=(",", ":"), allow_nan=False)


def restored(kind: Kind[Record], document: str) -> Record:
    """Make a record of its document.

    :raises InternalFailure: the document was damaged.
    """
    try:
        return kind.record(**loads(document))
    except (ValueError, TypeError) as broken:
        raise InternalFailure from broken
