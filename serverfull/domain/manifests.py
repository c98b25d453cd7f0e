"""The configuration of a function whose code lies somewhere: in a folder, in a bucket, in an image.

It is written as AWS writes a function's configuration, with what CreateFunction and its companions say beside it::

    {"Handler": "orders.place", "Timeout": 30, "Environment": {"Variables": {"STAGE": "test"}}, "Tags": {"of": "shop"}}

Every member may be left out. `parse_manifest` reads such a document, `completed` fills in what the code itself tells,
and `function_of` makes the function. Whoever fetches functions from somewhere goes through these three, so that a
member means the same everywhere. Pure functions; nothing here looks at a disk.

AWS: https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

from serverfull.domain import limits
from serverfull.domain.deployed_handler import DeployedHandler, ImageConfig
from serverfull.domain.functions import Function, LogFormat, RecursiveLoop
from serverfull.domain.layers import MAX_LAYERS
from serverfull.domain.log_levels import (
    APPLICATION_LOG_LEVELS,
    SYSTEM_LOG_LEVELS,
    ApplicationLogLevel,
    SystemLogLevel,
)
from serverfull.domain.names import LATEST, shown
from serverfull.domain.runtimes import (
    ARCHITECTURES,
    REFUSED_RUNTIMES,
    RUNTIMES,
    architecture,
    default_handler,
    host_runtime,
)
from serverfull.domain.variables import ENVIRONMENT_BYTES, VARIABLE_PATTERN, measured, reserved_among, too_long
from serverfull.errors import ManifestInvalid

if TYPE_CHECKING:
    from serverfull.domain.source_code import SourceCode

PackageType: TypeAlias = Literal["Zip", "Image"]

_MAX_HANDLER = 128
_MAX_LOG_GROUP = 512
_LOG_GROUP = re.compile(r"[.\-_/#A-Za-z0-9]+", re.ASCII)
_MAX_TAG_KEY, _MAX_TAG_VALUE = 128, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What is said of a function beside its code.

    :param handler: ``module.attribute``, or what its runtime takes for one. None: the usual one of the runtime.
    :param runtime: such as ``python3.12``. None: what the code tells; see `completed`.
    :param timeout: seconds. None: the host's default.
    :param memory_size: MB. None: the host's default.
    :param environment: variables.
    :param layers: where its layers lie, the first one at the bottom; what a text means says whoever fetches the code.
    :param description: at most 256 characters.
    :param ephemeral_mb: MB of ``/tmp``.
    :param log_format: ``Text`` or ``JSON``.
    :param log_group: None: ``/aws/lambda/`` and the function's name.
    :param application_log_level: of a log that is JSON. None: ``INFO``.
    :param system_log_level: the same.
    :param architecture: of the machines that it is for. None: this one's.
    :param image_config: what it says instead of its container image.
    :param tags: what GetFunction shows as Tags; those that begin with ``serverfull:`` say how it is run.
    :param reserved_concurrency: how many calls may run at once. None: only the host's limit.
    :param recursive_loop: ``Terminate`` or ``Allow``.
    """

    handler: str | None = None
    runtime: str | None = None
    timeout: int | None = None
    memory_size: int | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    description: str = ""
    ephemeral_mb: int = limits.DEFAULT_EPHEMERAL_MB
    log_format: LogFormat = "Text"
    log_group: str | None = None
    application_log_level: ApplicationLogLevel | None = None
    system_log_level: SystemLogLevel | None = None
    architecture: str | None = None
    image_config: ImageConfig = field(default_factory=ImageConfig)
    tags: Mapping[str, str] = field(default_factory=dict)
    reserved_concurrency: int | None = None
    recursive_loop: RecursiveLoop = "Terminate"


def parse_manifest(document: object, where: str, package_type: PackageType = "Zip") -> Manifest:
    """Read the configuration of a function.

    :param document: as JSON gives it.
    :param where: what the document is in, for the message of a refusal.
    :param package_type: ``Image``: the code is a container image, which says itself what runs it.
    :raises ManifestInvalid: a member is not known or has a wrong value; the message names it.
    """
    members = _mapping(document, where, "")
    fields: dict[str, Any] = {}
    for name, value in members.items():
        if name not in _MEMBERS:
            raise ManifestInvalid(where, _unknown(name, _MEMBERS, ""))
        if name in _NOT_WITH[package_type]:
            raise ManifestInvalid(where, _NOT_WITH[package_type][name])
        fields.update(_MEMBERS[name](value, where, name))
    return Manifest(**fields)


def completed(manifest: Manifest, names: Collection[str], where: str) -> Manifest:
    """Fill in runtime and handler where they are not said, as `with_runtime` and `with_handler` do.

    :raises ManifestInvalid: one of them is needed, and only the function's owner knows it.
    """
    return with_handler(with_runtime(manifest, names, where), where)


def with_runtime(manifest: Manifest, names: Collection[str], where: str) -> Manifest:
    """Fill in the runtime: code with a ``.py`` file is for the Python that the host runs on, and else code with a file
    named ``bootstrap`` for ``provided.al2023``.

    :param names: of the files and folders beside each other at the root of the code.
    :param where: as for `parse_manifest`.
    :raises ManifestInvalid: there is neither.
    """
    runtime = manifest.runtime or _runtime_of(names)
    if runtime is None:
        raise ManifestInvalid(where, "Runtime: say which one runs it; there is no .py file, and none named bootstrap")
    return replace(manifest, runtime=runtime)


def with_handler(manifest: Manifest, where: str) -> Manifest:
    """Fill in the handler that functions of its runtime usually have.

    :raises ManifestInvalid: there is none.
    """
    handler = manifest.handler or default_handler(manifest.runtime or "")
    if handler is None:
        raise ManifestInvalid(
            where, f"Handler: say what {manifest.runtime} is to call; there is no usual name for that"
        )
    return replace(manifest, handler=handler)


def function_of(
    manifest: Manifest,
    root: Path,
    layers: Sequence[Path] = (),
    *,
    region: str,
    image_uri: str = "",
    version: str = LATEST,
    generation: str = "",
    snap_start: bool = False,
    source: SourceCode | Path | None = None,
    in_place: bool = False,
) -> Function:
    """Make the function that a manifest and its code are, with a `DeployedHandler`: a promise of the code.

    :param manifest: with runtime and handler, where its code is no image.
    :param root: the folder of the code.
    :param layers: the folders of its layers, the first one at the bottom.
    :param region: where calls of other services go to by default.
    :param image_uri: the container image that is the function's code, instead of one in ``root``.
    :param version: ``$LATEST`` or a number.
    :param generation: as `DeployedHandler` has it.
    :param snap_start: the same.
    :param source: the same.
    :param in_place: whether ``root`` is a folder of somebody's, who edits what is in it: then a virtual environment
        beside the code counts too, and no bytecode is read or written there.
    """
    handler = DeployedHandler(
        manifest.handler or "",
        root,
        runtime=manifest.runtime or "",
        layers=layers,
        region=region,
        ephemeral_mb=manifest.ephemeral_mb,
        architecture=manifest.architecture or architecture(),
        image_uri=image_uri,
        image_config=manifest.image_config,
        snap_start=snap_start,
        generation=generation,
        source=source,
        live=in_place,
        virtualenv=in_place,
    )
    return Function(
        handler,
        timeout=manifest.timeout,
        memory_size=manifest.memory_size,
        environment=manifest.environment,
        description=manifest.description,
        max_concurrency=manifest.reserved_concurrency,
        recursive_loop=manifest.recursive_loop,
        log_format=manifest.log_format,
        log_group=manifest.log_group,
        application_log_level=manifest.application_log_level,
        system_log_level=manifest.system_log_level,
        tags=manifest.tags,
        version=version,
    )


def _runtime_of(names: Collection[str]) -> str | None:
    if any(name.endswith(".py") for name in names):
        return host_runtime()
    return "provided.al2023" if "bootstrap" in names else None


def _wrong(where: str, member: str, why: str) -> NoReturn:
    raise ManifestInvalid(where, f"{member}: {why}" if member else why)


def _unknown(name: str, known: Collection[str], within: str) -> str:
    import difflib  # late: most manifests are right

    by_small_letters = {each.lower(): each for each in known}
    close = difflib.get_close_matches(name.lower(), by_small_letters, 1)
    offered = f"did you mean {by_small_letters[close[0]]}?" if close else f"there are {', '.join(sorted(known))}"
    return f"{within}{shown(name)} is no member of a function's configuration that can be set here; {offered}"


def _mapping(value: object, where: str, member: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        _wrong(where, member, f"it has to be an object, not {_kind(value)}")
    return value


def _kind(value: object) -> str:
    names = {
        bool: "true or false",
        int: "a number",
        float: "a number",
        str: "a text",
        list: "a list",
        dict: "an object",
    }
    return "null" if value is None else names.get(type(value), type(value).__name__)


def _text(value: object, where: str, member: str, least: int = 0, most: int | None = None) -> str:
    if not isinstance(value, str):
        _wrong(where, member, f"it has to be a text, not {_kind(value)}")
    if len(value) < least:
        _wrong(where, member, "it is empty")
    if most is not None and len(value) > most:
        _wrong(where, member, f"it has {len(value)} characters, and may have {most}")
    if "\0" in value:
        _wrong(where, member, "it has a null character in it")
    return value


def _number(value: object, where: str, member: str, least: int, most: int | None) -> int:
    span = f"{least} to {most}" if most is not None else f"{least} or more"
    if isinstance(value, bool) or not isinstance(value, int):
        given = shown(str(value)) if isinstance(value, float) else _kind(value)
        _wrong(where, member, f"it has to be a whole number, {span}, not {given}")
    if value < least or (most is not None and value > most):
        _wrong(where, member, f"it has to be {span}, not {shown(str(value))}")
    return value


def _one_of(value: object, where: str, member: str, choices: Sequence[str]) -> Any:
    if not isinstance(value, str) or value not in choices:
        given = repr(shown(value)) if isinstance(value, str) else _kind(value)
        _wrong(where, member, f"it has to be {' or '.join(choices)}, not {given}")
    return value


def _list(value: object, where: str, member: str) -> Sequence[Any]:
    if not isinstance(value, list | tuple):
        _wrong(where, member, f"it has to be a list, not {_kind(value)}")
    return value


def _within(value: object, where: str, member: str, known: Collection[str]) -> Mapping[str, Any]:
    """Give an object that has no members but these."""
    found = _mapping(value, where, member)
    for name in found:
        if name not in known:
            raise ManifestInvalid(where, _unknown(name, known, f"{member}."))
    return found


def _handler(value: object, where: str, member: str) -> Mapping[str, Any]:
    handler = _text(value, where, member, 1, _MAX_HANDLER)
    if re.search(r"\s", handler):
        _wrong(where, member, f"it has white space in it: {shown(handler)!r}")
    return {"handler": handler}


def _runtime(value: object, where: str, member: str) -> Mapping[str, Any]:
    runtime = _text(value, where, member)
    if runtime in REFUSED_RUNTIMES:
        _wrong(where, member, f"AWS takes {runtime} no more")
    if runtime not in RUNTIMES:
        _wrong(where, member, f"{shown(runtime)!r} is no runtime that this version knows")
    return {"runtime": runtime}


def _environment(value: object, where: str, member: str) -> Mapping[str, Any]:
    variables = _mapping(
        _within(value, where, member, ("Variables",)).get("Variables", {}), where, f"{member}.Variables"
    )
    for name, text in variables.items():
        if re.fullmatch(VARIABLE_PATTERN, name, re.ASCII) is None:
            _wrong(where, f"{member}.Variables", f"{shown(name)!r} is no name of a variable ({VARIABLE_PATTERN})")
        _text(text, where, f"{member}.Variables.{name}")
    if reserved := reserved_among(variables):
        _wrong(where, f"{member}.Variables", f"only the runtime sets {', '.join(reserved)}")
    if too_long(measured(variables)):
        _wrong(where, f"{member}.Variables", f"together they are more than {ENVIRONMENT_BYTES} bytes")
    return {"environment": MappingProxyType(dict(variables))}


def _layers(value: object, where: str, member: str) -> Mapping[str, Any]:
    """Read texts, or objects with an ``Arn``, as FunctionConfiguration has them."""
    layers = []
    for number, each in enumerate(_list(value, where, member)):
        place = f"{member}[{number}]"
        if isinstance(each, Mapping):
            each = _within(each, where, place, ("Arn", "CodeSize")).get("Arn")  # noqa: PLW2901
        layer = _text(each, where, place, 1)
        if layer in layers:
            _wrong(where, place, f"{shown(layer)} is there twice")
        layers.append(layer)
    if len(layers) > MAX_LAYERS:
        _wrong(where, member, f"a function has at most {MAX_LAYERS} layers, not {len(layers)}")
    return {"layers": tuple(layers)}


def _logging(value: object, where: str, member: str) -> Mapping[str, Any]:
    given = _within(value, where, member, ("LogFormat", "LogGroup", "ApplicationLogLevel", "SystemLogLevel"))
    fields = {"log_format": _one_of(given.get("LogFormat", "Text"), where, f"{member}.LogFormat", ("Text", "JSON"))}
    if "LogGroup" in given:
        group = fields["log_group"] = _text(given["LogGroup"], where, f"{member}.LogGroup", 1, _MAX_LOG_GROUP)
        if _LOG_GROUP.fullmatch(group) is None:
            _wrong(where, f"{member}.LogGroup", f"{shown(group)!r} is no name of a log group ({_LOG_GROUP.pattern})")
    for name, name_here, levels in (
        ("ApplicationLogLevel", "application_log_level", APPLICATION_LOG_LEVELS),
        ("SystemLogLevel", "system_log_level", SYSTEM_LOG_LEVELS),
    ):
        if name in given:
            fields[name_here] = _one_of(given[name], where, f"{member}.{name}", levels)
            if fields["log_format"] != "JSON":
                _wrong(where, f"{member}.{name}", "a log has levels where LogFormat is JSON")
    return fields


def _architectures(value: object, where: str, member: str) -> Mapping[str, Any]:
    given = _list(value, where, member)
    if len(given) != 1:
        _wrong(where, member, f"it has to be a list with one of {' and '.join(ARCHITECTURES)} in it")
    return {"architecture": _one_of(given[0], where, f"{member}[0]", ARCHITECTURES)}


def _image_config(value: object, where: str, member: str) -> Mapping[str, Any]:
    given = _within(value, where, member, ("Command", "EntryPoint", "WorkingDirectory"))
    words = {
        name: tuple(
            _text(word, where, f"{member}.{name}[{number}]")
            for number, word in enumerate(_list(given.get(name, ()), where, f"{member}.{name}"))
        )
        for name in ("Command", "EntryPoint")
    }
    folder = _text(given.get("WorkingDirectory", ""), where, f"{member}.WorkingDirectory")
    if folder and not folder.startswith("/"):
        _wrong(where, f"{member}.WorkingDirectory", f"{shown(folder)} is no absolute path")
    config = ImageConfig(
        command=words["Command"] or None, entry_point=words["EntryPoint"] or None, working_directory=folder or None
    )
    return {"image_config": config}


def _tags(value: object, where: str, member: str) -> Mapping[str, Any]:
    tags = _mapping(value, where, member)
    for key, text in tags.items():
        _text(key, where, f"the key of a tag in {member}", 1, _MAX_TAG_KEY)
        _text(text, where, f"{member}.{shown(key)}", 0, _MAX_TAG_VALUE)
    return {"tags": MappingProxyType(dict(tags))}


def _ephemeral(value: object, where: str, member: str) -> Mapping[str, Any]:
    given = _within(value, where, member, ("Size",))
    size = given.get("Size", limits.DEFAULT_EPHEMERAL_MB)
    least, most = limits.DEFAULT_EPHEMERAL_MB, limits.MAX_EPHEMERAL_MB
    return {"ephemeral_mb": _number(size, where, f"{member}.Size", least, most)}


_Reader: TypeAlias = Callable[[object, str, str], Mapping[str, Any]]


def _in_range(name: str, least: int, most: int | None) -> _Reader:
    return lambda value, where, member: {name: _number(value, where, member, least, most)}


_MEMBERS: Mapping[str, _Reader] = {
    "Architectures": _architectures,
    "Description": lambda value, where, member: {"description": _text(value, where, member, 0, limits.MAX_DESCRIPTION)},
    "Environment": _environment,
    "EphemeralStorage": _ephemeral,
    "Handler": _handler,
    "ImageConfig": _image_config,
    "Layers": _layers,
    "LoggingConfig": _logging,
    "MemorySize": _in_range("memory_size", limits.MIN_MEMORY_MB, limits.MAX_MEMORY_MB),
    "RecursiveLoop": lambda value, where, member: {
        "recursive_loop": _one_of(value, where, member, ("Terminate", "Allow"))
    },
    "ReservedConcurrentExecutions": _in_range("reserved_concurrency", 0, None),
    "Runtime": _runtime,
    "Tags": _tags,
    "Timeout": _in_range("timeout", 1, int(limits.MAX_TIMEOUT)),
}

_IN_THE_IMAGE = "{}: a container image says itself what runs it, and has its own"
_NOT_WITH: Mapping[PackageType, Mapping[str, str]] = {
    "Zip": {"ImageConfig": "ImageConfig: it is for functions whose code is a container image"},
    "Image": {name: _IN_THE_IMAGE.format(name) for name in ("Handler", "Layers", "Runtime")},
}
"""Members that do not go with how the code is packed, and why."""
