"""docs/aws.md tells what the policies say and what `doctor` looks at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from starling.infra.providers.aws.checkup.account import QUOTAS
from starling.infra.providers.aws.naming import Site
from starling.infra.providers.aws.permissions import Permission, node_permissions, user_permissions

PAGE = (Path(__file__).parents[3] / "docs" / "aws.md").read_text()
SITE = Site(account="123456789012", region="us-east-1", stack="starling")


def rows(heading: str) -> set[tuple[str, ...]]:
    """Cells of the table below a heading, without its head."""
    section = PAGE.split(f"### {heading}\n")[1].split("\n### ")[0]
    found = [line for line in section.splitlines() if line.startswith("| `")]
    return {
        tuple(cell.strip().strip("`") if n == 0 else cell.strip() for n, cell in enumerate(cells(line)))
        for line in found
    }


def cells(line: str) -> list[str]:
    return line.strip().strip("|").split(" | ")


def as_rows(permissions: list[Permission]) -> set[tuple[str, ...]]:
    return {(action, each.sid, why) for each in permissions for action, why in each.actions.items()}


@pytest.mark.parametrize(
    ("heading", "permissions"),
    [
        ("What nodes may do", node_permissions(SITE)),
        ("What users may do", user_permissions(SITE, "the group")),
    ],
)
def test_the_page_lists_every_permission_and_why(heading: str, permissions: list[Permission]) -> None:
    assert rows(heading) == as_rows(permissions)


def test_the_page_lists_the_quotas_that_doctor_reads() -> None:
    assert set(re.findall(r"^\| `(L-[0-9A-F]{8})`", PAGE, flags=re.MULTILINE)) == {quota.code for quota in QUOTAS}


def test_the_page_names_everything_as_it_is_named() -> None:
    named = {
        "<stack>-<account>-<region>": SITE.bucket,
        "<stack>-node-<region>": SITE.node_role,
        "<stack>-user-<region>": SITE.user_policy,
        "<stack>-base": SITE.base_template,
        "<stack>-events": SITE.queue,
    }
    for pattern, name in named.items():
        told = (
            pattern.replace("<stack>", SITE.stack).replace("<account>", SITE.account).replace("<region>", SITE.region)
        )
        assert told == name
        assert f"`{pattern}`" in PAGE
