"""A Git LFS server without frills: what it costs little, a client cannot hide behind.

``python lfs_store.py FOLDER`` serves any path on 127.0.0.1 and prints its port. It answers batches, takes and hands
out objects, checks nothing and asks for no password. ``GET /uploads`` tells how many objects came since the last call.
"""

from __future__ import annotations

import json
import shutil
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Handler(BaseHTTPRequestHandler):
    """One connection, kept open."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    folder: Path
    uploads = 0

    def do_POST(self) -> None:
        """Answer a batch."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        port = self.server.server_address[1]
        objects = []
        for item in asked["objects"]:
            answer = {"oid": item["oid"], "size": item["size"]}
            there = (self.folder / item["oid"]).exists()
            if there == (asked["operation"] == "download"):
                href = f"http://127.0.0.1:{port}/objects/{item['oid']}"
                answer["actions"] = {asked["operation"]: {"href": href}}
            elif not there:
                answer["error"] = {"code": 404, "message": "Object does not exist"}
            objects.append(answer)
        self._send(json.dumps({"transfer": "basic", "objects": objects}).encode())

    def do_PUT(self) -> None:
        """Take an object."""
        oid = self.path.rpartition("/")[2]
        left = int(self.headers["Content-Length"])
        with open(self.folder / f"{oid}.part", "wb") as file:
            while left:
                left -= file.write(self.rfile.read(min(left, 2**20)))
        (self.folder / f"{oid}.part").rename(self.folder / oid)
        Handler.uploads += 1
        self._send(b"")

    def do_GET(self) -> None:
        """Hand out an object, or the number of uploads."""
        if self.path == "/uploads":
            self._send(str(Handler.uploads).encode())
            Handler.uploads = 0
            return
        path = self.folder / self.path.rpartition("/")[2]
        self._head(path.stat().st_size)
        with open(path, "rb") as file:
            shutil.copyfileobj(file, self.wfile, 2**20)

    def _head(self, nbytes: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.git-lfs+json")
        self.send_header("Content-Length", str(nbytes))
        self.end_headers()

    def _send(self, content: bytes) -> None:
        self._head(len(content))
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of the base class
        """Say nothing."""


def main(folder: Path) -> None:
    """Serve until the process is ended."""
    folder.mkdir(parents=True, exist_ok=True)
    Handler.folder = folder
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        print(server.server_port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
