"""Findings state their limits, and have one canonical form."""

import pytest

from ddl_d2.report.findings import DERIVED, NOT_AVAILABLE, OBSERVED, Finding, canonical, in_order, sha256_of


def test_a_finding_states_limits_and_a_conclusion_alternatives():
    with pytest.raises(ValueError, match="limits"):
        Finding("a", OBSERVED, "A", "It is so.", ())
    with pytest.raises(ValueError, match="alternatives"):
        Finding("a", DERIVED, "A", "It is so.", ("not more",))
    with pytest.raises(ValueError, match="not a kind"):
        Finding("a", "certain", "A", "It is so.", ("not more",), ("chance",))
    assert Finding("a", OBSERVED, "A", "It is so.", ("not more",)).as_dict()["limits"] == ["not more"]


def test_findings_are_sorted_by_kind():
    kinds = {"a": NOT_AVAILABLE, "b": DERIVED, "c": OBSERVED, "d": DERIVED}
    found = [Finding(name, kind, "T", "S", ("l",), ("a",)) for name, kind in kinds.items()]
    assert [finding.name for finding in in_order(found)] == ["c", "b", "d", "a"]
    with pytest.raises(ValueError, match="one name"):
        in_order([found[0], found[0]])


def test_json_values_have_one_form():
    assert canonical({"b": [1, 0.5], "a": "é"}) == b'{"a":"\\u00e9","b":[1,0.5]}'
    assert sha256_of({"a": 1, "b": 2}) == sha256_of({"b": 2, "a": 1})
    with pytest.raises(ValueError):
        canonical(float("nan"))
