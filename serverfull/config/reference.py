"""The settings reference: what ``serverfull config reference`` prints and ``docs/settings.md`` holds.

Names, types and defaults come from the dataclasses, the texts from the strings under their fields, which only the
source has: it is parsed, not imported.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, get_type_hints

from serverfull.config import names, settings
from serverfull.config.settings import Settings
from serverfull.config.sources import SUBSTITUTION_DEPTH
from serverfull.config.values import expected


@dataclass(frozen=True, slots=True)
class FieldDoc:
    """All there is to know about one setting.

    :param env: the environment variable ``SERVERFULL_GROUP__FIELD``.
    :param go_names: variables of serverfull (Go) that set it too.
    :param common_names: variables of other programs, and short ones, that set it too.
    :param flag: the flag that sets it, or an empty text.
    :param type: in words, what it takes.
    :param doc: the text under the field; empty where somebody forgot it.
    """

    group: str
    name: str
    env: str
    go_names: tuple[str, ...]
    common_names: tuple[str, ...]
    flag: str
    type: str
    default: object
    doc: str


def describe() -> list[FieldDoc]:
    """Give every setting with its documentation, in the order of the source."""
    texts = _texts()
    return [
        _field_doc(group.name, field.name, kind, field.default, texts.get(f"{owner.__name__}.{field.name}", ""))
        for group in fields(Settings)
        for owner in [_class_of(group)]
        for field, kind in zip(fields(owner), get_type_hints(owner, include_extras=True).values(), strict=True)
    ]


def _class_of(group: Any) -> type[Any]:
    owner: type[Any] = group.default_factory
    return owner


def _field_doc(group: str, name: str, kind: Any, default: object, doc: str) -> FieldDoc:
    key = f"{group}.{name}"
    go_names = [variable for variable, target in names.go_variables().items() if target == key]
    if key in ("server.host", "server.port"):
        go_names.append(names.ADDRESS_VARIABLE)
    return FieldDoc(
        group=group,
        name=name,
        env=names.variable(group, name),
        go_names=tuple(go_names),
        common_names=tuple(name for name, target in {**names.COMMON, **names.SHORT}.items() if target == key),
        flag=names.FLAGS.get(key, ""),
        type=expected(kind),
        default=default,
        doc=doc,
    )


def _texts() -> dict[str, str]:
    tree = ast.parse(inspect.getsource(settings))
    return {
        f"{owner.name}.{statement.target.id}": inspect.cleandoc(text.value.value)
        for owner in tree.body
        if isinstance(owner, ast.ClassDef)
        for statement, text in zip(owner.body, owner.body[1:], strict=False)
        if isinstance(statement, ast.AnnAssign)
        and isinstance(statement.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def markdown() -> str:
    """Give the reference as one Markdown page."""
    described = describe()
    pieces = [_INTRODUCTION]
    for group in fields(Settings):
        summary = inspect.getdoc(_class_of(group)) or ""
        pieces.append(f"## {group.name}\n\n{summary}\n")
        pieces.extend("\n".join(_entry(doc)) for doc in described if doc.group == group.name)
    return "\n".join(pieces)


def _entry(doc: FieldDoc) -> Iterator[str]:
    yield f"### {doc.group}.{doc.name}\n"
    yield textwrap.fill(" ".join(doc.doc.split()), 118, break_long_words=False, break_on_hyphens=False) + "\n"
    default = shown(doc.default)
    yield f"- Takes {doc.type}; default {f'`{default}`' if default else 'empty'}"
    yield f"- Environment: `{doc.env}`"
    if doc.flag:
        yield f"- Flag: `{doc.flag}`"
    if doc.common_names:
        yield f"- Also: {_listed(doc.common_names)}"
    if doc.go_names:
        yield f"- Go name: {_listed(doc.go_names)}"
    yield ""


def _listed(variables: tuple[str, ...]) -> str:
    return ", ".join(f"`{variable}`" for variable in variables)


def shown(value: object) -> str:
    """Write a value the way that the environment takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


_INTRODUCTION = f"""\
# Settings

This page is made from the code: `make docs` writes it.

A setting is looked for in this order, and the first place that has it wins:

1. a flag of the command, such as `--port 9000`
2. the environment: `SERVERFULL_GROUP__FIELD` (two underscores between group and field), then the names of serverfull
   (Go), then the variables that other programs read too (`PORT`, `AWS_REGION` …)
3. a file: the one that `--config` or `SERVERFULL_CONFIG` names, else `serverfull.toml` in the current folder, else the
   table `[tool.serverfull]` of its `pyproject.toml`
4. the default

`serverfull config show` prints every value and where it came from. A variable that starts with `SERVERFULL_` and is no
setting, an unknown key in the file and a malformed value are errors, and the host does not start. (Variables that
Kubernetes sets for a service called `serverfull` are left alone.)

```toml
# serverfull.toml
[server]
port = 9000
allowed_hosts = ["lambda.example.com"]
header_timeout = "5s"

[functions]
region = "${{REGION}}"
```

Durations are written as `250ms`, `5s` or `1m30s`, or as a number of seconds. (serverfull (Go) takes a bare number for
nanoseconds; write the unit.) Lists are separated by commas or spaces, or written as JSON. In a file, `${{NAME}}` stands
for the environment's variable; its value may refer to others, {SUBSTITUTION_DEPTH} deep at most.

`SERVERFULL_RUNTIME_HTTPSERVER_ADDRESS` sets host and port. Where it has no host (`:8080`), serverfull (Go) listens on
all interfaces; here only the port is taken, and the host stays on loopback unless you name one.
"""
