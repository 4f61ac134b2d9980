"""The chain of records: any change of any byte is found."""

import json

import pytest

from ddl_d2.errors import InputError, RecordError
from ddl_d2.report.chain import CHAIN, FIRST, Chain, read_key, verify_chain
from ddl_d2.report.findings import canonical, sha256_of

KEY = b"sixteen bytes or more"


@pytest.fixture(params=[None, KEY], ids=["no key", "key"])
def key(request):
    return request.param


@pytest.fixture
def folder(tmp_path, key):
    """Three records, as short as can be."""
    chain = Chain.open(tmp_path, key)
    for number in range(3):
        chain.add(f"photo{number}", b'{"record": %d}' % number, b"<p>%d</p>" % number)
    return tmp_path


def test_lines_follow_one_another(folder, key):
    lines = verify_chain(folder, key)
    assert [line["number"] for line in lines] == [1, 2, 3]
    assert [line["previous"] for line in lines] == [FIRST, lines[0]["sha256"], lines[1]["sha256"]]
    assert sorted(path.name for path in folder.iterdir())[:2] == ["0001-photo0.html", "0001-photo0.json"]
    # A later call adds to it.
    chain = Chain.open(folder, key)
    assert chain.head == lines[2]["sha256"]
    assert chain.add("more", b"{}", b"").name == "0004-more.json"
    assert len(verify_chain(folder, key, head=chain.head)) == 4


def test_any_flipped_bit_of_any_byte_is_found(folder, key):
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        # Of the chain its last line: nothing stands after it that would notice.
        for position in range(len(content) * 2 // 3 if path.name == CHAIN else 0, len(content)):
            bit = 1 << position % 8
            path.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
            with pytest.raises(RecordError):
                verify_chain(folder, key)
        path.write_bytes(content)
    # Without the key the same bytes are watched, those of the HMACs among them.
    path = folder / CHAIN
    content = path.read_bytes()
    for position in range(len(content) * 2 // 3, len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with pytest.raises(RecordError):
            verify_chain(folder)


def test_lines_taken_out_moved_or_cut_are_found(folder, key):
    path = folder / CHAIN
    lines = path.read_bytes().splitlines(keepends=True)
    for changed in (lines[1:], [lines[0], lines[2]], [lines[1], lines[0], lines[2]], [*lines, lines[2]], []):
        path.write_bytes(b"".join(changed))
        with pytest.raises(RecordError):
            verify_chain(folder, key)
    path.write_bytes(b"".join(lines)[:-1])
    with pytest.raises(RecordError, match="cut off"):
        verify_chain(folder, key)
    path.unlink()
    with pytest.raises(RecordError, match="cannot be read"):
        verify_chain(folder, key)


def test_an_end_that_was_taken_away_is_found_by_the_record_or_the_head(folder, key):
    head = verify_chain(folder, key)[-1]["sha256"]
    path = folder / CHAIN
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    with pytest.raises(RecordError, match="is not in the chain"):
        verify_chain(folder, key)
    for kind in ("json", "html"):
        (folder / f"0003-photo2.{kind}").unlink()
    assert len(verify_chain(folder, key)) == 2  # whole in itself: hence the head
    with pytest.raises(RecordError, match="taken away"):
        verify_chain(folder, key, head=head)


def test_a_record_that_was_put_in_or_is_missing_is_found(folder, key):
    (folder / "0002-other.json").write_text("{}")
    with pytest.raises(RecordError, match="0002-other.json: is not in the chain"):
        verify_chain(folder, key)
    (folder / "0002-other.json").unlink()
    (folder / "0002-photo1.html").unlink()
    with pytest.raises(RecordError, match="is missing"):
        verify_chain(folder, key)


def test_a_chain_made_anew_needs_the_key(tmp_path):
    Chain.open(tmp_path, KEY).add("photo", b"{}", b"")
    path = tmp_path / CHAIN
    line = json.loads(path.read_bytes())
    (tmp_path / line["record"]).write_bytes(b"[]")
    line["record_sha256"] = "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"  # of []
    line["sha256"] = sha256_of({name: value for name, value in line.items() if name != "sha256"})
    path.write_bytes(canonical(line) + b"\n")
    assert verify_chain(tmp_path)  # nobody without the key can tell
    with pytest.raises(RecordError, match="HMAC"):
        verify_chain(tmp_path, KEY)


def test_a_broken_chain_is_not_added_to(folder, key):
    (folder / "0001-photo0.json").write_bytes(b"other")
    with pytest.raises(RecordError, match="0001-photo0.json"):
        Chain.open(folder, key)


def test_a_chain_has_one_key_or_none(folder, key):
    other = None if key else KEY
    with pytest.raises(RecordError, match="HMAC"):
        Chain.open(folder, other)


def test_a_key_is_long_enough(tmp_path):
    (tmp_path / "key").write_bytes(b"short")
    with pytest.raises(InputError, match="16 bytes"):
        read_key(tmp_path / "key")
