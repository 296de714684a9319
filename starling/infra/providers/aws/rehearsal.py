"""Interruptions for rehearsal, made by AWS itself: the Fault Injection Service (FIS) interrupts a real spot instance.

https://docs.aws.amazon.com/fis/latest/userguide/fis-actions-reference.html#send-spot-instance-interruptions
"""

from __future__ import annotations

import logging

from botocore.exceptions import BotoCoreError, ClientError

from starling.infra.errors import NotAuthorised, NotThere, ProviderError
from starling.infra.providers.aws import tags
from starling.infra.providers.aws.clients import AwsClients

SHORTEST_NOTICE = 120.0
LONGEST_NOTICE = 900.0
"""Seconds; what FIS takes. The instance is warned two minutes before its end, and at once recommended to leave."""
ACTION = "aws:ec2:send-spot-instance-interruptions"

_log = logging.getLogger(__name__)


def role_name(stack: str) -> str:
    """The role that lets FIS interrupt instances; the user makes it, see docs/aws.md."""
    return f"{stack}-fis"


def rehearse_interruption(clients: AwsClients, *, stack: str, node: str, instance_id: str, notice: float) -> None:
    """Have FIS announce the interruption and take the instance after `notice` seconds, two minutes at least.
    Raises ProviderError that says what is needed if FIS cannot."""
    caller = clients.caller()
    partition = caller.arn.split(":")[1]
    minutes = round(min(max(notice, SHORTEST_NOTICE), LONGEST_NOTICE) / 60)
    if notice < SHORTEST_NOTICE:
        _log.warning("AWS gives at least two minutes of notice: node %s is interrupted in two minutes", node)
    try:
        with clients.named(f"interrupt node {node} through FIS"):
            template = clients.fis.create_experiment_template(
                description=f"Starling: interrupt node {node}",
                roleArn=f"arn:{partition}:iam::{caller.account}:role/{role_name(stack)}",
                stopConditions=[{"source": "none"}],
                targets={
                    "node": {
                        "resourceType": "aws:ec2:spot-instance",
                        "resourceArns": [
                            f"arn:{partition}:ec2:{clients.region}:{caller.account}:instance/{instance_id}"
                        ],
                        "selectionMode": "ALL",
                    }
                },
                actions={
                    "interrupt": {
                        "actionId": ACTION,
                        "parameters": {"durationBeforeInterruption": f"PT{minutes}M"},
                        "targets": {"SpotInstances": "node"},
                    }
                },
                tags={tags.PROJECT: tags.OURS, tags.STACK: stack, tags.NODE: node},
            )["experimentTemplate"]["id"]
            _start(clients, template)
    except (NotAuthorised, NotThere) as error:
        raise type(error)(f"{error}. {_needs(stack)}") from error
    except ProviderError as error:
        raise ProviderError(f"{error}. {_needs(stack)}") from error


def _start(clients: AwsClients, template: str) -> None:
    """Start the experiment, and leave no template: one that has been started no longer needs it."""
    try:
        clients.fis.start_experiment(experimentTemplateId=template)
    except (ClientError, BotoCoreError):
        try:
            clients.fis.delete_experiment_template(id=template)
        except (ClientError, BotoCoreError) as error:  # why it was not started is what the user is to hear
            _log.warning("FIS's experiment template %s stays behind: %s", template, error)
        raise
    clients.fis.delete_experiment_template(id=template)


def _needs(stack: str) -> str:
    return (
        f"A rehearsed notice needs the role {role_name(stack)}, which fis.amazonaws.com may assume and which may do"
        " ec2:SendSpotInstanceInterruptions, and for you fis:CreateExperimentTemplate, fis:StartExperiment,"
        " fis:DeleteExperimentTemplate, fis:TagResource and iam:PassRole for it; and for whoever uses FIS first in an"
        " account iam:CreateServiceLinkedRole for fis.amazonaws.com. `interrupt --hard` needs none of that"
    )
