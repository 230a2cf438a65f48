"""A card is text from anybody: it cannot hang, run, climb out, or eat the memory."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import pytest

from infra.errors import UsageError
from preprocessing.cards import cases_of
from preprocessing.check import check
from preprocessing.expressions import Expression
from preprocessing.yaml_card import read_card

CARD = """\
name: Hostile
modality: x
licence: {terms: none}
layouts:
  - image: IMAGE
    label: masks/{case}.png
labels: {kind: Binary, concept: polyp}
"""


def card_file(folder: Path, image: str = "images/{case}.png", more: str = "") -> Path:
    path = folder / "card.yaml"
    path.write_text(CARD.replace("IMAGE", image) + more, encoding="utf-8")
    return path


SLOW = [
    (r"(?P<case>(a+)+)b", "a" * 60),
    (r"(?P<case>(a|a)*)b", "a" * 60),
    (r"(?P<case>(a|aa)+)$b", "a" * 200),
    (r"(?P<case>(a|ab|b)*)c", "ab" * 60),
    (r"(?P<case>(.*,){30})x", "1," * 100),
    (r"(?P<case>(x+x+)+)y", "x" * 200),
    (r"(?P<case>([a-zA-Z]+)*)1", "a" * 200),
    (r"(?P<case>(a?){60}a{60})b", "a" * 100),
    (r"(?P<case>^(([a-z])+.)+[A-Z]([a-z])+$)", "a" * 200),
    (r"(?P<case>(a{1,255}){1,255})b", "a" * 100),
    (r"(?P<case>.*.*.*.*.*.*.*.*.*.*)!", "a" * 250),
]


@pytest.mark.parametrize(("expression", "name"), SLOW)
def test_an_expression_that_backtracks_for_ever_ends_in_bounded_time(
    expression: str, name: str, tmp_path: Path
) -> None:
    root = tmp_path / "raw"
    root.mkdir()
    (root / name).touch()
    card = read_card(card_file(tmp_path, f"'regex:{expression}'")).card
    begun = time.monotonic()
    with contextlib.suppress(UsageError):  # it may be refused as too slow, or be found to match nothing
        assert list(cases_of(card)(root)) == []
    assert time.monotonic() - begun < 5


def test_many_slow_names_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("preprocessing.expressions.TOTAL_S", 0.2)
    slow = Expression(r"(?P<case>(a|aa)+)$b")
    begun = time.monotonic()
    names = ["a" * 30 + str(number) for number in range(100_000)]
    with pytest.raises(UsageError, match="takes too long on the file name"):
        list(map(slow.fullmatch, names))
    assert time.monotonic() - begun < 5


def test_a_group_expression_is_bounded_too(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    (root / "images").mkdir(parents=True)
    (root / "images" / ("a" * 200 + ".png")).touch()
    card = read_card(card_file(tmp_path, more="group: 'regex:((a|aa)+)$b'\n")).card
    with pytest.raises(UsageError, match="takes too long"):
        list(cases_of(card)(root))


BOMBS = {
    "aliases": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n",
    "nesting": "a: " + "[" * 5000 + "]" * 5000 + "\n",
    "nested mappings": "a: " + "{a: " * 2000 + "1" + "}" * 2000 + "\n",
    "python": "!!python/object/apply:os.system ['touch pwned']\n",
    "python name": "name: !!python/name:os.system\n",
    "merge": "base: &x {a: 1}\nother: {<<: *x}\n",
    "size": "a: " + "x" * 300_000 + "\n",
    "many": "a: [" + "1," * 30_000 + "]\n",
    "number": "name: " + "9" * 100_000 + "\n",
    "binary": "name: \x00\x01\n",
    "huge repeat": CARD.replace("IMAGE", "'regex:(?P<case>(a{1,60000}){1,60000})'"),
    "deep groups": CARD.replace("IMAGE", "'regex:" + "(" * 900 + "a" + ")" * 900 + "'"),
    "long expression": CARD.replace("IMAGE", "'regex:(?P<case>" + "a" * 5000 + ")'"),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_yaml_that_explodes_or_runs_is_refused_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "card.yaml"
    path.write_text(BOMBS[name], encoding="utf-8")
    begun = time.monotonic()
    with pytest.raises(UsageError, match=r"card\.yaml"):
        read_card(path)
    assert time.monotonic() - begun < 5
    assert not (tmp_path / "pwned").exists()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(UsageError, match="expected text in UTF-8"):
        read_card(path)


@pytest.mark.parametrize(
    "official",
    [
        "{url: 'file:///etc/passwd', sha256: ~, bytes: 0, unpack: none}",
        "{url: 'https://example.org/a.zip', sha256: ~, bytes: 0, unpack: zip, root: ../..}",
        "{url: 'https://example.org/a.zip', sha256: ~, bytes: 0, unpack: zip, root: /etc}",
        "{url: 'https://example.org/a.zip', sha256: ~, bytes: 0, unpack: rar}",
    ],
)
def test_an_official_address_stays_on_the_web_and_inside_its_archive(official: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="official"):
        read_card(card_file(tmp_path, more=f"official: {official}\n"))


def test_nothing_is_read_through_links_that_leave_the_folder(tmp_path: Path) -> None:
    outside, root = tmp_path / "outside", tmp_path / "raw"
    (outside / "images").mkdir(parents=True)
    (outside / "images" / "secret.png").write_bytes(b"secret")
    (root / "images").mkdir(parents=True)
    (root / "images" / "link.png").symlink_to(outside / "images" / "secret.png")
    (root / "folder").symlink_to(outside / "images")
    (root / "images" / "loop").symlink_to(root)
    card = read_card(card_file(tmp_path, "'regex:(?P<case>.*)\\.png'")).card
    assert list(cases_of(card)(root)) == []
    assert check(card, root)["files"]["files_found"] == 0


def test_a_card_in_a_workspace_is_written_inside_it(tmp_path: Path) -> None:
    """The name decides the file: one that climbs is refused before anything is written."""
    from pipelines.plan import register_card
    from pipelines.workspace import Workspace

    place = Workspace(tmp_path / "workspace")
    path = card_file(tmp_path)
    for name in ("../evil", "/tmp/evil", "a/b", ".hidden", "evaluate", "", "a" * 65):
        path.write_text(CARD.replace("Hostile", f"'{name}'").replace("IMAGE", "images/{case}.png"), encoding="utf-8")
        with pytest.raises(UsageError, match="name: expected"):
            register_card(place, path)
    assert [path.name for path in tmp_path.iterdir()] == ["card.yaml"]
    assert not os.path.lexists("/tmp/evil.yaml")
