"""An OpenAI-compatible endpoint in a thread, which misbehaves as told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes] | None
Script = Callable[[int, dict[str, Any]], Reply]


def said(text: str, **choice: Any) -> tuple[int, dict[str, str], bytes]:
    """A chat completion."""
    answer = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", **choice}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "small", "choices": [answer]}
    return 200, {}, json.dumps(body).encode()


def streamed(*pieces: str, reason: str = "stop", done: bool = True) -> tuple[int, dict[str, str], bytes]:
    """The same as server-sent events."""
    choices: list[dict[str, Any]] = [{"index": 0, "delta": {"content": piece}} for piece in pieces]
    choices += [{"index": 0, "delta": {}, "finish_reason": reason}] if reason else []
    events = [json.dumps({"choices": [choice]}) for choice in choices] + (["[DONE]"] if done else [])
    body = "".join(f"data: {event}\n\n" for event in ["", *events])
    return 200, {"Content-Type": "text/event-stream"}, f": ping\n\n{body}".encode()


class Endpoint:
    """What was asked, and how many questions were there at once."""

    def __init__(self, script: Script) -> None:
        self.script, self.lock = script, threading.Lock()
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.now = self.most = 0
        self.url = ""
        self.pace = 0.0  # seconds between two server-sent events

    @contextmanager
    def one(self) -> Iterator[None]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        try:
            yield
        finally:
            with self.lock:
                self.now -= 1


@contextmanager
def serve(script: Script) -> Iterator[Endpoint]:
    """Runs an endpoint; ``script(number, body)`` makes its replies, None keeps silent for longer than anyone waits."""
    endpoint = Endpoint(script)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/chat/completions"
            with endpoint.one():
                with endpoint.lock:
                    number = len(endpoint.asked)
                    endpoint.asked.append(body)
                    endpoint.headers.append(dict(self.headers))
                    endpoint.times.append(time.monotonic())
                reply = endpoint.script(number, body)
                if reply is None:
                    time.sleep(1.0)
                    return
                status, headers, data = reply
                self.send_response(status)
                length = {} if endpoint.pace else {"Content-Length": str(len(data))}
                for name, value in {**length, **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                for event in data.split(b"\n\n") if endpoint.pace else [data]:
                    self.wfile.write(event + (b"\n\n" if endpoint.pace else b""))
                    self.wfile.flush()
                    time.sleep(endpoint.pace)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Those who hang up are part of the play."""

    server = Server(("127.0.0.1", 0), Handler)
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
