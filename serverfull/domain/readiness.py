"""Whether deployed functions can run on a host, and how many of their environments are ready before they are needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

NOT_WITH_SNAP_START = "Provisioned Concurrency is not supported for versions with SnapStart."
"""Why nothing is provisioned for a version.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/snapstart.html#snapstart-runtimes
"""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A function cannot run here as it is.

    :param reason: why, and what to install or to do, for its owner.
    :param code: a value of the model's ``StateReasonCode``.
    """

    reason: str
    code: str = "InvalidRuntime"


@dataclass(frozen=True, slots=True)
class Fitness:
    """What was found when somebody looked whether a version can run here.

    :param unfit: why it cannot; None: it can.
    :param image: the container image that its URI means, as ``repository@sha256:digest``; None: it is none, or that is
        not known.
    :param restores: whether environments are made of a snapshot that was taken.
    """

    unfit: Unfit | None = None
    image: str | None = None
    restores: bool = False


@dataclass(frozen=True, slots=True)
class Readiness:
    """How far a host is with environments that are to be ready before they are needed.

    :param wanted: how many there are to be.
    :param ready: how many there are, busy ones too.
    :param failure: why there will be no more; None: the host makes the others, or has them all.
    """

    wanted: int = 0
    ready: int = 0
    failure: str | None = None

    @property
    def status(self) -> Literal["FAILED", "IN_PROGRESS", "READY"]:
        """A value of the model's ``ProvisionedConcurrencyStatusEnum``."""
        if self.failure is not None:
            return "FAILED"
        return "READY" if self.ready >= self.wanted else "IN_PROGRESS"
