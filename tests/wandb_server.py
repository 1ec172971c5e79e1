"""A W&B server on this machine that speaks as much of the protocol as a run and a workspace need."""

import contextlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import wandb
from wandb_files import KEY, forget_account


class Server(ThreadingHTTPServer):
    """Remembers what every run sent; `refuses` answers every request with that status instead."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        threading.Thread(target=self.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.refuses = None
        self.runs = {}
        self.uploads = {}
        self.views = []
        self.committed = []

    def handle_error(self, request, client_address):
        """Clients hang up as they please."""


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

    def do_PUT(self):
        self.server.uploads[self.path] = self.rfile.read(int(self.headers["content-length"]))
        self.reply({})

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

    def Viewer(self, variables):  # noqa: N802
        someone = {"id": "user", "entity": "someone", "username": "someone", "email": "a@b.c", "flags": "{}"}
        return {"viewer": {**someone, "teams": {"edges": []}}}

    def UpsertView2(self, variables):  # noqa: N802
        self.server.views.append(variables)
        return {"upsertView": {"view": {"id": "view", "name": "nw-saved-v"}, "inserted": True}}

    def RunResumeStatus(self, variables):  # noqa: N802
        run = self.server.runs.get(variables["name"])
        bucket = run and {
            "id": "bucket",
            "name": variables["name"],
            "displayName": run["sent"]["displayName"],
            "summaryMetrics": "{}",
            "config": "{}",
            "historyLineCount": len(run["rows"]),
            "historyTail": json.dumps([json.dumps(run["rows"][-1])]),
            "eventsLineCount": 0,
            "eventsTail": "[]",
            "logLineCount": 0,
            "tags": [],
            "notes": None,
            "wandbConfig": '{"t": 1}',
        }
        return {"model": {**PROJECT, "bucket": bucket}}

    def UpsertBucket(self, variables):  # noqa: N802
        run = self.server.runs.setdefault(variables["name"], {"sent": variables, "rows": [], "exit_codes": []})
        bucket = {
            "id": "bucket",
            "name": variables["name"],
            "displayName": run["sent"]["displayName"],
            "description": None,
            "config": "{}",
            "sweepName": None,
            "project": PROJECT,
            "historyLineCount": len(run["rows"]),
        }
        return {"upsertBucket": {"bucket": bucket, "inserted": not run["rows"]}}

    def CreateRunFiles(self, variables):  # noqa: N802
        files = [{"name": name, "uploadUrl": f"{self.server.url}/{name}"} for name in variables["files"]]
        return {"createRunFiles": {"runID": "bucket", "uploadHeaders": [], "files": files}}

    def ArtifactType(self, variables):  # noqa: N802
        return {"project": {"artifact": None}}

    def ServerFeaturesQuery(self, variables):  # noqa: N802
        return {"serverInfo": {"features": []}}

    def CreateArtifact(self, variables):  # noqa: N802
        name = variables["input"]["artifactCollectionName"]
        sequence = {"id": "sequence", "latestArtifact": None}
        return {"createArtifact": {"artifact": {"id": name, "state": "PENDING", "artifactSequence": sequence}}}

    def CreateArtifactManifest(self, variables):  # noqa: N802
        return {"createArtifactManifest": {"artifactManifest": self.manifest(variables["artifactID"])}}

    def UpdateArtifactManifest(self, variables):  # noqa: N802
        return {"updateArtifactManifest": {"artifactManifest": self.manifest(variables["artifactManifestID"])}}

    def manifest(self, name):
        file = {"id": "file", "name": "m", "displayName": "m", "uploadHeaders": []}
        return {"id": name, "file": {**file, "uploadUrl": f"{self.server.url}/manifests/{name}"}}

    def CreateArtifactFiles(self, variables):  # noqa: N802
        nodes = [
            {
                "id": "file",
                "name": file["name"],
                "displayName": file["name"],
                "uploadUrl": f"{self.server.url}/artifacts/{file['artifactID']}/{file['name']}",
                "uploadHeaders": [],
                "storagePath": None,
                "uploadMultipartUrls": None,
                "artifact": {"id": file["artifactID"]},
            }
            for file in variables["input"]["artifactFiles"]
        ]
        return {"createArtifactFiles": {"files": {"edges": [{"node": node} for node in nodes]}}}

    def CommitArtifact(self, variables):  # noqa: N802
        self.server.committed.append(variables["artifactID"])
        return {"commitArtifact": {"artifact": {"id": variables["artifactID"], "digest": "digest"}}}


PROJECT = {"id": "project", "name": "nrmap", "entity": {"id": "entity", "name": "someone"}}


@contextlib.contextmanager
def server_with_account(monkeypatch, home):
    """A server that the user of this process has a key for."""
    forget_account(monkeypatch, home)
    wandb.teardown()
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        yield server
        wandb.teardown()
        server.shutdown()
