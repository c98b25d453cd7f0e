"""The smallest function: an event and a context in, anything that JSON can say out."""


def hello(event, context):
    name = event.get("name", "ƛ")
    print(f"greeting {name}")  # goes to the log of this invocation, and to nobody else's
    return f"Hello {name}!"


functions = {"hello": hello}
