"""What a fetcher gives in place of a deployed function's handler, and a runtime takes for the code to load.

Apart from the records of `serverfull.domain.deployed`, because every host asks whether a handler is one, and most hosts
of registered functions never read a record.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from serverfull.domain.hot_paths import FolderIdentity
    from serverfull.domain.source_code import SourceCode

WRAPPER_VARIABLE = "AWS_LAMBDA_EXEC_WRAPPER"
"""Names, among a function's variables, a program of its package or a layer that starts its runtime.

AWS: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-modify.html#runtime-wrapper
"""


class ImageConfig(NamedTuple):
    """What a function says instead of its container image; None: what the image itself says.

    :param command: what the entry point gets, such as the name of a handler.
    :param entry_point: what is started.
    :param working_directory: where.

    AWS: https://docs.aws.amazon.com/lambda/latest/dg/images-create.html#images-parms
    """

    command: tuple[str, ...] | None = None
    entry_point: tuple[str, ...] | None = None
    working_directory: str | None = None


class DeployedHandler:
    """Stands for the handler of a deployed function until a runtime loads its code.

    A fetcher gives the same object for as long as code and configuration are the same: what is loaded is kept by it.

    :param name: ``module.attribute`` as the function's configuration has it; folders may be slashes.
    :param root: the folder of the unpacked package.
    :param runtime: such as ``python3.12``.
    :param layers: the folders of its unpacked layers; what later ones hold counts.
    :param region: where it is deployed, such as ``us-east-1``.
    :param ephemeral_mb: megabytes of ``/tmp``.
    :param architecture: that it is deployed for: ``x86_64`` or ``arm64``.
    :param image_uri: the container image that is the function's package, instead of one in ``root``; empty: it is none.
    :param image_config: of that image.
    :ivar image_found: the image that ``image_uri`` meant when a runtime looked for it, as ``repository@sha256:digest``;
        None: none has. The runtime that looks writes it.
    :param snap_start: whether its environments begin as copies of one that has loaded the code.
    :param live: whether ``root`` is a folder of somebody's, who edits what is in it while it is served.
    :param virtualenv: whether a virtual environment beside its code counts, as it does for code that is no package.
    :param admit: looks, each time before something is started from its folders, whether these may be used still, and
        says which they are, ``root`` first where that is ``live``: they are not the host's own, and may be replaced.
        Blocks, and raises FunctionNotReady. None: they never change.
    :param generation: tells the function from one of the same name that was deleted before.
    :param source: what GetFunction tells of the code where it is not of a deployed function; a path: of the file or
        folder there, which is looked at when somebody asks. None: of ``root``.
    """

    def __init__(
        self,
        name: str,
        root: Path,
        *,
        runtime: str = "",
        layers: Sequence[Path] = (),
        region: str = "",
        ephemeral_mb: int = 512,
        architecture: str = "x86_64",
        image_uri: str = "",
        image_config: ImageConfig | None = None,
        snap_start: bool = False,
        generation: str = "",
        source: SourceCode | Path | None = None,
        live: bool = False,
        virtualenv: bool = False,
        admit: Callable[[], Sequence[FolderIdentity]] | None = None,
    ) -> None:
        self.name = name
        self.root = root
        self.runtime = runtime
        self.layers = tuple(layers)
        self.region = region
        self.ephemeral_mb = ephemeral_mb
        self.architecture = architecture
        self.image_uri = image_uri
        self.image_config = image_config or ImageConfig()
        self.image_found: str | None = None
        self.snap_start = snap_start
        self.generation = generation
        self.source = root if source is None else source
        self.live = live
        self.virtualenv = virtualenv
        self.admit = admit
        self.__module__, _, self.__qualname__ = name.rpartition(".")  # what configurations and logs show

    def __call__(self, event: Any, context: Any) -> Any:
        """Refuse, because a runtime loads the code and calls that.

        :raises TypeError: always.
        """
        raise TypeError(f"the code of {self.name} has to be loaded by a runtime before it is called")
