"""Client tokens: a call that is repeated with the same token is answered as the first time, and does nothing.

moto ignores them. As with AWS, a call that was refused leaves no trace, so that its token may be used again, and the
same token with other parameters is a mistake. AWS does not promise that a repeated CreateFleet tells again what it
bought: it may name just the fleet.
"""

from __future__ import annotations

import re
from dataclasses import replace

from starling.infra.region.calls import Answer, Call, Refused

_WHAT_CAME_OF_IT = re.compile(rb"<(fleetInstanceSet|errorSet)\b.*?(</\1>|/>)", re.DOTALL)
ACTIONS = frozenset({"CreateFleet", "CreateLaunchTemplate", "CreateLaunchTemplateVersion", "RunInstances"})


class ClientTokens:
    """Answers given so far, by token."""

    def __init__(self) -> None:
        self.terse = False
        """A repeated CreateFleet is answered with the fleet's id alone."""
        self._given: dict[tuple[str, str, str], tuple[dict[str, str], Answer]] = {}

    def recall(self, call: Call) -> Answer | None:
        """The answer that this very call was given before. Raises Refused if its token belongs to another call."""
        known = self._given.get(_key(call)) if _counts(call) else None
        if known is None:
            return None
        if known[0] != call.form:
            raise Refused(
                "IdempotentParameterMismatch",
                "Arguments on this idempotent request are inconsistent with arguments used",
            )
        return _just_the_fleet(known[1]) if self.terse and call.action == "CreateFleet" else known[1]

    def keep(self, call: Call, answer: Answer) -> None:
        if _counts(call) and answer.status < 300:
            self._given[_key(call)] = (call.form, answer)


def _just_the_fleet(answer: Answer) -> Answer:
    return replace(answer, body=_WHAT_CAME_OF_IT.sub(b"", answer.body))


def _counts(call: Call) -> bool:
    return call.service == "ec2" and call.action in ACTIONS and bool(call.form.get("ClientToken"))


def _key(call: Call) -> tuple[str, str, str]:
    return call.region, call.action, call.form["ClientToken"]
