"""Receivers of notifications: real servers on the loopback device that behave well, badly, or not at all."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Call:
    """One request that arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON."""
        found = json.loads(self.body)
        assert isinstance(found, dict)
        return found


@dataclass
class Hook:
    """An HTTP server: what it was told, and what it answers next (the last answer stays)."""

    port: int
    answers: list[int]
    headers: dict[str, str] = field(default_factory=dict)
    body: Callable[[Any], None] | None = None
    calls: list[Call] = field(default_factory=list)

    def url(self, path: str = "/hook") -> str:
        """An address of it."""
        return f"http://127.0.0.1:{self.port}{path}"


@contextmanager
def hook(
    *answers: int, headers: dict[str, str] | None = None, body: Callable[[Any], None] | None = None
) -> Iterator[Hook]:
    """An HTTP server that gives these answers; ``body`` writes what follows the headers."""
    found = Hook(port=0, answers=list(answers or (200,)), headers=headers or {}, body=body)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            found.calls.append(Call(self.command, self.path, dict(self.headers), self.rfile.read(length)))
            self.send_response(found.answers.pop(0) if len(found.answers) > 1 else found.answers[0])
            for name, value in found.headers.items():
                self.send_header(name, value)
            self.end_headers()
            if found.body:
                found.body(self.wfile)

        def log_message(self, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *args: Any) -> None:
            pass

    server = Server(("127.0.0.1", 0), Handler)
    found.port = server.server_address[1]
    with _serving(server):
        yield found


@contextmanager
def raw_server(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server that treats each connection by ``serve``; yields its port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            serve(self.request)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *args: Any) -> None:
            pass

    with _serving(Server(("127.0.0.1", 0), Handler)) as server:
        yield server.server_address[1]


@contextmanager
def _serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.socket.close()  # not server_close(): it would wait for handlers that hang on purpose
        thread.join()


def hang(connection: socket.socket) -> None:
    """Take everything and never answer."""
    try:
        while connection.recv(65536):
            pass
    except OSError:
        pass


def dribble(connection: socket.socket) -> None:
    """Answer one byte at a time, for ever: no single wait is long."""
    try:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)
    except OSError:
        pass


def close_at_once(connection: socket.socket) -> None:
    """Read the request, then hang up without a word."""
    connection.recv(65536)


def babble(connection: socket.socket) -> None:
    """Answer what is no HTTP."""
    connection.recv(65536)
    connection.sendall(b"220 hello, this is something else\r\n")


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        found: int = probe.getsockname()[1]
        return found


@dataclass
class MailServer:
    """An SMTP server in small: the messages that it accepted."""

    port: int = 0
    messages: list[str] = field(default_factory=list)
    receivers: list[str] = field(default_factory=list)
    refusal: bytes = b""


@contextmanager
def mail_server(refusal: bytes = b"") -> Iterator[MailServer]:
    """A server that speaks as much SMTP (RFC 5321) as a client needs; ``refusal`` answers RCPT."""
    found = MailServer(refusal=refusal)

    def serve(connection: socket.socket) -> None:
        with connection.makefile("rwb") as stream:

            def answer(line: bytes) -> None:
                stream.write(line + b"\r\n")
                stream.flush()

            answer(b"220 sink")
            while line := stream.readline():
                verb = line[:4].upper().strip()
                if verb == b"DATA":
                    answer(b"354 go on")
                    lines = iter(stream.readline, b".\r\n")
                    found.messages.append(b"".join(lines).decode())
                    answer(b"250 taken")
                elif verb == b"RCPT" and found.refusal:
                    answer(found.refusal)
                else:
                    if verb == b"RCPT":
                        found.receivers.append(line.decode().strip())
                    answer(b"221 bye" if verb == b"QUIT" else b"250 sink")

    with raw_server(serve) as port:
        found.port = port
        yield found
