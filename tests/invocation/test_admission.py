"""Permits of the host and of functions."""

from __future__ import annotations

import pytest

from serverfull.errors import TooManyRequests
from serverfull.invocation.admission import FUNCTION_REASON, HOST_REASON, LocalAdmission, PoolAdmission


def test_the_hosts_limit_counts_all_functions() -> None:
    admission = LocalAdmission(2)
    admission.take("a", None)
    admission.take("b", None)
    with pytest.raises(TooManyRequests) as refusal:
        admission.take("c", None)
    assert refusal.value.reason == HOST_REASON
    admission.release("a", None)
    admission.take("c", None)
    assert admission.running == 2


def test_a_functions_limit_counts_its_own_calls() -> None:
    admission = LocalAdmission(10)
    admission.take("a", 1)
    with pytest.raises(TooManyRequests) as refusal:
        admission.take("a", 1)
    assert refusal.value.reason == FUNCTION_REASON
    admission.take("b", 1)
    admission.release("a", 1)
    admission.take("a", 1)
    assert admission.running == 2


def test_a_refusal_takes_nothing() -> None:
    admission = LocalAdmission(1)
    with pytest.raises(TooManyRequests):
        admission.take("a", 0)
    assert admission.running == 0
    admission.take("a", 1)
    with pytest.raises(TooManyRequests):
        admission.take("b", 5)
    admission.release("a", 1)
    assert admission.running == 0
    for _ in range(3):
        admission.take("b", 5)
        admission.release("b", 5)


def test_a_limit_that_changes_while_calls_run_leaves_no_negative_count() -> None:
    admission = LocalAdmission(10)
    admission.take("a", 3)
    admission.take("a", 3)
    with pytest.raises(TooManyRequests):
        admission.take("a", 1)
    admission.release("a", 3)
    admission.release("a", 3)
    admission.take("a", 1)
    with pytest.raises(TooManyRequests):
        admission.take("a", 1)


def test_calls_in_what_is_provisioned_for_a_function_leave_the_pool_to_others() -> None:
    provisioned = {"a": 1}
    admission = PoolAdmission(LocalAdmission(10), lambda: 1, lambda name: provisioned.get(name, 0))
    admission.take("a", None)
    admission.take("a", None)  # the pool's only one
    for name in ("a", "b"):
        with pytest.raises(TooManyRequests) as refusal:
            admission.take(name, None)
        assert refusal.value.reason == HOST_REASON
    admission.release("a", None)
    admission.take("a", None)
    provisioned.clear()  # while two calls run
    admission.release("a", None)
    admission.release("a", None)
    admission.take("b", None)
    admission.release("b", None)
