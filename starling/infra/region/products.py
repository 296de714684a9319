"""The Pricing API's GetProducts, which moto has not got: on-demand prices of Linux machines."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from moto.core.responses import ActionResult, BaseResponse
from moto.ec2.models.instance_types import INSTANCE_TYPES

from starling.infra.region.prices import PriceBook

PAGE = 100
REGIONS = {
    "us-east-1": "US East (N. Virginia)",
    "us-east-2": "US East (Ohio)",
    "us-west-2": "US West (Oregon)",
    "eu-west-1": "EU (Ireland)",
    "eu-central-1": "EU (Frankfurt)",
}
"""Where the emulated cloud sells machines, all at the same price."""


class ProductsResponse(BaseResponse):
    """Answers calls to the service `pricing`."""

    def __init__(self, prices: PriceBook) -> None:
        super().__init__(service_name="pricing")
        self.automated_parameter_parsing = True
        self._prices = prices

    def get_products(self) -> ActionResult:
        wanted = self._get_param("Filters", [])
        products = [
            product
            for region in REGIONS
            for name in self._prices.types
            if _fits(product := _product(name, region, self._prices.on_demand(name) or 0.0), wanted)
        ]
        start = int(self._get_param("NextToken") or 0)
        end = start + int(self._get_param("MaxResults") or PAGE)
        result: dict[str, Any] = {
            "FormatVersion": "aws_v1",
            "PriceList": [json.dumps(product) for product in products[start:end]],
        }
        if end < len(products):
            result["NextToken"] = str(end)
        return ActionResult(result)


def _fits(product: dict[str, Any], filters: list[dict[str, str]]) -> bool:
    """As with AWS, a field that a product has not got never fits; ANY_OF lists values with commas between."""
    attributes = {
        "ServiceCode": product["serviceCode"],
        "productFamily": product["product"]["productFamily"],
        **product["product"]["attributes"],
    }
    return all(
        str(attributes.get(each["Field"], "")).lower()
        in (each["Value"].lower().split(",") if each["Type"] == "ANY_OF" else [each["Value"].lower()])
        for each in filters
    )


def _product(instance_type: str, region: str, price: float) -> dict[str, Any]:
    info = INSTANCE_TYPES.get(instance_type, {})
    sku = hashlib.sha256(f"{instance_type} {region}".encode()).hexdigest()[:16].upper()
    term = f"{sku}.JRTCKXETXF"
    rate = f"{term}.6YS6EN2CT7"
    return {
        "product": {
            "productFamily": "Compute Instance",
            "sku": sku,
            "attributes": {
                "instanceType": instance_type,
                "regionCode": region,
                "location": REGIONS[region],
                "locationType": "AWS Region",
                "operatingSystem": "Linux",
                "tenancy": "Shared",
                "preInstalledSw": "NA",
                "capacitystatus": "Used",
                "licenseModel": "No License required",
                "operation": "RunInstances",
                "marketoption": "OnDemand",
                "currentGeneration": "Yes",
                "servicecode": "AmazonEC2",
                "usagetype": f"BoxUsage:{instance_type}",
                "vcpu": str(info.get("VCpuInfo", {}).get("DefaultVCpus", 0)),
            },
        },
        "serviceCode": "AmazonEC2",
        "terms": {
            "OnDemand": {
                term: {
                    "sku": sku,
                    "offerTermCode": "JRTCKXETXF",
                    "termAttributes": {},
                    "priceDimensions": {
                        rate: {"rateCode": rate, "unit": "Hrs", "pricePerUnit": {"USD": f"{price:.10f}"}}
                    },
                }
            }
        },
        "version": "emulated",
        "publicationDate": "2026-01-01T00:00:00Z",
    }
