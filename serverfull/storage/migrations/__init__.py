"""How the tables came to be what they are, step by step, for alembic. The steps are in ``versions/``.

A kind that is new, or another key or index of one, needs a step; a new field of a record does not, as long as it has a
default. A field that goes needs a step that takes it out of the documents and out of ``known_fields``.
``cmd/migration.py`` writes the step that brings the tables to the kinds of today.
"""

from __future__ import annotations

REVISIONS = ("0001",)
"""All revisions in their order. The last one is what a host needs; one that is not here is of a newer serverfull."""
