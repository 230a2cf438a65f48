"""Patterns for file names that people can write without regular expressions: `masks/{case}_mask.png`.

A pattern is a whole path below the dataset's folder, with `/` between folders.

    {case}             one or more characters, but no `/`; the same field again must be the same text
    {case:digits}      one or more digits; also `letters`, `word` (letters and digits), `path` (`/` too)
    {split:train,test} one of these words
    {within=part one}  exactly this text
    {png,jpg}          one of these words, kept nowhere
    *                  any characters, but no `/`; may be none
    ?                  one character, but no `/`
    **                 any characters, `/` too; `**/` is any number of folders, also none

Everything else stands for itself, in this case of letters. A field takes as many characters as it can.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\{(?P<inner>[^{}]*)\}|(?P<stray>[{}])")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_KINDS = {
    "": r"[^/]+",
    "digits": r"[0-9]+",
    "letters": r"[A-Za-z]+",
    "word": r"[A-Za-z0-9]+",
    "path": r".+",
}
_WILD = {"**/": r"(?:[^/]+/)*", "**": r".*", "*": r"[^/]*", "?": r"[^/]"}


class PatternError(ValueError):
    """A pattern that means nothing: `expected`, `found` and the `fix` for a message."""

    def __init__(self, expected: str, found: str, fix: str) -> None:
        super().__init__(f"expected {expected}, found {found}. {fix}")
        self.expected, self.found, self.fix = expected, found, fix


@dataclass(frozen=True)
class Pattern:
    """A translated pattern. `literal` counts the characters that stand for themselves."""

    text: str
    expression: str
    fields: tuple[str, ...]
    literal: int
    start: str  # what every match begins with
    end: str  # what every match ends with


def translate(text: str, prefix: str = "") -> Pattern:
    """The regular expression (for the whole path) that says what `text` says; PatternError where it says nothing.

    `prefix` goes before the names of the fields, so that one expression can look ahead for another.
    """
    _check_path(text)
    parts: list[str] = []
    fields: list[str] = []
    literals: list[str] = [""]  # texts between the wild parts
    place = 0
    previous_was_field = False
    for token in _TOKEN.finditer(text):
        between = text[place : token.start()]
        parts.append(re.escape(between))
        literals[-1] += between
        place = token.end()
        if token["stray"]:
            raise PatternError("braces in pairs", f"a single {token['stray']!r} in {text!r}", "Write {case}")
        if token["inner"] is None:
            parts.append(_WILD[token.group()])
            previous_was_field = False
        else:
            is_field, piece = _braces(token["inner"], fields, prefix, text)
            if is_field and previous_was_field and not between:
                raise PatternError(
                    "text between two fields", f"{text!r}", "Where one ends and the next begins cannot be known"
                )
            parts.append(piece)
            previous_was_field = is_field
        literals.append("")
    rest = text[place:]
    parts.append(re.escape(rest))
    literals[-1] += rest
    return Pattern(text, "".join(parts), tuple(fields), sum(map(len, literals)), literals[0], literals[-1])


def ahead(wide: Pattern, narrow: Pattern, prefix: str) -> str:
    """What goes before the expression of `wide` to leave alone the paths that `narrow`, which says more, takes.

    So `{case}.png` beside `{case}_mask.png` means the images alone. Empty where no path can match both.
    """
    if narrow.literal <= wide.literal or not _may_overlap(wide, narrow):
        return ""
    return rf"(?!{translate(narrow.text, prefix).expression}\Z)"


def _may_overlap(one: Pattern, other: Pattern) -> bool:
    starts = one.start.startswith(other.start) or other.start.startswith(one.start)
    ends = one.end.endswith(other.end) or other.end.endswith(one.end)
    return starts and ends


def _braces(inner: str, fields: list[str], prefix: str, text: str) -> tuple[bool, str]:
    """Whether `{inner}` is a field, and its expression."""
    name, equals, exact = inner.partition("=")
    if equals and _NAME.fullmatch(name) and exact and name not in fields:
        fields.append(name)
        return True, f"(?P<{prefix}{name}>{re.escape(exact)})"
    name, colon, kind = inner.partition(":")
    if not colon and "," in inner:
        return False, f"(?:{_words(inner, text)})"
    if not _NAME.fullmatch(name):
        raise PatternError("a field such as {case}", f"{{{inner}}} in {text!r}", "Names have letters and digits")
    if "," in kind:
        body = _words(kind, text)
    elif kind in _KINDS and (kind or not colon):
        body = _KINDS[kind]
    else:
        known = ", ".join(f"{{{name}:{each}}}" for each in _KINDS if each)
        raise PatternError(
            f"one of {known} or words, {{{name}:a,b}}", f"{{{inner}}}", "Write the field without a kind where unsure"
        )
    if name in fields:
        return True, f"(?P={prefix}{name})"
    fields.append(name)
    return True, f"(?P<{prefix}{name}>{body})"


def _words(listed: str, text: str) -> str:
    words = listed.split(",")
    if any(re.search(r"[*?\s]", word) for word in words):
        raise PatternError("plain words between the commas", f"{{{listed}}} in {text!r}", "Write {png,jpg}")
    return "|".join(re.escape(word) for word in words)


def _check_path(text: str) -> None:
    if not text or text != text.strip():
        raise PatternError("a path below the dataset's folder", repr(text), "Remove the spaces around it")
    if "(?P<" in text or re.search(r"\\[.dwsSDW()\[]|\[\^|\.\+|\.\*\\", text):
        raise PatternError(
            "a pattern such as images/{case}.png", f"a regular expression, {text!r}", "Write regex: before it"
        )
    if "\\" in text:
        raise PatternError("/ between folders", f"a backslash in {text!r}", "Write images/{case}.png")
    if text.startswith(("/", "~")) or re.match(r"[A-Za-z]:", text):
        raise PatternError(
            "a path below the dataset's folder", f"the absolute path {text!r}", "Leave out its beginning"
        )
    if any(part in ("", ".", "..") for part in text.split("/")):
        raise PatternError(
            "a path below the dataset's folder, without ./, ../ and //", repr(text), "Start at --root and go down"
        )
