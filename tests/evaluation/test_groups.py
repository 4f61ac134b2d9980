import pytest

from ddl_d2.errors import InputError
from ddl_d2.evaluation.groups import read_groups


def test_groups_are_read(tmp_path):
    (tmp_path / "g.csv").write_text('image_id,group\nreal/a.png,ann\n"fake/b, c.png",bob\n\nreal/a.png,ann\n')
    assert read_groups(tmp_path / "g.csv") == {"real/a.png": "ann", "fake/b, c.png": "bob"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line must be image_id,group"),
        ("image,person\na,b\n", "first line must be image_id,group, it is 'image,person'"),
        ("image_id,group\na,b\nc\n", "line 3: expected an image_id and its group"),
        ("image_id,group\na,\n", "line 2: expected an image_id and its group"),
        ("image_id,group\na,x\na,y\n", "line 3: a is in the group y, and before in x"),
    ],
)
def test_what_is_no_table_of_groups(tmp_path, text, message):
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_groups(tmp_path / "g.csv")
