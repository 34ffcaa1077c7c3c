import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotage.api.labels import (
    Requirement,
    Selector,
    SelectorError,
    from_label_selector,
    parse_field_selector,
    parse_selector,
)
from pilotage.api.meta_v1 import LabelSelector, LabelSelectorRequirement

LABELS = {"app": "web", "tier": "front", "example.com/track": "stable"}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app=web", True),
        ("app == web", True),
        ("app!=web", False),
        ("missing!=web", True),
        ("app in (web, api)", True),
        ("app notin (web,api)", False),
        ("missing notin (web)", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("app=web,tier in (front,back),!missing", True),
        ("example.com/track=stable", True),
        ("app=", False),
    ],
)
def test_selectors_as_kubernetes_reads_them(text: str, matches: bool) -> None:
    assert parse_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize("text", ["a b", "=x", "a in b", "a=b=c", "a in (b", "bad key!=x", "a=not/valid", "-a=b"])
def test_nonsense_is_refused_with_the_part_quoted(text: str) -> None:
    with pytest.raises(SelectorError):
        parse_selector(text)


def test_no_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert from_label_selector(None) is None
    empty = from_label_selector(LabelSelector())
    assert empty is not None and empty.matches({})


def test_expressions_join_labels() -> None:
    selector = from_label_selector(
        LabelSelector(
            match_labels={"app": "web"},
            match_expressions=(LabelSelectorRequirement(key="tier", operator="NotIn", values=("back",)),),
        )
    )
    assert selector is not None
    assert selector.matches(LABELS)
    assert not selector.matches(LABELS | {"tier": "back"})


def test_field_selectors_know_equality_only() -> None:
    selector = parse_field_selector("spec.nodeName=n1,status.phase!=Failed")
    assert selector.matches({"spec.nodeName": "n1", "status.phase": "Running"})
    with pytest.raises(SelectorError, match="must be key=value"):
        parse_field_selector("spec.nodeName")


_words = st.from_regex(r"[a-z][a-z0-9]{0,5}", fullmatch=True)
_requirements = st.one_of(
    st.builds(
        lambda k, o, v: Requirement(k, o, frozenset(v)),
        _words,
        st.sampled_from(["in", "notin"]),
        st.sets(_words, min_size=1, max_size=3),
    ),
    st.builds(Requirement, _words, st.sampled_from(["exists", "!"])),
)


@given(st.lists(_requirements, max_size=4))
def test_a_selector_round_trips_through_its_text(requirements: list[Requirement]) -> None:
    selector = Selector(tuple(requirements))
    assert parse_selector(str(selector)) == selector
