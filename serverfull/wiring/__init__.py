"""Parts of a host, each put together from its settings: `serverfull.host` wires them to each other."""
