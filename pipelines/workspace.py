"""Where things lie in a workspace. The table is in `docs/architecture.md`."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.dvc import STATE_FOLDER, DataRepo, prepare_workspace
from infra.errors import DataError, UsageError
from infra.params import Params, check_params, load_params
from infra.settings import Settings, tracking_uri
from infra.storage import read_json, write_json
from preprocessing.withdrawn import TOMBSTONES_FILE

if TYPE_CHECKING:
    from preprocessing.cards import DatasetCard

PROJECT = Path(__file__).resolve().parents[1]
MODEL_NAME = "segfoundry-sam3"
# Groups are hashed with a secret of the user's; the public demo sets need none, and a fixed default
# keeps their manifests equal from one machine to the next. `segfoundry doctor` says so.
PUBLIC_PSEUDONYM_KEY = "segfoundry-public-demo"


@dataclass(frozen=True)
class Workspace:
    """A git + DVC repository that `segfoundry` prepares."""

    root: Path

    @classmethod
    def prepare(cls, root: Path, params: dict[str, Any] | None = None) -> Workspace:
        """Create or complete the workspace at `root`; `params` replaces its `params.yaml` where it differs."""
        make_folder(root)
        if params is not None:
            check_params(params, str(root / "params.yaml"))
        prepare_workspace(root, PROJECT, params)
        return cls(root)

    @classmethod
    def existing(cls, root: Path) -> Workspace:
        """The prepared workspace at `root`; `UsageError` where there is none."""
        if not (root / "dvc.yaml").is_file():
            msg = f"{root}: no workspace here (no dvc.yaml). `segfoundry demo` or `segfoundry data fetch` makes one."
            raise UsageError(msg)
        return cls(root)

    @property
    def state(self) -> Path:
        """Machine-local files, never versioned."""
        return self.root / STATE_FOLDER

    @property
    def temporary(self) -> Path:
        """Files on their way into the registry; each folder is named after its process."""
        return self.state / "tmp"

    @property
    def data(self) -> Path:
        """Dataset versions, one folder each."""
        return self.root / "data"

    @property
    def candidate(self) -> Path:
        """What the train stage makes."""
        return self.root / "models" / "candidate"

    @property
    def evaluation(self) -> Path:
        """What the evaluate stage makes."""
        return self.root / "evaluation"

    @property
    def reports(self) -> Path:
        """HTML reports, one a model version."""
        return self.root / "reports"

    @property
    def tracking_uri(self) -> str:
        """Where MLflow writes for this workspace."""
        return tracking_uri(self.root)

    @property
    def artifact_root(self) -> Path:
        """MLflow artifacts where the store is the default one."""
        return self.root / "mlartifacts"

    @property
    def repo(self) -> DataRepo:
        """The DVC side."""
        return DataRepo(self.root)

    def params(self) -> Params:
        """The checked `params.yaml`."""
        return load_params(self.root / "params.yaml")

    def inventory(self, dataset: str) -> Path:
        """The raw files of a dataset."""
        return self.root / "sources" / f"{dataset}.jsonl"

    def recipe(self, name: str) -> Path:
        """The recipe of a dataset, or of `train` and `evaluate`."""
        return self.root / "recipes" / f"{name}.json"

    @property
    def cards(self) -> Path:
        """The workspace's own cards, `cards/<dataset>.yaml`."""
        return self.root / "cards"

    def card(self, name: str) -> DatasetCard:
        """The card of a dataset, the workspace's own or a built-in one; `UsageError` with near names otherwise."""
        from preprocessing.cards import load_card

        return load_card(name, self.cards)

    @property
    def tombstones(self) -> Path:
        """Cases that must stay out of every later build; in git."""
        return self.root / TOMBSTONES_FILE

    def roots(self) -> dict[str, dict[str, str]]:
        """Dataset -> where its raw files are on this machine: kind, path, reason."""
        path = self.state / "roots.json"
        value: dict[str, dict[str, str]] = read_json(path) if path.is_file() else {}
        return value

    def root_of(self, dataset: str) -> dict[str, str]:
        """One entry of `roots`; `DataError` that says how to get it where it is not known."""
        found = self.roots().get(dataset)
        if found is None or not Path(found["path"]).is_dir():
            where = f"folder {found['path']}" if found else "no folder recorded"
            msg = (
                f"{dataset}: expected its raw files, found {where}. Say where they are with --root, or "
                f"set SEGFOUNDRY_MIRROR to the folder that holds {dataset}/ and run: segfoundry data fetch {dataset}"
            )
            raise DataError(msg)
        return found

    def note_seconds(self, name: str, seconds: float) -> None:
        """Remember how long a phase or stage took, for the table of the demo."""
        path = self.state / "timings.json"
        known: dict[str, float] = read_json(path) if path.is_file() else {}
        write_json(path, known | {name: round(seconds, 3)})

    def seconds(self) -> dict[str, float]:
        """Latest duration of each phase or stage, in seconds."""
        path = self.state / "timings.json"
        value: dict[str, float] = read_json(path) if path.is_file() else {}
        return value


def make_folder(root: Path) -> None:
    """Make the folder of a workspace and prove that it can be written; `UsageError` where it cannot."""
    state = Workspace(root).state
    try:
        if root.exists() and not root.is_dir():
            msg = f"{root}: expected a folder for the workspace, found a file. Give another --workspace."
            raise UsageError(msg)
        state.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=state):  # a disk that is full or mounted read-only shows here
            pass
    except OSError as error:
        msg = f"{root}: expected a folder that can be written, found: {error.strerror}. Give another --workspace."
        raise UsageError(msg) from error


def pseudonym_key(settings: Settings) -> bytes:
    """The secret that group identifiers are hashed with."""
    return (settings.pseudonym_key or PUBLIC_PSEUDONYM_KEY).encode()
