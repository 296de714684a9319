"""What AWS's errors mean for what to do next: the one table from its codes, and botocore's exceptions, to our errors.

A code that is not in the table is never taken for missing capacity: it is ProviderUnavailable if the server failed,
else a plain ProviderError that repeats what AWS said.
"""

from __future__ import annotations

from dataclasses import dataclass

from botocore.exceptions import ClientError

from starling.infra.aws_login import EXPIRED_CODES, EXPIRED_EXCEPTIONS, how_to_log_in
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
from starling.infra.providers.aws.authorisation import action_of, denial


@dataclass(frozen=True, slots=True)
class Meaning:
    """What the caller gets, and what the user should know."""

    kind: type[ProviderError]
    advice: str


_GROUPS: tuple[tuple[type[ProviderError], str, str], ...] = (
    (
        NoCapacity,
        "other offers are tried, this one later again",
        "InsufficientInstanceCapacity InsufficientCapacity InsufficientHostCapacity InsufficientCapacityOnHost"
        " UnfulfillableCapacity ReservationCapacityExceeded InsufficientReservedInstanceCapacity"
        " InsufficientReservedInstancesCapacity InsufficientVolumeCapacity InsufficientAddressCapacity"
        " IncompatibleHostRequirements UnavailableHostRequirements",
    ),
    (
        NoCapacity,
        "this instance type cannot be had in this zone; other offers are tried",
        "Unsupported UnsupportedOperation VolumeTypeNotAvailableInZone UnsupportedTenancy EncryptedVolumesNotSupported",
    ),
    (
        NoCapacity,
        "the zone's subnet has no free address left; other zones are tried. Free some, or give the VPC a larger subnet",
        "InsufficientFreeAddressesInSubnet PrivateIpAddressLimitExceeded",
    ),
    (
        QuotaReached,
        "offers that count against another quota are tried. `starling doctor` shows the quotas; have this one raised in"
        " the Service Quotas console (spot and on-demand have quotas of their own, in vCPUs)",
        "VcpuLimitExceeded InstanceLimitExceeded MaxSpotInstanceCountExceeded MaxSpotFleetRequestCountExceeded"
        " MaxFleetCountExceeded SpotInstanceCountLimitExceeded",
    ),
    (
        QuotaReached,
        "have this quota raised in the Service Quotas console, or free what `starling gc` finds",
        "VolumeLimitExceeded MaxIOPSLimitExceeded VolumeIOPSLimit NetworkInterfaceLimitExceeded ResourceLimitExceeded"
        " ResourceCountExceeded ResourceCountLimitExceeded RequestResourceCountExceeded AttachmentLimitExceeded",
    ),
    (
        PriceTooLow,
        "the market asks more than provider.max_price: wait for it to fall, or raise it",
        "SpotMaxPriceTooLow LimitPriceExceeded InvalidSpotPrice",
    ),
    (
        Throttled,
        "too many calls in the account; the same is asked again later",
        "RequestLimitExceeded Throttling ThrottlingException ThrottledException RequestThrottled"
        " RequestThrottledException TooManyRequestsException EC2ThrottledException BandwidthLimitExceeded SlowDown"
        " PriorRequestNotComplete ConcurrentTagAccess KMS.ThrottlingException KmsThrottled OverLimit",
    ),
    (
        Throttled,
        "a limit of EC2 on questions about placement scores: the same configurations may be asked about again within"
        " 24 hours, new ones later",
        "MaxConfigLimitExceededException TargetCapacityLimitExceededException TargetCapacityLimitExceeded",
    ),
    (
        ProviderUnavailable,
        "AWS fails or is overloaded; the same is asked again later",
        "InternalError InternalFailure InternalServerError InternalErrorException ServerInternal ServiceUnavailable"
        " Unavailable ServiceException ServiceFailure RequestTimeout RequestTimeoutException"
        " IncorrectInstanceState IncorrectState InvalidState InvalidInstanceState"
        " OperationInProgressException OperationInProgress ConcurrentModification ConflictException"
        " IncorrectModificationState IncorrectSpotRequestState IncorrectStateException InvalidStateTransition"
        " FleetNotInModifiableState InvalidChangeSetStatus RetryableError RequestAbortedException",
    ),
    (
        NotAuthorised,
        "",
        "UnauthorizedOperation AccessDenied AccessDeniedException UnauthorizedAccess"
        " SsmAccessDenied AuthorizationError NotAuthorized KmsAccessDenied KMS.AccessDeniedException"
        " AuthFailure.ServiceLinkedRoleCreationNotPermitted",
    ),
    (
        NotAuthorised,
        "check which credentials are used (`aws sts get-caller-identity`): environment, AWS_PROFILE, ~/.aws; and this"
        " machine's clock",
        "AuthFailure InvalidClientTokenId SignatureDoesNotMatch UnrecognizedClientException IncompleteSignature"
        " IncompleteSignatureException InvalidSignatureException InvalidAccessKeyId MissingAuthenticationToken"
        " MissingAuthenticationTokenException InvalidSecurity InvalidSecurity.RequestHasExpired NotSignedUp",
    ),
    (
        CredentialsExpired,
        "AWS checks the account, as it does with new ones: that takes minutes to hours, and it goes on by itself"
        " afterwards; after four hours ask AWS Support",
        "PendingVerification",
    ),
    (
        NotAuthorised,
        "AWS has yet to approve the account: wait for its mail, or ask AWS Support",
        "Blocked AccountProblem SubscriptionRequiredException AccountDisabled",
    ),
    (
        Misconfigured,
        "the account has not opted in: enable the region, or subscribe to the image's product in AWS Marketplace",
        "OptInRequired KmsOptInRequired",
    ),
    (
        Misconfigured,
        "correct provider.image, an AMI of provider.region that fits the instance types",
        "InvalidAMIID.NotFound InvalidAMIID.Malformed InvalidAMIID.Unavailable ParameterNotFound"
        " ParameterVersionNotFound InvalidManifest InvalidProductInfo",
    ),
    (
        Misconfigured,
        "correct provider.instance_types",
        "InvalidInstanceType InvalidInstanceAttributeValue InvalidInstanceFamily InvalidInstanceType.NotFound"
        " InstanceCreditSpecification.NotSupported",
    ),
    (
        Misconfigured,
        "correct provider.zones and provider.region",
        "InvalidAvailabilityZone InvalidZone.NotFound InvalidRegion ZonesMismatched InvalidVolume.ZoneMismatch"
        " InvalidVolumeID.ZoneMismatch",
    ),
    (
        Misconfigured,
        "correct provider.disk, and the snapshot and volume type of provider.image",
        "InvalidBlockDeviceMapping InvalidSnapshot.NotFound InvalidSnapshotID.Malformed BootForVolumeTypeUnsupported"
        " UnknownVolumeType NonEBSInstance",
    ),
    (
        Misconfigured,
        "the set-up does not fit the account any more: run `starling aws setup` again",
        "InvalidSubnetID.NotFound InvalidSubnetId.NotFound InvalidSubnetID.Malformed InvalidSubnet"
        " InvalidGroup.NotFound InvalidGroupId.Malformed InvalidSecurityGroupID.NotFound"
        " InvalidSecurityGroupId.Malformed"
        " InvalidVpcID.NotFound InvalidVpcID.Malformed DefaultVpcDoesNotExist VPCIdNotSpecified VPCResourceNotSpecified"
        " InvalidIamInstanceProfileArn.Malformed InvalidIamInstanceProfile.NotFound InvalidRole.NotFound"
        " InvalidLaunchTemplateId.Malformed InvalidLaunchTemplateName.MalformedException"
        " InvalidLaunchTemplateId.VersionNotFound InvalidKeyPair.NotFound Gateway.NotAttached"
        " SecurityGroupsPerInstanceLimitExceeded SecurityGroupsPerInterfaceLimitExceeded"
        " InvalidPlacementGroup.Unknown InvalidPlacementGroupId.Malformed",
    ),
    (
        Misconfigured,
        "the key that encrypts the volumes or the queue cannot be used: check its state and policy in KMS",
        "CustomerKeyHasBeenRevoked InvalidKMSKey.InvalidState InvalidKeyId KmsDisabled KmsInvalidState KmsNotFound"
        " KmsInvalidKeyUsage KMS.DisabledException KMS.InvalidStateException KMS.NotFoundException KMS.OptInRequired",
    ),
    (
        Misconfigured,
        "remove launch templates that are no longer used: `starling gc --delete`",
        "MaxTemplateLimitExceeded MaxTemplateVersionLimitExceeded",
    ),
    (
        Misconfigured,
        "this limit of the account is no matter of capacity: have it raised, or free what is no longer used",
        "LimitExceeded LimitExceededException TagLimitExceeded SecurityGroupLimitExceeded VpcLimitExceeded"
        " PlacementGroupLimitExceeded ServiceQuotaExceededException FilterLimitExceeded",
    ),
    (
        Misconfigured,
        "the message names the value that AWS does not take",
        "InvalidParameterValue InvalidParameter InvalidParameterCombination InvalidParameterDependency"
        " InvalidParameterException MissingParameter MissingInput UnknownParameter InvalidRequest InvalidInput"
        " InvalidInputException ValidationError ValidationException InvalidFleetConfiguration InvalidFleetConfig"
        " InvalidSpotFleetRequestConfig InvalidSpotDatafeed InvalidFilter InvalidID InvalidTagKey.Malformed"
        " InvalidTenancy InvalidTime InvalidUserData.Malformed InvalidMaxResults InvalidOption InvalidCharacter"
        " InvalidIdFormat InvalidAddress InvalidResourceType.Unknown IllegalArgumentException"
        " InstanceTypeNotSupported UnsupportedInstanceAttribute UnsupportedHibernationConfiguration"
        " UnsupportedHostConfiguration UnsupportedInstanceTypeOnHost InvalidClientToken MalformedPolicyDocument"
        " MalformedPolicyDocumentException InsufficientCapabilitiesException InsufficientCapabilities"
        " PolicyEvaluation InvalidPolicyDocument UserData.Malformed InvalidInterface.IpAddressLimitExceeded"
        " InvalidNetworkInterface.InUse InvalidNetworkInterfaceID.NotFound InvalidNetworkInterfaceId.Malformed"
        " InvalidKernelId.Malformed InvalidRamDiskId.Malformed InvalidHostConfiguration InvalidAffinity"
        " InvalidInstanceID InvalidInstanceID.Malformed InvalidVolumeID.Malformed InvalidFleetId.Malformed"
        " InvalidUserID.Malformed ClientInvalidParameterValue InvalidLaunchTargets InvalidNetworkInterface.NotFound"
        " InvalidReservationID.Malformed InvalidSpotInstanceRequestID.Malformed InvalidAutoPlacement"
        " RequestEntityTooLargeException MalformedHttpRequestException InvalidKernelId.NotFound",
    ),
    (
        Misconfigured,
        "it exists already under another hand: use another name, or remove it",
        "AlreadyExistsException EntityAlreadyExists InvalidLaunchTemplateName.AlreadyExistsException"
        " TokenAlreadyExistsException InvalidGroup.Duplicate",
    ),
    (
        Misconfigured,
        "the message says what forbids it: termination protection, or a tag policy of your organisation",
        "OperationNotPermitted TagPolicyViolation",
    ),
    (
        Misconfigured,
        "AWS made it itself and lets nobody else change it: change what it was made from (roles of permission sets: IAM"
        " Identity Center)",
        "UnmodifiableEntity UnmodifiableEntityException",
    ),
    (
        Misconfigured,
        "something else still uses it: remove that first",
        "DependencyViolation DeleteConflict InvalidGroup.InUse VolumeInUse CannotDelete",
    ),
    (
        Misconfigured,
        "the endpoint does not know this call: check AWS_ENDPOINT_URL and the version of boto3",
        "InvalidAction InvalidQueryParameter MalformedQueryString MissingAction NoSuchVersion UnsupportedProtocol"
        " UnsupportedException InvalidServiceName UnknownOperationException UnsupportedOperationException",
    ),
    (
        NotThere,
        "it does not exist, or not any more",
        "InvalidInstanceID.NotFound InvalidVolume.NotFound InvalidVolumeID.NotFound InvalidFleetId.NotFound"
        " InvalidFleetID.NotFound NoSuchFleetId InvalidSpotInstanceRequestID.NotFound"
        " InvalidLaunchTemplateName.NotFoundException InvalidLaunchTemplateId.NotFound"
        " InvalidLaunchTemplateId.NotFoundException InvalidReservationID.NotFound NoSuchEntity NoSuchEntityException"
        " QueueDoesNotExist AWS.SimpleQueueService.NonExistentQueue NoSuchResource NoSuchResourceException"
        " NotFoundException ResourceNotFoundException ReceiptHandleIsInvalid MessageNotInflight StackNotFoundException"
        " ChangeSetNotFound ChangeSetNotFoundException StackInstanceNotFoundException",
    ),
    (
        ProviderError,
        "this is a mistake of ours; please report it",
        "IdempotentParameterMismatch IdempotentInstanceTerminated DryRunOperation InvalidPaginationToken"
        " InvalidNextToken InvalidNextTokenException ExpiredNextTokenException InvalidPaginationTokenException"
        " TooManyEntriesInBatchRequest EmptyBatchRequest BatchEntryIdsNotDistinct InvalidBatchEntryId",
    ),
)

CODES: dict[str, Meaning] = {
    code: Meaning(kind, advice) for kind, advice, codes in _GROUPS for code in codes.split()
} | {code: Meaning(CredentialsExpired, "") for code in EXPIRED_CODES}
"""Error code of an answer -> what it means. Empty advice is made when it is needed."""

EXCEPTIONS: dict[str, Meaning] = {
    **{name: Meaning(CredentialsExpired, "") for name in EXPIRED_EXCEPTIONS},
    # A metadata service that is slow to answer looks like this as well.
    "NoCredentialsError": Meaning(
        CredentialsExpired, "log in (`aws login`, `aws sso login`) or run `aws configure`; it is noticed by itself"
    ),
    "PartialCredentialsError": Meaning(
        NotAuthorised, "run `aws configure`, or complete the environment's AWS_ variables"
    ),
    "LoginInsufficientPermissions": Meaning(NotAuthorised, "the user may not log in this way: ask the account's owner"),
    "ProfileNotFound": Meaning(Misconfigured, "check AWS_PROFILE and ~/.aws"),
    "ConfigParseError": Meaning(Misconfigured, "correct that file"),
    "InvalidConfigError": Meaning(Misconfigured, "correct ~/.aws/config"),
    "MissingDependencyException": Meaning(Misconfigured, "install what it names"),
    "UnknownCredentialError": Meaning(Misconfigured, "correct credential_source in ~/.aws/config"),
    "NoRegionError": Meaning(Misconfigured, "give provider.region"),
    "InvalidRegionError": Meaning(Misconfigured, "correct provider.region"),
    "UnknownRegionError": Meaning(Misconfigured, "correct provider.region"),
    "EndpointProviderError": Meaning(Misconfigured, "check provider.region and AWS_ENDPOINT_URL"),
    "UnknownEndpointError": Meaning(Misconfigured, "check provider.region and AWS_ENDPOINT_URL"),
    "ValidationError": Meaning(Misconfigured, "the message names the value that AWS would not take"),
    "ParamValidationError": Meaning(Misconfigured, "the message names the value that AWS would not take"),
    "CapacityNotAvailableError": Meaning(Throttled, "the same is asked again later"),
    "ConnectionError": Meaning(ProviderUnavailable, "check the network and, if it is set, AWS_ENDPOINT_URL"),
    "HTTPClientError": Meaning(ProviderUnavailable, "check the network and, if it is set, AWS_ENDPOINT_URL"),
    "IncompleteReadError": Meaning(ProviderUnavailable, "check the network"),
    "MetadataRetrievalError": Meaning(ProviderUnavailable, "this machine's metadata service does not answer"),
    "ResponseParserError": Meaning(ProviderUnavailable, "the answer cannot be read; the same is asked again later"),
}
"""Name of a botocore exception or of one of its bases -> the same."""

_BY_MESSAGE: tuple[tuple[str, str, str], ...] = (
    # Code, words of the message, and the code whose meaning it has: AWS uses these codes for several things.
    ("InvalidFleetConfiguration", "requested availability zone", "Unsupported"),
    ("InvalidParameterValue", "requested availability zone", "Unsupported"),
    ("InvalidParameterValue", "iam instance profile", "InvalidIamInstanceProfile.NotFound"),
    ("InvalidParameterValue", "architecture", "InvalidAMIID.Unavailable"),
    ("InvalidParameterCombination", "architecture", "InvalidAMIID.Unavailable"),
    ("ValidationError", "does not exist", "StackNotFoundException"),
)


def provider_error(doing: str, error: Exception) -> ProviderError:
    """The error to raise in place of botocore's; `doing` says what was tried ("launch node x")."""
    if isinstance(error, ClientError):
        said = error.response.get("Error", {})
        code, message = str(said.get("Code") or "Unknown"), str(said.get("Message") or "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return coded_error(doing, code, message, operation=error.operation_name, status=status)
    meaning = _meaning_of_exception(error)
    advice = meaning.advice or how_to_log_in(error)
    reason = str(error).partition("\n")[0]  # what cannot be parsed is quoted, page by page
    return meaning.kind(_joined(f"cannot {doing}", reason, advice))


def coded_error(doing: str, code: str, message: str, *, operation: str, status: int = 0) -> ProviderError:
    """The error for a code of AWS's, wherever it stood; `operation` is the API call, `status` HTTP's."""
    meaning = meaning_of(code, message, status)
    if meaning.kind is NotAuthorised and not meaning.advice:
        return NotAuthorised(_joined(f"cannot {doing}", code, denial(message, action_of(operation))))
    advice = meaning.advice or how_to_log_in()
    return meaning.kind(_joined(f"cannot {doing}", f"{code}, {message or 'no message'}", advice))


def meaning_of(code: str, message: str = "", status: int = 0) -> Meaning:
    """What a code means, as far as the table knows; unknown ones are judged by the HTTP status."""
    for other, words, same_as in _BY_MESSAGE:
        if code == other and words in message.lower():
            return CODES[same_as]
    if known := CODES.get(code.removeprefix("Client.").removeprefix("Server.")):
        return known
    if status >= 500:
        return Meaning(ProviderUnavailable, "AWS fails or is overloaded; the same is asked again later")
    return Meaning(ProviderError, "this error is unknown to Starling")


def refusal_kind(code: str, message: str = "") -> type[NoCapacity] | None:
    """NoCapacity, QuotaReached or PriceTooLow, if this code refuses one offer and leaves others to try."""
    kind = meaning_of(code, message).kind
    return kind if issubclass(kind, NoCapacity) else None


def _meaning_of_exception(error: Exception) -> Meaning:
    for ancestor in type(error).__mro__:
        if known := EXCEPTIONS.get(ancestor.__name__):
            return known
    return Meaning(ProviderError, f"this error ({type(error).__name__}) is unknown to Starling")


def _joined(doing: str, reason: str, advice: str) -> str:
    return f"{doing}: {reason.strip().rstrip('.')}; {advice}"
