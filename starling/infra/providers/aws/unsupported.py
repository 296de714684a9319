"""Regions that Starling does not go to."""

from __future__ import annotations


def unsupported(region: str) -> str | None:
    """Why a region is refused, and what to do instead; None if it is not."""
    if region.startswith("cn-"):
        return (
            f"{region} is in China, where Starling does not work: accounts, prices, machine images and package sources"
            " are others there. Choose another region, such as us-east-1"
        )
    return None
