from __future__ import annotations

import math

import pytest

from serverfull.domain.functions import Function


def greet(event, context):
    return event, context


class Greeter:
    def __call__(self, event):
        return event

    def method(self, event):
        return event


def test_a_function_is_called_as_its_handler_is():
    assert Function(greet)(1, 2) == (1, 2)


def test_the_bare_decorator_makes_a_function():
    @Function
    def hello(event):
        return event

    assert isinstance(hello, Function)
    assert hello(3) == 3


def test_the_decorator_with_options_keeps_them():
    made = Function(timeout=30, errors=[KeyError], tags={"a": "b"})(greet)
    assert (made.handler, made.timeout, made.errors, dict(made.tags)) == (greet, 30, (KeyError,), {"a": "b"})


def test_a_function_without_a_handler_takes_nothing_but_one():
    with pytest.raises(TypeError, match="no handler yet"):
        Function(timeout=1)({"an": "event"})


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"timeout": 0}, ValueError, "timeout"),
        ({"timeout": -1}, ValueError, "timeout"),
        ({"timeout": 5401}, ValueError, "timeout"),
        ({"timeout": math.nan}, ValueError, "timeout"),
        ({"timeout": math.inf}, ValueError, "timeout"),
        ({"timeout": "3"}, ValueError, "timeout"),
        ({"timeout": True}, ValueError, "timeout"),
        ({"memory_size": 127}, ValueError, "memory_size"),
        ({"memory_size": 32769}, ValueError, "memory_size"),
        ({"memory_size": 128.0}, ValueError, "memory_size"),
        ({"max_concurrency": -1}, ValueError, "max_concurrency"),
        ({"max_concurrency": True}, ValueError, "max_concurrency"),
        ({"description": "x" * 257}, ValueError, "description"),
        ({"loop": "mine"}, ValueError, "loop"),
        ({"log_format": "text"}, ValueError, "log_format"),
        ({"log_format": "JSON", "application_log_level": "LOUD"}, ValueError, "application_log_level must be one of"),
        ({"log_format": "JSON", "system_log_level": "ERROR"}, ValueError, "system_log_level must be one of"),
        ({"system_log_level": "INFO"}, ValueError, "a text log has no levels"),
        ({"environment": {"A": 1}}, TypeError, "environment"),
        ({"tags": {1: "a"}}, TypeError, "tags"),
        ({"errors": [1]}, TypeError, "errors"),
        ({"errors": [int]}, TypeError, "errors"),
        ({"errors": ValueError}, TypeError, "errors takes a list of exception classes or instances, not <class"),
        ({"errors": 5}, TypeError, "errors takes a list"),
    ],
)
def test_an_option_out_of_its_range_is_named(options, error, named):
    with pytest.raises(error, match=named):
        Function(greet, **options)


def test_a_handler_must_be_callable():
    with pytest.raises(TypeError, match="handler must be callable, not int"):
        Function(3)


@pytest.mark.parametrize("errors", [[ValueError], [ValueError("x")], [KeyboardInterrupt]])
def test_errors_are_classes_or_instances(errors):
    assert Function(greet, errors=errors).errors == tuple(errors)


def test_what_was_given_cannot_be_changed_afterwards():
    environment = {"A": "1"}
    function = Function(greet, environment=environment)
    environment["A"] = "2"
    assert function.environment == {"A": "1"}
    with pytest.raises(TypeError):
        function.environment["A"] = "3"
    with pytest.raises(AttributeError):
        function.timeout = 3


@pytest.mark.parametrize(
    ("handler", "name"),
    [
        (greet, f"{__name__}.greet"),
        (Greeter(), f"{__name__}.Greeter"),
        (Greeter, f"{__name__}.Greeter"),
        (Greeter().method, f"{__name__}.Greeter.method"),
        (len, "builtins.len"),
    ],
)
def test_a_handler_is_named_by_module_and_attribute(handler, name):
    assert Function(handler).handler_name == name


def test_the_name_of_a_handler_has_no_characters_that_aws_does_not_take():
    def local(event):
        return event

    for handler in (local, lambda event: event):
        assert not {"<", ">", " "} & set(Function(handler).handler_name)
