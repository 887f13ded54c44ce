from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from theta_nb.checkpoints.naming import Other, parse, spell
from theta_nb.errors import CheckpointError

TEXT = st.text(st.characters(exclude_categories=())) | st.text(st.sampled_from('ab/\\[]@0-"\n\x7f\x85\u2028\ud800e'))
STEPS = TEXT | st.integers() | st.builds(Other, TEXT)
PATHS = st.lists(STEPS, max_size=4).map(tuple)


@given(PATHS)
def test_a_name_leads_back_to_its_path(path):
    back = parse(spell(path))
    assert back == path
    assert [type(step) for step in back] == [type(step) for step in path]


@given(PATHS, PATHS)
def test_different_paths_have_different_names(one, other):
    assert (spell(one) == spell(other)) == (one == other)


@given(PATHS)
def test_a_name_is_one_printable_line(path):
    name = spell(path)
    assert name
    assert len(name.splitlines()) == 1
    assert not name.startswith("@")
    assert all(char >= " " and not "\x7f" <= char < "\xa0" for char in name)
    name.encode("utf-8")


@given(TEXT)
def test_every_text_is_either_a_name_or_refused(text):
    try:
        path = parse(text)
    except CheckpointError:
        return
    assert spell(path) == text


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]*", fullmatch=True))
def test_flat_keys_keep_their_spelling(key):
    assert spell((key,)) == key


SPELLINGS = {
    "dotted": (("a.b",), "a.b"),
    "nested": (("a", "b"), "a/b"),
    "slash": (("a/b",), r"a\/b"),
    "backslash": (("a\\b",), r"a\\b"),
    "index": ((0,), "[0]"),
    "negative": ((-1,), "[-1]"),
    "digits": (("0",), "0"),
    "bracket": (("[0]",), r"\[0]"),
    "inner bracket": (("a[0]",), "a[0]"),
    "at": (("@0",), r"\@0"),
    "inner at": (("a@0",), "a@0"),
    "empty": (("",), r"\e"),
    "root": ((), "[]"),
    "none": ((Other("None"),), "[None]"),
    "other that reads like an index": ((Other("7"),), r"[\x37]"),
    "other with a bracket": ((Other("(']',)"),), r"[('\]',)]"),
    "non-ASCII": (("größe.β",), "größe.β"),
    "newline": (("a\nb",), r"a\x0ab"),
    "separators": (("\u2028\u2029\x85\x7f",), r"\u2028\u2029\x85\x7f"),
    "surrogate": (("\udc80",), r"\udc80"),
    "right to left": (("\u202e",), r"\u202e"),
}


@pytest.mark.parametrize(("path", "name"), SPELLINGS.values(), ids=SPELLINGS)
def test_spelling(path, name):
    assert spell(path) == name
    assert parse(name) == path


@pytest.mark.parametrize(
    "name", ["", "/", "a//b", "[0", "[]/a", "a\\", "\\q", r"\x41", r"\e\e", "@0", "a\nb", "[a]b", "[1]]"]
)
def test_other_texts_are_not_names(name):
    with pytest.raises(CheckpointError):
        parse(name)
