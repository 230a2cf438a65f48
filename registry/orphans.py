"""What in MLflow belongs to nothing: runs without a version, logged models without a run, versions without a run."""

from __future__ import annotations

from registry.store import COMPLETE, EXPERIMENT, RegistryStore
from registry.tracking import all_pages


def orphans(store: RegistryStore, name: str) -> list[str]:
    """One sentence for each; a run that is registering at this moment would be one too, so ask between runs."""
    from mlflow.exceptions import MlflowException

    client = store.client
    versions = store.versions(name)
    by_run = {one.run_id: one.version for one in versions}
    found = []
    experiment = client.get_experiment_by_name(f"{EXPERIMENT}/{name}")
    if experiment is not None:
        for run in all_pages(client.search_runs, [experiment.experiment_id]):
            if run.info.run_id not in by_run:
                said = "was cut off before its version" if run.data.tags.get(COMPLETE) != "true" else "has no version"
                found.append(f"MLflow run {run.info.run_id}: {said}; the next release of its candidate deletes it")
        for model in all_pages(client.search_logged_models, [experiment.experiment_id]):
            if model.source_run_id not in by_run:
                found.append(f"MLflow model {model.model_id}: expected a version that names it, found none")
    for one in versions:
        try:
            client.get_run(one.run_id)
        except MlflowException:
            found.append(f"model {name} version {one.version}: expected its run {one.run_id}, found none")
    return found
