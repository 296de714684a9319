"""AWS's errors: the table knows every documented code of the calls we make, and nothing unknown passes for capacity."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path
from typing import Any

import botocore.exceptions
import botocore.parsers
import botocore.session
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from starling.infra.aws_login import EXPIRED_CODES
from starling.infra.errors import (
    CredentialsExpired,
    Misconfigured,
    NoCapacity,
    NotAuthorised,
    NotThere,
    PriceTooLow,
    ProviderError,
    ProviderUnavailable,
    QuotaReached,
    Throttled,
)
from starling.infra.providers.aws import error_codes
from starling.infra.providers.aws.error_codes import CODES, EXCEPTIONS, provider_error, refusal_kind

EC2_CODES = Path(__file__).with_name("ec2_error_codes.txt")
NEVER_USED = re.compile(
    "ClientVpn|Vpn(Connection|Gateway)|TrafficMirror|VpcPeering|VpcEndpoint|(Carrier|Customer|Internet|Nat)Gateway|GatewayID"
    "|NetworkAcl|NetworkLoadBalancer|NetworkInterfaceNotSupported|Dhcp|PrefixList|Route|FlowLog|LogDestination|Cidr|Asn"
    "|Vpc(Range|State|AlreadyExists)|Subnet[.](Conflict|Range)|SubnetLimit|DefaultSubnet|DuplicateSubnets"
    "|SecurityGroupRule|RulesPerSecurityGroup|LegacySecurityGroup|Permission[.]|Group.Reserved|PlacementGroup[.](Dup|InUse)"
    "|ReservedInstances|ScheduledInstance|CapacityBlock|CapacityReservation|PurchaseToken|InvalidQuantity|Option.Conflict"
    "|^(Invalid)?Host|ConversionTask|Export|Bundl|DiskImage|StorageLocation|InvalidFormat|AMI(Name|Attribute)|CreateImage"
    "|Fpga|ElasticGpu|InstanceConnect|InstanceEvent|TpmEk|NotLinkable|CpuCredits|InstanceCreditSpecification$"
    "|CreditSpecification(Update|.Duplicate)|UpdateLimit|KeyPair(Limit|.Duplicate|.Format)|InvalidKey[.]|Address|Allocation"
    "|Association|InvalidAttachment|AlreadyAssign|AlreadyAssoc|InterfaceAttachment|Snapshot(s|Limit|C|.InUse)"
    "|VolumeModification|VolumeID.Duplicate|SpotDatafeed|SpotFleetRequestId|ResourceConfiguration|DeclarativePolicies"
    "|InvalidTarget|UnknownPrincipalType"
)
"""Codes about things that we never make, change or name."""
CALLS = {
    "cloudformation": "CreateStack UpdateStack DeleteStack DescribeStacks DescribeStackEvents GetTemplate"
    " CreateChangeSet DescribeChangeSet ExecuteChangeSet",
    "fis": "CreateExperimentTemplate StartExperiment DeleteExperimentTemplate",
    "iam": "CreateServiceLinkedRole GetRole GetInstanceProfile",
    "pricing": "GetProducts",
    "service-quotas": "GetServiceQuota ListServiceQuotas GetAWSDefaultServiceQuota",
    "sqs": "ReceiveMessage DeleteMessage DeleteMessageBatch",
    "ssm": "GetParameter",
    "sts": "GetCallerIdentity",
}
"""What we call besides EC2; the errors of each are in its service's model."""
COMMON = (
    "AccessDeniedException ExpiredTokenException IncompleteSignature InternalFailure MalformedHttpRequestException"
    " NotAuthorized OptInRequired RequestAbortedException RequestEntityTooLargeException RequestExpired"
    " RequestTimeoutException ServiceUnavailable ThrottlingException UnrecognizedClientException"
    " UnknownOperationException ValidationError"
)
"""https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html"""


def response(code: str, message: str = "words.", status: int = 400, operation: str = "CreateFleet") -> ClientError:
    answer: Any = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


def error(code: str, message: str = "words.", **rest: Any) -> ProviderError:
    return provider_error("launch node x", response(code, message, **rest))


def documented() -> list[str]:
    lines = EC2_CODES.read_text().splitlines()
    return [code for line in lines if not line.startswith("#") for code in line.split()]


def modelled() -> set[str]:
    session = botocore.session.Session()
    found: set[str] = set()
    for service, operations in CALLS.items():
        model = session.get_service_model(service)
        for operation in operations.split():
            for shape in model.operation_model(operation).error_shapes:
                found.add(shape.metadata.get("error", {}).get("code") or shape.name)
    return found


def test_every_documented_code_of_ec2_is_in_the_table_or_about_what_we_never_use() -> None:
    assert len(documented()) > 400
    assert not [code for code in documented() if code not in CODES and not NEVER_USED.search(code)]


def test_every_code_that_the_other_services_declare_is_in_the_table() -> None:
    declared = modelled()
    assert {"ParameterNotFound", "AlreadyExistsException", "QueueDoesNotExist", "NoSuchResourceException"} <= declared
    assert not {code for code in declared | set(COMMON.split()) if code not in CODES}


def test_no_code_is_in_the_table_twice() -> None:
    counted = Counter(code for _, _, codes in error_codes._GROUPS for code in [*codes.split()])
    assert not [code for code, times in counted.items() if times > 1 or code in EXPIRED_CODES]


def test_every_exception_of_the_table_exists() -> None:
    for name in EXCEPTIONS:
        assert hasattr(botocore.exceptions, name) or hasattr(botocore.parsers, name), name


@pytest.mark.parametrize("code", CODES)
def test_every_code_says_what_failed_and_what_to_do(code: str) -> None:
    found = error(code)
    assert type(found) is CODES[code].kind
    assert re.fullmatch(rf"cannot launch node x: {re.escape(code)}.*; .{{10,}}", str(found))


@pytest.mark.parametrize(
    ("codes", "kind"),
    [
        ("InsufficientInstanceCapacity UnfulfillableCapacity InsufficientHostCapacity Unsupported", NoCapacity),
        ("VcpuLimitExceeded MaxSpotInstanceCountExceeded InstanceLimitExceeded", QuotaReached),
        ("SpotMaxPriceTooLow", PriceTooLow),
        ("RequestLimitExceeded Throttling ThrottlingException Client.RequestLimitExceeded", Throttled),
        ("UnauthorizedOperation AccessDenied AccessDeniedException AuthFailure InvalidClientTokenId", NotAuthorised),
        ("ExpiredToken ExpiredTokenException RequestExpired", CredentialsExpired),
        ("InvalidParameterValue InvalidAMIID.NotFound InvalidSubnetID.NotFound OptInRequired", Misconfigured),
        ("InvalidInstanceID.NotFound InvalidLaunchTemplateName.NotFoundException NoSuchEntity", NotThere),
        ("InternalError Unavailable ServiceUnavailable", ProviderUnavailable),
    ],
)
def test_errors_are_named_for_the_next_move(codes: str, kind: type[ProviderError]) -> None:
    assert {type(error(code)) for code in codes.split()} == {kind}


@pytest.mark.parametrize(("status", "kind"), [(400, ProviderError), (403, ProviderError), (500, ProviderUnavailable)])
def test_an_unknown_code_is_told_and_never_taken_for_missing_capacity(status: int, kind: type[ProviderError]) -> None:
    found = error("BrandNew", status=status)
    assert type(found) is kind
    assert "BrandNew, words" in str(found)
    assert refusal_kind("BrandNew") is None


def test_only_what_refuses_an_offer_is_a_refusal() -> None:
    kinds = {code: refusal_kind(code) for code in CODES}
    assert kinds["VcpuLimitExceeded"] is QuotaReached
    assert all((kind is not None) == issubclass(CODES[code].kind, NoCapacity) for code, kind in kinds.items())


def test_a_type_that_a_zone_has_not_is_a_refusal_though_the_code_says_less() -> None:
    """As seen in answers of real instant fleets."""
    words = (
        "Your requested instance type (trn1.2xlarge) is not supported in your requested Availability Zone (us-east-2a)."
    )
    assert refusal_kind("InvalidFleetConfiguration", words) is NoCapacity
    assert refusal_kind("InvalidFleetConfiguration", "The fleet configuration is wrong") is None


@pytest.mark.parametrize(
    ("code", "setting"),
    [
        ("InvalidAMIID.NotFound", "provider.image"),
        ("InvalidInstanceType", "provider.instance_types"),
        ("InvalidZone.NotFound", "provider.zones"),
        ("InvalidBlockDeviceMapping", "provider.disk"),
        ("InvalidGroup.NotFound", "starling aws setup"),
        ("SpotMaxPriceTooLow", "provider.max_price"),
        ("VcpuLimitExceeded", "starling doctor"),
        ("MaxTemplateLimitExceeded", "starling gc"),
    ],
)
def test_the_setting_is_named(code: str, setting: str) -> None:
    assert setting in str(error(code))


def raised_by_botocore(base: str, pattern: str = "") -> list[type[BotoCoreError]]:
    ancestor: type[BotoCoreError] = getattr(botocore.exceptions, base)
    kinds = [kind for _, kind in inspect.getmembers(botocore.exceptions, inspect.isclass)]
    return [kind for kind in kinds if issubclass(kind, ancestor) and re.search(pattern, kind.__name__)]


def instance(kind: type[BotoCoreError]) -> BotoCoreError:
    """One of them, whatever its message wants to know."""
    made = kind.__new__(kind)
    Exception.__init__(made, "words")
    return made


@pytest.mark.parametrize("kind", raised_by_botocore("HTTPClientError") + raised_by_botocore("ConnectionError"))
def test_whatever_the_network_does_aws_is_unavailable(kind: type[BotoCoreError]) -> None:
    assert type(provider_error("look", instance(kind))) is ProviderUnavailable


@pytest.mark.parametrize(
    ("kind", "command"),
    [
        *((kind, "aws sso login") for kind in raised_by_botocore("SSOError")),
        *((kind, "aws sso login") for kind in raised_by_botocore("TokenRetrievalError")),
        *((kind, "aws login") for kind in raised_by_botocore("LoginError") if "Permissions" not in kind.__name__),
        *((kind, "aws ") for kind in raised_by_botocore("CredentialRetrievalError")),
    ],
)
def test_credentials_that_ran_out_tell_how_to_log_in(
    kind: type[BotoCoreError], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "lab")
    found = provider_error("look", instance(kind))
    assert type(found) is CredentialsExpired
    assert command in str(found)
    assert "--profile lab" in str(found)


@pytest.mark.parametrize("kind", raised_by_botocore("BotoCoreError", "PartialCredentials"))
def test_with_half_of_the_credentials_nothing_is_authorised(kind: type[BotoCoreError]) -> None:
    assert type(provider_error("look", instance(kind))) is NotAuthorised


@pytest.mark.parametrize("kind", raised_by_botocore("BotoCoreError", "NoCredentials"))
def test_credentials_that_are_not_there_are_waited_for(kind: type[BotoCoreError]) -> None:
    """Nobody has logged in, or the machine's metadata service is slow: botocore says the same of both."""
    found = provider_error("look", instance(kind))
    assert type(found) is CredentialsExpired
    assert "`aws sso login`) or run `aws configure`; it is noticed by itself" in str(found)
    assert "expired" not in str(found)


def test_an_account_that_aws_still_checks_is_waited_for() -> None:
    found = error("PendingVerification")
    assert type(found) is CredentialsExpired
    assert "AWS checks the account" in str(found)
    assert "log in" not in str(found)


def test_an_answer_that_is_no_answer_is_told_in_one_line() -> None:
    found = provider_error("look", botocore.parsers.ResponseParserError("cannot parse:\n<html>\n" + "x" * 9000))
    assert type(found) is ProviderUnavailable
    assert len(str(found)) < 200
