"""Every exception that serverfull raises on purpose, as one tree.

::

    ServerfullError
    ├── ConfigurationError            a setting is unknown or malformed
    ├── TargetError                   `serve TARGET` cannot be turned into functions
    │   ├── TargetNotFound            there is no such module or file
    │   ├── TargetImportFailed        the module exists, and its own code failed
    │   ├── TargetAttributeMissing    the module has no such attribute
    │   └── TargetInvalid             the attribute is nothing that can be served
    ├── StartupError                  the host cannot start (port taken, unsafe bind)
    │   ├── AddressInUse
    │   ├── UnsafeBind
    │   ├── ExtraMissing              an optional part is asked for and not installed
    │   ├── RuntimeApiMissing         lambda mode is started where no Lambda is
    │   ├── SandboxImpossible         this machine cannot hold functions as the settings ask
    │   └── StateUnusable             the folder that keeps the state cannot be used
    │       ├── StateInUse            another host uses it
    │       ├── StateDamaged          the database in it is broken, or gone
    │       ├── EventsDamaged         a file of events is broken
    │       └── StateTooNew           a newer serverfull wrote it
    ├── BuildFailed                   `serverfull build` cannot make the artifact
    ├── ManifestInvalid               what is written beside a function's code cannot be its configuration
    ├── CodeNotBuilt                  a function's build command has failed
    ├── CodeBroken                    code that has changed cannot be loaded any more
    ├── ImageUnavailable              a container image is nowhere, or cannot be had
    ├── InvocationNotBegun            an idle execution environment ended before it got the invocation
    ├── DeliveryFailed                nobody could be told of an event that has ended
    └── RequestError                  a caller's request is answered with an AWS error
        ├── NotFoundError             no such function
        ├── InvalidParameterValue     a parameter has a value that is not allowed
        ├── ValidationFailed          one or several constraints of the AWS model are broken
        ├── InvalidRequestContent     the payload or the client context cannot be read
        ├── SerializationFailed       the JSON body of a management call cannot be read
        ├── RequestTooLarge           the payload is over the limit of its invocation type
        ├── TooManyRequests           a concurrency limit is reached
        ├── RecursiveInvocation       a function calls itself in circles
        ├── FunctionNotReady          the function is in a state that cannot be invoked
        │   └── DependenciesNotInstalled
        ├── SnapStartFailed           an environment cannot be restored: a hook has failed
        ├── SnapStartTimeout          an environment was not restored in time
        ├── SnapStartRegenerationFailure  a snapshot had to be made once more, and cannot be
        ├── InvalidRuntime            no runtime of this host runs the function
        ├── ReadOnlyFunction          a write to a function that a read-only fetcher owns
        ├── ResourceNotFound          no such resource other than a function
        │   ├── CodeSigningConfigNotFound
        │   └── ProvisionedConcurrencyConfigNotFound
        ├── DurableExecutionAlreadyStarted  another event of the function has the name of this one
        ├── ResourceConflict          it exists already, or another change is under way
        ├── PreconditionFailed        the RevisionId is not that of the resource as it is now
        ├── ResourceInUse             it cannot be changed or deleted while it is used
        ├── CodeStorageExceeded       the account's packages would take more room than it has
        ├── PolicyLengthExceeded      a policy would be longer than policies may be
        ├── AliasLimitExceeded        a function would have too many aliases
        ├── CapacityProviderLimitExceeded
        ├── CodeVerificationFailed    a package's signature does not satisfy the function's code signing config
        │   └── InvalidCodeSignature  the package was changed after it was signed
        ├── PublicPolicyRefused       a policy would let everybody in where that is blocked
        ├── RequestEntityTooLarge     a management call, or the package in it, is over its limit
        ├── UnsupportedOperation      an operation that this host does not have yet, or a newer API may have
        ├── UnknownOperation          no operation of the API has this method and path
        ├── MethodNotAllowed          the path exists, with another method
        ├── UnsupportedMediaType      a management call with a content type that is not JSON
        ├── RequestRefused            a gate refused the request (Host, Origin)
        ├── UnknownRequestMockError   a call in mock mode asks for an error that the function does not declare
        ├── MalformedRequest          the bytes are not an HTTP request that can be read
        ├── ShuttingDown              the host drains and takes no new call
        └── InternalFailure           a bug or a broken part of the host
            └── SourceUnavailable     functions cannot be looked up where they lie

AWS names and HTTP statuses are not here: `serverfull.api.errors` is the one table that knows them.
"""

from __future__ import annotations


class ServerfullError(Exception):
    """Base of everything that serverfull raises on purpose."""


class ConfigurationError(ServerfullError):
    """A setting is unknown or malformed; the message names it and where it came from."""


class TargetError(ServerfullError):
    """The TARGET of a command cannot be turned into functions."""

    exit_code = 2


class TargetNotFound(TargetError):
    """There is no module or file of that name."""


class TargetImportFailed(TargetError):
    """The module exists but its own code failed; ``user_traceback`` holds the user's frames only."""

    exit_code = 3

    def __init__(self, message: str, user_traceback: str) -> None:
        super().__init__(message)
        self.user_traceback = user_traceback


class TargetAttributeMissing(TargetError):
    """The module was imported and has no such attribute."""


class TargetInvalid(TargetError):
    """The attribute exists but is no handler, Function, Fetcher, mapping or module with ``functions``."""


class StartupError(ServerfullError):
    """The host cannot start."""

    exit_code = 3


class AddressInUse(StartupError):
    """Another process listens on the address."""


class UnsafeBind(StartupError):
    """The address is reachable from other machines and nothing authenticates the callers."""

    exit_code = 2


class ExtraMissing(StartupError):
    """An optional part is asked for and not installed.

    :param what: what needs it.
    :param package: the package that is missing.
    :param extra: the extra of serverfull that brings it.
    """

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed: pip install 'serverfull[{extra}]'")
        self.extra = extra


class SandboxImpossible(StartupError):
    """This machine cannot hold functions as the settings ask; the message says why."""


class RuntimeApiMissing(StartupError):
    """Lambda mode is started where no Lambda is: ``AWS_LAMBDA_RUNTIME_API`` says where invocations come from."""


class StateUnusable(StartupError):
    """The folder that keeps the state cannot be read, written or locked."""


class StateInUse(StateUnusable):
    """Another host uses the folder; one at a time may."""


class StateDamaged(StateUnusable):
    """The database in the folder is broken or gone. It is never made anew: a backup has to be restored.

    :param file: the database.
    :param what: what is wrong with it.
    """

    def __init__(self, file: object, what: str) -> None:
        super().__init__(
            f'{file} {what}. Nothing was changed. "serverfull state check" says more; '
            'what "serverfull state backup" wrote can be restored'
        )


class EventsDamaged(StateUnusable):
    """A file of events is broken.

    :param file: the file.
    :param what: what is wrong with it.
    """

    def __init__(self, file: object, what: str) -> None:
        super().__init__(
            f"{file} is damaged ({what}). Nothing was changed. Moved elsewhere, it lets the host start without the "
            "events in it"
        )


class StateTooNew(StateUnusable):
    """A newer serverfull has written what this one cannot read."""


class BuildFailed(ServerfullError):
    """An artifact cannot be made; the message says which step failed and why."""


class ManifestInvalid(ServerfullError):
    """What is written beside a function's code cannot be its configuration.

    :param where: the file, the object or the image that has it.
    :param why: the member, and what is the matter with it.
    """

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class CodeNotBuilt(ServerfullError):
    """The build command of a function has failed; the message says how."""


class CodeBroken(ServerfullError):
    """Raised where the handler of a function would be called whose code has changed and cannot be loaded any more.

    The caller gets what the runtime client reports in that case.

    :param module: that was to be loaded.
    :param cause: what its own code, or the interpreter, raised.
    """

    def __init__(self, module: str, cause: BaseException) -> None:
        super().__init__(f"{module} cannot be loaded: {type(cause).__name__}")
        self.module = module
        self.cause = cause


class ImageUnavailable(ServerfullError):
    """A container image cannot be had; the message says why and what to do.

    :param missing: whether there is none of that name, as far as whoever was asked tells.
    """

    def __init__(self, reason: str, *, missing: bool) -> None:
        super().__init__(reason)
        self.missing = missing


class InvocationNotBegun(ServerfullError):
    """An idle execution environment ended before it was given the invocation, which another one can run."""


class DeliveryFailed(ServerfullError):
    """A record of an event, or a dead letter, was not delivered.

    :param reason: for the operator, in a sentence.
    :param final: whether trying again cannot help.
    """

    def __init__(self, reason: str, *, final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.final = final


class RequestError(ServerfullError):
    """A request is answered with an AWS-shaped error; ``message`` is shown to the caller."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class NotFoundError(RequestError):
    """No function of that name. Fetchers raise it; any other exception of theirs is the host's failure.

    :param name: what was looked for: a function name or a full ARN.
    :param message: replaces the default text, which a full ARN puts in AWS's words.
    """

    def __init__(self, name: str, message: str | None = None) -> None:
        super().__init__(message or f"Function not found: {name}")
        self.name = name


class InvalidParameterValue(RequestError):
    """A parameter has a value that the operation does not allow."""


class ValidationFailed(RequestError):
    """One or several constraints of the AWS model are broken.

    :param problems: one sentence for each broken constraint, in AWS's words.
    """

    def __init__(self, *problems: str) -> None:
        count = f"{len(problems)} validation error{'s' if len(problems) != 1 else ''} detected: "
        super().__init__(count + "; ".join(problems))
        self.problems = problems


class InvalidRequestContent(RequestError):
    """The payload is not JSON, or the client context cannot be decoded."""


class SerializationFailed(RequestError):
    """The body of a management call is not JSON, or a value in it has another type than the AWS model says."""


class RequestTooLarge(RequestError):
    """The payload is over the limit.

    :param size_bytes: how large it is, as far as that was seen.
    :param limit_bytes: what the invocation type allows.
    """

    def __init__(self, size_bytes: int, limit_bytes: int, invocation_type: str = "RequestResponse") -> None:
        super().__init__(
            f"{size_bytes} byte payload is too large for the {invocation_type} invocation type "
            f"(limit {limit_bytes} bytes)"
        )
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class TooManyRequests(RequestError):
    """A limit is reached.

    :param reason: a value of the model's ``ThrottleReason``.
    :param retry_after: whole seconds after which a retry makes sense.
    """

    def __init__(self, reason: str, retry_after: int = 1, message: str = "Rate Exceeded.") -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after


class RecursiveInvocation(RequestError):
    """A chain of calls has come by the function so often that it is taken for a circle.

    :param name: of the function.
    :param times: how often it has come by.
    """

    def __init__(self, name: str, times: int) -> None:
        super().__init__(
            f"Lambda has detected that your function {name} is being invoked in a recursive loop: this call would be "
            f"the {times + 1}th of one chain. If that is intended, set RecursiveLoop to Allow "
            "(PutFunctionRecursionConfig)."
        )


class FunctionNotReady(RequestError):
    """The function is in a state in which it cannot be invoked.

    :param state: a value of the model's ``State``, such as ``Failed``.
    :param why: what brought it there and what to do.
    """

    def __init__(self, name: str, state: str, why: str) -> None:
        super().__init__(
            "The operation cannot be performed at this time. The function is currently in the following state: "
            f"{state}. Function {name}: {why}"
        )
        self.state = state
        self.why = why


class DependenciesNotInstalled(FunctionNotReady):
    """What a function needs from package indexes could not be installed.

    :param why: the last lines of the installer, or what is missing here.
    :param code: a value of the model's ``StateReasonCode``.
    """

    def __init__(self, name: str, why: str, code: str = "DependencyError") -> None:
        super().__init__(name, "Failed", why)
        self.code = code


class SnapStartFailed(RequestError):
    """What a function does after it was restored from its snapshot has failed; the message says how."""


class SnapStartTimeout(RequestError):
    """A function was not restored from its snapshot in time."""

    def __init__(self) -> None:
        super().__init__("Lambda couldn't restore the snapshot within the timeout limit.")


class SnapStartRegenerationFailure(RequestError):
    """The snapshot of a function was gone, and its code cannot be loaded for another one.

    :param why: it cannot.
    """

    def __init__(self, why: str) -> None:
        super().__init__(f"Lambda couldn't regenerate the SnapStart snapshot for the function. {why}")


class InvalidRuntime(RequestError):
    """No runtime of this host runs the function; the message says which one it needs."""


class ReadOnlyFunction(RequestError):
    """A write to a function that a read-only fetcher owns."""


class ResourceNotFound(RequestError):
    """A resource other than a function does not exist; the message names it."""


class CodeSigningConfigNotFound(ResourceNotFound):
    """No such code signing configuration."""


class ProvisionedConcurrencyConfigNotFound(ResourceNotFound):
    """The version or alias has no provisioned concurrency."""

    def __init__(self) -> None:
        super().__init__("No Provisioned Concurrency Config found for this function")


class DurableExecutionAlreadyStarted(RequestError):
    """An event with another payload was sent to the function under the same name.

    :param name: what ``X-Amz-Durable-Execution-Name`` said.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"The durable execution with the name '{name}' has already been started with another payload.")
        self.name = name


class ResourceConflict(RequestError):
    """The resource exists already, or is in a state, or being changed, in a way that forbids the operation."""


class PreconditionFailed(RequestError):
    """The RevisionId that the caller gave is not that of the resource as it is now."""

    def __init__(
        self,
        message: str = "The RevisionId provided does not match the latest RevisionId. "
        "Call the GetFunction/GetAlias API to retrieve the latest RevisionId",
    ) -> None:
        super().__init__(message)


class ResourceInUse(RequestError):
    """The resource cannot be changed or deleted while it is in use, or while it changes."""


class CodeStorageExceeded(RequestError):
    """The packages of the account would take more room than it has."""


class PolicyLengthExceeded(RequestError):
    """A policy would be longer than policies may be."""


class AliasLimitExceeded(RequestError):
    """A function would have more aliases than it may have."""


class CapacityProviderLimitExceeded(RequestError):
    """The account would have more capacity providers than it may have."""


class CodeVerificationFailed(RequestError):
    """A package's signature does not satisfy the function's code signing configuration."""


class InvalidCodeSignature(CodeVerificationFailed):
    """The package is not the one that was signed."""


class PublicPolicyRefused(RequestError):
    """A policy would let everybody in where public access is blocked."""


class RequestEntityTooLarge(RequestError):
    """A management call, or the deployment package in it, is over its limit."""


class UnsupportedOperation(RequestError):
    """An operation of the API that this host does not have.

    :param operation: its name in the AWS model, or what the request tells of one that the model does not have.
    """

    def __init__(self, operation: str, hint: str = "") -> None:
        super().__init__(f"The operation {operation} is not supported by this host.{' ' + hint if hint else ''}")
        self.operation = operation


class UnknownOperation(RequestError):
    """No operation of the API has this method and path."""


class MethodNotAllowed(RequestError):
    """The path belongs to the API, but not with this method.

    :param allowed: the methods that the path has.
    """

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(f"{method} is not allowed on {path}; it takes {', '.join(allowed)}")
        self.allowed = allowed


class UnsupportedMediaType(RequestError):
    """The Content-Type is not one that the operation reads."""


class RequestRefused(RequestError):
    """A gate refused the request before anything happened (Host, Origin)."""


class UnknownRequestMockError(RequestError):
    """A call in mock mode asks for an error that the function does not declare. The name is that of serverfull (Go).

    :param error_type: what the call asked for.
    :param choices: the types of the errors that the function declares.
    """

    def __init__(self, error_type: str, choices: tuple[str, ...]) -> None:
        super().__init__(f"ErrorType {error_type} not found in the documented list. Choices are [{', '.join(choices)}]")
        self.error_type = error_type
        self.choices = choices


class MalformedRequest(RequestError):
    """The bytes on the connection are no HTTP request that can be read.

    :param status: the HTTP status that fits: 400, 408, 413, 414, 431 or 501.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class ShuttingDown(RequestError):
    """The host drains: calls in flight finish, new ones are refused."""

    def __init__(self, retry_after: int = 1) -> None:
        super().__init__("The host is shutting down. Retry against another host or in a moment.")
        self.retry_after = retry_after


class InternalFailure(RequestError):
    """A bug or a broken part of the host. What happened is in the host's log under the request id."""

    def __init__(self, message: str = "The host failed to serve the request; see its log for the request id.") -> None:
        super().__init__(message)


class SourceUnavailable(InternalFailure):
    """Functions cannot be looked up where they lie; the message says where that is, and what was said there."""
