"""One table for each kind of record, as SQLAlchemy describes it. Importing this imports SQLAlchemy: do it late.

A table has the account and the region, the fields of the key, the indexed fields, and the whole record as JSON in
``document``. Rows are found by the first three; records are restored from the document alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Any

from sqlalchemy import Column, Index, Integer, MetaData, PrimaryKeyConstraint, Table, Text

from serverfull.domain.kinds import KINDS
from serverfull.domain.records import Kind

PARTITION = ("account", "region")
DOCUMENT = "document"

NAMES = {"pk": "%(table_name)s_key", "ix": "%(table_name)s_by_%(column_0_N_name)s"}
"""How constraints and indexes are called, so that migrations can name them."""


def metadata_of(kinds: Iterable[Kind[Any]] = KINDS) -> MetaData:
    """Describe the tables of these kinds."""
    metadata = MetaData(naming_convention=NAMES)
    for kind in kinds:
        _add_table(metadata, kind)
    known_fields_table(metadata)
    return metadata


def known_fields_table(metadata: MetaData) -> Table:
    """Describe the table that says which fields the documents of a kind may have.

    Every start adds the fields that its version has. One that finds fields it does not have is older than a version
    that has written here, and could not read what that wrote.
    """
    return Table(
        "known_fields", metadata, Column("kind", Text, primary_key=True), Column("fields", Text, nullable=False)
    )


def _add_table(metadata: MetaData, kind: Kind[Any]) -> None:
    of_row = [*PARTITION, *kind.key]
    columns = [*of_row, *kind.indexed, DOCUMENT]
    assert len(set(columns)) == len(columns), f"{kind.name} has a field with the name of a column of every table"
    integers = {field.name for field in fields(kind.record) if field.type in ("int", int)} & set(kind.key)
    table = Table(
        kind.name,
        metadata,
        *(Column(name, Integer if name in integers else Text, nullable=name in kind.indexed) for name in columns),
        PrimaryKeyConstraint(*of_row),
    )
    for field in kind.indexed:
        # The key behind it, so that a narrowed list comes in order and a page of it begins where the last one ended.
        Index(f"{kind.name}_by_{field}", *(table.c[name] for name in (*PARTITION, field, *kind.key)))
