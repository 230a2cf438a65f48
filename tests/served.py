"""A folder behind a real web server of this machine that may be slow, refuse or break off."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BLOCK_BYTES = 1 << 14


class Served(http.server.ThreadingHTTPServer):
    """Serves `folder`; `asked` counts the GETs of each file; the switches say how it misbehaves."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), functools.partial(_Handler, directory=str(folder)))
        self.folder = folder
        self.asked: Counter[str] = Counter()
        self.refusals = 0  # answers of 503 to give first
        self.pause_s = 0.0  # before each block

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is the point of a test, not a line in its output."""


class _Handler(http.server.SimpleHTTPRequestHandler):
    server: Served

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""

    def do_GET(self) -> None:
        self.server.asked[self.path.rsplit("/", 1)[-1]] += 1
        if self.server.refusals:
            self.server.refusals -= 1
            self.send_error(503)
            return
        super().do_GET()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        while block := source.read(BLOCK_BYTES):
            time.sleep(self.server.pause_s)
            outputfile.write(block)


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    server = Served(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
