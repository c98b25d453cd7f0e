"""Ways to find a function by its name. Each module is one Fetcher; some wrap another one.

`static` holds what the operator registered, `chain` asks several in turn, `observing` counts and logs around another,
`targets` turns the TARGET of a command into one.
"""
