"""Runs deployed functions in Docker containers: the second implementation of `serverfull.runtimes.sandboxes.launching`.

`launcher` makes launchers, `containers` is what they start, `options` says how a container is held, `images` finds and
pulls what it is made of, `engine` asks the Docker engine, on threads, and `site` is what all containers of a host
share. Nothing else imports the ``docker`` package, and `engine` and `images` import it when it is needed.
"""
