"""Finds values of settings in the environment and in a file, with their origins; it checks names, never values.

Called by `loading`. A layer is what one source holds, ``group.field`` → `Found`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from serverfull.config import names
from serverfull.errors import ConfigurationError

SUBSTITUTION_DEPTH = 10
"""How many times ``${VAR}`` in a file is replaced by a value that holds ``${VAR}`` again, as in serverfull (Go)."""

_REFERENCE = r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}"

# Kubernetes and Docker links set these for a service that is itself called serverfull: they are not meant for us.
_SERVICE_LINK = r"SERVERFULL_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?)"


class Found(NamedTuple):
    """A value and where it was found, in words for a message and for ``config show``."""

    value: object
    origin: str


Layer: TypeAlias = dict[str, Found]


def common_variables(environ: Mapping[str, str]) -> Layer:
    """Read the variables that other programs read too. They are simple, so they get their final types here."""
    layer: Layer = {}
    for name, key in names.COMMON.items():
        value: object = environ.get(name)
        if not value:
            continue  # set but empty means unset, as NO_COLOR and AWS_REGION define it
        if key == "server.port":
            value = int(str(value)) if str(value).isdecimal() else value
        elif name == "NO_COLOR":
            value = False
        layer[key] = Found(value, f"environment {name}")
    return layer


def go_variables(environ: Mapping[str, str]) -> Layer:
    """Read the variables of serverfull (Go)."""
    layer: Layer = {}
    for name, key in names.go_variables().items():
        if name in environ:
            layer[key] = Found(environ[name], f"environment {name}")
    if names.ADDRESS_VARIABLE in environ:
        layer |= _address(environ[names.ADDRESS_VARIABLE], f"environment {names.ADDRESS_VARIABLE}")
    return layer


def _address(text: str, origin: str) -> Layer:
    """Split ``host:port``. In Go an empty host means all interfaces; here it leaves the host as it is: loopback."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or not port.isdecimal():
        raise ConfigurationError(f"{origin}: {text!r} is not an address written host:port or :port")
    layer = {"server.port": Found(port, origin)}
    if host:
        layer["server.host"] = Found(host.removeprefix("[").removesuffix("]"), origin)
    return layer


def own_variables(environ: Mapping[str, str]) -> Layer:
    """Read the ``SERVERFULL_GROUP__FIELD`` variables.

    :raises ConfigurationError: a variable starts with ``SERVERFULL_`` and is no setting.
    """
    settings = {names.variable(group, field): f"{group}.{field}" for group, field in names.setting_keys()}
    others = {names.CONFIG_VARIABLE, names.ADDRESS_VARIABLE, *names.COMMON, *names.SHORT, *names.go_variables()}
    short = {name: key for name, key in names.SHORT.items() if name in environ}
    layer: Layer = {key: Found(environ[name], f"environment {name}") for name, key in short.items()}
    problems = []
    for name, value in environ.items():
        if not name.startswith(names.PREFIX) or name in others or _is_service_link(name, value):
            continue
        if name in settings:
            layer[settings[name]] = Found(value, f"environment {name}")
        else:
            hint = _hint(name, [*settings, *others], names.PREFIX)
            problems.append(f"environment {name} is no setting{hint}")
    _raise(problems)
    return layer


def _is_service_link(name: str, value: str) -> bool:
    return bool(re.fullmatch(_SERVICE_LINK, name)) or (name.endswith("_PORT") and "://" in value)


def find_file(explicit: str | None, origin: str, cwd: Path) -> tuple[str, dict[str, Any]] | None:
    """Find and read the settings file: the explicit one, or ``serverfull.toml`` or ``pyproject.toml`` of the folder.

    :param origin: what named the explicit one, for the message.
    :returns: what to call the file in messages, and its tables; None where there is no file.
    :raises ConfigurationError: the file is missing, or is no TOML.
    """
    if explicit is not None:
        path = cwd / explicit
        if not path.is_file():
            raise ConfigurationError(f"{origin}: there is no file {explicit}")
        tables = _read(path, explicit)
        return explicit, _tool_table(tables, explicit) if path.name == "pyproject.toml" else tables
    if (cwd / "serverfull.toml").is_file():
        return "serverfull.toml", _read(cwd / "serverfull.toml", "serverfull.toml")
    project = cwd / "pyproject.toml"
    if project.is_file() and _may_have_a_table(content := project.read_bytes()):
        try:
            return "pyproject.toml", _tool_table(_read(project, "pyproject.toml"), "pyproject.toml")
        except ConfigurationError:
            # Without a table of ours, what is wrong with it is other tools' business.
            if b"tool.serverfull" in content:
                raise
    return None


def _may_have_a_table(project: bytes) -> bool:
    """Say whether a pyproject.toml may have a table of ours. Most that have the name only require the package, and to
    read them took 10 ms of a start.
    """
    if b"serverfull" not in project:
        return False
    # tool.serverfull in whatever quotes, tool as a table of its own or inline, or letters that are written as escapes
    return bool(re.search(rb"""tool["']?\s*(\.\s*["']?serverfull|\]|=)|\\[uU]00""", project))


def _read(path: Path, name: str) -> dict[str, Any]:
    import tomllib

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as wrong:
        raise ConfigurationError(f"{name} cannot be read: {wrong}") from None


def _tool_table(tables: dict[str, Any], name: str) -> dict[str, Any]:
    tools = tables.get("tool", {})
    table = tools.get("serverfull", {}) if isinstance(tools, dict) else {}
    if not isinstance(table, dict):
        raise ConfigurationError(f"{name}: tool.serverfull must be a table")
    return table


def file_settings(name: str, tables: Mapping[str, Any], environ: Mapping[str, str]) -> Layer:
    """Read the settings out of a file's tables, with ``${VAR}`` replaced by the environment's values.

    :raises ConfigurationError: a key is no setting, or a variable is missing.
    """
    known = [f"{group}.{field}" for group, field in names.setting_keys()]
    groups = {key.partition(".")[0] for key in known}
    layer: Layer = {}
    problems = []
    for group, table in tables.items():
        if group not in groups:
            problems.append(f"{name}: {group} is no group of settings{_hint(group, groups)}")
        elif not isinstance(table, dict):
            problems.append(f"{name}: {group} must be a table, not {table!r}")
        else:
            for field, value in table.items():
                key = f"{group}.{field}"
                if key in known:
                    layer[key] = Found(_substituted(value, environ, f"{name}: {key}"), f"{name}: {key}")
                else:
                    problems.append(f"{name}: {key} is no setting{_hint(key, known)}")
    _raise(problems)
    return layer


def _substituted(value: Any, environ: Mapping[str, str], where: str) -> Any:
    if isinstance(value, list):
        return [_substituted(item, environ, where) for item in value]
    if not isinstance(value, str):
        return value

    def replacement(reference: re.Match[str]) -> str:
        if reference[1] not in environ:
            raise ConfigurationError(f"{where}: the environment has no variable {reference[1]}")
        return environ[reference[1]]

    for _ in range(SUBSTITUTION_DEPTH):
        if not re.search(_REFERENCE, value):
            return value
        value = re.sub(_REFERENCE, replacement, value)
    if re.search(_REFERENCE, value):
        raise ConfigurationError(f"{where}: variables refer to each other more than {SUBSTITUTION_DEPTH} deep")
    return value


def _hint(name: str, known: Iterable[str], prefix: str = "") -> str:
    """Say what was probably meant; a prefix that all names share would make all of them near."""
    import difflib

    close = difflib.get_close_matches(name.removeprefix(prefix), sorted(one.removeprefix(prefix) for one in known), 1)
    return f"; did you mean {prefix}{close[0]}?" if close else "; `serverfull config show` lists them all"


def _raise(problems: list[str]) -> None:
    if problems:
        raise ConfigurationError("\n".join(problems))
