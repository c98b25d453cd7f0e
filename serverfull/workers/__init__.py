"""Several processes on one port: ``--workers N``.

`supervisor` is the parent: it starts the workers and replaces the dead. `seat` is a worker's place: what it was given
and how it hears its parent. `shared` is the memory that they all see; `shared_admission` keeps limits true in it, and
`limits` divides or refuses what cannot live there. `siblings` lets workers ask each other, and `shared_events` makes
one host's events of theirs. `serverfull.serving` drives all of it.
"""
