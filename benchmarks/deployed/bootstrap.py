"""A function of an OS-only runtime, which speaks the Lambda Runtime API itself. The harness adds the ``#!`` line."""

import os
import socket

host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
connection = socket.create_connection((host, int(port)))
answers = connection.makefile("rb")


def call(method, path, body=b""):
    line = f"{method} /2018-06-01/runtime/invocation/{path} HTTP/1.1\r\n"
    connection.sendall(f"{line}Host: {host}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    answers.readline()
    headers = {}
    while line := answers.readline().strip():
        name, _, value = line.partition(b":")
        headers[name.lower()] = value.strip()
    answers.read(int(headers[b"content-length"]))
    return headers


while True:
    request = call("GET", "next")[b"lambda-runtime-aws-request-id"].decode()
    call("POST", f"{request}/response", b'"hello"')
