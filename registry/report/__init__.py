"""The report: one self-contained HTML page about a model, for clinicians and engineers.

No network: styles, script, charts and pictures are in the file, so that it can be mailed, printed and opened years
later. The script sorts tables and nothing else; without it the page says the same.
"""

from __future__ import annotations

from registry.report.page import write_report
from registry.report.provenance import gate_rows, licence_rows, lineage_rows
from registry.report.words import duration, number

__all__ = ["duration", "gate_rows", "licence_rows", "lineage_rows", "number", "write_report"]
