"""The tags on everything we make."""

from __future__ import annotations

import re

import pytest

from starling.infra.errors import Misconfigured
from starling.infra.providers.aws import tags

RUN = tags.run_tags(stack="starling", store_uri="s3://b/store?region=us-east-1", run="run", owner="ada")


def test_all_there_is_to_know_is_on_a_node() -> None:
    assert tags.node_tags(RUN, "run.0.0", 2) == {
        "starling:project": "starling",
        "starling:stack": "starling",
        "starling:store": "s3://b/store?region=us-east-1",
        "starling:run": "run",
        "starling:owner": "ada",
        "starling:sweep": "",
        "starling:node": "run.0.0",
        "starling:attempt": "2",
    }


def test_keys_can_be_read_by_the_node_from_its_metadata() -> None:
    """EC2 refuses instances whose tags are in their metadata under other keys.
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/work-with-tags-in-IMDS.html"""
    assert all(re.fullmatch(r"[A-Za-z0-9+=.,_:@-]+", key) for key in tags.node_tags(RUN, "run.0.0", 0))


def test_a_value_that_no_tag_holds_is_refused() -> None:
    with pytest.raises(Misconfigured, match=r"starling:store=s3://b/x+: a tag holds at most 256 characters"):
        tags.run_tags(stack="starling", store_uri="s3://b/" + "x" * 300, run="run", owner="ada")


def test_there_and_back() -> None:
    assert tags.as_dict(tags.as_list(RUN)) == RUN
    assert tags.as_dict(None) == {}
