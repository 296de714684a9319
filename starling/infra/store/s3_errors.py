"""What S3's and botocore's errors mean to a caller of a store: one table, applied at one edge."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from botocore.exceptions import BotoCoreError, ClientError

from starling.infra.aws_login import EXPIRED_CODES, EXPIRED_EXCEPTIONS, how_to_log_in
from starling.infra.errors import (
    ObjectCorrupt,
    ObjectNotFound,
    StoreAccessDenied,
    StoreCredentialsExpired,
    StoreError,
    StoreUnavailable,
    VersionConflict,
)

_KEYS = "check the credentials: environment AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, ~/.aws, or the machine's role"
_POLICY = "check what the credentials may do there (s3:GetObject, PutObject, DeleteObject, ListBucket) and the KMS key"
_REGION = "the bucket lies in another region: give ?region=... in the store's URI"
_BUSY = "the server is busy or failing; try again later"
_NETWORK = "check the network and, if the store's URI has one, its endpoint_url"

Meaning = tuple[type[StoreError], str]

CODES: dict[str, Meaning] = {
    **dict.fromkeys(EXPIRED_CODES, (StoreCredentialsExpired, "")),
    "NoSuchKey": (ObjectNotFound, "there is no such object"),
    "404": (ObjectNotFound, "there is no such object"),
    "NoSuchBucket": (StoreAccessDenied, "there is no such bucket: create it, or correct the store's URI"),
    "PreconditionFailed": (VersionConflict, "it was changed by another writer"),
    "412": (VersionConflict, "it was changed by another writer"),
    "ConditionalRequestConflict": (StoreUnavailable, "other writers keep changing it"),
    "NoSuchUpload": (StoreUnavailable, "the upload was aborted by the server or by somebody else; try again"),
    "AccessDenied": (StoreAccessDenied, _POLICY),
    "AllAccessDisabled": (StoreAccessDenied, _POLICY),
    "AccountProblem": (StoreAccessDenied, "check the account's state"),
    "403": (StoreAccessDenied, _POLICY),
    "401": (StoreAccessDenied, _KEYS),
    "InvalidAccessKeyId": (StoreAccessDenied, _KEYS),
    "SignatureDoesNotMatch": (StoreAccessDenied, _KEYS),
    "InvalidToken": (StoreAccessDenied, _KEYS),
    "RequestTimeTooSkewed": (StoreAccessDenied, "set this machine's clock"),
    "PermanentRedirect": (StoreAccessDenied, _REGION),
    "301": (StoreAccessDenied, _REGION),
    "AuthorizationHeaderMalformed": (StoreAccessDenied, _REGION),
    "SlowDown": (StoreUnavailable, _BUSY),
    "ServiceUnavailable": (StoreUnavailable, _BUSY),
    "InternalError": (StoreUnavailable, _BUSY),
    "RequestTimeout": (StoreUnavailable, _BUSY),
    "RequestTimeTooLarge": (StoreUnavailable, _BUSY),
    "Throttling": (StoreUnavailable, _BUSY),
    "ThrottlingException": (StoreUnavailable, _BUSY),
    "RequestLimitExceeded": (StoreUnavailable, _BUSY),
}
"""Error code of a response -> (what the caller gets, what the user should know; how to log in is said when it is
needed). Other 5xx are StoreUnavailable too."""

EXCEPTIONS: dict[str, Meaning] = {
    **dict.fromkeys(EXPIRED_EXCEPTIONS, (StoreCredentialsExpired, "")),
    "NoCredentialsError": (StoreAccessDenied, _KEYS),
    "PartialCredentialsError": (StoreAccessDenied, _KEYS),
    "UnknownCredentialError": (StoreAccessDenied, _KEYS),
    "UnknownTokenProviderError": (StoreAccessDenied, _KEYS),
    "ProfileNotFound": (StoreAccessDenied, "check AWS_PROFILE and ~/.aws"),
    "FlexibleChecksumError": (ObjectCorrupt, "its content does not match the checksum that the server keeps"),
    "ConnectionError": (StoreUnavailable, _NETWORK),
    "HTTPClientError": (StoreUnavailable, _NETWORK),
    "IncompleteReadError": (StoreUnavailable, _NETWORK),
}
"""Name of a botocore exception or of one of its bases -> the same."""


REFUSED = ("PreconditionFailed", "412")
"""The condition of a request did not hold."""
BEYOND_THE_END = ("InvalidRange", "416")
"""The object has no byte in the range that was asked for."""


@contextmanager
def s3_errors_named(doing: str, where: str) -> Iterator[None]:
    """Turn botocore's errors into ours, saying what was being done (`doing`, like "write") to which object."""
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise store_error(doing, where, error) from error


def store_error(doing: str, where: str, error: ClientError | BotoCoreError) -> StoreError:
    """The error to raise in place of `error`."""
    if isinstance(error, ClientError):
        kind, advice = _meaning_of_response(error)
        reason = f"{code_of(error)}, {error.response['Error'].get('Message') or 'no message'}"
    else:
        kind, advice = _meaning_of_exception(error)
        reason = str(error)
    advice = advice or how_to_log_in(error)
    return kind(f"cannot {doing} {where}: {reason.rstrip('.')}; {advice}")


def another_login_may_mend(error: StoreError) -> bool:
    """Whether it comes from the credentials that a client was made with: expired, wrong, or none at all. Credentials of
    a machine's role are looked for once, and are missing for good in a client that was made while IMDS was slow."""
    if isinstance(error, StoreCredentialsExpired):
        return True
    cause = error.__cause__
    if isinstance(cause, ClientError):
        return _meaning_of_response(cause)[1] == _KEYS
    return isinstance(cause, BotoCoreError) and _meaning_of_exception(cause)[1] == _KEYS


def code_of(error: ClientError) -> str:
    """S3's name for the error; for a HEAD request, whose answer has no body, the HTTP status."""
    return str(error.response["Error"].get("Code") or "Unknown")


def was_retried(error: ClientError) -> bool:
    """Whether botocore had sent the request before, so that an earlier try may have taken effect unheard."""
    return error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0


def _meaning_of_response(error: ClientError) -> Meaning:
    if known := CODES.get(code_of(error)):
        return known
    if error.response["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500:
        return StoreUnavailable, _BUSY
    return StoreError, "this error is unknown to the store"


def _meaning_of_exception(error: BotoCoreError) -> Meaning:
    for ancestor in type(error).__mro__:
        if known := EXCEPTIONS.get(ancestor.__name__):
            return known
    return StoreError, f"this error ({type(error).__name__}) is unknown to the store"
