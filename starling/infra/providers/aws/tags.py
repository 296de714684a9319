"""The tags on everything we make at AWS: by them it is found, told apart and removed. Keys are spelled here only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from starling.infra.errors import Misconfigured

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagTypeDef

PROJECT = "starling:project"
"""Always "starling"; that a thing is ours at all."""
STACK = "starling:stack"
"""Which set-up it belongs to."""
STORE = "starling:store"
"""URI of the store: two stores may hold runs of one name."""
RUN = "starling:run"
NODE = "starling:node"
OWNER = "starling:owner"
"""Who launched it, as STS names the caller."""
ATTEMPT = "starling:attempt"
"""Which attempt at this node it came from."""
SWEEP = "starling:sweep"
"""The family of runs it belongs to; empty for a run of its own."""

OURS = "starling"
"""Value of PROJECT."""
LONGEST_VALUE = 256
"""Characters that EC2 takes as a tag's value."""


def run_tags(*, stack: str, store_uri: str, run: str, owner: str, sweep: str = "") -> dict[str, str]:
    """What everything made for a run carries. Raises Misconfigured for a value that no tag can hold."""
    tags = {
        PROJECT: OURS,
        STACK: stack,
        STORE: store_uri,
        RUN: run,
        OWNER: owner[:LONGEST_VALUE],
        SWEEP: sweep,
    }
    for key, value in tags.items():
        if len(value) > LONGEST_VALUE:
            raise Misconfigured(f"{key}={value}: a tag holds at most {LONGEST_VALUE} characters; use a shorter one")
    return tags


def node_tags(run_tags: Mapping[str, str], node: str, attempt: int) -> dict[str, str]:
    """What a node's machine carries."""
    return {**run_tags, NODE: node, ATTEMPT: str(attempt)}


def as_list(tags: Mapping[str, str]) -> list[TagTypeDef]:
    """As EC2 takes them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def as_dict(tags: Iterable[TagTypeDef] | None) -> dict[str, str]:
    """From how EC2 gives them; absent ones are none."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags or ()}
