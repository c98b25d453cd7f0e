"""All seams on one page. Whoever reads this, `host.py` and `api/protocol.py` knows the system.

=============== ================================================= ==============================================
seam            what it does                                      who implements it
=============== ================================================= ==============================================
`Fetcher`       name → Function                                   ``fetchers/``, and users
`Runtime`       Function → Environment                            ``runtimes/``
`Environment`   runs invocations of one function                  ``runtimes/``
`Sandbox`       one execution environment: one call at a time     ``runtimes/sandboxes``
`EventQueue`    takes Event invocations, runs them later          ``invocation/queue.py``
`EventStore`    keeps events, and what is to be told of them      ``storage/events.py``
`Deliverer`     tells a queue, a topic, a bucket … of an event    ``destinations/``
`Clock`         what time it is, for the queue                    ``invocation/clock.py``
`LogSink`       takes what functions print and log                ``invocation/sinks.py``
`Admission`     who may run now                                   ``invocation/admission.py``
`StateStore`    keeps what was deployed, in transactions          ``storage/state.py``
`Records`       the records of an account in one transaction      ``storage/state.py``
`CodeStore`     keeps deployment packages by their content        ``storage/code.py``
`Bucket`        reads functions that lie in a bucket              ``storage/buckets.py``
`Catalogue`     says which container images there are            ``runtimes/docker/catalogue.py``
`Watching`      says that files below a folder have changed       ``reload/watching.py``
`Building`      runs the build command of a function              ``reload/builds.py``
=============== ================================================= ==============================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import asyncio

    from serverfull.config import Settings
    from serverfull.domain.deployed import Alias
    from serverfull.domain.events import Delivery, EventEnd, KeptEvent, Lease, PendingDelivery, QueuedEvent, Upcoming
    from serverfull.domain.functions import Function, LogFormat
    from serverfull.domain.images import ImageFacts
    from serverfull.domain.invocations import Invocation, Outcome
    from serverfull.domain.log_levels import ApplicationLogLevel, SystemLogLevel
    from serverfull.domain.objects import SeenObject, StoredObject
    from serverfull.domain.readiness import Fitness, Readiness, Unfit
    from serverfull.domain.records import KeyPart, Kind, Partition, Record

Result = TypeVar("Result")


class Fetcher(ABC):
    """Resolves function names. Wrap one in another (chain, observe, mock) instead of adding a flag to it."""

    source: str = "fetcher"
    """One word that listings and messages show for where a function came from."""

    read_only: bool = True
    """Whether the management API may write the functions that come from here."""

    @abstractmethod
    async def fetch(self, name: str, qualifier: str | None = None) -> Function:
        """Give the function of that name.

        Called for every invocation, on the event loop: keep it fast, and return the *same* object for as long as the
        function has not changed, because a new object means new execution environments.

        :param name: a bare function name, already validated.
        :param qualifier: a version or alias; None and ``$LATEST`` mean the newest.
        :raises NotFoundError: there is no such function. Anything else that is raised is a failure of the host (500).
        """

    @abstractmethod
    async def list(self) -> Mapping[str, Function]:
        """Give every function by its name, in no particular order."""

    def lacks(self, name: str) -> bool:
        """Say whether it is known, without looking far, that there is no function of that name here.

        Chains ask before they fetch: a refusal costs each call of another fetcher's function 2 µs. False, unless it is
        certain.
        """
        return False

    def source_of(self, name: str) -> str:
        """Say which fetcher a listed function comes from; decorators and chains pass the question on."""
        return self.source

    def at(self, partition: Partition) -> Fetcher:
        """Give the fetcher as callers of an account in a region see it.

        Most serve everybody and give themselves, for every partition. What others give must be the same in all but
        identity for one partition, for callers keep some and forget others; decorators and chains pass the question on.
        """
        return self

    async def published(self, name: str) -> Published:
        """Say which versions and aliases a function has beside ``$LATEST``; most have none.

        Decorators and chains pass the question on.

        :raises NotFoundError: there is no such function.
        """
        await self.fetch(name)
        return Published()

    async def survey(self) -> Sequence[Found]:
        """Say what there is, with what cannot be served and what is hidden: for listings that people read.

        Decorators and chains pass the question on.
        """
        return [Found(name=name, source=self.source_of(name)) for name in await self.list()]

    async def open(self, surroundings: Surroundings) -> None:  # noqa: B027 - most have nothing to do
        """Get ready, on the loop of the host that serves it, before anything else is asked. A host that starts waits.

        Decorators and chains pass it on. What is never opened may be asked all the same.

        :raises StartupError: nothing can be fetched as things are, and the host is not to start.
        """

    async def aclose(self) -> None:  # noqa: B027 - most have nothing to do
        """Give back what the fetcher holds; decorators and chains pass it on. Closing twice is fine."""


class Published(NamedTuple):
    """What a function has beside ``$LATEST``.

    :param versions: the numbers, in their order.
    :param aliases: by their names, in the order of these.
    """

    versions: Sequence[int] = ()
    aliases: Mapping[str, Alias] = MappingProxyType({})


class Found(NamedTuple):
    """A function, as `Fetcher.survey` has found it.

    :param source: the fetcher that it comes from.
    :param place: where that one looks, such as a folder; empty: there is only one such place.
    :param failure: why it cannot be served; None: it can.
    :param hidden_by: source and place of another one of its name that is served instead; None: there is none.
    """

    name: str
    source: str
    place: str = ""
    failure: str | None = None
    hidden_by: str | None = None


class Surroundings(NamedTuple):
    """What a host has for the fetcher that it serves.

    :param logger: the host's own log; takes what structlog's loggers take.
    :param changed: to be told the name of a function when `fetch` gives another one, or none, from now on: what its old
        code is loaded in ends as soon as nothing runs there. Call it on the loop; it neither blocks nor raises.
    :param watching: gives the host's watcher of folders, which is made when it is first asked for, and ends with it.
    :param building: gives what runs build commands, made when it is first asked for.
    :param catalogue: gives what asks the host's container engine, likewise. Raises ExtraMissing.
    """

    settings: Settings
    logger: Any
    changed: Callable[[str], None]
    watching: Callable[[], Watching]
    building: Callable[[], Building]
    catalogue: Callable[[], Catalogue]


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionIdentity:
    """A function with its name and all defaults filled in: what a Runtime needs to make an environment.

    :param timeout: seconds.
    :param memory_size: MB.
    :param log_stream: the name of the log stream of the environment.
    :param partition: where it is deployed; None: it is the operator's own, and the same in every account and region.
    :param application_log_level: the least level of what the function writes that is kept; None: there are no levels.
    :param system_log_level: the same for what the host says about its invocations.
    """

    name: str
    version: str
    function: Function
    timeout: float
    memory_size: int
    log_format: LogFormat
    log_group: str
    log_stream: str
    partition: Partition | None = None
    application_log_level: ApplicationLogLevel | None = None
    system_log_level: SystemLogLevel | None = None


class InvocationLog(Protocol):
    """What one invocation prints and logs; made by the invoker, written by the environment.

    :ivar log_stream: the stream that it belongs to. Where several processes serve a function, whoever chooses the one
        says which stream is that one's, before anything is written.
    """

    log_stream: str

    def write(self, text: str) -> object:
        """Take text as it was written, whole lines or parts of them, from any thread."""

    def initialising(self, how: str, at: float, runtime: str = "") -> object:
        """Hear that code is loaded: ``on-demand``, ``provisioned-concurrency`` or ``snap-start``, from that second on.

        :param runtime: of code that is loaded for a snapshot, such as ``python3.12``.
        """

    def initialised(self, seconds: float, status: str, error_type: str = "") -> object:
        """Hear that this has ended, in a ``success``, an ``error`` or a ``timeout``."""

    def extension(self, name: str, state: str, events: Sequence[str], error_type: str) -> object:
        """Hear how the initialisation of an extension went: in the state ``Ready``, or in one of a failure.

        :param events: that it is registered for.
        :param error_type: empty: there is none.
        """

    def subscribed(self, api: str, name: str, types: Sequence[str]) -> object:
        """Hear that an extension has subscribed to streams, by the ``telemetry`` or the ``logs`` API."""

    def timed_out(self) -> object:
        """Hear that the extensions were not done by the end of an invocation's time, although its runtime was."""

    def restoring(self, at: float, runtime: str) -> object:
        """Hear that an environment is made of a snapshot, from that second on."""

    def restored(self, seconds: float, billed: float, status: str, error_type: str = "") -> object:
        """Hear that this has ended; ``billed`` seconds of it were the function's own."""


class Environment(ABC):
    """Runs the invocations of one function; made by a `Runtime`."""

    @abstractmethod
    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation to its end, or to its timeout; its output goes to ``log``.

        What the handler does wrong is an Outcome with ``function_error``, never an exception. Who cancels this gives
        the invocation up, without harm to any other: its process is ended, and a handler in the host's own runs on. As
        on AWS an invocation outlives the connection it came by, so a front door does not cancel it with that.

        :raises InvalidRequestContent: the payload is not JSON; the handler did not run.
        """

    @property
    @abstractmethod
    def failure(self) -> str | None:
        """Why the function must not be invoked any more (state ``Failed``), or None."""

    async def warm(self) -> None:  # noqa: B027 - most have nothing that a call would wait for
        """Begin with what the next invocation would have to wait for, where nothing is ready for it; then return.

        :raises RequestError: that cannot be done; an invocation would be refused for the same reason.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what the environment holds. Closing twice is fine."""


class Sandbox(ABC):
    """What AWS calls an execution environment: a process or a container that runs one invocation at a time.

    Made by a runtime for a `Pool`, which lends it; every method is called on the loop.
    """

    uses: int
    """Invocations that it was given."""

    frozen: bool
    """Whether what it left running is stopped."""

    init_failure: Callable[[str], Outcome] | None
    """Makes the outcome for a request id where its code could not be loaded."""

    settling: asyncio.Future[None] | None = None
    """What is done when it is free again, where `run` has returned before. Cancelling it is fine; it never fails."""

    @property
    @abstractmethod
    def usable(self) -> bool:
        """Whether another invocation can be given to it."""

    @property
    @abstractmethod
    def memory_mb(self) -> int:
        """The most memory that it has used so far, in megabytes."""

    @abstractmethod
    async def start(self) -> Outcome | None:
        """Load the function's code before there is an invocation; gives how that failed, if it did."""

    @abstractmethod
    async def run(self, invocation: Invocation, log: InvocationLog) -> Outcome:
        """Run one invocation to its end, or to its timeout; as `Environment.run`."""

    @abstractmethod
    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called, once, when a sandbox that was started has ended; it must not block or raise."""

    @abstractmethod
    def freeze(self) -> None:
        """Stop what the function has left running, until the next invocation."""

    @abstractmethod
    async def aclose(self) -> None:
        """End it, whatever it does, and give back what it held. Closing twice is fine."""


NOT_KEPT_READY = "Functions that run in the host's own process have no environments that could be kept ready."
"""Why a runtime provisions nothing."""


NO_SNAPSHOTS = (
    "SnapStart is for functions that run in processes of their own, and this one does not: "
    "its tag serverfull:execution, or execution.mode, says where it runs."
)
"""Why a runtime makes no snapshot."""


class Runtime(ABC):
    """Makes environments for functions."""

    @abstractmethod
    def check(self, function: Function) -> None:
        """Say at start what would otherwise fail at the first call.

        :raises TypeError: the function cannot be run here; the message says why.
        """

    @abstractmethod
    def environment(self, identity: FunctionIdentity) -> Environment:
        """Make the environment of a function; cheap, called when a function is first invoked.

        :raises TypeError: as for `check`.
        """

    def get_ready(self) -> None:  # noqa: B027 - most have nothing to do
        """Begin with what the first deployed function would have to wait for; must not block."""

    async def unfit(self, identity: FunctionIdentity) -> Unfit | None:
        """Say why a deployed function cannot run here as it is, having looked for what it needs; None: it can.

        :raises TypeError: as for `check`.
        """
        return None

    async def snapshot(self, identity: FunctionIdentity) -> Fitness:
        """Load the code of a version with SnapStart, so that its environments can be made of that.

        :raises TypeError: as for `check`.
        """
        from serverfull.domain.readiness import Fitness, Unfit  # late: few functions have SnapStart

        return Fitness(Unfit(NO_SNAPSHOTS, "InvalidConfiguration"))

    def provision(self, identity: FunctionIdentity, count: int, changed: Callable[[Readiness], None]) -> None:
        """Keep so many environments of a function ready before they are needed, until another count is asked for.

        :param changed: called on the loop with how far that is, now and whenever it changes; must not block or raise.
        :raises TypeError: as for `check`.
        """
        from serverfull.domain.readiness import Readiness  # late: few hosts keep environments ready

        changed(Readiness(count, 0, NOT_KEPT_READY) if count else Readiness())


class Admission(ABC):
    """Decides whether one more invocation of a function may run now. Check and take are one step."""

    @abstractmethod
    def take(self, name: str, limit: int | None) -> None:
        """Take a permit.

        :param limit: the function's own limit, None where only the host's counts.
        :raises TooManyRequests: a limit is reached.
        """

    @abstractmethod
    def release(self, name: str, limit: int | None) -> None:
        """Give the permit back; with the same arguments as it was taken."""


class EventQueue(ABC):
    """Holds ``Event`` invocations until they have run."""

    @abstractmethod
    async def put(self, event: QueuedEvent) -> bool:
        """Accept an event; when this returns, the caller may be told 202.

        :return: False: the same event was accepted before, by its ``execution_name``.
        :raises DurableExecutionAlreadyStarted: another event has that name.

        :raises TooManyRequests: the backlog is full.
        :raises ShuttingDown: the host drains.
        :raises InternalFailure: it cannot be kept now.
        """

    @abstractmethod
    def freed(self, function: str) -> None:
        """Hear that an invocation of a function, by its bare name, has ended. Must not block or raise."""

    @abstractmethod
    async def drain(self, timeout: float) -> int:
        """Take nothing new and let end what runs, for ``timeout`` seconds at most; returns how many events were lost.

        What is kept beyond the end of the process is not lost: it is run by the next one.
        """


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Give the seconds since the epoch, as they go by: it never goes back, nor jumps, while the process lives."""


class EventStore(ABC):
    """Keeps events until they have ended, and then whom to tell. Called on the loop; the work is done elsewhere.

    Leases of a process that is gone return to the events, with their deaths counted: whoever keeps events knows that
    from something other than time, which may jump. Every method raises InternalFailure while nothing can be read or
    written; nothing has happened then, and it may be tried again.
    """

    @abstractmethod
    async def append(self, events: Sequence[QueuedEvent]) -> Sequence[int]:
        """Keep events that may run now: all are on the disk when this returns, or none where it raises.

        Calls that come together share what the disk takes.

        :return: their keys, or why one with an ``execution_name`` was not taken.
        """

    @abstractmethod
    async def lines(self) -> Mapping[str, int]:
        """Give how many events wait in each line that has any; see `QueuedEvent.line`."""

    @abstractmethod
    async def upcoming(self, line: str, limit: int) -> Sequence[Upcoming]:
        """Give the waiting events of a line that are due first."""

    @abstractmethod
    async def claim(self, key: int, by: float = math.inf) -> Lease | None:
        """Take an event that waits, so that nobody else does; None: it does not wait any more, or not for now.

        :param by: when it has to be due at the latest. Who knows its key from before may not know that it waits again.
        """

    @abstractmethod
    async def reschedule(self, lease: Lease, event: QueuedEvent, due: float) -> bool:
        """Let an event wait for its next attempt, as it is now; False: the lease was not valid any more."""

    @abstractmethod
    async def end(self, lease: Lease, end: EventEnd, deliveries: Sequence[Delivery], *, keep: bool) -> bool:
        """Let an event end, and keep what is to be delivered for it, in one transaction.

        :param keep: for the operator to see, where there is nothing to deliver.
        :return: False: the lease was not valid any more, and nothing was done.
        """

    @abstractmethod
    async def pending(
        self, limit: int, *, running: Collection[str] = (), besides: Collection[str] = ()
    ) -> tuple[Sequence[PendingDelivery], float | None]:
        """Give deliveries that are due, and when the next one will be that is not; None: there is none.

        :param running: ids of deliveries that are being made.
        :param besides: targets whose deliveries are left out, as they have enough.
        """

    @abstractmethod
    async def delivered(self, delivery_id: str) -> None:
        """Forget a delivery that was made, and with the last one its event."""

    @abstractmethod
    async def undelivered(self, delivery_id: str, reason: str, again: float | None) -> None:
        """Note that a delivery has failed.

        :param again: when it is tried again; None: never, and the event is kept for the operator with the reason.
        """

    @abstractmethod
    async def shown(
        self, states: Sequence[str], *, function: str | None = None, after: int = 0, limit: int = 100
    ) -> Sequence[KeptEvent]:
        """Give events in any of these states, in the order in which they were accepted, without their payloads.

        :param function: a bare name; None: of all functions.
        :param after: begin behind this key.
        """

    @abstractmethod
    async def show(self, key: int) -> KeptEvent | None:
        """Give one event with all that is known of it."""

    @abstractmethod
    async def redrive(self, keys: Sequence[int]) -> int:
        """Let ended events run again as if they were new, and what could not be delivered be delivered.

        :return: how many there were.
        """

    @abstractmethod
    async def purge(self, keys: Sequence[int]) -> int:
        """Delete events that wait or have ended; gives how many there were. What runs is left alone."""

    @abstractmethod
    async def forget(self, ended_before: float) -> int:
        """Delete what was kept for the operator long enough; gives how many events those were."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what the store holds; leases end without a death. Closing twice is fine."""


class Deliverer(ABC):
    """Makes deliveries, each in one attempt; whoever calls it tries again."""

    @abstractmethod
    async def deliver(self, delivery: Delivery) -> None:
        """Make a delivery. It may be made twice where a host dies in between.

        :raises DeliveryFailed: it was not made, as far as is known.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what it holds. Closing twice is fine."""


class LogSink(ABC):
    """Takes the log of functions, line by line, from any thread, without blocking."""

    @abstractmethod
    def write(self, record: LogRecord) -> None:
        """Take one record. What cannot be kept is dropped and counted, never waited for."""


@dataclass(slots=True)
class LogRecord:
    """A piece of a function's log.

    :param function: the function's name.
    :param request_id: the invocation that it belongs to.
    :param kind: ``function`` for what the handler wrote, ``platform`` for the host's own START, END and REPORT lines.
    :param text: whole lines, each with its newline.
    :param at: seconds since the epoch.
    :param log_group: where it belongs in CloudWatch Logs.
    :param log_stream: the same; the name of the environment's stream.
    :param partition: where the function is deployed; None: it is the operator's own.
    """

    function: str
    request_id: str
    kind: str
    text: str
    at: float
    log_group: str = ""
    log_stream: str = ""
    partition: Partition | None = None


class Records(ABC):
    """The records of one account in one region, inside one transaction; never used after it or by another thread."""

    @abstractmethod
    def get(self, kind: Kind[Record], *key: KeyPart) -> Record | None:
        """Give the record with that key, or None."""

    @abstractmethod
    def list(
        self,
        kind: Kind[Record],
        *prefix: KeyPart,
        after: Sequence[KeyPart] | None = None,
        limit: int | None = None,
        where: Mapping[str, str] | None = None,
    ) -> Sequence[Record]:
        """List records, sorted by their keys.

        :param prefix: first parts of the key that they share.
        :param after: begin behind this whole key, whether there is such a record or not.
        :param limit: so many at most.
        :param where: values of fields that the kind has indexed.
        """

    @abstractmethod
    def count(self, kind: Kind[Record], *prefix: KeyPart, where: Mapping[str, str] | None = None) -> int:
        """Count what `list` would give."""

    @abstractmethod
    def total(self, kind: Kind[Record], field: str) -> int:
        """Sum up a field that holds whole numbers, over all records of a kind, without reading each of them."""

    @abstractmethod
    def insert(self, kind: Kind[Record], record: Record) -> None:
        """Add a record.

        :raises KeyError: there is one with its key already.
        """

    @abstractmethod
    def replace(self, kind: Kind[Record], record: Record) -> None:
        """Put a record in the place of the one with its key.

        :raises KeyError: there is none.
        """

    @abstractmethod
    def delete(self, kind: Kind[Record], *prefix: KeyPart) -> int:
        """Delete the records whose keys begin like that (a whole key: the one record); returns how many there were."""


class StateStore(ABC):
    """Keeps records, durably or not. Work is done in transactions, one after the other, off the event loop."""

    @abstractmethod
    async def read(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        """Do work that changes nothing, on a consistent view.

        :param work: called on a thread of the store.
        :raises InternalFailure: the store cannot be read now. What the work raises comes out as it is.
        """

    @abstractmethod
    async def write(self, partition: Partition, work: Callable[[Records], Result]) -> Result:
        """Do work as one transaction: all of it is kept when this returns, or nothing where it raises.

        Transactions are serial, so what the work has read is still true when its changes are kept.

        :param work: called on a thread of the store.
        :raises InternalFailure: the store cannot be written now. What the work raises comes out as it is.
        """

    @abstractmethod
    async def everywhere(self, kind: Kind[Record]) -> Sequence[tuple[Partition, Record]]:
        """Give the records of a kind of all accounts and regions."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what the store holds. Closing twice is fine."""


class CodeStore(ABC):
    """Keeps deployment packages, each under the SHA-256 of its bytes in hexadecimal. Every method may block a thread
    of its own, never the event loop."""

    @abstractmethod
    async def put(self, package: bytes) -> str:
        """Keep a package, durably when this returns; gives its SHA-256. Putting it again is fine."""

    @abstractmethod
    async def package(self, sha256: str) -> bytes:
        """Give a package's bytes.

        :raises KeyError: it is not there.
        """

    @abstractmethod
    async def tree(self, sha256: str) -> Path:
        """Give the folder that holds the unpacked package, on this machine; unpacked now where it is not yet.

        :raises KeyError: it is not there.
        :raises InvalidParameterValue: it cannot be unpacked.
        """

    @abstractmethod
    async def url(self, sha256: str, seconds: int) -> str:
        """Give a URL that downloads the package for so many seconds; a path where the host itself serves it."""

    @abstractmethod
    async def sweep(self, keep: set[str]) -> int:
        """Delete every package but these, and what was left half done; gives how many packages went."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what the store holds. Closing twice is fine."""


class Catalogue(ABC):
    """Says which container images there are, on this machine and elsewhere. Asked on the loop."""

    @abstractmethod
    async def find(self, name: str, *, here: bool) -> ImageFacts | None:
        """Give the image that a name means now.

        :param here: ask nobody but the engine of this machine; None: it has none. Else it is fetched from its registry
            where the operator's settings want that, which takes as long as it takes.
        :raises ImageUnavailable: it could not be fetched.
        :raises InternalFailure: nobody can be asked.
        """

    @abstractmethod
    async def labelled(self, label: str = "") -> Sequence[ImageFacts]:
        """Give the images of this machine that have a name.

        :param label: only those that have this one. Empty: all.
        :raises InternalFailure: nobody can be asked.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what it holds. Closing twice is fine."""


class Watch(ABC):
    """A folder that is watched; made by `Watching.watch`. Used on the loop."""

    @abstractmethod
    async def active(self) -> None:
        """Wait until no change is missed any more: from there on the caller is told of each.

        Changes between `Watching.watch` and this are told, too, but in the first milliseconds, until the file system's
        clock has ticked: watch first, and read then what is there.
        """

    @abstractmethod
    def close(self) -> None:
        """Watch no more: the callback is not called again. Closing twice is fine."""


class Watching(ABC):
    """Says that files have changed. One for a host, whose threads and native resources all roots share."""

    @abstractmethod
    def watch(
        self, root: Path, changed: Callable[[], None], *, include: Sequence[str] = (), exclude: Sequence[str] = ()
    ) -> Watch:
        """Watch a folder with all that is below it, or a file. Nothing is started before the first call.

        It need not be there yet, and may be deleted, made again, replaced by a rename, or be a symbolic link that is
        switched. Symbolic links below it are not followed.

        :param changed: called on the loop that runs now, once for each burst of changes, when that is over; what it
            raises is logged. It says that something may have changed: not what, nor that it is whole.
        :param include: patterns as in ``.gitignore`` of files that count, besides those of the settings; where there
            are any, others do not count.
        :param exclude: patterns of what does not count, besides those of the settings.
        :raises ExtraMissing: a package that this takes is not installed.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Watch nothing any more, and give back what that took. Closing twice is fine."""


class Building(ABC):
    """Makes code of what its owner edits."""

    @abstractmethod
    async def build(self, function: str, folder: Path, command: str) -> bool:
        """Run a function's build command, where its folder has other sources than when it ran last.

        One at a time for a folder. What is written while it runs and is no source is learned to be the build's own.
        When this is cancelled, what was started is killed.

        :param function: its name: the output goes to its log.
        :param command: as a shell takes it; it runs in the folder.
        :return: whether it has run, so that files may be others than before.
        :raises CodeNotBuilt: it has failed, now or when these sources were built before.
        """


class Bucket(ABC):
    """Reads a bucket, for fetchers of functions that lie there. The work is done on threads, and takes its time.

    Every method raises SourceUnavailable where the bucket cannot be read.
    """

    name: str

    @abstractmethod
    async def read(self, key: str, known: StoredObject | None = None) -> StoredObject | None:
        """Give an object's content, at most a megabyte; ``known`` itself where that is still it. None: there is none.

        Nothing is ever mixed of an object as it was and as it is.
        """

    @abstractmethod
    async def look(self, key: str) -> SeenObject | None:
        """Say how an object is now. None: there is none."""

    @abstractmethod
    async def folders(self, prefix: str) -> Sequence[str]:
        """Give the next part of every key that begins so and goes on with a slash, once each."""

    @abstractmethod
    def place(self, package: SeenObject, sha256: str | None) -> Path:
        """Say which folder of this machine is that of a package, unpacked there already or not.

        :param package: as it was seen.
        :param sha256: what it must have, in hexadecimal; None: nobody said.
        """

    @abstractmethod
    async def tree(self, package: SeenObject, sha256: str | None) -> Path:
        """Give the same folder, fetched and unpacked now where it is not yet.

        :raises KeyError: the object is not there any more, or is another one by now.
        :raises InvalidParameterValue: it cannot be unpacked, or is not what it must be.
        """

    @abstractmethod
    def sha256_of(self, place: Path) -> str:
        """Give the SHA-256 of the package that was unpacked there, in hexadecimal.

        :raises KeyError: none was.
        """

    @abstractmethod
    async def keep_only(self, places: Collection[Path]) -> None:
        """Delete every folder but these from this machine."""

    @abstractmethod
    async def aclose(self) -> None:
        """Give back what it holds, with all folders. Closing twice is fine."""
