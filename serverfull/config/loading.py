"""Puts the settings together: flag > environment > file > default.

Called once at start. What the environment and a file hold is text that has to be read, which pydantic-settings does;
it is imported only where there is such text, because it takes longer to import than the rest of a start with defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, get_type_hints

from serverfull.config import names, sources
from serverfull.config.settings import Settings
from serverfull.config.sources import Found, Layer
from serverfull.config.values import expected, fits, read
from serverfull.errors import ConfigurationError

_NOTHING: Mapping[str, object] = MappingProxyType({})


class LoadedSettings(NamedTuple):
    """The settings and where each value came from.

    :param origins: by ``group.field``: ``default``, ``flag --port``, ``environment PORT`` or
        ``serverfull.toml: server.port``.
    """

    settings: Settings
    origins: Mapping[str, str]


def load(
    flags: Mapping[str, object] = _NOTHING, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> LoadedSettings:
    """Read all settings.

    :param flags: values of their final types by ``group.field``; None stands for a flag that was not given. ``config``
        is the path of a settings file.
    :param environ: the environment; None is the process's own.
    :param cwd: the folder where settings files are looked for; None is the current one.
    :raises ConfigurationError: a setting is unknown or malformed. The message has one line for each, which names the
        setting, where it was found and what would be right.
    """
    environ = os.environ if environ is None else environ
    given = {key: value for key, value in flags.items() if value is not None}
    file = _file_layer(given.pop("config", None), environ, cwd or Path.cwd())
    flag_layer = {key: Found(value, f"flag {names.FLAGS.get(key, key)}") for key, value in given.items()}
    common = sources.common_variables(environ)
    text = [sources.own_variables(environ), sources.go_variables(environ)]
    layers = [layer for layer in (flag_layer, *text, common, file) if layer]
    winners = {key: found for layer in reversed(layers) for key, found in layer.items()}
    kinds = _kinds({key.partition(".")[0] for key in winners})
    values = _validated(layers, winners, kinds) if file or any(text) else {k: f.value for k, f in winners.items()}
    _check(values, winners, kinds)
    return LoadedSettings(_settings(values), _origins(winners))


def _file_layer(flag: object, environ: Mapping[str, str], cwd: Path) -> Layer:
    explicit, origin = (str(flag), "flag --config") if flag is not None else (environ.get(names.CONFIG_VARIABLE), "")
    found = sources.find_file(explicit or None, origin or f"environment {names.CONFIG_VARIABLE}", cwd)
    return {} if found is None else sources.file_settings(*found, environ)


def _kinds(groups: set[str]) -> dict[str, Any]:
    """Give the annotation of each setting of some groups; resolving all groups costs a millisecond at each start."""
    return {
        f"{group.name}.{field}": kind
        for group in fields(Settings)
        if group.name in groups
        for field, kind in get_type_hints(group.default_factory, include_extras=True).items()
    }


def _validated(layers: Sequence[Layer], winners: Layer, kinds: Mapping[str, Any]) -> dict[str, object]:
    """Merge the layers, first over last, and turn texts into values, with a pydantic-settings class made for it."""
    from pydantic import AfterValidator, BeforeValidator, ValidationError, create_model
    from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

    class Layered(BaseSettings):
        @classmethod
        def settings_customise_sources(
            cls, settings_cls: type[BaseSettings], *_: Any, **__: Any
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return tuple(InitSettingsSource(settings_cls, init_kwargs=_nested(layer)) for layer in layers)

    members: dict[str, dict[str, Any]] = {}
    for key, kind in kinds.items():
        group, field = key.split(".")
        checks = BeforeValidator(partial(read, kind)), AfterValidator(partial(_fitting, kind))
        members.setdefault(group, {})[field] = (Annotated[kind, *checks] | None, None)
    models = {group: (create_model(group, **inner) | None, None) for group, inner in members.items()}
    try:
        merged = create_model("Merged", __base__=Layered, **models)()  # type: ignore[call-overload]
    except ValidationError as wrong:
        wrong_keys = dict.fromkeys(".".join(map(str, error["loc"][:2])) for error in wrong.errors())
        raise ConfigurationError("\n".join(_problem(key, winners[key], kinds[key]) for key in wrong_keys)) from None
    dumped = merged.model_dump(exclude_unset=True)
    return {f"{group}.{field}": value for group, inner in dumped.items() for field, value in inner.items()}


def _fitting(kind: Any, value: object) -> object:
    if not fits(kind, value):
        raise ValueError("out of range")
    return value


def _nested(layer: Layer) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, found in layer.items():
        group, field = key.split(".")
        nested.setdefault(group, {})[field] = found.value
    return nested


def _check(values: Mapping[str, object], winners: Layer, kinds: Mapping[str, Any]) -> None:
    problems = [
        _problem(key, winners[key], kinds[key]) if key in kinds else f"{winners[key].origin}: {key} is no setting"
        for key, value in values.items()
        if key not in kinds or not fits(kinds[key], value)
    ]
    if problems:
        raise ConfigurationError("\n".join(problems))


def _problem(key: str, found: Found, kind: Any) -> str:
    value = "what it says" if key in names.secret_keys() else repr(found.value)
    return f"{found.origin}: {value} is not {expected(kind)}"


def _settings(values: Mapping[str, object]) -> Settings:
    settings = Settings()
    for group in {key.partition(".")[0] for key in values}:
        changed = {key.partition(".")[2]: value for key, value in values.items() if key.startswith(f"{group}.")}
        settings = replace(settings, **{group: replace(getattr(settings, group), **changed)})
    return settings


def _origins(winners: Layer) -> Mapping[str, str]:
    keys = (f"{group}.{field}" for group, field in names.setting_keys())
    return MappingProxyType({key: winners[key].origin if key in winners else "default" for key in keys})
