from __future__ import annotations

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel

from serverfull.domain.functions import Function
from serverfull.domain.invocations import Simulation
from serverfull.domain.names import FunctionReference
from serverfull.errors import InvalidParameterValue, UnknownRequestMockError, ValidationFailed
from serverfull.invocation.requests import InvocationReader
from serverfull.invocation.simulation import THROTTLE_REASONS, MockInvocationReader, declared_error

READER = MockInvocationReader("000000000000", "us-east-1")
HELLO = FunctionReference("hello")


def read(**headers: str) -> Simulation | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return READER.read(HELLO, named, "id").simulation


def test_a_call_that_asks_for_nothing_has_no_simulation() -> None:
    assert read() is None
    assert read(**{"X-Amz-Invocation-Type": "Event"}) is None


@pytest.mark.parametrize(
    ("text", "seconds"), [("250ms", 0.25), ("0.25", 0.25), ("1m30s", 90.0), (" 2s ", 2.0), ("0", 0.0)]
)
def test_a_latency_is_a_duration_or_a_number_of_seconds(text: str, seconds: float) -> None:
    found = read(**{"X-Serverfull-Mock-Latency": text})
    assert found == Simulation(latency=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1", "-5ms", "nan", "inf", "1e999", "1h2x"])
def test_a_latency_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameterValue, match="X-Serverfull-Mock-Latency takes a duration"):
        read(**{"X-Serverfull-Mock-Latency": text})


def test_the_reasons_of_throttling_are_those_of_the_model() -> None:
    model = ServiceModel(Loader().load_service_model("lambda", "service-2"), "lambda")
    assert tuple(model.shape_for("ThrottleReason").enum) == THROTTLE_REASONS
    for reason in THROTTLE_REASONS:
        assert read(**{"X-Serverfull-Mock-Throttle": reason}) == Simulation(throttle=reason)


@pytest.mark.parametrize("reason", ["", "concurrentinvocationlimitexceeded", "TooBusy"])
def test_a_reason_that_the_model_does_not_have_is_refused(reason: str) -> None:
    with pytest.raises(InvalidParameterValue, match="X-Serverfull-Mock-Throttle takes one of Concurrent"):
        read(**{"X-Serverfull-Mock-Throttle": reason})


def test_an_error_is_asked_for_with_two_headers_and_is_a_synchronous_call() -> None:
    invocation = READER.read(HELLO, {"X-Amz-Invocation-Type": "Error", "X-Error-Type": "KeyError"}, "id")
    assert invocation.invocation_type == "RequestResponse"
    assert invocation.simulation == Simulation(error_type="KeyError")
    with pytest.raises(InvalidParameterValue, match="needs the header X-Error-Type"):
        read(**{"X-Amz-Invocation-Type": "Error"})
    with pytest.raises(InvalidParameterValue, match="X-Error-Type needs X-Amz-Invocation-Type: Error"):
        read(**{"X-Error-Type": "KeyError"})


def test_invocation_types_that_nobody_knows_are_refused_in_mock_mode_too() -> None:
    for kind in ("error", "ERROR", "Nope"):
        with pytest.raises(ValidationFailed):
            read(**{"X-Amz-Invocation-Type": kind})


def test_outside_mock_mode_the_headers_are_unknown_like_any_other() -> None:
    reader = InvocationReader("000000000000", "us-east-1")
    headers = {"X-Serverfull-Mock-Latency": "x", "X-Serverfull-Mock-Throttle": "x", "X-Error-Type": "x"}
    assert reader.read(HELLO, headers, "id").simulation is None
    with pytest.raises(ValidationFailed):
        reader.read(HELLO, {"X-Amz-Invocation-Type": "Error", "X-Error-Type": "x"}, "id")


def test_every_declared_error_is_found_whatever_the_case_and_nothing_else() -> None:
    class Rejected(Exception):
        """Not today."""

    class Late(Exception):
        pass

    function = Function(lambda: None, [Rejected, KeyError("colour"), Late])
    for asked, found in {
        "rejected": ("Rejected", "Not today."),
        "KEYERROR": ("KeyError", "'colour'"),
        "Late": ("Late", ""),
    }.items():
        assert declared_error("f", function, asked) == found
    for asked in ("Reject", "", "Rejected ", "Exception"):
        with pytest.raises(UnknownRequestMockError, match=r"Choices are \[Rejected, KeyError, Late\]$"):
            declared_error("f", function, asked)
    twice = Function(lambda: None, [KeyError("colour"), KeyError])
    with pytest.raises(UnknownRequestMockError, match=r"Choices are \[KeyError\]$"):
        declared_error("f", twice, "Late")
    with pytest.raises(UnknownRequestMockError, match=r"Choices are \[\]$"):
        declared_error("f", Function(lambda: None), "Rejected")


def test_of_errors_that_differ_in_case_alone_the_one_that_is_spelt_as_asked_for_is_found() -> None:
    class Late(Exception):
        pass

    class LATE(Exception):
        pass

    function = Function(lambda: None, [Late, LATE])
    for asked, found in {"Late": "Late", "LATE": "LATE", "late": "Late"}.items():
        assert declared_error("f", function, asked) == (found, "")
