"""What a function takes, gives back and raises, read from its annotations and its declared errors.

Runtimes validate events with it; mock mode answers with it; contracts are shown and compared with it. Everything here
is called at start or when somebody asks for contracts, except the validation of events and the answers, which mock mode
uses for every call, from any thread. pydantic is imported inside functions only.

=================== ====================================================================================
module              what it does
=================== ====================================================================================
``signatures``      which annotations of a handler count
``annotations``     what an annotation asks for
``validation``      events, and static answers, against an annotation
``contract``        the contract of a function, and its document
``schemas``         JSON Schema of annotations
``answers``         zero values and random values; made by ``shapes``, ``ranges``, ``texts``, ``patterns``
``fitting``         static answers, of types that are written in another form than they read
``changes``         which changes between two documents break callers
=================== ====================================================================================
"""
