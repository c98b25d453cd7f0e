"""Attempts to escape from a container: what their page says is stopped there is."""

from __future__ import annotations

from serverfull.testing.escapes import baits
from tests.escapes.levels import CONTAINER, broken, in_container


async def test_the_page_of_escapes_promises_no_more_of_containers_than_is_seen(engine, tmp_path):
    tmp_path.chmod(0o755)
    with baits() as bait:
        seen = await in_container(engine, tmp_path / "function", bait)
    assert broken(CONTAINER, seen) == {}
    assert seen["send_udp_out"][0] or seen["see_network_devices"][0]  # containers have a network: it was looked for
