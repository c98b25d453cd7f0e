"""The pytest plugin of serverfull: installed with it, and loaded by every pytest of that environment.

So it is cheap: what it needs is imported when a test asks for the fixture. Hosts themselves are in
`serverfull.testing.hosts`.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from serverfull.config import Settings
    from serverfull.domain.functions import Function, Handler
    from serverfull.fetchers.answers import MockAnswers
    from serverfull.interfaces import Fetcher
    from serverfull.testing.hosts import TestHost


class HostFactory(Protocol):
    """What the fixture ``serverfull_host`` gives."""

    def __call__(
        self,
        functions: Fetcher | Mapping[str, Function | Handler] | str | Path,
        *args: str,
        mock: bool | str | Path | MockAnswers = False,
        settings: Settings | None = None,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> TestHost:
        """Start a host on a free port.

        :param functions: a mapping or a fetcher is served on a thread of this process, see `ThreadHost`; the text of a
            TARGET, or a path, in a process of its own, see `ProcessHost`.
        :param args: further arguments of ``serverfull serve``; for a TARGET only, as are ``env`` and ``cwd``.
        :param mock: answers without running handlers. True: zero values. Else where the answers come from, as for
            ``--mock-answers``: ``"random"``, or the path of answers; without a TARGET also an object such as
            ``RandomAnswers(1)``.
        :param settings: not for a TARGET, whose settings are ``args`` and ``env``.
        :raises TypeError: an argument does not go with such functions.
        """


@pytest.fixture
def serverfull_host() -> Iterator[HostFactory]:
    """Start serverfull hosts with given functions, in serve or mock mode; they end with the test."""
    with ExitStack() as stack:

        def start(functions: Any, *args: str, **options: Any) -> TestHost:
            return stack.enter_context(_host(functions, *args, **options))

        yield start


def _host(functions: Any, *args: str, **options: Any) -> TestHost:
    from pathlib import Path

    from serverfull.testing.hosts import ProcessHost, ThreadHost

    if isinstance(functions, (str, Path)):
        return ProcessHost(str(functions), *args, **options)
    if isinstance(options.get("mock"), (str, Path)):
        from serverfull.config import MockSettings
        from serverfull.fetchers.answers import answers_of

        options["mock"] = answers_of(MockSettings(enabled=True, answers=str(options["mock"])))
    return ThreadHost(functions, *args, **options)
