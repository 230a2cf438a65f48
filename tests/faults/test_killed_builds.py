"""A build is killed at one of its side effects, or the disk is full or read-only: the next build is as if nothing was.

The child process counts its own side effects below the folders that it writes, by Python's audit events (files opened
for writing, renames, removals, new folders), and ends itself by SIGKILL just before the one that is asked for.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from infra.storage import TEMPORARY_SUFFIX
from preprocessing import schema
from tests.preprocessing.test_build import FLAT, build, contents, draw

MOMENTS = 12  # spread evenly over all side effects; SEGFOUNDRY_SOAK=1: every one
CASES = 6

CHILD = """
import os, signal, sys
from pathlib import Path
base, root, out, cache, moment = *map(Path, sys.argv[1:5]), int(sys.argv[5])
sys.path.insert(0, str(base))
from tests.preprocessing.test_build import FLAT, build
import infra.storage, preprocessing.near, preprocessing.card_pictures  # imports write no files of ours
mine = (str(out), str(cache))
seen = 0

def hook(event, arguments):
    global seen
    if event == "open":
        path, mode, flags = arguments
        touches = isinstance(path, str) and path.startswith(mine) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    elif event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"):
        touches = str(arguments[0]).startswith(mine)
    else:
        return
    if touches:
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
build(FLAT, root, out, cache)
print(seen)
"""


def run(root: Path, home: Path, moment: int, code: str = CHILD) -> subprocess.CompletedProcess[str]:
    project = Path(__file__).resolve().parents[2]
    arguments = [str(project), str(root), str(home / "out"), str(home / "cache"), str(moment)]
    environment = {**os.environ, "PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True, text=True, timeout=120, env=environment, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("raw")
    for index in range(CASES):
        draw(root, f"case{index:02d}", index)
    return root


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """What an undisturbed build writes, and the number of its side effects."""
    home = tmp_path_factory.mktemp("whole")
    done = run(raw, home, 0)
    assert done.returncode == 0, done.stderr
    return contents(home / "out"), int(done.stdout.split()[-1])


def moments(count: int) -> list[int]:
    if os.environ.get("SEGFOUNDRY_SOAK"):
        return list(range(1, count + 1))
    return [1 + round(step * (count - 1) / (MOMENTS - 1)) for step in range(MOMENTS)]


def test_killed_at_any_side_effect_the_next_build_is_the_same(
    raw: Path, whole: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    expected, count = whole
    chosen = moments(count)
    assert len(set(chosen)) >= MOMENTS
    for moment in chosen:
        home = tmp_path / str(moment)
        done = run(raw, home, moment)
        assert done.returncode == -signal.SIGKILL, (moment, done.stderr)
        out = home / "out"
        half = contents(out) if out.is_dir() else {}
        # a version without its last file is none; with it, it is whole
        assert schema.DATASET_FILE not in half or half == expected, moment
        build(FLAT, raw, out, home / "cache")
        assert contents(out) == expected, moment
        assert not [path for path in home.rglob("*") if TEMPORARY_SUFFIX in path.name], moment


def test_a_killed_rebuild_never_leaves_an_old_version_as_if_it_were_new(
    raw: Path, whole: tuple[dict[str, bytes], int], tmp_path: Path
) -> None:
    """One more case than before: whatever the moment, the old `dataset.json` does not vouch for new shards."""
    expected, _ = whole
    less = tmp_path / "less"
    shutil.copytree(raw, less)
    for folder in ("images", "masks"):
        (less / folder / "case05.png").unlink()
    first = tmp_path / "first"
    build(FLAT, less, first / "out", first / "cache")
    older = contents(first / "out")
    shutil.copytree(first, tmp_path / "counted")
    count = int(run(raw, tmp_path / "counted", 0).stdout.split()[-1])
    for moment in moments(count):
        home = tmp_path / f"again{moment}"
        shutil.copytree(first, home)
        assert run(raw, home, moment).returncode == -signal.SIGKILL, moment
        half = contents(home / "out")
        assert schema.DATASET_FILE not in half or half in (older, expected), moment
        build(FLAT, raw, home / "out", home / "cache")
        assert contents(home / "out") == expected, moment


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
limit = int(sys.argv[5])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.preprocessing.test_build import FLAT, build
try:
    build(FLAT, Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
except OSError as error:
    print(error.errno)
    sys.exit(3)
"""


@pytest.mark.parametrize("limit", [1_000, 5_000, 12_000])
def test_where_a_file_cannot_grow_nothing_half_stays(
    raw: Path, whole: tuple[dict[str, bytes], int], tmp_path: Path, limit: int
) -> None:
    """The kernel stops a file at `limit` bytes: entries of the cache, a shard, the card, by its size."""
    done = run(raw, tmp_path, limit, FULL)
    assert done.returncode == 3, done.stderr
    assert int(done.stdout) == errno.EFBIG
    assert not (tmp_path / "out" / schema.DATASET_FILE).exists()
    build(FLAT, raw, tmp_path / "out", tmp_path / "cache")
    assert contents(tmp_path / "out") == whole[0]
    assert not [path for path in tmp_path.rglob("*") if TEMPORARY_SUFFIX in path.name]


def _mounts() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], check=False).returncode == 0


@pytest.mark.skipif(not _mounts(), reason="this machine lets nobody mount a small disk of their own (unshare -rm)")
@pytest.mark.parametrize(
    ("options", "said"), [("size=64k", "No space left on device"), ("ro,size=10m", "Read-only file system")]
)
def test_the_command_line_says_that_the_disk_is_full_or_read_only(options: str, said: str) -> None:
    """A real small file system: one message that names a file and what to do, no traceback, nothing of ours left."""
    command = (
        f"mount -t tmpfs -o {options} none /mnt && "
        f"{sys.executable} -m pipelines data fetch Phantom_Nuclei --workspace /mnt/workspace; "
        "code=$?; find /mnt -name '*part-tmp*'; exit $code"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert "workspace: " in done.stderr
    assert "run again" in done.stderr or "Give another --workspace" in done.stderr
    assert "Traceback" not in done.stderr
    assert "part-tmp" not in done.stdout


def test_limits_are_the_childs_alone() -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
