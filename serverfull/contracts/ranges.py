"""The value next to zero, or a random one, between bounds: numbers, dates, times and durations.

`serverfull.contracts.shapes` calls it with the JSON Schema of one value. Without a random generator the answer is
the value nearest to zero (for dates: to 1970-01-01, which does not surprise whoever makes a timestamp of it).
"""

from __future__ import annotations

import datetime as dt
import decimal
import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from serverfull.contracts.schemas import HINTS

_SPREAD = 1_000
_FINEST = 30
_DAY = 86_400_000_000
_TEN_THOUSAND_DAYS = 10_000 * _DAY
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_FIRST, _LAST = dt.datetime(1, 1, 2, tzinfo=dt.UTC), dt.datetime(9999, 12, 30, tzinfo=dt.UTC)
_SURELY_PAST, _SURELY_FUTURE = dt.datetime(2020, 1, 1, tzinfo=dt.UTC), dt.datetime(9000, 1, 1, tzinfo=dt.UTC)


class NothingFits(ValueError):
    """No value of this schema can be found."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Where values may be; None: no bound on that side."""

    low: Fraction | None = None
    high: Fraction | None = None
    above: Fraction | None = None
    below: Fraction | None = None

    def steps(self, step: Fraction) -> tuple[int | None, int | None]:
        """Give the first and the last multiple of ``step`` within, as how many steps they are."""
        firsts = [math.ceil(self.low / step)] if self.low is not None else []
        firsts += [math.floor(self.above / step) + 1] if self.above is not None else []
        lasts = [math.floor(self.high / step)] if self.high is not None else []
        lasts += [math.ceil(self.below / step) - 1] if self.below is not None else []
        return max(firsts, default=None), min(lasts, default=None)


def pick(first: int | None, last: int | None, rng: random.Random | None, spread: int = _SPREAD) -> int | None:
    """Give the whole number nearest to zero from ``first`` to ``last``, or a random one not far from it; or None."""
    if first is not None and last is not None and first > last:
        return None
    near = max(0 if first is None else first, 0)
    near = near if last is None else min(near, last)
    if rng is None:
        return near
    lowest = near - spread if first is None else max(first, near - spread)
    highest = near + spread if last is None else min(last, near + spread)
    return rng.randint(lowest, highest)


def number(schema: Mapping[str, Any], rng: random.Random | None) -> int | float:
    """Give a number of this schema.

    :raises NothingFits: the bounds leave none.
    """
    hints = schema.get(HINTS, {})
    bounds = _number_bounds(schema, hints)
    for step in _steps(schema, hints, rng):
        first, last = bounds.steps(step)
        if (found := pick(first, last, rng)) is not None:
            value = found * step
            return int(value) if value.denominator == 1 else float(value)
    raise NothingFits("no number is within its bounds")


def _number_bounds(schema: Mapping[str, Any], hints: Mapping[str, Any]) -> Bounds:
    low = _exact(schema.get("minimum", hints.get("ge")))
    high = _exact(schema.get("maximum", hints.get("le")))
    above = _exact(schema.get("exclusiveMinimum", hints.get("gt")))
    below = _exact(schema.get("exclusiveMaximum", hints.get("lt")))
    if (digits := hints.get("max_digits")) is not None and schema.get("type") == "number":
        limit = Fraction(10) ** (digits - (hints.get("decimal_places") or 0))
        above = max(above, -limit) if above is not None else -limit
        below = min(below, limit) if below is not None else limit
    return Bounds(low, high, above, below)


def _exact(value: Any) -> Fraction | None:
    if value is None or (isinstance(value, (float, decimal.Decimal)) and not math.isfinite(value)):
        return None
    return Fraction(str(value))


def _steps(schema: Mapping[str, Any], hints: Mapping[str, Any], rng: random.Random | None) -> list[Fraction]:
    """Say which grids to try: whole numbers first, then finer, as far as the type has such values."""
    multiple = _exact(schema.get("multipleOf", hints.get("multiple_of")))
    if multiple:
        return [multiple]
    if schema.get("type") == "integer":
        return [Fraction(1)]
    places = hints.get("decimal_places", hints.get("max_digits", _FINEST))
    coarsest = 0 if rng is None or hints.get("max_digits") is not None else min(2, places)
    return [Fraction(1, 10**n) for n in range(coarsest, places + 1)]


# ---------------------------------------------------------------------------------------------------------------- times


def date_text(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    """Give a date (``YYYY-MM-DD``) of this schema.

    :raises NothingFits: the bounds leave none.
    """
    day = _moment(
        schema, rng, _DAY, lambda value: _micros(dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC))
    )
    return day.date().isoformat()


def datetime_text(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    """Give a time on a date, in UTC unless it has to be without a zone.

    :raises NothingFits: the bounds leave none.
    """
    hints = schema.get(HINTS, {})
    text = _moment(schema, rng, 1_000_000, _micros).replace(tzinfo=None).isoformat()
    naive = hints.get("tz_constraint") == "naive" or any(
        isinstance(value, dt.datetime) and value.tzinfo is None for value in hints.values()
    )
    return text if naive else f"{text}Z"


def time_text(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    """Give a time of day.

    :raises NothingFits: the bounds leave none.
    """
    found = _on_axis(schema, rng, 1_000_000, _micros_of_day, (0, _DAY - 1), 86_400)
    text = (_EPOCH + dt.timedelta(microseconds=found)).time().isoformat()
    return f"{text}Z" if schema.get(HINTS, {}).get("tz_constraint") == "aware" else text


def duration_text(schema: Mapping[str, Any], rng: random.Random | None) -> str:
    """Give a duration in ISO 8601.

    :raises NothingFits: the bounds leave none.
    """
    most = 900_000 * _DAY
    found = _on_axis(schema, rng, 1_000_000, lambda value: value // dt.timedelta(microseconds=1), (-most, most), 1_000)
    seconds, micros = divmod(abs(found), 1_000_000)
    return f"{'-' if found < 0 else ''}PT{seconds}{f'.{micros:06d}' if micros else ''}S"


def _moment(schema: Mapping[str, Any], rng: random.Random | None, step: int, of: Callable[[Any], int]) -> dt.datetime:
    limits = {"past": (_FIRST, _SURELY_PAST), "future": (_SURELY_FUTURE, _LAST)}
    first, last = limits.get(schema.get(HINTS, {}).get("now_op", ""), (_FIRST, _LAST))
    found = _on_axis(schema, rng, step, of, (_micros(first), _micros(last)), _TEN_THOUSAND_DAYS // step)
    return _EPOCH + dt.timedelta(microseconds=found)


def _on_axis(
    schema: Mapping[str, Any],
    rng: random.Random | None,
    step: int,
    of: Callable[[Any], int],
    within: tuple[int, int],
    spread: int,
) -> int:
    """Give microseconds within the bounds; whole steps where there are some.

    :param step: microseconds.
    :param of: turns a bound into microseconds.
    """
    hints = schema.get(HINTS, {})
    ge, le, gt, lt = (Fraction(of(hints[name])) if name in hints else None for name in ("ge", "le", "gt", "lt"))
    low, high = (Fraction(end) for end in within)
    bounds = Bounds(max(ge, low) if ge is not None else low, min(le, high) if le is not None else high, gt, lt)
    for micros in (step, 1):
        first, last = bounds.steps(Fraction(micros))
        if (found := pick(first, last, rng, spread)) is not None:
            return found * micros
    raise NothingFits("no time is within its bounds")


def _micros(value: dt.datetime) -> int:
    aware = value if value.tzinfo is not None else value.replace(tzinfo=dt.UTC)
    return (aware - _EPOCH) // dt.timedelta(microseconds=1)


def _micros_of_day(value: dt.time) -> int:
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 1_000_000 + value.microsecond
