"""Flags that are settings. One that is not given stays None, so that the environment, a file or the default counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from serverfull.config import LoadedSettings, Settings, load
from serverfull.config.names import FLAGS
from serverfull.config.values import duration

_Command = TypeVar("_Command", bound=Callable[..., Any])


def seconds(text: str) -> float:
    """Read a duration flag; click calls it.

    :raises click.BadParameter: the text is no duration.
    """
    try:
        return duration(text)
    except ValueError:
        words = f"{text!r} is not a duration such as 250ms, 5s or 1m30s, or a number of seconds"
        raise click.BadParameter(words) from None


def not_empty(text: str) -> str:
    """Read a name; click calls it. A shell makes nothing of a variable that is not set, which is nobody's name.

    :raises click.BadParameter: the text is empty.
    """
    if not text.strip():
        raise click.BadParameter("it is empty")
    return text


def setting_option(key: str, kind: Any = None, *, text: str, is_flag: bool = False) -> Callable[[_Command], _Command]:
    """Make a flag of a setting.

    :param key: ``group.field``.
    :param kind: how click reads it; None for plain text.
    :param text: its help.
    """
    group, field = key.split(".")
    default = getattr(getattr(Settings(), group), field)
    if default not in ("", False):
        text = f"{text}  [default: {f'{default:g}s' if isinstance(default, float) else default}]"
    metavar = "DURATION" if kind is seconds else None
    name = f"{group}__{field}"
    return click.option(FLAGS[key], name, type=kind, is_flag=is_flag, default=None, help=text, metavar=metavar)


def config_option(command: _Command) -> _Command:
    """Add ``--config FILE``."""
    return click.option(
        "--config",
        type=click.Path(dir_okay=False),
        default=None,
        help="Settings file, instead of serverfull.toml or [tool.serverfull] of pyproject.toml.",
    )(command)


def loaded(flags: Mapping[str, Any]) -> LoadedSettings:
    """Load the settings with the flags of a command, as click hands them over."""
    return load({name.replace("__", "."): value for name, value in flags.items()})
