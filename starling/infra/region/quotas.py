"""Service Quotas for EC2's vCPU limits, which moto has not got."""

from __future__ import annotations

from typing import Any

from moto.core.responses import ActionResult, BaseResponse

from starling.infra.region.calls import Refused
from starling.infra.region.pools import QUOTA_NAMES, Quotas


class QuotasResponse(BaseResponse):
    """Answers calls to `servicequotas` about EC2."""

    def __init__(self, quotas: Quotas) -> None:
        super().__init__(service_name="service-quotas")
        self.automated_parameter_parsing = True
        self._quotas = quotas

    def get_service_quota(self) -> ActionResult:
        code = self._get_param("QuotaCode")
        value = self._quotas.value(code) if self._get_param("ServiceCode") == "ec2" else None
        if value is None:
            raise Refused(
                "NoSuchResourceException", f"The request failed because the specified quota {code} does not exist."
            )
        return ActionResult({"Quota": self._quota(code, value)})

    def list_service_quotas(self) -> ActionResult:
        codes = QUOTA_NAMES if self._get_param("ServiceCode") == "ec2" else {}
        values = {code: self._quotas.value(code) for code in codes}
        return ActionResult(
            {"Quotas": [self._quota(code, value) for code, value in values.items() if value is not None]}
        )

    def _quota(self, code: str, value: float) -> dict[str, Any]:
        return {
            "ServiceCode": "ec2",
            "ServiceName": "Amazon Elastic Compute Cloud (Amazon EC2)",
            "QuotaArn": f"arn:aws:servicequotas:{self.region}:{self.current_account}:ec2/{code}",
            "QuotaCode": code,
            "QuotaName": QUOTA_NAMES[code],
            "Value": value,
            "Unit": "None",
            "Adjustable": True,
            "GlobalQuota": False,
        }
