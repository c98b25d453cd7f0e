"""The two ways to write a SHA-256: hexadecimal in the code store, base64 as AWS's ``CodeSha256``.

https://docs.aws.amazon.com/lambda/latest/api/API_FunctionConfiguration.html
"""

from __future__ import annotations

import base64
import re
from hashlib import sha256

_HEXADECIMAL = re.compile(r"[0-9a-f]{64}")


def sha256_of(package: bytes) -> str:
    """Give the SHA-256 of a package in hexadecimal: its name in the code store."""
    return sha256(package).hexdigest()


def is_sha256(text: str) -> bool:
    """Say whether a text is a SHA-256 as the code store writes it: 64 hexadecimal digits, letters small."""
    return _HEXADECIMAL.fullmatch(text) is not None


def code_sha256(hexadecimal: str) -> str:
    """Write a SHA-256 as AWS does in ``CodeSha256``.

    :param hexadecimal: the name of a package in the code store.
    :raises ValueError: it is no SHA-256.
    """
    if not is_sha256(hexadecimal):
        raise ValueError(f"{hexadecimal!r} is no SHA-256 in hexadecimal")
    return base64.b64encode(bytes.fromhex(hexadecimal)).decode()
