"""`doctor`: everything that a run on AWS needs, looked at one after the other, each with its fix."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Iterator
from importlib.util import find_spec

from starling.cli.output import emit, say
from starling.infra.errors import StarlingError
from starling.infra.providers.aws.checkup import account, dry_runs, setup
from starling.infra.providers.aws.checkup.finding import Check, Finding, Health, fail, ok, run_checks, warn
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.regions import default_region, supported
from starling.infra.providers.aws.stack import StackOutputs, read_stack

_MARKS = {Health.OK: "ok  ", Health.WARN: "warn", Health.FAIL: "FAIL", Health.SKIPPED: "-   "}
_EXTRAS = {
    "train": ("torch", "to train on this computer (nodes on AWS bring their own)"),
    "rehearse": ("moto", "for `starling rehearse`"),
    "ssh": ("paramiko", "for provider ssh, and for `starling ssh`, `put` and `get`"),
    "plot": ("matplotlib", "for `starling prices --plot`"),
}
_OLDEST = (3, 11)


def doctor_verb(region: str | None, stack: str, *, as_json: bool) -> int:
    """The exit code: 1 if a run cannot work."""
    clients = AwsClients(supported(region or default_region()))
    findings: list[Finding] = []
    for finding in _examine(clients, stack):
        findings.append(finding)
        if not as_json:
            _say(finding)
    failed = sum(finding.health is Health.FAIL for finding in findings)
    warned = sum(finding.health is Health.WARN for finding in findings)
    if as_json:
        emit({"ok": not failed, "checks": [dataclasses.asdict(finding) for finding in findings]})
    elif failed or warned:
        say(f"{failed} to be put right, {warned} to know about")
    else:
        say("all is well")
    return 1 if failed else 0


def _examine(clients: AwsClients, name: str) -> Iterator[Finding]:
    yield from _check_computer()
    yield from run_checks([("clock", lambda: account.check_clock(clients))])
    credentials = list(run_checks([("credentials", lambda: account.check_credentials(clients))]))
    yield from credentials
    if any(finding.health is Health.FAIL for finding in credentials):
        yield _skipped("everything else", "needs credentials")
        return
    region = list(run_checks([("region", lambda: account.check_region(clients))]))
    yield from region
    if any(finding.health is Health.FAIL for finding in region):
        yield _skipped("everything else", "needs a region that is enabled")
        return
    yield from run_checks(
        [
            ("quotas", lambda: account.check_quotas(clients)),
            ("spot role", lambda: setup.check_spot_role(clients)),
            ("images", lambda: setup.check_images(clients)),
            ("stack", lambda: setup.check_stack(clients, name)),
        ]
    )
    yield from _examine_stack(clients, name)


def _examine_stack(clients: AwsClients, name: str) -> Iterator[Finding]:
    try:
        stack = read_stack(clients, name)
    except StarlingError:  # the check of the stack has said so
        yield _skipped("bucket, network, roles, permissions", "need the stack")
        return
    yield from run_checks(_checks_of(clients, stack, name))


def _checks_of(clients: AwsClients, stack: StackOutputs, name: str) -> list[tuple[str, Check]]:
    return [
        ("bucket", lambda: setup.check_bucket(clients, stack)),
        ("public access", lambda: setup.check_public_access(clients, stack)),
        ("network", lambda: setup.check_network(clients, stack)),
        ("node role", lambda: setup.check_roles(clients, stack, name)),
        ("permissions", lambda: dry_runs.check_permissions(clients, stack, name)),
    ]


def _check_computer() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info >= _OLDEST:
        yield ok("python", version)
    else:
        yield fail("python", version, "use Python 3.11 or later")
    missing = [f"{extra} ({why})" for extra, (module, why) in _EXTRAS.items() if find_spec(module) is None]
    if missing:
        names = ",".join(entry.split(" ")[0] for entry in missing)
        yield warn(
            "extras", f"not installed: {'; '.join(missing)}", f'pip install "starling[{names}]" if you want them'
        )
    else:
        yield ok("extras", "all installed")


def _skipped(name: str, why: str) -> Finding:
    return Finding(name=name, health=Health.SKIPPED, says=f"not checked: {why}")


def _say(finding: Finding) -> None:
    say(f"{_MARKS[finding.health]}  {finding.name}: {finding.says}")
    if finding.fix is not None:
        say(f"      fix: {finding.fix}")
