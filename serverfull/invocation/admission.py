"""Who may run now: counts what runs, for the host and for each function."""

from __future__ import annotations

from collections.abc import Callable

from serverfull.errors import TooManyRequests
from serverfull.interfaces import Admission

HOST_REASON = "ConcurrentInvocationLimitExceeded"
FUNCTION_REASON = "ReservedFunctionConcurrentInvocationLimitExceeded"


class LocalAdmission(Admission):
    """Counts in this process. There is no await between check and take, so they are one step on the loop.

    :param limit: invocations of all functions at once.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._running = 0
        self._by_name: dict[str, int] = {}

    @property
    def running(self) -> int:
        """How many invocations run now."""
        return self._running

    def take(self, name: str, limit: int | None) -> None:
        """Take a permit of the host, and one of the function where it has a limit.

        :raises TooManyRequests: with AWS's reason; see
            https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html#API_Invoke_Errors
        """
        if self._running >= self._limit:
            raise TooManyRequests(HOST_REASON)
        if limit is not None:
            running = self._by_name.get(name, 0)
            if running >= limit:
                raise TooManyRequests(FUNCTION_REASON)
            self._by_name[name] = running + 1
        self._running += 1

    def release(self, name: str, limit: int | None) -> None:
        """Give the permit back."""
        self._running -= 1
        if limit is not None:
            running = self._by_name.pop(name) - 1
            if running:  # names that come and go leave nothing behind
                self._by_name[name] = running


class PoolAdmission(Admission):
    """Adds the limit of an account in a region to another admission: calls of functions that have reserved nothing.

    What functions have reserved is theirs and does not count here; it is the limit of the functions themselves.

    :param inner: decides about everything else.
    :param unreserved: gives how many such calls may run at once; where that sinks, running ones finish.
    :param provisioned: gives how many calls of a function that has reserved nothing count as its own, by its name here.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/lambda-concurrency.html
    """

    def __init__(
        self, inner: Admission, unreserved: Callable[[], int], provisioned: Callable[[str], int] = lambda _name: 0
    ) -> None:
        self._inner = inner
        self._unreserved = unreserved
        self._provisioned = provisioned
        self._own: dict[str, int] = {}  # calls that run in what is provisioned for a function
        self._running = 0

    def take(self, name: str, limit: int | None) -> None:
        """Take a permit of the pool, where the function has no limit of its own, and one of the inner admission.

        :raises TooManyRequests: the pool is empty, or the inner admission refuses.
        """
        if limit is not None:
            self._inner.take(name, limit)
            return
        provisioned = self._provisioned(name)
        own = self._own.get(name, 0) if provisioned else 0
        if own < provisioned:
            self._inner.take(name, limit)
            self._own[name] = own + 1
            return
        if self._running >= self._unreserved():
            raise TooManyRequests(HOST_REASON)
        self._inner.take(name, limit)
        self._running += 1

    def release(self, name: str, limit: int | None) -> None:
        """Give the permits back."""
        self._inner.release(name, limit)
        if limit is not None:
            return
        if name in self._own:  # whichever of its calls it was: what is provisioned is free again
            self._own[name] -= 1
            if not self._own[name]:
                del self._own[name]
        else:
            self._running -= 1
