"""A real PostgreSQL from the distribution's package, for one test session; it ends with the session, however that ends.

PostgreSQL refuses to run as root, so root starts it as the package's user `postgres`. A shell stands between: the
kernel tells it when its parent dies (also by SIGKILL), and it stops the server and removes the files.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from infra.processes import free_port, wait_for_port

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "16MB",
    "fsync": "off",  # nothing of it is to outlive the test
    "full_page_writes": "off",
    "synchronous_commit": "off",
}
_KEEPER = """
"$1"/postgres -D "$2"/data -p "$3" $4 >"$2"/log 2>&1 &
server=$!
stop() { kill -QUIT "$server"; wait "$server"; rm -rf "$2"; exit 0; }
trap 'stop "$@"' TERM
wait "$server"
"""


class Postgres:
    """A server on the loopback address; `database` makes a database of its own for a test."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self._names = itertools.count(1)

    def url(self, database: str) -> str:
        return f"postgresql+pg8000://segfoundry@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> None:
        """A statement outside of a transaction."""
        engine = sa.create_engine(self.url(database), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(statement))
        engine.dispose()

    def database(self, template: str = "template1") -> str:
        """A new database like `template`, which nobody may be connected to; its URL."""
        name = f"test_{next(self._names)}"
        self.run(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{template}'")
        self.run(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self.url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected: MLflow keeps its connections."""
        self.run(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")


def binaries() -> Path:
    """Where initdb and postgres are; skips the test where the package is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    beside = shutil.which("initdb")
    if not found and not beside:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql): the same tests run on sqlite")
    return found[-1].parent if found else Path(str(beside)).resolve().parent


@contextmanager
def postgres() -> Iterator[Postgres]:
    tools = binaries()
    root = os.geteuid() == 0
    drop = ["--reuid", "postgres", "--regid", "postgres", "--clear-groups"] if root else []
    folder = Path(tempfile.mkdtemp(prefix="segfoundry-postgres-"))
    if root:
        shutil.chown(folder, "postgres", "postgres")
    initdb = [str(tools / "initdb"), "-D", str(folder / "data"), "-A", "trust", "-U", "segfoundry", "--no-sync",
              "-E", "UTF8", "--locale=C"]  # fmt: skip
    subprocess.run(["setpriv", *drop, *initdb], check=True, capture_output=True, cwd="/")
    port = free_port()
    options = " ".join(f"-c {name}={value}" for name, value in _OPTIONS.items())
    keeper = ["setpriv", *drop, "--pdeathsig", "TERM", "sh", "-c", _KEEPER, "postgres", str(tools), str(folder),
              str(port), options]  # fmt: skip
    process = subprocess.Popen(keeper, cwd="/", stdin=subprocess.DEVNULL)
    try:
        if not wait_for_port(port, psutil.Process(process.pid), timeout_s=30):
            pytest.fail(f"PostgreSQL did not start: {(folder / 'log').read_text()[-2000:]}")
        yield Postgres(port, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)
