"""A local W&B server that implements the parts of the protocol that runs and workspaces need."""

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import wandb
from wandb_files import KEY, forget_account

PROJECT = {"id": "project", "name": "nrmap", "entity": {"id": "entity", "name": "someone"}}
VIEWER = {"id": "user", "entity": "someone", "username": "someone", "email": "a@b.c", "flags": "{}"}


class Server(ThreadingHTTPServer):
    """Keeps everything that runs send; `refuses` is a status that answers every request instead."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.refuses, self.runs, self.views = None, {}, []

    def handle_error(self, request, client_address):
        """Ignore clients that hang up."""

    def answer(self, operation, variables):
        """The data of a GraphQL operation."""
        run = self.runs.get(variables.get("name"))
        if operation == "UpsertBucket" and run is None:
            run = self.runs[variables["name"]] = {"sent": variables, "rows": [], "exit_codes": []}
        bucket = run and {
            "id": "bucket", "name": run["sent"]["name"], "displayName": run["sent"]["displayName"], "config": "{}",
            "historyLineCount": len(run["rows"]), "project": PROJECT, "description": None, "notes": None,
            "sweepName": None,
        }  # fmt: skip
        if operation == "Viewer":
            return {"viewer": {**VIEWER, "teams": {"edges": []}}}
        if operation == "UpsertView2":
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "view", "name": "nw-saved-v"}, "inserted": True}}
        if operation == "UpsertBucket":
            return {"upsertBucket": {"bucket": bucket, "inserted": not run["rows"]}}
        if operation == "RunResumeStatus":
            last = run and {
                **bucket, "summaryMetrics": "{}", "historyTail": json.dumps([json.dumps(run["rows"][-1])]),
                "eventsLineCount": 0, "eventsTail": "[]", "logLineCount": 0, "tags": [], "wandbConfig": '{"t": 1}',
            }  # fmt: skip
            return {"model": {**PROJECT, "bucket": last}}
        if operation == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}
        return {"serverInfo": {"features": []}} if operation == "ServerFeaturesQuery" else {}

    def stream(self, run, message):
        """Take in a part of a run's history, and its end."""
        if history := message.get("files", {}).get("wandb-history.jsonl"):
            run["rows"][history["offset"] :] = [json.loads(line) for line in history["content"]]
        if message.get("complete"):
            run["exit_codes"].append(message["exitcode"])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body, reply = self.rfile.read(int(self.headers.get("content-length", 0))), {}
        if self.server.refuses:
            reply = {"errors": [{"message": "go away"}]}
        elif self.path.endswith("/file_stream"):
            self.server.stream(self.server.runs[self.path.split("/")[-2]], json.loads(body))
        elif self.path.startswith("/graphql"):
            request = json.loads(body)
            operation = request.get("operationName") or re.search(r"(?:query|mutation) (\w+)", request["query"])[1]
            reply = {"data": self.server.answer(operation, request.get("variables") or {})}
        content = json.dumps(reply).encode()
        self.send_response(self.server.refuses or 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_PUT = do_POST  # uploads of files  # noqa: N815


@contextlib.contextmanager
def server_with_account(monkeypatch, home):
    """A server for which the user of this process has an API key."""
    forget_account(monkeypatch, home)
    wandb.teardown()
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        wandb.teardown()
        server.shutdown()
