"""Lambda mode: one function as a native AWS Lambda, without an HTTP server, through AWS's own runtime client.

`starting` is what programs and the command line call, `handler` what a Lambda-managed Python runtime names as its
handler; both make a `native.NativeFunction`, which is called for every invocation.
"""
