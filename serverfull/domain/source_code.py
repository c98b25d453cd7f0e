"""What is told of the code behind a function: where it lies, how large it is, when it was changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class SourceCode:
    """The code behind a function.

    :param location: a URL such as ``file:///srv/functions/hello`` or ``s3://bucket/hello.zip``, the name of an image,
        or ``module:`` and a name where there is nothing to be read.
    :param size_bytes: of all of it; 0 where that is not known.
    :param sha256: of its content, in base64 as AWS gives CodeSha256.
    :param changed: when it was last written.
    """

    location: str
    size_bytes: int
    sha256: str
    changed: datetime
