"""The PostgreSQL of the tests leaves nothing behind, also when the tests are killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil

from tests.postgres import binaries

SCRIPT = """
import time
from tests.postgres import postgres
with postgres() as server:
    print(server.pid, server.port, flush=True)
    time.sleep(60)
"""


def test_a_server_whose_tests_were_killed_ends_and_its_files_go() -> None:
    binaries()
    here = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert here.stdout is not None
    try:
        pid, port = map(int, here.stdout.readline().split())
        keeper = psutil.Process(pid)
        family = [keeper, *keeper.children(recursive=True)]
        folder = Path(next(one.cmdline()[2] for one in family if one.name() == "postgres" and "-D" in one.cmdline()))
        assert folder.is_dir()
        assert str(port) in " ".join(keeper.cmdline())
    finally:
        here.kill()
        here.wait()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []
    deadline = time.monotonic() + 10
    while folder.parent.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not folder.parent.exists()
