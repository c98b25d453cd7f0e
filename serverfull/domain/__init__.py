"""Frozen values and pure functions: names, functions, invocations, limits. Imports nothing of the other rooms."""
