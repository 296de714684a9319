"""Asking EC2 for instances: by tags and states, of one store, all pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.instances import NOT_GONE, of_store

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef

MOST_FILTER_VALUES = 200 - len(NOT_GONE)
"""Of one filter, so that another one can name states beside it: EC2 takes 200 values in one call, of all filters.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html"""
PAGE = 1000


def read_instances(
    clients: AwsClients, filters: Sequence[FilterTypeDef], store_uri: str | None
) -> list[InstanceTypeDef]:
    """One call and its further pages. Raises ProviderError."""
    with clients.named("list instances"):
        pages = clients.ec2.get_paginator("describe_instances").paginate(
            Filters=filters, PaginationConfig={"PageSize": PAGE}
        )
        reservations = [reservation for page in pages for reservation in page["Reservations"]]
    return of_store((instance for one in reservations for instance in one["Instances"]), store_uri)


def tagged(key: str, *values: str) -> FilterTypeDef:
    return {"Name": f"tag:{key}", "Values": list(values)}


def in_state(*states: str) -> FilterTypeDef:
    return {"Name": "instance-state-name", "Values": list(states)}
