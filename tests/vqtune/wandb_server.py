"""As much of a W&B server as `wandb` talks to when it sends runs: what it got can be looked at.

W&B's own reader of its offline folders is `wandb sync`; this is where that sends them.
"""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = "a" * 40  # what W&B takes for a key


@dataclass
class ServedRun:
    """A run as it has been sent."""

    name: str
    upserts: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_codes: list[int] = field(default_factory=list)

    def last(self, key: str) -> Any:
        """What was told last, of what may be told in each of many upserts."""
        return next((u[key] for u in reversed(self.upserts) if u.get(key) is not None), None)

    @property
    def config(self) -> dict[str, Any]:
        config = json.loads(self.last("config"))
        return {key: entry["value"] for key, entry in config.items() if key != "_wandb"}


class WandbServer(ThreadingHTTPServer):
    """Answers on a port of its own."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, ServedRun] = {}
        self.lock = threading.Lock()
        self.speaks = threading.Event()  # clear: takes what is sent and says nothing more
        self.speaks.set()

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to send its runs here."""
        url = f"http://127.0.0.1:{self.server_address[1]}"
        return {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "WANDB_ERROR_REPORTING": "false"}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client may go at any time."""

    def run(self, name: str) -> ServedRun:
        return self.runs.setdefault(name, ServedRun(name))

    def answer(self, query: str, variables: dict[str, Any]) -> dict[str, Any]:
        if "upsertBucket" in query:
            name = variables["name"]
            new = name not in self.runs
            self.run(name).upserts.append(variables)
            project = {"id": "p", "name": variables["project"]}
            project["entity"] = {"id": "e", "name": "me"}
            bucket = {"id": name, "name": name, "displayName": variables.get("displayName")}
            bucket |= {"description": "", "config": "{}", "sweepName": None, "project": project}
            return {"upsertBucket": {"bucket": bucket | {"historyLineCount": 0}, "inserted": new}}
        if "RunResumeStatus" in query:
            bucket = self._resumed(variables["name"])
            entity = {"id": "e", "name": "me"}
            return {"model": {"id": "p", "name": "vq", "entity": entity, "bucket": bucket}}
        if "createRunFiles" in query:
            run, base = variables["run"], self.environment["WANDB_BASE_URL"]
            files = [
                {"name": name, "uploadUrl": f"{base}/upload/{run}/{name}"}
                for name in variables["files"]
            ]
            return {"createRunFiles": {"runID": run, "uploadHeaders": [], "files": files}}
        if "viewer" in query:
            viewer = {"id": "1", "entity": "me", "username": "me", "email": "", "flags": "{}"}
            return {
                "viewer": viewer | {"teams": {"edges": []}},
                "serverInfo": {
                    "cliVersionInfo": {"max_cli_version": "99.0"},
                    "latestLocalVersionInfo": None,
                    "features": [],
                },
            }
        return {}

    def stream(self, name: str, sent: dict[str, Any]) -> None:
        run = self.run(name)
        files = sent.get("files") or {}
        history = files.get("wandb-history.jsonl", {"offset": 0, "content": []})
        for i, line in enumerate(history["content"]):
            place = history["offset"] + i
            del run.history[place + 1 :]
            run.history[place:] = [json.loads(line)]
        for line in files.get("wandb-summary.json", {"content": []})["content"]:
            run.summary = json.loads(line)
        if sent.get("complete"):
            run.exit_codes.append(sent.get("exitcode", 0))

    def _resumed(self, name: str) -> dict[str, Any] | None:
        if name not in self.runs:
            return None
        run = self.runs[name]
        tail = json.dumps([json.dumps(run.history[-1])] if run.history else [])
        return {
            "id": name,
            "name": name,
            "summaryMetrics": json.dumps(run.summary),
            "displayName": run.last("displayName"),
            "logLineCount": 0,
            "historyLineCount": len(run.history),
            "eventsLineCount": 0,
            "historyTail": tail,
            "eventsTail": "[]",
            "config": run.last("config"),
            "tags": run.last("tags"),
            "notes": None,
            "wandbConfig": '{"t": 1}',
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer

    def log_message(self, *arguments: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body, answer = self._body(), {}
        with self.server.lock:
            if self.path == "/graphql":
                asked = json.loads(body)
                answer = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
            elif self.path.endswith("/file_stream"):
                self.server.stream(self.path.split("/")[-2], json.loads(body))
        self._reply(answer)

    def do_PUT(self) -> None:
        body = self._body()
        _, _, run, name = self.path.split("/", 3)
        with self.server.lock:
            self.server.run(run).files[name] = body
        self._reply({})

    def do_GET(self) -> None:
        self._reply({})

    def _body(self) -> bytes:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        return gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body

    def _reply(self, answer: dict[str, Any]) -> None:
        self.server.speaks.wait()
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def wandb_server() -> Iterator[WandbServer]:
    """A server while the block lasts."""
    with WandbServer() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.speaks.set()
            server.shutdown()
            thread.join()


@contextmanager
def silent_server() -> Iterator[dict[str, str]]:
    """A server that takes every connection and never says a word; gives what makes W&B ask it."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as listening:
        kept: list[socket.socket] = []

        def accept() -> None:
            try:
                while True:
                    kept.append(listening.accept()[0])
            except OSError:
                return  # closed

        threading.Thread(target=accept, daemon=True).start()
        yield {
            "WANDB_BASE_URL": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "WANDB_API_KEY": KEY,
            "WANDB_MODE": "online",
            "WANDB_ERROR_REPORTING": "false",
        }
        for connection in kept:
            connection.close()
