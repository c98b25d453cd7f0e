"""What a function is before it has a name: a handler and its configuration."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, overload

from serverfull.domain import limits
from serverfull.domain.log_levels import (
    APPLICATION_LOG_LEVELS,
    SYSTEM_LOG_LEVELS,
    ApplicationLogLevel,
    SystemLogLevel,
)
from serverfull.domain.names import LATEST

Handler: TypeAlias = Callable[..., Any]
DeclaredError: TypeAlias = "type[BaseException] | BaseException"
LogFormat: TypeAlias = Literal["Text", "JSON"]
RecursiveLoop: TypeAlias = Literal["Terminate", "Allow"]
HandlerLoop: TypeAlias = Literal["host", "own"]


class NotGiven(enum.Enum):
    """The type of `NOT_GIVEN`, which stands for an option that was not given where None is a value."""

    NOT_GIVEN = "not given"


NOT_GIVEN = NotGiven.NOT_GIVEN


@dataclass(frozen=True, eq=False)
class Function:
    """A handler and how it is to be run. A fetcher maps names to these.

    Usable as a decorator, with or without options::

        @Function
        def hello(event, context): ...

        @Function(timeout=30, errors=[OrderRejected])
        async def order(event: Order) -> Receipt: ...

    Calling a Function calls its handler, so a decorated function stays testable as a plain one.

    :param handler: ``def`` or ``async def`` (or any callable) of zero, one or two positional parameters:
        the event and the context. None only while it is used as a decorator.
    :param errors: exception classes or instances that the handler may raise: documentation, and what mock mode offers.
    :param timeout: seconds, above 0 and at most 5,400. None: the host's default (3 s unless configured).
    :param memory_size: MB, 128 to 32,768; what the context and the configuration say. None: the host's default (128).
        In process it is not enforced: all functions share the host's memory.
    :param environment: variables that ``os.environ`` shows to this function alone, over the host's own.
    :param description: at most 256 characters, shown by GetFunction.
    :param loop: where an ``async def`` handler runs. ``host``: on the server's event loop, the fastest, for handlers
        that never block. ``own``: on a loop in a thread of its own.
    :param max_concurrency: how many calls may run at once; more are answered 429. None: only the host's limit.
    :param recursive_loop: what becomes of a call that comes by this function for the seventeenth time in one chain of
        calls: ``Terminate``: it is refused, as on AWS; ``Allow``: it runs.
    :param log_format: ``Text`` or ``JSON``: the shape of the function's log, as AWS's LoggingConfig.LogFormat.
    :param application_log_level: the least level of what the function writes that is kept, where the log is JSON:
        ``TRACE``, ``DEBUG``, ``INFO``, ``WARN``, ``ERROR`` or ``FATAL``. None: ``INFO``.
    :param system_log_level: the same for what the host says about its invocations: ``DEBUG``, ``INFO`` or ``WARN``.
    :param tags: what GetFunction shows as Tags.
    :param mock: what mock mode answers for this function, over every other source of answers: a value of the result's
        type, or a callable (``def`` or ``async def``) that gets the event as the handler would and gives such a value.
    :param log_group: what the context and the configuration name as the function's log group. None:
        ``/aws/lambda/`` and its name.
    :param version: what ``X-Amz-Executed-Version`` and the context say; set by fetchers whose functions have versions.
    :param generation: how often its code was another since the host knows it, and one; set by fetchers that notice it.
    :raises ValueError: an option is out of its range; the message names it.
    :raises TypeError: the handler is not callable, or an error is no exception.

    AWS: https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html
    """

    handler: Handler | None = None
    errors: Sequence[DeclaredError] = ()
    timeout: float | None = field(default=None, kw_only=True)
    memory_size: int | None = field(default=None, kw_only=True)
    environment: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    description: str = field(default="", kw_only=True)
    loop: HandlerLoop = field(default="host", kw_only=True)
    max_concurrency: int | None = field(default=None, kw_only=True)
    recursive_loop: RecursiveLoop = field(default="Terminate", kw_only=True)
    log_format: LogFormat = field(default="Text", kw_only=True)
    application_log_level: ApplicationLogLevel | None = field(default=None, kw_only=True)
    system_log_level: SystemLogLevel | None = field(default=None, kw_only=True)
    tags: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    mock: Any = field(default=NOT_GIVEN, kw_only=True)
    log_group: str | None = field(default=None, kw_only=True)
    version: str = field(default=LATEST, kw_only=True)
    generation: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        _check_handler(self.handler)
        _check_errors(self.errors)
        _check_number("timeout", self.timeout, above=0, most=limits.MAX_TIMEOUT)
        _check_integer("memory_size", self.memory_size, limits.MIN_MEMORY_MB, limits.MAX_MEMORY_MB)
        _check_integer("max_concurrency", self.max_concurrency, 0, None)
        _check_integer("generation", self.generation, 1, None)
        if len(self.description) > limits.MAX_DESCRIPTION:
            raise ValueError(
                f"description takes at most {limits.MAX_DESCRIPTION} characters, not {len(self.description)}"
            )
        if self.loop not in ("host", "own"):
            raise ValueError(f"loop must be 'host' or 'own', not {self.loop!r}")
        if self.recursive_loop not in ("Terminate", "Allow"):
            raise ValueError(f"recursive_loop must be 'Terminate' or 'Allow', not {self.recursive_loop!r}")
        if self.log_format not in ("Text", "JSON"):
            raise ValueError(f"log_format must be 'Text' or 'JSON', not {self.log_format!r}")
        self._check_level("application_log_level", APPLICATION_LOG_LEVELS)
        self._check_level("system_log_level", SYSTEM_LOG_LEVELS)
        object.__setattr__(self, "errors", tuple(self.errors))
        object.__setattr__(self, "environment", _strings("environment", self.environment))
        object.__setattr__(self, "tags", _strings("tags", self.tags))

    def _check_level(self, name: str, levels: Sequence[str]) -> None:
        level = getattr(self, name)
        if level is None:
            return
        if level not in levels:
            raise ValueError(f"{name} must be one of {', '.join(levels)}, not {level!r}")
        if self.log_format != "JSON":
            raise ValueError(f"{name} takes a log_format of 'JSON': a text log has no levels")

    @overload
    def __call__(self, handler: Handler, /) -> Function: ...
    @overload
    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the handler; while there is none (a decorator with options), take the one argument as the handler."""
        if self.handler is not None:
            return self.handler(*args, **kwargs)
        if len(args) == 1 and callable(args[0]) and not kwargs:
            return replace(self, handler=args[0])
        raise TypeError("this Function has no handler yet: use it as a decorator, or pass the handler")

    @property
    def handler_name(self) -> str:
        """``module.attribute`` of the handler, as the Handler field of AWS's configuration shows it."""
        handler = self.handler
        if handler is None:
            return ""
        named = handler if hasattr(handler, "__qualname__") else type(handler)
        return f"{named.__module__}.{named.__qualname__}".replace("<locals>.", "").replace("<lambda>", "lambda")


def _check_handler(handler: object) -> None:
    if handler is not None and not callable(handler):
        raise TypeError(f"handler must be callable, not {type(handler).__name__}")


def _check_errors(errors: object) -> None:
    if _is_error(errors) or not isinstance(errors, Iterable):
        raise TypeError(f"errors takes a list of exception classes or instances, not {errors!r}")
    for error in errors:
        if not _is_error(error):
            raise TypeError(f"errors takes exception classes or instances, not {error!r}")


def _is_error(error: object) -> bool:
    return isinstance(error, BaseException) or (isinstance(error, type) and issubclass(error, BaseException))


def _check_number(name: str, value: object, *, above: float, most: float) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise ValueError(f"{name} must be a number, not {value!r}")
    if not above < value <= most:
        raise ValueError(f"{name} must be above {above:g} and at most {most:g}, not {value!r}")


def _check_integer(name: str, value: object, least: int, most: int | None) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{name} must be a whole number, not {value!r}")  # noqa: TRY004 - see above
    if value < least or (most is not None and value > most):
        raise ValueError(
            f"{name} must be {f'{least} to {most}' if most is not None else f'at least {least}'}, not {value}"
        )


def _strings(name: str, mapping: Mapping[str, str]) -> Mapping[str, str]:
    items: Iterable[tuple[object, object]] = mapping.items()
    for key, value in items:
        if not isinstance(key, str) or not isinstance(value, str):
            raise TypeError(f"{name} takes strings, not {key!r}: {value!r}")
    return MappingProxyType(dict(mapping))
