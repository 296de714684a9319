"""A client of the instance metadata service, version 2 (session tokens)."""

from __future__ import annotations

import http.client
import os
from urllib.parse import urlsplit

from starling.infra.clock import Clock, SystemClock
from starling.infra.errors import ImdsUnavailable, UsageError

ENDPOINT_VARIABLE = "AWS_EC2_METADATA_SERVICE_ENDPOINT"
DEFAULT_ENDPOINT = "http://169.254.169.254"
TOKEN_SECONDS = 3600
TIMEOUT_SECONDS = 1.0


class ImdsClient:
    """Reads one node's metadata. Not thread-safe; every call opens its own short connection."""

    def __init__(
        self, endpoint: str | None = None, *, clock: Clock | None = None, timeout: float = TIMEOUT_SECONDS
    ) -> None:
        """`endpoint` defaults to the environment's standard variable, then to EC2's link-local address."""
        self.endpoint = endpoint or os.environ.get(ENDPOINT_VARIABLE) or DEFAULT_ENDPOINT
        parts = urlsplit(self.endpoint)
        if parts.scheme != "http" or parts.hostname is None:
            raise UsageError(f"{ENDPOINT_VARIABLE} is {self.endpoint!r}: it must look like {DEFAULT_ENDPOINT}")
        self._host, self._port = parts.hostname, parts.port or 80
        self._clock = clock or SystemClock()
        self._timeout = timeout
        self._token: str | None = None
        self._token_ends_at = 0.0

    def get(self, path: str) -> str | None:
        """The document under `/latest/<path>`; None if there is none (404 is an answer). Raises ImdsUnavailable."""
        status, body = self._request("GET", f"/latest/{path}", {"X-aws-ec2-metadata-token": self._fresh_token()})
        if status == 401:  # the token went stale, e.g. because the service was restarted: take a new one, once
            self._token = None
            status, body = self._request("GET", f"/latest/{path}", {"X-aws-ec2-metadata-token": self._fresh_token()})
        if status == 404:
            return None
        if status != 200:
            raise ImdsUnavailable(f"the metadata service at {self.endpoint} answered {status} for {path}")
        return body

    def _fresh_token(self) -> str:
        now = self._clock.now()
        # Renewed after half its life, so that it cannot end between this look and the request.
        if self._token is None or now >= self._token_ends_at - TOKEN_SECONDS / 2:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            status, body = self._request("PUT", "/latest/api/token", headers)
            if status != 200:
                raise ImdsUnavailable(f"the metadata service at {self.endpoint} refused a session token ({status})")
            self._token, self._token_ends_at = body, now + TOKEN_SECONDS
        return self._token

    def _request(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
        try:
            connection.request(method, path, headers={**headers, "Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (OSError, http.client.HTTPException, UnicodeDecodeError) as error:
            raise ImdsUnavailable(f"the metadata service at {self.endpoint} does not answer: {error!r}") from error
        finally:
            connection.close()
