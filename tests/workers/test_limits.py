"""No setting means more because there are more workers."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from serverfull.config import LimitSettings, ServerSettings, Settings
from serverfull.errors import ConfigurationError, NotFoundError
from serverfull.fetchers.chain import ChainFetcher
from serverfull.fetchers.mocking import MockingFetcher
from serverfull.fetchers.observing import ObservingFetcher
from serverfull.fetchers.static import StaticFetcher
from serverfull.interfaces import Fetcher
from serverfull.workers.limits import DIVIDED, check_functions, check_limits, part_of


class Changing(Fetcher):
    async def fetch(self, name, qualifier=None):
        raise NotFoundError(name)

    async def list(self):
        return {}


def settings(workers: int = 3, **server) -> Settings:
    return Settings(server=ServerSettings(workers=workers, **server))


def value(settings: Settings, group: str, field: str) -> int:
    return getattr(getattr(settings, group), field)


@pytest.mark.parametrize(("group", "field"), DIVIDED)
def test_what_each_worker_counts_for_itself_is_divided(group, field) -> None:
    whole = settings()
    whole = replace(whole, **{group: replace(getattr(whole, group), **{field: 11})})
    assert [value(part_of(whole, number), group, field) for number in range(3)] == [3, 3, 3]


@pytest.mark.parametrize(("group", "field"), DIVIDED)
def test_what_cannot_be_divided_is_refused_by_name(group, field) -> None:
    whole = settings()
    few = replace(whole, **{group: replace(getattr(whole, group), **{field: 2})})
    with pytest.raises(ConfigurationError, match=rf"{group}\.{field} is 2 and server\.workers is 3"):
        check_limits(few)
    check_limits(replace(whole, **{group: replace(getattr(whole, group), **{field: 3})}))


def test_limits_that_are_shared_stay_whole() -> None:
    whole = replace(settings(), limits=LimitSettings(max_concurrency=1, max_lost_threads=1))
    check_limits(whole)
    part = part_of(whole, 2)
    assert (part.limits.max_concurrency, part.limits.max_lost_threads) == (1, 1)


def test_every_setting_that_limits_something_is_shared_divided_or_of_a_single_call() -> None:
    shared = {"max_concurrency", "max_lost_threads"}
    of_one_call_or_loop = {"log_bytes", "loop_stall"}
    divided = {field for group, field in DIVIDED if group == "limits"}
    # Several workers take no deployments.
    of_deployed_functions = {"account_concurrency", "minimum_unreserved", "account_code_bytes"}
    assert {
        field.name for field in fields(LimitSettings)
    } == shared | of_one_call_or_loop | divided | of_deployed_functions
    limits_of_server = {field.name for field in fields(ServerSettings) if field.name.startswith("max_")}
    assert limits_of_server == {field for group, field in DIVIDED if group == "server"}


def test_the_admin_address_is_the_first_workers() -> None:
    whole = settings(admin_address="127.0.0.1:9000")
    assert [part_of(whole, number).server.admin_address for number in range(3)] == ["127.0.0.1:9000", "", ""]


def test_functions_known_at_start_are_taken() -> None:
    static = StaticFetcher({"a": lambda: 1})
    decorated = (ObservingFetcher(static, None, None), MockingFetcher(static))
    for fetcher in (static, ChainFetcher(static, ChainFetcher(static)), *decorated):
        check_functions(fetcher)


def test_functions_that_may_change_are_refused() -> None:
    static = StaticFetcher({"a": lambda: 1})
    decorated = (ObservingFetcher(Changing(), None, None), MockingFetcher(Changing()))
    for fetcher in (Changing(), ChainFetcher(static, Changing()), *decorated):
        with pytest.raises(ConfigurationError, match=r"server\.workers.*known at start"):
            check_functions(fetcher)
