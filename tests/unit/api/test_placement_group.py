"""Placement groups as values, and what is refused before a session is asked."""

import pickle

import pytest

from shoal._api.placement_group import check_request_fits
from shoal._core.base.identifiers import PlacementGroupID
from shoal._core.base.resources import ResourceSet
from shoal.util import placement_group as function
from shoal.util import scheduling_strategies
from shoal.util.placement_group import PlacementGroup, placement_group

ONE = PlacementGroupID(b"1" * 16)


def test_groups_compare_by_id_and_travel():
    group = PlacementGroup(ONE, [{"CPU": 1.0}])
    copy = pickle.loads(pickle.dumps(group))
    assert copy == group == PlacementGroup(ONE)
    assert {copy, group} == {group}
    assert copy.bundle_specs == [{"CPU": 1.0}]
    assert group != PlacementGroup(PlacementGroupID(b"2" * 16))
    assert group != ONE
    assert ONE.hex() in repr(group)


def test_the_empty_group():
    empty = PlacementGroup.empty()
    assert empty.is_empty
    assert (empty.bundle_specs, empty.bundle_count) == ([], 0)
    assert not PlacementGroup(ONE, []).is_empty


def test_public_paths():
    assert function is placement_group
    assert PlacementGroup.__module__ == "shoal.util.placement_group"
    strategy = scheduling_strategies.PlacementGroupSchedulingStrategy(
        PlacementGroup(ONE, [{"CPU": 1}]), 0
    )
    assert strategy.placement_group == PlacementGroup(ONE)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"bundles": None}, ValueError, "at least one dict"),
        ({"bundles": ({"CPU": 1},)}, ValueError, "at least one dict"),
        ({"bundles": [1]}, ValueError, "Bundle 0"),
        ({"bundles": [{"CPU": 1}, {1: 1}]}, ValueError, "Bundle 1"),
        ({"bundles": [{"CPU": True}]}, ValueError, "Bundle 0"),
        ({"bundles": [{"CPU": -1}]}, ValueError, "cannot be negative"),
        ({"bundles": [{"CPU": 0.00001}]}, ValueError, "finest quantity"),
        ({"bundles": [{"GPU": 1.5}]}, ValueError, "whole number"),
        ({"bundles": [{"CPU": 0, "x": 0}]}, ValueError, "reserves nothing"),
        ({"name": 3}, TypeError, "must be a str"),
        ({"strategy": "PACK", "topology_strategy": {}}, ValueError, "not both"),
        ({"topology_strategy": "PACK"}, ValueError, "must be a dict"),
        ({"topology_strategy": {"ray.io/node-id": "X"}}, ValueError, "'X'"),
        ({"topology_strategy": {"rack": "PACK"}}, ValueError, "STRICT_PACK"),
        (
            {"topology_strategy": {"a": "STRICT_PACK", "b": "STRICT_PACK"}},
            ValueError,
            "one label at most",
        ),
        ({"bundle_label_selector": {"a": "b"}}, ValueError, "must be a list"),
        ({"bundle_label_selector": [{"a": "in("}]}, ValueError, "Invalid label"),
        ({"bundle_label_selector": [{}, {}]}, ValueError, "2 selectors for 1"),
        ({"_soft_target_node_id": "00"}, ValueError, "STRICT_PACK"),
        (
            {"_soft_target_node_id": "x", "strategy": "STRICT_PACK"},
            ValueError,
            "hexadecimal",
        ),
    ],
)
def test_bad_arguments(arguments, error, match, monkeypatch):
    # Nothing here may get as far as starting a session.
    monkeypatch.setenv("SHOAL_ENABLE_AUTO_CONNECT", "0")
    with pytest.raises(error, match=match):
        placement_group(**{"bundles": [{"CPU": 1}], **arguments})


@pytest.mark.parametrize("index", [-2, 2])
def test_an_index_that_is_not_there(index):
    group = PlacementGroup(ONE, [{"CPU": 1}, {"CPU": 2}])
    with pytest.raises(ValueError, match=f"index {index} is invalid for f"):
        check_request_fits(group, index, ResourceSet(), "f", creation=False)


def test_a_request_must_fit_into_some_bundle():
    group = PlacementGroup(ONE, [{"CPU": 1, "GPU": 1}, {"CPU": 2}])
    for fits in ({"CPU": 2}, {"GPU": 1}, {}):
        check_request_fits(group, 0, ResourceSet(fits), "f", creation=False)
    request = ResourceSet({"CPU": 2, "GPU": 1})
    for creation, match in ((False, "requires"), (True, "while it is being placed")):
        with pytest.raises(ValueError, match=match):
            check_request_fits(group, -1, request, "f", creation=creation)
