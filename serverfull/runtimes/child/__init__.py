"""What runs beside the host: the process that forks others, and the client that runs Python functions in them.

It uses the standard library alone, imports nothing else of serverfull and runs on Python 3.8 and later, whatever the
host runs on. ``__main__.py`` is started by its path and loads the rest under a name that no function's code has.
"""
