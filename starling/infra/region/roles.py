"""IAM calls that moto does too simply: pages of who has a policy, and roles that AWS keeps to itself."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult
from moto.iam.responses import IamResponse

from starling.infra.region.calls import Refused

PAGE = 100
"""What IAM lists at once, of users, groups and roles together.
https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListEntitiesForPolicy.html"""
RESERVED = "/aws-reserved/sso.amazonaws.com/"
"""Path of the roles that IAM Identity Center makes from permission sets."""


class RolesResponse(IamResponse):
    """Answers what moto would answer wrongly; made anew for every call."""

    def list_entities_for_policy(self) -> ActionResult:
        arn = self._get_param("PolicyArn")
        self.backend.get_policy(arn)
        kinds = {
            "PolicyUsers": [{"UserName": one.name, "UserId": one.id} for one in _with(arn, self.backend.users)],
            "PolicyGroups": [{"GroupName": one.name, "GroupId": one.id} for one in _with(arn, self.backend.groups)],
            "PolicyRoles": [{"RoleName": one.name, "RoleId": one.id} for one in _with(arn, self.backend.roles)],
        }
        listed = [(kind, one) for kind, found in kinds.items() for one in found]
        start = int(self._get_param("Marker") or 0)
        end = start + int(self._get_param("MaxItems") or PAGE)
        result: dict[str, Any] = {kind: [one for of, one in listed[start:end] if of == kind] for kind in kinds}
        more = end < len(listed)
        return ActionResult(result | {"IsTruncated": more} | ({"Marker": str(end)} if more else {}))

    def detach_role_policy(self) -> ActionResult:
        name = self._get_param("RoleName")
        if self.backend.get_role(name).path.startswith(RESERVED):
            raise Refused(
                "UnmodifiableEntity",
                f"Cannot perform the operation on the protected role '{name}' - this role is only modifiable by AWS",
            )
        return super().detach_role_policy()

    def create_service_linked_role(self) -> ActionResult:
        """One of each service; moto's own error is that of other roles."""
        service = self._get_param("AWSServiceName")
        for role in self.backend.roles.values():
            if role.path == f"/aws-service-role/{service}/":
                raise Refused(
                    "InvalidInput",
                    f"Service role name {role.name} has been taken in this account, please try a different suffix.",
                )
        return super().create_service_linked_role()


def _with(arn: str, everybody: dict[str, Any]) -> list[Any]:
    return [one for one in everybody.values() if arn in one.managed_policies]
