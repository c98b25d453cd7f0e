from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest

from serverfull.config.values import Pattern, Range, duration, expected, fits, read


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5.0),
        ("250ms", 0.25),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("1h0m0.5s", 3600.5),
        ("1.5m", 90.0),
        (".5s", 0.5),
        ("10us", 1e-5),
        ("10µs", 1e-5),
        ("5ns", 5e-9),
        ("10", 10.0),
        ("0.25", 0.25),
        ("0", 0.0),
    ],
)
def test_durations_are_read_as_go_writes_them_and_as_seconds(text: str, seconds: float) -> None:
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "soon", "5 s", "s", "5x", "5s!", "1m 30s", "5d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="could not convert"):
        duration(text)


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (tuple[int, ...], "15 2", ["15", "2"]),
        (tuple[str, ...], "a, b,c", ["a", "b", "c"]),
        (tuple[str, ...], '["a b", "c"]', ["a b", "c"]),
        (tuple[str, ...], "", []),
        (tuple[str, ...], " a ", ["a"]),
        (Literal["INFO", "WARN"], "warn", "WARN"),
        (Literal["auto", "json"], "JSON", "json"),
        (Literal["INFO", "WARN"], "loud", "loud"),
        (str, " x ", "x"),
        (float, "5s", 5.0),
        (float, 5, 5),
    ],
)
def test_text_is_read_by_the_type_of_the_setting(kind: Any, text: object, value: object) -> None:
    assert read(kind, text) == value


@pytest.mark.parametrize("kind", [int, float, str, tuple[str, ...]])
def test_a_switch_is_no_number_and_no_text(kind: Any) -> None:
    with pytest.raises(ValueError, match="a switch"):
        read(kind, True)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Annotated[int, Range(least=0, most=65535)], (0, 65535), (-1, 65536, 1.5, True, "1")),
        (Annotated[float, Range(above=0)], (0.1, 5), (0, -1, float("inf"), float("nan"), False)),
        (Annotated[str, Pattern(r"\d{2}", "two digits")], ("12",), ("1", "123", "12\n", 12)),
        (tuple[Annotated[int, Range(least=1)], ...], ((), (1, 2)), ((0,), [1], ("1",))),
        (Literal["a"], ("a",), ("b", 1)),
        (bool, (True, False), (1, "true")),
    ],
)
def test_a_typed_value_fits_or_not(kind: Any, good: tuple[object, ...], bad: tuple[object, ...]) -> None:
    assert all(fits(kind, value) for value in good)
    assert not any(fits(kind, value) for value in bad)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (bool, "true or false"),
        (Annotated[int, Range(least=0, most=9)], "a whole number from 0 to 9"),
        (Annotated[int, Range(least=1)], "a whole number of at least 1"),
        (Annotated[float, Range(above=0, most=9)], "or a number of seconds, above 0 and at most 9"),
        (Literal["a", "b"], "one of a, b"),
        (tuple[Literal["OS"], ...], "a list of OS, separated by commas or spaces, or as JSON"),
        (Annotated[str, Pattern("", "a path")], "a path"),
    ],
)
def test_what_a_setting_takes_is_said_in_words(kind: Any, words: str) -> None:
    assert expected(kind).endswith(words)
