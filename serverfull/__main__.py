"""``python -m serverfull``: the same command as ``serverfull``."""

from serverfull.cli import main

raise SystemExit(main())
