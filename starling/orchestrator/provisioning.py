"""From a spec's `provider` section to a provider."""

from __future__ import annotations

from typing import Any

from starling.infra.errors import UsageError
from starling.infra.providers.base import Provider


def provider_for(section: dict[str, Any], store_uri: str | None = None) -> Provider:
    """The provider of a resolved spec's `provider` section; its code is imported only now.

    With `store_uri` it shows only machines that work for this store: two stores may hold runs of one name.
    """
    if section["name"] == "local":
        from starling.infra.providers.local.provider import LocalProvider

        return LocalProvider(price_per_hour=section["price_per_hour"], store_uri=store_uri)
    if section["name"] == "ssh":
        return _ssh_provider(section, store_uri)
    if section["name"] == "aws":
        from starling.infra.providers.aws.provider import AwsProvider

        return AwsProvider(section, store_uri)
    raise UsageError(f"provider: {section['name']!r} is unknown; use local or aws")


def _ssh_provider(section: dict[str, Any], store_uri: str | None) -> Provider:
    try:
        from starling.infra.providers.ssh.provider import SshProvider
    except ModuleNotFoundError as error:
        if error.name != "paramiko":
            raise
        raise UsageError(
            "hosts are reached with paramiko, which is not installed: pip install 'starling[ssh]'"
        ) from None
    from starling.infra.providers.ssh.hosts import SshChoice

    return SshProvider(SshChoice.from_section(section), store_uri=store_uri)
