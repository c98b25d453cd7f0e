"""Code that changes while it is served: `watching` says that files have changed, and callers do what is to be done."""
