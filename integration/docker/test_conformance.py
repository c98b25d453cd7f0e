"""What every runtime does, containers do: the suite is the one of processes, unchanged."""

from __future__ import annotations

import pytest

from serverfull.testing.runtime_suite import ProcessSuite

pytestmark = pytest.mark.slow


class TestOwnClientInContainers(ProcessSuite):
    @pytest.fixture
    def kit(self, container_kit):
        return container_kit()
