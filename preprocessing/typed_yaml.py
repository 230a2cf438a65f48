"""Read YAML nodes into dataclasses by their type hints, strictly; every problem is kept, with its line and its fix.

A union of dataclasses is told apart by the key `kind`, the class's name. New fields and new classes are
read without a change here.
"""

from __future__ import annotations

import difflib
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from infra.errors import UsageError
from preprocessing.yaml_text import MappingNode, Node, ScalarNode, SequenceNode, describe, scalar

BAD: Any = object()  # stands for a value that could not be read; its problem is in the list
_HEX = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")
Part = Literal["text", "keys", "values"]  # of a field: the text itself, or those of a mapping
Converter = Callable[["Reader", str, Node, str], Any]


class Reader:
    """Reads one file; `problems` are complete messages, in the order of the file.

    `defaults`: (class, field) -> a default that the class itself does not have. `texts`: (class, field)
    -> which texts of that field are converted, and by what; a converter may keep a problem and return BAD.
    """

    def __init__(
        self,
        file: str,
        defaults: Mapping[tuple[str, str], Any],
        texts: Mapping[tuple[str, str], tuple[Part, Converter]],
    ) -> None:
        self.file = file
        self.problems: list[tuple[int, str]] = []
        self._defaults = defaults
        self._texts = texts

    def problem(self, node: Node | None, key: str, expected: str, found: str, fix: str = "") -> Any:
        """Keep a problem; returns BAD."""
        line = node.start_mark.line + 1 if node is not None else 0
        where = f"{self.file}:{line}" if line else self.file
        self.problems.append(
            (line, f"{where}: {key}: expected {expected}, found {found}" + (f". {fix}" if fix else ""))
        )
        return BAD

    def read(self, node: Node, hint: Any, key: str) -> Any:
        """The value of `node` as `hint` wants it, or BAD."""
        origin = get_origin(hint)
        if origin is Annotated:
            return self.read(node, get_args(hint)[0], key)
        if origin in (Union, types.UnionType):
            return self._union(node, get_args(hint), key)
        if origin is Literal:
            return self._literal(node, get_args(hint), key)
        if origin is tuple:
            return self._tuple(node, get_args(hint), key)
        if origin is not None and issubclass(origin, Mapping):
            return self._mapping(node, get_args(hint), key)
        if origin is not None and issubclass(origin, Iterable):
            items = self._items(node, get_args(hint)[0], key)
            return items if items is BAD else origin(items) if origin is not Sequence else tuple(items)
        if is_dataclass(hint) and isinstance(hint, type):
            return self.dataclass(node, hint, key)
        return self._scalar(node, hint, key)

    def dataclass(self, node: Node, cls: type[Any], key: str) -> Any:
        """An instance of `cls` from a mapping of its fields."""
        if not isinstance(node, MappingNode):
            return self.problem(node, key or cls.__name__, f"a mapping ({_field_names(cls)})", describe(node))
        hints = get_type_hints(cls, include_extras=True)
        given: dict[str, Any] = {}
        for name, key_node, value_node in self._pairs(node, key):
            where = f"{key}.{name}" if key else name
            if name == "kind" and "kind" not in hints:
                continue
            if name not in hints:
                near = difflib.get_close_matches(name, list(hints), n=2, cutoff=0.5)
                fix = f"Did you mean {' or '.join(near)}?" if near else f"Known: {_field_names(cls)}"
                given[name] = self.problem(key_node, where, "no such key", repr(name), fix)
            elif (cls.__name__, name) in self._texts:
                given[name] = self._with_texts(value_node, where, *self._texts[cls.__name__, name])
            else:
                given[name] = self.read(value_node, hints[name], where)
        for each in fields(cls):
            if each.name in given:
                continue
            if (cls.__name__, each.name) in self._defaults:
                given[each.name] = self._defaults[cls.__name__, each.name]
            elif _required(each):
                where = f"{key}.{each.name}" if key else each.name
                given[each.name] = self.problem(node, where, "this key", "nothing", f"{cls.__name__} needs it")
        if any(value is BAD for value in given.values()):
            return BAD
        try:
            return cls(**given)
        except (UsageError, ValueError) as wrong:  # what the class itself demands
            return self.problem(node, key or cls.__name__, "values that go together", str(wrong))

    def _with_texts(self, node: Node, key: str, part: Part, convert: Converter) -> Any:
        """A text, or a mapping of texts to texts, with `part` of it converted."""
        if part == "text":
            text = self._scalar(node, str, key)
            return BAD if text is BAD else convert(self, text, node, key)
        made: dict[Any, Any] = {}
        for name, key_node, value_node in self._pairs(node, key):
            where = f"{key}.{name}"
            value = self._scalar(value_node, str, where)
            if part == "keys":
                made[convert(self, name, key_node, where)] = value
            else:
                made[name] = BAD if value is BAD else convert(self, value, value_node, where)
        return BAD if BAD in made or any(value is BAD for value in made.values()) else made

    def _pairs(self, node: Node, key: str) -> list[tuple[str, Node, Node]]:
        """(name, key node, value node) of a mapping with names as keys, each once."""
        if not isinstance(node, MappingNode):
            self.problem(node, key, "a mapping", describe(node))
            return []
        found: dict[str, tuple[str, Node, Node]] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self.problem(key_node, key, "a name as key", describe(key_node))
                continue
            name = str(key_node.value)
            if name in found:
                self.problem(key_node, f"{key}.{name}" if key else name, "a key once", "the same key again")
            found[name] = (name, key_node, value_node)
        return list(found.values())

    def _union(self, node: Node, options: tuple[Any, ...], key: str) -> Any:
        if type(None) in options and isinstance(node, ScalarNode) and scalar(node) is None:
            return None
        rest = [option for option in options if option is not type(None)]
        if len(rest) == 1:
            return self.read(node, rest[0], key)
        if all(is_dataclass(option) for option in rest):
            return self._by_kind(node, {option.__name__: option for option in rest}, key)
        before = len(self.problems)
        for option in rest:
            value = self.read(node, option, key)
            if value is not BAD:
                del self.problems[before:]
                return value
        del self.problems[before + 1 :]
        return BAD

    def _by_kind(self, node: Node, classes: dict[str, type[Any]], key: str) -> Any:
        known = ", ".join(classes)
        if not isinstance(node, MappingNode):
            return self.problem(node, key, f"a mapping with kind: one of {known}", describe(node))
        kinds = [value for name, value in node.value if isinstance(name, ScalarNode) and name.value == "kind"]
        if not kinds or not isinstance(kinds[0], ScalarNode):
            return self.problem(node, f"{key}.kind", f"one of {known}", "nothing", "Say what kind of rule it is")
        said = str(kinds[0].value)
        plain = {_plain(name): cls for name, cls in classes.items()}
        if _plain(said) not in plain:
            near = difflib.get_close_matches(_plain(said), list(plain), n=2, cutoff=0.4)
            fix = f"Did you mean {' or '.join(plain[each].__name__ for each in near)}?" if near else ""
            return self.problem(kinds[0], f"{key}.kind", f"one of {known}", repr(said), fix)
        return self.dataclass(node, plain[_plain(said)], key)

    def _literal(self, node: Node, options: tuple[Any, ...], key: str) -> Any:
        value = scalar(node) if isinstance(node, ScalarNode) else BAD
        if value in options and not isinstance(value, bool):
            return value
        known = ", ".join(repr(option) if option == "" else str(option) for option in options)
        near = difflib.get_close_matches(str(value), [str(option) for option in options], n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]}?" if near else ""
        if isinstance(value, bool) and {"yes", "no"} <= set(options):
            fix = f"Write {'yes' if value else 'no'}"
        return self.problem(node, key, f"one of {known}", describe(node), fix)

    def _tuple(self, node: Node, options: tuple[Any, ...], key: str) -> Any:
        if len(options) == 2 and options[1] is Ellipsis:
            pair = get_args(options[0])
            if isinstance(node, MappingNode) and get_origin(options[0]) is tuple and len(pair) == 2:
                return self._pairs_of_values(node, pair, key)
            items = self._items(node, options[0], key)
            return items if items is BAD else tuple(items)
        if options == (int, int, int) and isinstance(node, ScalarNode) and (hexes := _HEX.fullmatch(str(node.value))):
            return tuple(int(part, 16) for part in hexes.groups())
        if not isinstance(node, SequenceNode) or len(node.value) != len(options):
            also = " or a colour such as '#00ff00'" if options == (int, int, int) else ""
            return self.problem(node, key, f"a list of {len(options)}{also}", describe(node))
        values = [
            self.read(item, option, f"{key}[{index}]")
            for index, (item, option) in enumerate(zip(node.value, options, strict=True))
        ]
        return BAD if any(value is BAD for value in values) else tuple(values)

    def _pairs_of_values(self, node: MappingNode, pair: tuple[Any, ...], key: str) -> Any:
        values: list[tuple[Any, Any]] = []
        for left, right in node.value:
            where = f"{key}[{left.value if isinstance(left, ScalarNode) else len(values)}]"
            values.append((self.read(left, pair[0], where), self.read(right, pair[1], where)))
        return BAD if any(left is BAD or right is BAD for left, right in values) else tuple(values)

    def _items(self, node: Node, hint: Any, key: str) -> Any:
        if not isinstance(node, SequenceNode):
            fix = f"Write [{node.value}]" if isinstance(node, ScalarNode) and node.value else ""
            return self.problem(node, key, "a list", describe(node), fix)
        values = [self.read(item, hint, f"{key}[{index}]") for index, item in enumerate(node.value)]
        return BAD if any(value is BAD for value in values) else values

    def _mapping(self, node: Node, hints: tuple[Any, ...], key: str) -> Any:
        if not isinstance(node, MappingNode):
            return self.problem(node, key, "a mapping", describe(node))
        made: dict[Any, Any] = {}
        bad = False
        for key_node, value_node in node.value:
            name = self.read(key_node, hints[0], key)
            value = self.read(value_node, hints[1], f"{key}.{getattr(key_node, 'value', '')}")
            if name is BAD or value is BAD:
                bad = True
            elif name in made:
                bad = self.problem(key_node, f"{key}.{name}", "a key once", "the same key again") is BAD
            else:
                made[name] = value
        return BAD if bad else made

    def _scalar(self, node: Node, hint: Any, key: str) -> Any:
        names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
        if hint not in names:
            msg = f"no way to read {hint!r} for {key}"
            raise TypeError(msg)
        value = scalar(node) if isinstance(node, ScalarNode) else BAD
        if hint is float and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
        if type(value) is hint and hint is not float:
            return value
        fix = ""
        if hint is str and isinstance(node, ScalarNode):
            fix = f"Put it in quotes: '{node.value}'" if node.value else "Give a value or remove the key"
        elif isinstance(value, str) and hint in (int, float) and re.fullmatch(r"[-+]?[0-9.]+", value):
            fix = "Remove the quotes"
        return self.problem(node, key, names[hint], describe(node), fix)


def _required(each: Field[Any]) -> bool:
    return each.default is MISSING and each.default_factory is MISSING


def _field_names(cls: type[Any]) -> str:
    return ", ".join(each.name for each in fields(cls))


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
