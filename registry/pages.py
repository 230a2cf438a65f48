"""The one way in which HTML pages are made from templates of this folder."""

from __future__ import annotations

from typing import Any


def environment() -> Any:
    """A Jinja environment: everything is escaped, and a name that a template misspells is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("registry"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
