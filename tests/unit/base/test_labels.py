"""Label selectors: how they are written, and what they match."""

import pytest

from shoal._core.base.labels import (
    ABSENT,
    LabelCondition,
    check_label_name,
    check_user_labels,
    describe,
    matches,
    parse_condition,
    parse_selector,
)


@pytest.mark.parametrize(
    ("text", "accepted", "refused"),
    [
        ("a", ["a"], ["b", "", ABSENT]),
        ("!a", ["b", "", ABSENT], ["a"]),
        ("in(a)", ["a"], ["b", ABSENT]),
        ("in(a,b-1)", ["a", "b-1"], ["c", ABSENT]),
        ("!in(a,b)", ["c", ABSENT], ["a", "b"]),
        ("", [""], ["a", ABSENT]),
        ("in", ["in"], ["a"]),
    ],
)
def test_conditions(text, accepted, refused):
    condition = parse_condition("zone", text)
    assert [condition.matches(value) for value in accepted] == [True] * len(accepted)
    assert [condition.matches(value) for value in refused] == [False] * len(refused)


@pytest.mark.parametrize(
    "text",
    [
        "in(a",
        "in()",
        "in(a,,b)",
        "in( a , b )",
        "x y",
        "!",
        "!!a",
        "a)",
        "-a",
        "a" * 64,
    ],
)
def test_bad_syntax_is_refused_with_what_is_allowed(text):
    with pytest.raises(ValueError, match=r"label 'zone'.*'in\(a,b\)'"):
        parse_condition("zone", text)


def test_only_texts():
    with pytest.raises(TypeError, match="must be a str"):
        parse_condition("zone", 1)
    with pytest.raises(TypeError, match="label name must be a str"):
        parse_selector({1: "a"})


def test_a_selector_needs_every_condition():
    selector = parse_selector({"zone": "in(a,b)", "disk": "!slow"})
    assert matches(selector, {"zone": "a"})
    assert matches(selector, {"zone": "b", "disk": "fast"})
    assert not matches(selector, {"zone": "a", "disk": "slow"})
    assert not matches(selector, {})
    assert matches((), {"any": "thing"})
    assert hash(selector) == hash(parse_selector({"zone": "in(a,b)", "disk": "!slow"}))


def test_presence_and_absence():
    present = LabelCondition((ABSENT,), negated=True)
    absent = LabelCondition((ABSENT,), negated=False)
    assert present.matches("")
    assert not present.matches(ABSENT)
    assert absent.matches(ABSENT)
    assert not absent.matches("a")
    assert str(absent) == "(absent)"


def test_selectors_as_text():
    selector = parse_selector({"zone": "in(a,b)", "disk": "!slow", "os": "linux"})
    assert describe(selector) == "{zone: in(a,b), disk: !slow, os: linux}"
    assert describe(()) == "any"


@pytest.mark.parametrize("name", ["a", "a-b_c.d", "example.com/zone", "A" * 63])
def test_good_names(name):
    check_label_name(name)


@pytest.mark.parametrize("name", ["", "a b", "-a", "a-", "A" * 64, "Ex.com/a", "a/b/c"])
def test_bad_names(name):
    with pytest.raises(ValueError, match="Invalid label name"):
        check_label_name(name)


def test_labels_of_a_user():
    check_user_labels({"zone": "a", "empty": ""})
    with pytest.raises(ValueError, match="reserved"):
        check_user_labels({"ray.io/zone": "a"})
    with pytest.raises(TypeError, match="must be a str"):
        check_user_labels({"zone": 1})
    with pytest.raises(ValueError, match="Invalid value 'a b'"):
        check_user_labels({"zone": "a b"})
