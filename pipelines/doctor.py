"""Does each dependency really work here? Every check does the thing itself, and says what to do where it fails."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.dvc import DataRepo, free_disk_bytes, prepare_workspace
from infra.errors import SegfoundryError
from infra.settings import load_settings

MIN_FREE_DISK = 5 * 10**9
MIN_MEMORY = 6 * 2**30


@dataclass(frozen=True)
class Finding:
    """One check: `status` is "ok", "note" (works, worth knowing) or "fails"."""

    check: str
    status: str
    found: str
    fix: str = ""
    seconds: float = 0.0


def run_all(workspace: Path) -> Iterator[Finding]:
    """Run every check, one after the other."""
    checks: list[tuple[str, Callable[[Path], Finding]]] = [
        ("Python", _python),
        ("disk", _disk),
        ("memory", _memory),
        ("GPU", _gpu),
        ("git and DVC", _git_dvc),
        ("Ray", _ray),
        ("Prefect server", _prefect),
        ("MLflow on sqlite", _mlflow),
        ("mirror", _mirror),
        ("pseudonyms", _pseudonyms),
    ]
    for name, check in checks:
        started = time.monotonic()
        try:
            found = check(workspace)
        except (SegfoundryError, OSError, ImportError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            found = Finding(name, "fails", f"{type(error).__name__}: {error}", "Install again: make clean demo")
        yield Finding(name, found.status, found.found, found.fix, round(time.monotonic() - started, 2))


def _python(_: Path) -> Finding:
    version = platform.python_version()
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    return Finding(
        "", "ok" if good else "fails", f"{version} in {sys.prefix}", "" if good else "Use Python 3.11 or 3.12."
    )


def _disk(workspace: Path) -> Finding:
    free = free_disk_bytes(workspace)
    said = f"{free / 1e9:.1f} GB free for {workspace}"
    return (
        Finding("", "ok", said)
        if free >= MIN_FREE_DISK
        else Finding("", "fails", said, "Free 5 GB or use --workspace.")
    )


def _memory(_: Path) -> Finding:
    available = psutil.virtual_memory().available
    said = f"{available / 2**30:.1f} GiB available, {os.cpu_count()} CPUs"
    if available >= MIN_MEMORY:
        return Finding("", "ok", said)
    return Finding("", "note", said, "The demo takes up to 6 GiB: close something, or train with fewer workers.")


def _gpu(_: Path) -> Finding:
    # In a process of its own: a broken driver can end it, and CUDA's memory goes with it.
    names = "[torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]"
    code = f"import torch; print(torch.__version__, {names})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return Finding(
            "", "fails", lines[-1] if lines else f"exit {done.returncode}", "Install torch again: make clean demo"
        )
    if "[]" in done.stdout:
        return Finding("", "note", f"none seen by torch {done.stdout.split()[0]}", "The tiny model trains on the CPU.")
    return Finding("", "ok", done.stdout.strip())


def _git_dvc(_: Path) -> Finding:
    from pipelines.workspace import PROJECT

    with tempfile.TemporaryDirectory(prefix="sf-doctor-") as folder:
        root = Path(folder)
        prepare_workspace(root, PROJECT)
        stages = DataRepo(root).plan()
    git = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    return Finding("", "ok", f"git {git}, a workspace with {len(stages)} stages can be prepared")


def _double(value: int) -> int:
    return 2 * value


def _ray(_: Path) -> Finding:
    from infra.compute import cluster_resources, ray_map, ray_session

    with tempfile.TemporaryDirectory(prefix="sf-doctor-") as folder, ray_session(Path(folder)):
        values = sorted(ray_map(_double, range(4)))
        resources = cluster_resources()
    if values != [0, 2, 4, 6]:
        return Finding("", "fails", f"wrong results: {values}", "Report this with `segfoundry doctor --json`.")
    return Finding(
        "",
        "ok",
        f"a head started and ran 4 tasks: {resources.get('CPU', 0):.0f} CPUs, {resources.get('GPU', 0):.0f} GPUs",
    )


def _prefect(_: Path) -> Finding:
    from infra import services

    with tempfile.TemporaryDirectory(prefix="sf-doctor-") as folder:
        state = Path(folder)
        try:
            running = services.up(state, [services.prefect_service(state / "prefect")])
        finally:
            services.down(state)
    return Finding("", "ok", f"a server started at {running['prefect']['url']} and was ended")


def _mlflow(_: Path) -> Finding:
    from registry.store import RegistryStore

    with tempfile.TemporaryDirectory(prefix="sf-doctor-") as folder:
        store = RegistryStore(f"sqlite:///{folder}/mlflow.db", Path(folder) / "artifacts")
        versions = store.versions("doctor")
    return Finding("", "ok", f"a database was made and asked: {len(versions)} versions")


def _mirror(_: Path) -> Finding:
    from infra.remote import is_remote, list_folders

    mirror = load_settings().mirror
    if not mirror:
        fix = "export SEGFOUNDRY_MIRROR=<folder or URL with one folder per dataset>"
        return Finding("", "note", "none is set: official addresses, else phantoms", fix)
    if is_remote(mirror):
        return Finding("", "ok", f"{len(list_folders(mirror))} folders at {mirror}")
    root = Path(mirror.removeprefix("file://"))
    if not root.is_dir():
        return Finding("", "fails", f"no folder {mirror}", "Correct SEGFOUNDRY_MIRROR or unset it.")
    unreadable = [each.name for each in root.iterdir() if not os.access(each, os.R_OK)]
    if unreadable:
        return Finding("", "fails", f"cannot read {', '.join(unreadable)} in {mirror}", "Correct the permissions.")
    return Finding("", "ok", f"{sum(each.is_dir() for each in root.iterdir())} folders in {mirror}")


def _pseudonyms(_: Path) -> Finding:
    if load_settings().pseudonym_key:
        return Finding("", "ok", "a key is set")
    fix = "For patient data: export SEGFOUNDRY_PSEUDONYM_KEY=<a long secret>, and keep it."
    return Finding("", "note", "the public key of the demo is used", fix)
