from serverfull.cli import main

raise SystemExit(main())
