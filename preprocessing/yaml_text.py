"""YAML as text that nobody trusts: plain values with line numbers, and nothing that runs, refers or explodes.

Scalars mean what YAML 1.2 says: `no`, `on` and `2024-05-01` are texts, `true` is a truth value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from infra.errors import UsageError

__all__ = ["MappingNode", "Node", "ScalarNode", "SequenceNode", "compose", "describe", "scalar"]

MAX_BYTES = 256 << 10
MAX_DEPTH = 12
MAX_NODES = 20_000
_RESOLVERS: tuple[tuple[str, str, str], ...] = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15})$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
    ("float", r"^[-+]?(?:\.inf|\.Inf|\.INF)$|^(?:\.nan|\.NaN|\.NAN)$", "-+."),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the core schema of YAML 1.2."""


_Loader.yaml_implicit_resolvers = {}
for _name, _expression, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(_expression), [*_first])
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^$"), [""])


def compose(path: Path) -> Node:
    """The one document of `path` as nodes, whose marks know their lines.

    UsageError for what is missing, too large, not UTF-8, not YAML, more than one document, or uses
    anchors, aliases or tags.
    """
    if not path.is_file():
        raise UsageError(f"{path}: expected a card, found no such file. `segfoundry data new-card` proposes one")
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise UsageError(f"{path}: expected a card of at most {MAX_BYTES} bytes, found {size}. Is it the right file?")
    try:
        text = path.read_text(encoding="utf-8-sig")
        _check_events(path, text)
        node = yaml.compose(text, Loader=_Loader)
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path}: expected text in UTF-8, found other bytes at {error.start}. Save it again"
        ) from error
    except yaml.YAMLError as error:
        raise UsageError(_not_yaml(path, error)) from error
    if node is None:
        raise UsageError(f"{path}: expected a card, found an empty file. `segfoundry data new-card` proposes one")
    return node


def scalar(node: ScalarNode) -> str | int | float | bool | None:
    """The value of a scalar, by its tag."""
    kind = node.tag.rpartition(":")[2]
    text = str(node.value)
    whole: Callable[[str], int] = lambda digits: int(digits, 0 if digits[:2] in ("0x", "0o") else 10)  # noqa: E731
    readers: dict[str, Callable[[str], Any]] = {
        "bool": lambda word: word.lower() == "true",
        "int": whole,
        "float": lambda number: float(number.replace(".inf", "inf").replace(".nan", "nan").lower()),
        "null": lambda _: None,
    }
    value: str | int | float | bool | None = readers.get(kind, str)(text)
    return value


def describe(node: Node) -> str:
    """What a node is, for a message."""
    if isinstance(node, MappingNode):
        keys = [str(key.value) for key, _ in node.value[:4] if isinstance(key, ScalarNode)]
        return f"a mapping ({', '.join(keys)})" if keys else "an empty mapping"
    if isinstance(node, SequenceNode):
        return f"a list of {len(node.value)}"
    value = scalar(node) if isinstance(node, ScalarNode) else None
    if value is None:
        return "nothing"
    kind = {bool: "the truth value", int: "the number", float: "the number", str: "the text"}[type(value)]
    return f"{kind} {str(node.value)[:80]!r}" if isinstance(value, str) else f"{kind} {node.value[:80]}"


def _check_events(path: Path, text: str) -> None:
    """Judge the stream before a tree is made of it: aliases multiply, nesting recurses."""
    depth = documents = 0
    events: Iterator[Any] = yaml.parse(text, Loader=_Loader)
    for count, event in enumerate(events):
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UsageError(f"{path}:{line}: expected plain YAML, found an anchor or alias. Write the value again")
        if getattr(event, "tag", None):
            raise UsageError(f"{path}:{line}: expected plain YAML, found the tag {event.tag}. Remove it")
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
        elif isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if documents > 1:
            raise UsageError(f"{path}:{line}: expected one card, found a second document (---). One card a file")
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise UsageError(f"{path}:{line}: expected a card, found YAML that is nested or repeated without end")


def _not_yaml(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark is not None else ""
    problem = getattr(error, "problem", None) or " ".join(str(error).split())
    fix = "Put texts that hold : # { } [ ] or * in single quotes, and indent with spaces"
    return f"{path}{line}: expected YAML, found: {problem}. {fix}"
