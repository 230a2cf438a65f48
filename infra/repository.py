"""git of a workspace: the few commands it needs, and recovery after a kill."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import psutil

from infra.errors import ServiceError, UsageError

TAG_PREFIX = "data-v"


def git(root: Path, *arguments: str) -> str:
    """Run git in `root` and return its standard output; a failure is a `ServiceError` with git's words."""
    if shutil.which("git") is None:
        msg = "git is not installed; on Debian: apt-get install git"
        raise UsageError(msg)
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        msg = f"git {' '.join(arguments)} failed in {root}: {(done.stderr or done.stdout).strip()}"
        raise ServiceError(msg)
    return done.stdout.strip()


def prepare_git(root: Path) -> None:
    """Make `root` a git repository with its own identity, so that no global configuration is needed."""
    if not (root / ".git" / "HEAD").is_file():
        git(root, "init", "--quiet", "--initial-branch=main")
    for key, value in {
        "user.name": "Segfoundry",
        "user.email": "segfoundry@localhost",
        "commit.gpgsign": "false",
        "tag.gpgsign": "false",
        "gc.auto": "0",  # a gc in the background would outlive the run
    }.items():
        git(root, "config", "--local", key, value)


def remove_dead_locks(root: Path) -> list[str]:
    """Remove git's lock files when no git process works in `root`: then a killed one left them."""
    locks = sorted((root / ".git").rglob("*.lock")) if (root / ".git").is_dir() else []
    if not locks or _git_runs_in(root):
        return []
    for lock in locks:
        lock.unlink(missing_ok=True)
    return [str(lock.relative_to(root)) for lock in locks]


def _git_runs_in(root: Path) -> bool:
    for process in psutil.process_iter(["name", "cwd", "cmdline"]):
        if process.info["name"] != "git":
            continue
        command = " ".join(process.info["cmdline"] or [])
        if str(root) in command or (process.info["cwd"] or "").startswith(str(root)):
            return True
    return False


def commit_paths(root: Path, paths: list[str], message: str) -> str:
    """Commit the named paths (those that exist) and return the commit; nothing new makes no commit."""
    git(root, "add", "--all", "--", *[path for path in paths if (root / path).exists()])
    if git(root, "status", "--porcelain", "--untracked-files=no"):
        git(root, "commit", "--quiet", "--no-verify", "--message", message)
    return git(root, "rev-parse", "HEAD")


def data_tags(root: Path) -> list[str]:
    """All `data-v<N>` tags, oldest first."""
    found = git(root, "tag", "--list", f"{TAG_PREFIX}*").splitlines()
    return sorted(
        (tag for tag in found if tag[len(TAG_PREFIX) :].isdigit()), key=lambda tag: int(tag[len(TAG_PREFIX) :])
    )


def tag_message(root: Path, tag: str) -> str:
    """The message of an annotated tag."""
    return git(root, "tag", "--list", "--format=%(contents)", tag)


def next_tag(root: Path) -> str:
    """`data-v1`, or one above the newest."""
    tags = data_tags(root)
    return f"{TAG_PREFIX}{int(tags[-1][len(TAG_PREFIX) :]) + 1 if tags else 1}"
