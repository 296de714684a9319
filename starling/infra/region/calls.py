"""One call to the emulated cloud, as it arrives over HTTP, and errors as each of AWS' protocols writes them."""

from __future__ import annotations

import io
import json
import re
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

MOST_FILTER_VALUES = 200
"""Of all filters of a call together.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeInstances.html"""
_FILTER_VALUE = re.compile(r"Filter\.\d+\.Value\.\d+")
_CREDENTIAL = re.compile(r"Credential=[^/,\s]+/\d+/([^/]+)/([^/]+)/aws4_request")

# What EC2's documentation lists as server errors, and what is not answered with 400 elsewhere.
# https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
_STATUS = {
    "AccessDenied": 403,
    "AccessDeniedException": 403,
    "AuthFailure": 401,
    "ExpiredToken": 403,
    "InsufficientInstanceCapacity": 500,
    "InternalError": 500,
    "InternalFailure": 500,
    "RequestLimitExceeded": 503,
    "ServiceUnavailable": 503,
    "Unavailable": 503,
    "UnauthorizedOperation": 403,
}


class Refused(Exception):
    """A call that AWS would refuse."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """What is asked of which service."""

    service: str
    """As it is signed for: ec2, iam, sts, ..."""
    region: str
    action: str
    """Such as RunInstances; empty if the call names none (paths of REST services but FIS)."""
    form: dict[str, str]
    """Parameters of the query protocols; empty for the JSON ones."""
    is_json: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """An HTTP response."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


def read_call(environ: dict[str, Any]) -> Call:
    """Take the call out of a WSGI environment; its body can be read again afterwards."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    environ["wsgi.input"] = io.BytesIO(body)
    signed = _CREDENTIAL.search(environ.get("HTTP_AUTHORIZATION", ""))
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    form = {} if target else dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    service = signed.group(2) if signed else ""
    named = target.rpartition(".")[2] or form.get("Action", "")
    return Call(
        service=service,
        region=signed.group(1) if signed else "us-east-1",
        action=named or (_fis_action(environ) if service == "fis" else ""),
        form=form,
        is_json=bool(target),
    )


def check_filters(call: Call) -> None:
    """Raises Refused for more values than EC2 takes in one call; moto takes any number."""
    if call.service == "ec2" and sum(map(bool, map(_FILTER_VALUE.fullmatch, call.form))) > MOST_FILTER_VALUES:
        raise Refused(
            "FilterLimitExceeded",
            f"The maximum number of filter values specified on a single call is {MOST_FILTER_VALUES}",
        )


def error_answer(call: Call, code: str, message: str) -> Answer:
    """An error as the protocol of this call's service writes it."""
    status = _STATUS.get(code, 400)
    request_id = secrets.token_hex(16)
    if call.is_json:
        body = json.dumps({"__type": code, "message": message})
        kind = "application/x-amz-json-1.1"
    else:
        error = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
        if call.service == "ec2":
            body = f"<Response><Errors>{error}</Errors><RequestID>{request_id}</RequestID></Response>"
        else:
            body = f"<ErrorResponse>{error}<RequestId>{request_id}</RequestId></ErrorResponse>"
        kind = "text/xml"
    headers = (("Content-Type", kind), ("x-amzn-RequestId", request_id), ("x-amzn-ErrorType", code))
    return Answer(status=status, headers=headers, body=body.encode())


def _fis_action(environ: dict[str, Any]) -> str:
    """What the Fault Injection Service is asked for, by method and path."""
    named = re.match(r"/(experimentTemplates|experiments)\b", environ.get("PATH_INFO", ""))
    verb = {"POST": "Create", "DELETE": "Delete", "GET": "Get"}.get(environ.get("REQUEST_METHOD", ""))
    if named is None or verb is None:
        return ""
    if named[1] == "experimentTemplates":
        return f"{verb}ExperimentTemplate"
    return {"Create": "StartExperiment", "Delete": "StopExperiment"}.get(verb, f"{verb}Experiment")
