"""What everything in a set-up is called: names that people meet in the console and in policies."""

from __future__ import annotations

from dataclasses import dataclass

STORE_PREFIX = "store"
"""Where in the bucket the store lies; nodes may touch nothing else of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Site:
    """One account, region and stack."""

    account: str
    region: str
    stack: str
    partition: str = "aws"

    @property
    def bucket(self) -> str:
        """Named, not left to CloudFormation: a later set-up finds the bucket that an earlier one left."""
        return f"{self.stack}-{self.account}-{self.region}"

    @property
    def node_role(self) -> str:
        return f"{self.stack}-node-{self.region}"

    @property
    def user_policy(self) -> str:
        return f"{self.stack}-user-{self.region}"

    @property
    def base_template(self) -> str:
        return f"{self.stack}-base"

    @property
    def queue(self) -> str:
        return f"{self.stack}-events"

    def arn(self, service: str, resource: str, *, account: str | None = None, region: str | None = None) -> str:
        where = self.region if region is None else region
        return f"arn:{self.partition}:{service}:{where}:{self.account if account is None else account}:{resource}"

    def ec2(self, *kinds: str) -> list[str]:
        """All resources of these kinds. Images and snapshots are anybody's."""
        public = ("image", "snapshot")
        return [self.arn("ec2", f"{kind}/*", account="" if kind in public else None) for kind in kinds]
