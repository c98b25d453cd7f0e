"""Code that changes while it is served: `watching` says that files have, `objects` follows objects in S3."""
