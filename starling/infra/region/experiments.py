"""Experiments of the Fault Injection Service (FIS): moto completes them and touches nothing; here they interrupt.

https://docs.aws.amazon.com/fis/latest/userguide/fis-actions-reference.html#send-spot-instance-interruptions
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.fis.models import fis_backends

_ACTION = "aws:ec2:send-spot-instance-interruptions"


def new_interruptions(known: set[str]) -> Iterator[tuple[str, float]]:
    """Instance and seconds until it is to be taken, of every experiment that is not known; makes it known."""
    for backend in list(fis_backends[DEFAULT_ACCOUNT_ID].values()):
        for experiment in backend.experiments.values():
            if experiment.id in known:
                continue
            known.add(experiment.id)
            for action in experiment.actions.values():
                if action["actionId"] == _ACTION:
                    minutes = re.fullmatch(r"PT(\d+)M", action["parameters"]["durationBeforeInterruption"])
                    seconds = 60.0 * int(minutes[1]) if minutes else 120.0
                    for name in action["targets"].values():
                        arns = experiment.targets[name]["resourceArns"]
                        yield from ((arn.rpartition("/")[2], seconds) for arn in arns)
