"""A local server that speaks the Hugging Face Hub's protocol for downloads and commits to Spaces, with faults to order.

with HubServer() as hub:
    hub.add_file("csncsn/STViT-R", "STViT-R-Swin-S.pth", content)
    subprocess.run([...], env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": ...})
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

Fault = Literal[
    "unauthorised",  # 401
    "gated",  # 403 with the Hub's code
    "rate limit",  # 429
    "down",  # 503
    "silent",  # accepts requests and does not answer
    "stalled",  # sends half of the body, then nothing
    "truncated",  # closes the connection after half of the body, always at the same byte
    "short",  # sends half of the body as if it were the whole
    "flipped",  # one bit of the body differs
]

REFUSALS: dict[str, tuple[int, dict[str, str]]] = {
    "unauthorised": (401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
    "gated": (403, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted"}),
    "rate limit": (429, {"Retry-After": "120"}),
    "down": (503, {}),
}


class HubServer:
    """Serves the files that were added; ``fault`` may be set and reset at any time.

    Attributes:
        fault: what goes wrong with requests for files, or ``None``.
        requests: method and path of every request so far.
    """

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self.requests: list[str] = []
        self.stopping = Event()
        self._commits: dict[tuple[str, str], str] = {}  # (repo, branch): newest commit
        self._trees: dict[tuple[str, str], dict[str, bytes]] = {}  # (repo, commit): files
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def add_file(self, repo: str, filename: str, content: bytes, revision: str = "main") -> str:
        """Commit a file to a branch of a repository and return the commit; older commits stay available."""
        parent = self._commits.get((repo, revision), "")
        commit = hashlib.sha1(parent.encode() + filename.encode() + content).hexdigest()
        self._trees[repo, commit] = {**self._trees.get((repo, parent), {}), filename: content}
        self._commits[repo, revision] = commit
        return commit

    def files(self, repo: str, revision: str = "main") -> dict[str, bytes]:
        """Files of a repository (of a Space: ``spaces/OWNER/NAME``) by their names, as they are now."""
        return self._trees.get((repo, self._commits.get((repo, revision), "")), {})

    def commit(self, repo: str, changes: list[tuple[str, Any]], revision: str = "main") -> str:
        """Carry out the lines of a commit, as the Hub's API takes them; returns the commit."""
        files = self.files(repo, revision)
        for kind, value in changes:
            if kind == "file":
                files = {**files, value["path"]: base64.b64decode(value["content"])}
            elif kind == "deletedFile":
                files = {name: content for name, content in files.items() if name != value["path"]}
        commit = hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()
        self._trees[repo, commit], self._commits[repo, revision] = files, commit
        return commit

    def create(self, repo: str, revision: str = "main") -> bool:
        """Make an empty repository; whether there was none."""
        if (repo, revision) in self._commits:
            return False
        self.commit(repo, [], revision)
        return True

    def forget(self, repo: str) -> None:
        """Lose a repository with its history."""
        for known in (self._commits, self._trees):
            for key in [key for key in known if key[0] == repo]:
                del known[key]

    def find(self, repo: str, revision: str, filename: str) -> tuple[str, bytes] | str:
        """The commit and the content of a file, or the Hub's error code."""
        if not any(repo == known for known, _ in self._commits):
            return "RepoNotFound"
        commit = self._commits.get((repo, revision), revision)
        if (repo, commit) not in self._trees:
            return "RevisionNotFound"
        content = self._trees[repo, commit].get(filename)
        return "EntryNotFound" if content is None else (commit, content)

    def start(self) -> HubServer:
        self._thread.start()
        return self

    def stop(self) -> None:
        self.stopping.set()
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> HubServer:
        return self.start()

    def __exit__(self, *exception: object) -> None:
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gives up is what half of the faults are about: no traceback."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.requests.append(f"POST {path}")
        if self.hub.fault in REFUSALS:
            return self._send(*REFUSALS[self.hub.fault])
        if path == "/api/validate-yaml":
            return self._send_json({})
        if path == "/api/repos/create":
            asked = json.loads(body)
            space = f"spaces/{asked['organization']}/{asked['name']}"
            return self._send_json({"url": f"{self.hub.url}/{space}"}, 200 if self.hub.create(space) else 409)
        repo, step = re.fullmatch("/api/(spaces/[^/]+/[^/]+)/(preupload|commit)/main", path).groups()
        if step == "preupload":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self._send_json({"files": files})
        lines = [json.loads(line) for line in body.splitlines()]
        commit = self.hub.commit(repo, [(line["key"], line["value"]) for line in lines])
        return self._send_json({"commitUrl": f"{self.hub.url}/{repo}/commit/{commit}", "commitOid": commit})

    def _send_json(self, value: Any, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        match = re.fullmatch("/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if path.startswith("/api/spaces/") and self.hub.fault in REFUSALS:
            return self._send(*REFUSALS[self.hub.fault])
        if tree := re.fullmatch("/api/(spaces/[^/]+/[^/]+)/tree/main", path):
            files = self.hub.files(tree[1])
            listed = [{"type": "file", "path": name, "size": len(files[name]), "oid": ""} for name in files]
            return self._send_json(listed)
        if match is None:
            return self._send(200, {"Content-Type": "application/json"}, b"{}")
        if self.hub.fault == "silent":
            self.close_connection = self.hub.stopping.wait(30)
            return None
        if self.hub.fault in REFUSALS:
            return self._send(*REFUSALS[self.hub.fault])
        found = self.hub.find(*match.groups())
        if isinstance(found, str):
            return self._send(404, {"X-Error-Code": found, "X-Error-Message": f"{found}: {path}"})
        return self._send_file(*found)

    def _send_file(self, commit: str, content: bytes) -> None:
        headers = {
            "X-Repo-Commit": commit,
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "Accept-Ranges": "bytes",
        }
        half = len(content) // 2
        if self.command == "GET" and self.hub.fault == "flipped":
            content = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        if self.command == "GET" and self.hub.fault == "short":
            content = content[:half]
        status, start, stop = 200, 0, len(content)
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted:
            status, start, stop = 206, int(wanted[1]), min(int(wanted[2] or stop) + bool(wanted[2]), stop)
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(status, headers, content[start:stop], cut=max(half - start, 0))

    def _send(self, status: int, headers: dict[str, str], body: bytes = b"", cut: int = 0) -> None:
        """Answer; under the faults that break off, only ``cut`` bytes of the body are sent."""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        broken = status < 300 and self.hub.fault in ("stalled", "truncated")
        self.wfile.write(body[:cut] if broken else body)
        if broken:
            self.wfile.flush()
            if self.hub.fault == "stalled":
                self.hub.stopping.wait(30)
            self.close_connection = True
