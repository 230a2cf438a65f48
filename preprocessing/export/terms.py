"""The terms under which data were given, as a file that travels with every export."""

from __future__ import annotations

from typing import Any

LICENCE_FILE = "LICENCE.txt"


def terms(report: dict[str, Any]) -> str:
    """Licence, citation and identity of a dataset version, from its `dataset.json`."""
    licence = report["licence"]
    name = f" (SPDX: {licence['spdx']})" if licence.get("spdx") else ""
    return "\n".join(
        [
            f"{report['title']} ({report['dataset']})",
            "",
            f"Terms: {licence.get('terms', 'none stated')}{name}",
            f"Redistribution: {licence.get('redistribution', 'unknown')}",
            f"Commercial use: {licence.get('commercial', 'unknown')}",
            f"Please cite: {report['citation']}",
            "",
            "Exported by Segfoundry from the dataset version",
            f"manifest {report['manifest_digest']}",
            f"recipe   {report['recipe_sha256']}",
            "These terms hold for every file of this folder.",
            "",
        ]
    )
