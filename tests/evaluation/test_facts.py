"""What is known of images, read from a file, and how it sorts them."""

from __future__ import annotations

import pytest

from ddl_d2.errors import InputError
from ddl_d2.evaluation.facts import read_facts, sortings_of
from ddl_d2.evaluation.results import ImageResult


def test_facts_are_read(tmp_path):
    (tmp_path / "f.csv").write_text('image_id,source,faces\nreal/a.png,"web, old",2\nfake/b.png,,11\n\n')
    facts = read_facts(tmp_path / "f.csv")
    assert facts == {"source": {"real/a.png": "web, old"}, "faces": {"real/a.png": "2", "fake/b.png": "11"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be image_id and names of columns"),
        ("image_id\na\n", "first line must be image_id and names of columns"),
        ("image_id,x,x\na,1,2\n", "it is 'image_id,x,x'"),
        ("image_id,source\na\n", "line 2: expected 2 cells, an image_id first"),
        ("image_id,source\na,x\na,x\n", "line 3: a is there twice"),
        ("image_id,faces\na,two\n", "a has 'two' faces: a whole number is needed"),
    ],
)
def test_what_is_no_table_of_facts(tmp_path, text, message):
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_facts(tmp_path / "f.csv")


def _image(name: str, fake: int, forged: int, side: int = 100, kind: str | None = None) -> ImageResult:
    counts = (forged, 0, 0, side * side - forged)
    return ImageResult(name, fake, 0.5, counts, True, side, side, forgery_type=kind)


ROWS = [
    _image("a", 1, 99, kind="swap"),
    _image("b", 1, 100, kind="edit"),
    _image("c", 1, 10_000, kind="swap"),
    _image("d", 1, 0),
    _image("e", 0, 0, 256),
    _image("f", 0, 0, 257),
]


def test_images_are_sorted_by_hand():
    """Of 10,000 pixels 99 are under 1 %, 100 are not. `d` has an empty mask and no type: it is in neither."""
    found = {one.name: one for one in sortings_of(ROWS)}
    groups = {name: {key: value.tolist() for key, value in one.groups.items()} for name, one in found.items()}
    assert groups == {
        "forgery type": {"edit": [1], "swap": [0, 2]},
        "forged area": {"under 1 %": [0], "1 to 5 %": [1], "50 % and more": [2]},
        "longest side": {"up to 256": [0, 1, 2, 3, 4], "257 to 512": [5]},
    }
    assert [one.of_reals for one in found.values()] == [False, False, True]


def test_facts_sort_too_and_one_group_is_none():
    facts = {
        "source": {"a": "web", "e": "web", "f": "film"},
        "faces": {"a": "1", "b": "4", "e": "0", "f": "1"},
        "forgery_type": {"a": "x", "b": "y", "e": "z"},
        "camera": dict.fromkeys("abcdef", "one"),
    }
    found = {one.name: {k: v.tolist() for k, v in one.groups.items()} for one in sortings_of(ROWS, facts)}
    assert found["source"] == {"film": [5], "web": [0, 4]}
    assert found["faces"] == {"none": [4], "1": [0, 5], "3 to 5": [1]}
    assert found["forgery type"] == {"swap": [2], "x": [0], "y": [1]}
    assert "camera" not in found
