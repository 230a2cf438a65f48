"""`segfoundry doctor`: does each dependency really work here?"""

from __future__ import annotations

from dataclasses import asdict

from pipelines.cli.output import JsonOption, WorkspaceOption, found_failure, logs, show, table


def doctor(workspace: WorkspaceOption = None, as_json: JsonOption = False) -> None:
    """Start every service, run a task on it, look at disk, memory, GPU and mirror; say what to do where it fails.

    Takes about half a minute. Exit code 1 where something fails.
    """
    from infra.settings import resolve_workspace
    from pipelines import doctor as checks

    found = []
    for finding in checks.run_all(resolve_workspace(workspace, "demo")):
        logs().print(f"{finding.check}: {finding.status} ({finding.seconds:.1f} s)")
        found.append(finding)
    failing = [finding for finding in found if finding.status == "fails"]
    if failing:
        found_failure()
    rows = [[one.status, one.check, one.found, one.fix] for one in found]
    verdict = f"{len(failing)} of {len(found)} checks fail" if failing else f"all {len(found)} checks hold"
    show(
        {"ok": not failing, "checks": [asdict(one) for one in found]},
        table("", ["", "check", "found", "what to do"], rows),
        verdict,
    )
