"""What SDKs call the services of AWS in the variables that give a single service its endpoint.

The names are those of botocore's models. Only the beginnings of its files are read, 50 ms for all of them, and only
where the settings give a service an endpoint of its own.

AWS: https://docs.aws.amazon.com/sdkref/latest/guide/ss-endpoints-table.html
"""

from __future__ import annotations

import difflib
import re
import zlib
from collections.abc import Iterator
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from serverfull.errors import ConfigurationError

_SERVICE_ID = re.compile(rb'"serviceId"\s*:\s*"([^"]+)"')
_BEGINNING = 1500
"""Bytes of a packed model that have its service's id in them: it is among the first thousand of the text."""


def variable_of(service: str) -> str:
    """Give the variable with a service's endpoint, such as ``AWS_ENDPOINT_URL_S3``.

    :param service: such as ``s3``, ``DynamoDB`` or ``cloudwatch-logs``.
    :raises ConfigurationError: SDKs have no such service, so they would never read the variable.
    """
    name = _transformed(service)
    known = _known()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ConfigurationError(f"aws.endpoints: AWS SDKs know no service {service!r}{hint}")
    return f"AWS_ENDPOINT_URL_{name}"


def _transformed(service_id: str) -> str:
    return service_id.upper().replace(" ", "_").replace("-", "_")


@lru_cache(maxsize=1)
def _known() -> frozenset[str]:
    botocore = find_spec("botocore")
    assert botocore is not None
    assert botocore.origin is not None
    return frozenset(map(_transformed, _service_ids(Path(botocore.origin).parent / "data")))


def _service_ids(data: Path) -> Iterator[str]:
    for model in data.glob("*/*/service-2.json*"):
        with model.open("rb") as file:
            beginning = file.read(_BEGINNING)
        if model.suffix == ".gz":
            beginning = zlib.decompressobj(wbits=31).decompress(beginning, 4096)
        found = _SERVICE_ID.search(beginning)
        if found is not None:
            yield found[1].decode()
