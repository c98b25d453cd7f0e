"""Policy documents in AWS's policy language: statements are made, documents that callers wrote are checked.

Pure functions, called by `serverfull.management.permissions` and `serverfull.management.layers`.

The language: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, TypeAlias

from serverfull.domain.json_functions import dumps, loads
from serverfull.domain.names import shown
from serverfull.domain.permissions import POLICY_BYTES, POLICY_VERSION
from serverfull.errors import InvalidParameterValue, PolicyLengthExceeded, ResourceConflict, ResourceNotFound

Statement: TypeAlias = "Mapping[str, Any]"

_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_IDENTITY = re.compile(r"arn:aws[a-zA-Z-]*:(iam|sts)::[^:]+:.+", re.ASCII)
_SERVICE = re.compile(r"([a-z0-9-]+\.)+(amazonaws\.com(\.cn)?|amazon\.com)", re.ASCII)
_ACTION = re.compile(r"\*|lambda:[a-zA-Z*?]+", re.ASCII)

_DOCUMENT_PARTS = {"Version", "Id", "Statement"}
_VERSIONS = (POLICY_VERSION, "2008-10-17")
_STATEMENT_PARTS = {
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
}


def new_document(statements: Sequence[Statement]) -> dict[str, Any]:
    """Write the document that AWS makes of single statements."""
    return {"Version": POLICY_VERSION, "Id": "default", "Statement": [*statements]}


def as_json(document: Mapping[str, Any]) -> str:
    """Write a document or a statement as AWS answers it: compact JSON."""
    return dumps(document, separators=(",", ":"), ensure_ascii=False)


def check_size(document: Mapping[str, Any]) -> None:
    """Refuse a document that is too long.

    :raises PolicyLengthExceeded: in AWS's words.
    """
    size = len(as_json(document).encode())
    if size > POLICY_BYTES:
        raise PolicyLengthExceeded(f"The final policy size ({size}) is bigger than the limit ({POLICY_BYTES}).")


def principal_of(text: str, partition: str) -> str | dict[str, str]:
    """Write the Principal of a statement from the text that callers give.

    :param text: ``*``, an account's id, a service's domain, or the ARN of an account, user, role or session.
    :param partition: of AWS, such as ``aws``.
    :raises InvalidParameterValue: it is none of these.
    """
    if text == "*":
        return text
    if _ACCOUNT.fullmatch(text):
        return {"AWS": f"arn:{partition}:iam::{text}:root"}
    if _IDENTITY.fullmatch(text):
        return {"AWS": text}
    if _SERVICE.fullmatch(text):
        return {"Service": text}
    raise InvalidParameterValue("The provided principal was invalid. Please check the principal and try again.")


def check_new_statement(sid: str, existing: Iterable[str | None]) -> None:
    """Refuse a statement id that is taken.

    :raises ResourceConflict: in AWS's words.
    """
    if sid in existing:
        raise ResourceConflict(
            f"The statement id ({sid}) provided already exists. "
            "Please provide a new statement id, or remove the existing statement."
        )


def statement_not_found(sid: str) -> ResourceNotFound:
    """Build the error for an unknown statement id, in AWS's words."""
    return ResourceNotFound(f"Statement {sid} is not found in resource policy.")


def policy_not_found() -> ResourceNotFound:
    """Build the error for a policy that cannot be changed because there is none, in AWS's words."""
    return ResourceNotFound("No policy is associated with the given resource.")


def read_document(text: str, arn: str) -> dict[str, Any]:
    """Read a policy document that a caller wrote; a single statement becomes a list of one.

    :param arn: of the resource that the document is for; all Resources must be it, or versions and aliases of it.
    :raises InvalidParameterValue: it is no policy document, or it is for something else.
    """
    try:
        document = loads(text, object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant)
        as_json(document).encode()  # half a surrogate pair can be read and not be written
    except (ValueError, RecursionError):
        raise _malformed("it is no valid JSON") from None
    if not isinstance(document, dict):
        raise _malformed("it is no JSON object")
    _check_parts("policy", document, _DOCUMENT_PARTS)
    if document.get("Version", POLICY_VERSION) not in _VERSIONS:
        raise _malformed(f"Version must be {' or '.join(_VERSIONS)}")
    if not isinstance(document.get("Id", ""), str):
        raise _malformed("Id must be a string")
    statements = document.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise _malformed("Statement must have at least one statement")
    for statement in statements:
        _check_statement(statement, arn)
    _check_sids(statements)
    return document | {"Statement": statements}


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name appears twice in an object")
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _check_statement(statement: object, arn: str) -> None:
    if not isinstance(statement, dict):
        raise _malformed("a statement is no JSON object")
    _check_parts("statement", statement, _STATEMENT_PARTS)
    if not isinstance(statement.get("Sid", ""), str):
        raise _malformed("Sid must be a string")
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise _malformed("Effect must be Allow or Deny")
    _check_principal(_one_of(statement, "Principal", "NotPrincipal"))
    for action in _texts("Action", _one_of(statement, "Action", "NotAction")):
        if not _ACTION.fullmatch(action):
            raise _malformed(f"Action {shown(action)} is none of Lambda's")
    for resource in _texts("Resource", _one_of(statement, "Resource", "NotResource")):
        if resource != arn and not resource.startswith(f"{arn}:"):
            raise _malformed(f"Resource {shown(resource)} is not {arn}")
    _check_condition(statement.get("Condition", {}))


def _one_of(statement: Mapping[str, Any], name: str, negated: str) -> Any:
    if (name in statement) == (negated in statement):
        raise _malformed(f"a statement must have {name} or {negated}")
    return statement[name] if name in statement else statement[negated]


def _texts(name: str, value: Any) -> list[str]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise _malformed(f"{name} must be a string or a list of strings")
    return texts


def _check_principal(principal: Any) -> None:
    if principal == "*":
        return
    if not isinstance(principal, dict) or not principal:
        raise _malformed("Principal must be * or an object")
    _check_parts("principal", principal, {"AWS", "Service", "Federated", "CanonicalUser"})
    for kind, value in principal.items():
        _texts(f"Principal.{kind}", value)


def _check_condition(condition: Any) -> None:
    """Look at the form only: an operator has keys, and each key a value or several."""
    operators = condition.values() if isinstance(condition, dict) else [None]
    for keys in operators:
        values = keys.values() if isinstance(keys, dict) and keys else [None]
        for value in values:
            held = value if isinstance(value, list) else [value]
            if not held or not all(isinstance(item, (str, bool, int)) for item in held):
                raise _malformed("Condition must map operators to keys, and keys to values")


def _check_sids(statements: Sequence[Statement]) -> None:
    sids = [statement["Sid"] for statement in statements if statement.get("Sid")]
    if len(sids) != len(set(sids)):
        raise _malformed("two statements have the same Sid")


def _check_parts(what: str, value: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(value) - known)
    if unknown:
        raise _malformed(f"the {what} has an unknown element {shown(unknown[0])}")


def _malformed(why: str) -> InvalidParameterValue:
    return InvalidParameterValue(f"The policy document is malformed: {why}.")
