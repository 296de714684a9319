"""When credentials for AWS have run out: how that shows, and what the user can do. For stores and providers alike."""

from __future__ import annotations

import os

EXPIRED_CODES = (
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "TokenRefreshRequired",
    "UnauthorizedException",
)
"""Error codes of answers to a request whose credentials are no longer valid."""
EXPIRED_EXCEPTIONS = (
    "CredentialRetrievalError",
    "LoginError",
    "NoAuthTokenError",
    "RefreshWithMFAUnsupportedError",
    "SSOError",
    "TokenRetrievalError",
)
"""Names of botocore's exceptions (or of their bases) for credentials that could not be renewed."""

_COMMANDS = {"SSOError": "aws sso login", "TokenRetrievalError": "aws sso login", "LoginError": "aws login"}


def how_to_log_in(exception: BaseException | None = None) -> str:
    """Advice for the user; of a botocore exception the command that fits it."""
    names = [ancestor.__name__ for ancestor in type(exception).__mro__]
    command = next((_COMMANDS[name] for name in names if name in _COMMANDS), None)
    profile = os.environ.get("AWS_PROFILE")
    option = f" --profile {profile}" if profile else ""
    said = f"`{command}{option}`" if command else f"`aws sso login{option}`, `aws login{option}` or new keys in ~/.aws"
    return f"the credentials have expired: log in again ({said}); it is noticed by itself{_environment_caveat()}"


def _environment_caveat() -> str:
    if "AWS_SESSION_TOKEN" not in os.environ:
        return ""
    return ", but not for keys that came with AWS_SESSION_TOKEN in the environment: start again with new ones"
