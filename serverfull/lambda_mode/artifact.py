"""What a .pyz and a bootstrap made by ``serverfull build`` run: AWS's runtime client, with the artifact's function."""

from __future__ import annotations

import sys

from serverfull.errors import StartupError
from serverfull.lambda_mode.frozen import settle_in
from serverfull.lambda_mode.names import HANDLER
from serverfull.lambda_mode.starting import official_main


def main() -> None:
    """Run until the process is stopped; a start outside of a Lambda ends with status 3 and says why."""
    settle_in()
    try:
        client = official_main()
    except StartupError as error:
        sys.stderr.write(f"Error: {error}\n")
        raise SystemExit(error.exit_code) from None
    # The client imports the handler, so that a failure to load it is reported to AWS as for every handler.
    client(["awslambdaric", HANDLER])


if __name__ == "__main__":
    main()
