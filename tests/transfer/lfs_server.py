"""A real LFS server (giftless) with passwords, git over HTTP at the same addresses, and faults on demand.

A program of its own: ``python lfs_server.py FOLDER USER PASSWORD`` serves ``http://127.0.0.1:PORT/<group>/<name>.git``
and prints the port. git repositories lie in ``FOLDER/git``, objects in ``FOLDER/lfs``. ``POST /faults`` takes a list of
faults, ``GET /requests`` tells what was asked since the last call.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

from flask import Request
from giftless.app import init_app
from giftless.auth.identity import DefaultIdentity, Permission
from werkzeug.serving import make_server
from werkzeug.wrappers import Request as PlainRequest
from werkzeug.wrappers import Response

USER, PASSWORD = sys.argv[2:4]

Start = Callable[..., Any]
Application = Callable[[dict[str, Any], Start], Iterable[bytes]]


def authenticate(request: Request) -> DefaultIdentity | None:
    """Who asks, for giftless."""
    given = request.authorization
    if given is None or given.type != "basic" or (given.username, given.password) != (USER, PASSWORD):
        return None
    identity = DefaultIdentity(name=USER, id=USER)
    identity.allow(permissions=Permission.all())
    return identity


class GitOverHttp:
    """``git http-backend`` for what is not about LFS."""

    def __init__(self, folder: Path, behind: Application) -> None:
        self._folder = folder
        self._behind = behind

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Answer one request."""
        path = environ["PATH_INFO"]
        if "/info/lfs" in path or ".git/" not in path:
            return self._behind(environ, start)
        request = PlainRequest(environ)
        given = request.authorization
        if given is None or (given.username, given.password) != (USER, PASSWORD):
            response = Response("who are you?", 401, {"WWW-Authenticate": 'Basic realm="git"'})
            return response(environ, start)
        cgi = {
            **{key: value for key, value in environ.items() if isinstance(value, str)},
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self._folder),
            "GIT_HTTP_EXPORT_ALL": "1",
            "REMOTE_USER": USER,
        }
        body = request.get_data()
        cgi["CONTENT_LENGTH"] = str(len(body))
        done = subprocess.run(["git", "http-backend"], env=cgi, input=body, capture_output=True, check=False)
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = [tuple(line.split(": ", 1)) for line in head.decode("latin-1").split("\r\n") if ": " in line]
        status = next((int(value.split()[0]) for key, value in headers if key == "Status"), 200)
        return Response(content, status, [h for h in headers if h[0] != "Status"])(environ, start)


class Faults:
    """Does to requests what it was told: each fault has ``kind``, ``method``, ``path`` (a pattern) and ``count``."""

    def __init__(self, behind: Application) -> None:
        self._behind = behind
        self._lock = threading.Lock()
        self._faults: list[dict[str, Any]] = []
        self._requests: list[str] = []

    def __call__(self, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        """Answer one request."""
        request = PlainRequest(environ)
        if request.path == "/faults":
            with self._lock:
                self._faults = json.loads(request.get_data())
            return Response("")(environ, start)
        if request.path == "/requests":
            with self._lock:
                told, self._requests = self._requests, []
            return Response(json.dumps(told), mimetype="application/json")(environ, start)
        fault = self._next(request)
        if fault is None:
            return self._behind(environ, start)
        if fault["kind"] == "status":
            request.get_data()
            return Response(json.dumps({"message": HTTPStatus(fault["code"]).phrase}), fault["code"])(environ, start)
        if fault["kind"] == "discard":  # says yes and keeps nothing
            request.get_data()
            return Response("")(environ, start)
        if fault["kind"] == "drop":  # in the middle of what the client sends, or before the answer
            request.stream.read(fault.get("after", 0))
            return self._hang_up(environ)
        if fault["kind"] == "drop answer":
            return self._half(self._behind(environ, start), environ)
        return self._altered(self._behind(environ, start))

    def _next(self, request: PlainRequest) -> dict[str, Any] | None:
        with self._lock:
            self._requests.append(f"{request.method} {request.path}")
            for fault in self._faults:
                if fault["method"] == request.method and re.search(fault["path"], request.path) and fault["count"]:
                    fault["count"] -= 1
                    return fault
        return None

    @staticmethod
    def _hang_up(environ: dict[str, Any]) -> Iterable[bytes]:
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        return []

    def _half(self, answer: Iterable[bytes], environ: dict[str, Any]) -> Iterator[bytes]:
        content = b"".join(answer)
        yield content[: len(content) // 2]
        self._hang_up(environ)

    @staticmethod
    def _altered(answer: Iterable[bytes]) -> Iterator[bytes]:
        content = bytearray(b"".join(answer))
        content[len(content) // 2] ^= 1
        yield bytes(content)


def main(folder: Path) -> None:
    """Serve until the process is ended."""
    app = init_app(
        additional_config={
            "AUTH_PROVIDERS": ["__main__:authenticate"],
            "LEGACY_ENDPOINTS": False,
            "PRE_AUTHORIZED_ACTION_PROVIDER": {"options": {"private_key": "only for these tests, " * 2}},
            "TRANSFER_ADAPTERS": {"basic": {"options": {"storage_options": {"path": str(folder / "lfs")}}}},
        }
    )
    app.wsgi_app = Faults(GitOverHttp(folder / "git", app.wsgi_app))  # type: ignore[method-assign, assignment]
    server = make_server("127.0.0.1", 0, app, threaded=True)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
