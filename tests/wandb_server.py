# ruff: noqa: N802, N815 - the names of the protocol
"""A local W&B server that implements the parts of the protocol that runs and workspaces need."""

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import wandb
from wandb_files import KEY, forget_account

PROJECT = {"id": "project", "name": "nrmap", "entity": {"id": "entity", "name": "someone"}}


class Server(ThreadingHTTPServer):
    """Keeps everything that runs send; `refuses` is a status that answers every request instead."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.refuses = None
        self.runs = {}
        self.views = []

    def handle_error(self, request, client_address):
        """Ignore clients that hang up."""


class Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments):
        pass

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.server.refuses:
            self.reply({"errors": [{"message": "go away"}]}, self.server.refuses)
        elif self.path.endswith("/file_stream"):
            self.stream(self.server.runs[self.path.split("/")[-2]], json.loads(body))
        elif self.path.startswith("/graphql"):
            request = json.loads(body)
            operation = request.get("operationName") or re.search(r"(?:query|mutation) (\w+)", request["query"])[1]
            answer = getattr(self, operation, None)
            self.reply({"data": answer(request.get("variables")) if answer else {}})
        else:
            self.reply({})

    do_PUT = do_POST  # uploads of files

    def reply(self, value, status=200):
        content = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, run, message):
        history = message.get("files", {}).get("wandb-history.jsonl")
        if history:
            run["rows"][history["offset"] :] = [json.loads(line) for line in history["content"]]
        if message.get("complete"):
            run["exit_codes"].append(message["exitcode"])
        self.reply({})

    def Viewer(self, variables):
        someone = {"id": "user", "entity": "someone", "username": "someone", "email": "a@b.c", "flags": "{}"}
        return {"viewer": {**someone, "teams": {"edges": []}}}

    def UpsertView2(self, variables):
        self.server.views.append(variables)
        return {"upsertView": {"view": {"id": "view", "name": "nw-saved-v"}, "inserted": True}}

    def RunResumeStatus(self, variables):
        run = self.server.runs.get(variables["name"])
        bucket = run and {
            **self.bucket(run), "summaryMetrics": "{}", "historyTail": json.dumps([json.dumps(run["rows"][-1])]),
            "eventsLineCount": 0, "eventsTail": "[]", "logLineCount": 0, "tags": [], "wandbConfig": '{"t": 1}',
        }  # fmt: skip
        return {"model": {**PROJECT, "bucket": bucket}}

    def UpsertBucket(self, variables):
        run = self.server.runs.setdefault(variables["name"], {"sent": variables, "rows": [], "exit_codes": []})
        return {"upsertBucket": {"bucket": {**self.bucket(run), "project": PROJECT}, "inserted": not run["rows"]}}

    def bucket(self, run):
        sent = run["sent"]
        return {
            "id": "bucket", "name": sent["name"], "displayName": sent["displayName"], "description": None,
            "notes": None, "config": "{}", "sweepName": None, "historyLineCount": len(run["rows"]),
        }  # fmt: skip

    def CreateRunFiles(self, variables):
        files = [{"name": name, "uploadUrl": f"{self.server.url}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}

    def ServerFeaturesQuery(self, variables):
        return {"serverInfo": {"features": []}}


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
