"""A local server with the endpoints of the Hub that the unmodified huggingface_hub client needs, and faults on demand.

with Hub() as hub:
    hub.repos["org/name"] ...      # a pushed repository
    hub.fail("PUT", "/lfs/", 503)  # the next fault
    environ = hub.environ(home)    # of a new process: the client reads HF_ENDPOINT on import
"""

import base64
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

# Tokens with write and read access; all others are anonymous.
WRITER, READER = "hf_writer", "hf_reader"


@dataclass
class Repo:
    private: bool = False
    gated: bool = False
    kind: str = "model"
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # every file of every commit
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, files: dict[str, bytes | None], branch: str = "main", message: str = "edit") -> str:
        """Commit files to a branch; a file that is None is deleted."""
        merged = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        tree = {path: data for path, data in merged.items() if data is not None}
        oid = hashlib.sha1(f"{len(self.commits)} {message} {sorted(tree)}".encode()).hexdigest()
        self.commits[oid], self.branches[branch] = tree, oid
        self.messages.append(message)
        return oid

    def find(self, revision: str) -> str | None:
        found = self.branches.get(revision) or self.tags.get(revision)
        return found or (revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> dict[str, bytes]:
        oid = self.find(revision)
        assert oid is not None
        return self.commits[oid]


@dataclass
class Fault:
    method: str
    path: str  # a regular expression
    # A status code; "cut" or "reset" during the transfer; "wrong": other bytes of the same length; or a callback.
    kind: int | str | Callable[[], object]
    times: int


class Hub:
    """The server, in a thread; its state is public."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.collections: dict[str, list[tuple[str, str]]] = {}
        self.large: dict[str, bytes] = {}  # LFS objects by SHA-256
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self.unknown: list[str] = []  # unsupported requests
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "Hub":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, path: str, kind: int | str | Callable[[], object], times: int = 1) -> None:
        """Make the next requests of a method whose path matches a regular expression fail."""
        self.faults.append(Fault(method, path, kind, times))

    def environ(self, home: Path, token: str = "") -> dict[str, str]:
        """Return the environment of a process that uses this server as the Hub."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_TOKEN": token,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }


class _HTTPError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    fault: int | str | None

    def log_message(self, *_: object) -> None:
        return  # requests are recorded in hub.requests

    def _handle(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".rstrip())
        self.fault = self._next_fault(path)
        if self.fault in ("cut", "reset") and self.command in ("PUT", "POST"):
            self.rfile.read1(100)
            self._abort()
            return
        body = self._read_body()
        try:
            if isinstance(self.fault, int):
                raise _HTTPError(self.fault, message="an injected fault")
            for pattern, route in _ROUTES:
                match = re.fullmatch(pattern, f"{self.command} {path}")
                if match:
                    route(self, body, *match.groups())
                    return
            self.hub.unknown.append(f"{self.command} {path}")
            raise _HTTPError(501, message="unsupported request")
        except _HTTPError as error:
            headers = {"X-Error-Code": error.code, "X-Error-Message": error.message}
            self._send(error.status, json.dumps({"error": error.message}).encode(), headers)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 (http.server's names)

    def _next_fault(self, path: str) -> int | str | None:
        for fault in self.hub.faults:
            if fault.method == self.command and fault.times and re.search(fault.path, path):
                fault.times -= 1
                if not callable(fault.kind):
                    return fault.kind
                fault.kind()
        return None

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _send(self, status: int, body: bytes = b"{}", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.fault in ("cut", "reset"):
            self.wfile.write(body[: len(body) // 2])
            self._abort()
        else:
            self.wfile.write(bytes(len(body)) if self.fault == "wrong" else body)

    def _json(self, answer: Any, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _abort(self) -> None:
        if self.fault == "reset":  # closing with a linger time of zero resets the connection
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    @property
    def token(self) -> str:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ")

    def _check_access(self, *, write: bool = False) -> None:
        if self.token not in ("", WRITER, READER):
            raise _HTTPError(401, message="Invalid credentials in Authorization header")
        if write and self.token != WRITER:
            raise _HTTPError(403 if self.token else 401, message="No write access")

    def _repo(self, name: str, *, write: bool = False) -> Repo:
        self._check_access(write=write)
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.token):
            # As the Hub: 401 for anonymous callers, whether the repository is missing or private.
            raise _HTTPError(404 if self.token else 401, "RepoNotFound", "Repository not found")
        return repo

    def _commit_of(self, repo: Repo, revision: str) -> str:
        oid = repo.find(revision)
        if oid is None:
            raise _HTTPError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return oid

    def whoami(self, _: bytes) -> None:
        self._check_access()
        self._json({"type": "user", "name": "org", "orgs": []})

    def auth_check(self, _: bytes, name: str) -> None:
        self._repo(name, write=True)
        self._json({})

    def create_repo(self, body: bytes) -> None:
        request = json.loads(body)
        name = f"{request['organization']}/{request['name']}"
        self._check_access(write=True)
        exists = name in self.hub.repos
        if not exists:
            repo = self.hub.repos[name] = Repo(request.get("private") or request.get("visibility") == "private")
            repo.kind = request.get("type", "model")
            repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, message="initial commit")
        self._json({"url": f"{self.hub.url}/{name}"}, 409 if exists else 200)

    def create_collection(self, body: bytes) -> None:
        self._check_access(write=True)
        request = json.loads(body)
        slug = f"{request['namespace']}/{request['title'].lower().replace(' ', '-')}-64f9a55bb3115b4f513ec026"
        exists = slug in self.hub.collections
        self.hub.collections.setdefault(slug, [])
        self._json({"slug": slug} if exists else self._collection(slug, request["title"]), 409 if exists else 200)

    def add_to_collection(self, body: bytes, slug: str) -> None:
        self._check_access(write=True)
        item = json.loads(body)["item"]
        if item["id"] not in self.hub.repos:
            raise _HTTPError(404, message="no such repository")
        items = self.hub.collections[slug]
        exists = (item["type"], item["id"]) in items
        if not exists:
            items.append((item["type"], item["id"]))
        self._json(self._collection(slug, slug), 409 if exists else 200)

    def _collection(self, slug: str, title: str) -> dict[str, Any]:
        return {
            "slug": slug, "title": title, "owner": {"name": slug.split("/")[0]}, "items": [], "position": 0,
            "lastUpdated": "2026-01-01T00:00:00.000Z", "private": False, "theme": "indigo", "upvotes": 0,
        }  # fmt: skip

    def validate_yaml(self, body: bytes) -> None:
        whole = json.loads(body)["content"].startswith("---\n")
        self._json({"errors": [] if whole else [{"message": "no metadata"}], "warnings": []}, 200 if whole else 400)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        repo = self._repo(name, write=True)
        tree = repo.commits[self._commit_of(repo, revision)]
        answers = []
        for file in json.loads(body)["files"]:
            path = file["path"]
            oid = _etag(path, tree[path]) if path in tree else None
            mode = "lfs" if _is_large(path) else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": answers})

    def lfs_batch(self, body: bytes, name: str) -> None:
        self._repo(name, write=True)
        objects = []
        for request in json.loads(body)["objects"]:
            if request["oid"] not in self.hub.large:
                request["actions"] = {
                    "upload": {"href": f"{self.hub.url}/lfs/{request['oid']}"},
                    "verify": {"href": f"{self.hub.url}/{name}/lfs-verify"},
                }
            objects.append(request)
        self._json({"transfer": "basic", "objects": objects})

    def lfs_put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            raise _HTTPError(400, message="the upload has another SHA-256")
        self.hub.large[oid] = body
        self._json({})

    def lfs_verify(self, body: bytes, name: str) -> None:
        self._repo(name, write=True)
        request = json.loads(body)
        if len(self.hub.large.get(request["oid"], b"")) != request["size"]:
            raise _HTTPError(404, message="no such object")
        self._json({})

    def commit(self, body: bytes, name: str, branch: str) -> None:
        repo = self._repo(name, write=True)
        header, files = {}, {}
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                header = value
            elif entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.large:
                    raise _HTTPError(400, message=f"the LFS object {value['oid']} was never uploaded")
                files[value["path"]] = self.hub.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                files[value["path"]] = None
        if header.get("parentCommit") not in (None, self._commit_of(repo, branch)):
            raise _HTTPError(412, message="A commit has happened since. Please refresh and try again.")
        oid = repo.commit(files, branch, header["summary"])
        self._json({"commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "success": True})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        repo = self._repo(name, write=True)
        if branch in repo.branches:
            raise _HTTPError(409, message="Reference already exists")
        repo.branches[branch] = self._commit_of(repo, json.loads(body).get("startingPoint", "main"))
        self._json({})

    def tag(self, body: bytes, name: str, revision: str) -> None:
        repo = self._repo(name, write=True)
        tag = json.loads(body)["tag"]
        if tag in repo.tags:
            raise _HTTPError(409, message="Tag reference exists already")
        repo.tags[tag] = self._commit_of(repo, revision)
        self._json({})

    def refs(self, _: bytes, name: str) -> None:
        repo = self._repo(name)
        kinds = (("branches", "heads", repo.branches), ("tags", "tags", repo.tags))
        answer = {
            key: [{"name": ref, "ref": f"refs/{kind}/{ref}", "targetCommit": oid} for ref, oid in refs.items()]
            for key, kind, refs in kinds
        }
        self._json({**answer, "converts": []})

    def model_info(self, _: bytes, name: str, revision: str | None) -> None:
        repo = self._repo(name)
        oid = self._commit_of(repo, revision or "main")
        siblings = [{"rfilename": path} for path in repo.commits[oid]]
        self._json({"id": name, "sha": oid, "private": repo.private, "gated": repo.gated, "siblings": siblings})

    def tree(self, _: bytes, name: str, revision: str, folder: str = "") -> None:
        repo = self._repo(name)
        tree = repo.commits[self._commit_of(repo, revision)]
        answer = []
        tree = {path: data for path, data in tree.items() if path.startswith(f"{folder}/" if folder else "")}
        if folder and not tree:
            raise _HTTPError(404, "EntryNotFound", f"no folder {folder}")
        for path, data in tree.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _etag(path, data)}
            if _is_large(path):
                entry["lfs"] = {"oid": _etag(path, data), "size": len(data), "pointerSize": 134}
            answer.append(entry)
        self._json(answer)

    def resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
        repo = self._repo(name)
        if repo.gated and self.token != WRITER:
            raise _HTTPError(403 if self.token else 401, "GatedRepo", f"Access to model {name} is restricted")
        oid = self._commit_of(repo, revision)
        data = repo.commits[oid].get(path)
        if data is None:
            raise _HTTPError(404, "EntryNotFound", "Entry not found")
        headers = {"X-Repo-Commit": oid, "ETag": f'"{_etag(path, data)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted:
            start = int(wanted[1])
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._send(206, data[start:], headers)
        else:
            self._send(200, data, headers)


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin", ".pt", ".parquet"))


def _etag(path: str, data: bytes) -> str:
    """Return the hash of a file's content as on the Hub: SHA-256 for large files, git's hash for others."""
    if _is_large(path):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


# Repositories of all types share one namespace here.
_KIND = "/api/(?:models|spaces|datasets)"
_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: tuple[tuple[str, Callable[..., None]], ...] = (
    (r"GET /api/whoami-v2", _Handler.whoami),
    (r"POST /api/repos/create", _Handler.create_repo),
    (rf"GET {_KIND}/{_NAME}/auth-check/write", _Handler.auth_check),
    (r"POST /api/validate-yaml", _Handler.validate_yaml),
    (rf"POST {_KIND}/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"POST /(?:spaces/|datasets/)?{_NAME}\.git/info/lfs/objects/batch", _Handler.lfs_batch),
    (r"PUT /lfs/(\w+)", _Handler.lfs_put),
    (rf"POST /{_NAME}/lfs-verify", _Handler.lfs_verify),
    (rf"POST {_KIND}/{_NAME}/commit/(.+)", _Handler.commit),
    (rf"POST {_KIND}/{_NAME}/branch/(.+)", _Handler.branch),
    (rf"POST {_KIND}/{_NAME}/tag/(.+)", _Handler.tag),
    (rf"GET {_KIND}/{_NAME}/refs", _Handler.refs),
    (rf"GET {_KIND}/{_NAME}(?:/revision/(.+))?", _Handler.model_info),
    (rf"GET {_KIND}/{_NAME}/tree/([0-9a-f]{{40}})/(.+)", _Handler.tree),
    (rf"GET {_KIND}/{_NAME}/tree/(.+)", _Handler.tree),
    (r"POST /api/collections", _Handler.create_collection),
    (r"POST /api/collections/(.+)/items", _Handler.add_to_collection),
    (rf"(?:HEAD|GET) /(?:datasets/)?{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
)
