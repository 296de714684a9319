"""S3's errors: the table knows what botocore can raise, and nothing unknown passes for something known."""

from __future__ import annotations

import inspect
import re
from typing import Any

import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from starling.infra.aws_login import EXPIRED_CODES, how_to_log_in
from starling.infra.errors import StoreAccessDenied, StoreCredentialsExpired, StoreError, StoreUnavailable
from starling.infra.store.s3_errors import CODES, EXCEPTIONS, another_login_may_mend, s3_errors_named, store_error


def response(code: str, status: int = 400) -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": "words."}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "PutObject")


def raised_by_botocore(base: str, pattern: str = "") -> list[type[BotoCoreError]]:
    """Its exceptions below `base` whose names match."""
    ancestor: type[BotoCoreError] = getattr(botocore.exceptions, base)
    kinds = [kind for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass)]
    return [kind for kind in kinds if issubclass(kind, ancestor) and re.search(pattern, kind.__name__)]


def instance(kind: type[BotoCoreError]) -> BotoCoreError:
    """One of them, whatever its message wants to know."""
    made = kind.__new__(kind)
    Exception.__init__(made, "words")
    return made


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_what_where_and_what_to_do(code: str) -> None:
    kind, advice = CODES[code]
    error = store_error("write", "s3://bucket/k", response(code))
    assert type(error) is kind
    assert bool(advice) == (code not in EXPIRED_CODES)
    assert str(error) == f"cannot write s3://bucket/k: {code}, words; {advice or how_to_log_in()}"


@pytest.mark.parametrize(("status", "kind"), [(400, StoreError), (404, StoreError), (500, StoreUnavailable)])
def test_an_unknown_code_is_told_and_taken_for_nothing_else(status: int, kind: type[StoreError]) -> None:
    error = store_error("write", "s3://bucket/k", response("BrandNew", status))
    assert type(error) is kind
    assert "BrandNew, words" in str(error)


def test_every_exception_of_the_table_exists() -> None:
    assert all(issubclass(getattr(botocore.exceptions, name), BotoCoreError) for name in EXCEPTIONS)


@pytest.mark.parametrize("kind", raised_by_botocore("HTTPClientError") + raised_by_botocore("ConnectionError"))
def test_whatever_the_network_does_the_store_is_unavailable(kind: type[BotoCoreError]) -> None:
    assert type(store_error("write", "s3://bucket/k", instance(kind))) is StoreUnavailable


NEVER_WERE_GOOD = "(No|Partial|Unknown)Credential|UnknownToken|Profile"


@pytest.mark.parametrize("kind", raised_by_botocore("BotoCoreError", NEVER_WERE_GOOD))
def test_without_usable_credentials_access_is_denied(kind: type[BotoCoreError]) -> None:
    assert type(store_error("write", "s3://bucket/k", instance(kind))) is StoreAccessDenied


@pytest.mark.parametrize(
    "kind", raised_by_botocore("BotoCoreError", f"^(?!{NEVER_WERE_GOOD}).*(Credential|Token|SSO|Login)")
)
def test_credentials_that_can_be_renewed_are_waited_for(kind: type[BotoCoreError]) -> None:
    error = store_error("write", "s3://bucket/k", instance(kind))
    assert type(error) is StoreCredentialsExpired
    assert "log in again" in str(error)


@pytest.mark.parametrize("kind", raised_by_botocore("BotoCoreError", "(No|Partial|Unknown)Credential|UnknownToken"))
def test_a_client_without_usable_credentials_is_worth_making_anew(kind: type[BotoCoreError]) -> None:
    with pytest.raises(StoreAccessDenied) as caught, s3_errors_named("read", "k"):
        raise instance(kind)
    assert another_login_may_mend(caught.value)


@pytest.mark.parametrize(
    ("code", "mends"),
    [("ExpiredToken", True), ("InvalidAccessKeyId", True), ("AccessDenied", False), ("SlowDown", False)],
)
def test_what_another_login_may_mend(code: str, mends: bool) -> None:
    with pytest.raises(StoreError) as caught, s3_errors_named("read", "k"):
        raise response(code)
    assert another_login_may_mend(caught.value) is mends


def test_an_unknown_exception_is_told_and_keeps_its_cause() -> None:
    cause = instance(BotoCoreError)
    with (
        pytest.raises(StoreError, match=r"words; this error \(BotoCoreError\) is unknown") as caught,
        s3_errors_named("x", "y"),
    ):
        raise cause
    assert type(caught.value) is StoreError
    assert caught.value.__cause__ is cause
