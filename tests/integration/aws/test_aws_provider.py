"""The AWS provider against the emulated cloud, in a set-up that `starling aws setup` made."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse

from starling.infra.clock import FakeClock
from starling.infra.errors import (
    CredentialsExpired,
    Misconfigured,
    NoCapacity,
    NotAuthorised,
    PriceTooLow,
    ProviderError,
    ProviderUnavailable,
    QuotaReached,
    Throttled,
)
from starling.infra.providers.aws import tags
from starling.infra.providers.aws.clients import AwsClients
from starling.infra.providers.aws.provider import ANOTHERS_SECONDS, AwsProvider
from starling.infra.records import Market, NoticeKind
from starling.infra.region.cloud import EmulatedCloud, MachineView
from starling.infra.region.pools import Capacity
from starling.orchestrator.provisioning import provider_for
from tests.support.account import lead_to
from tests.support.account import set_up as set_up_account
from tests.support.aws_nodes import an_intent, an_offer

ON_DEMAND = Market.ON_DEMAND
SECTION = {"name": "aws", "region": "us-east-1", "stack": "starling", "disk": 100}


@pytest.fixture(scope="module")
def set_up() -> Iterator[EmulatedCloud]:
    """A cloud in which `starling aws setup` has been run; it takes seconds."""
    with EmulatedCloud() as cloud, pytest.MonkeyPatch.context() as patch:
        lead_to(cloud, patch)
        set_up_account()
        yield cloud


@pytest.fixture
def cloud(set_up: EmulatedCloud, monkeypatch: pytest.MonkeyPatch) -> EmulatedCloud:
    """No machine is alive, everything can be had, no call was made."""
    lead_to(set_up, monkeypatch)
    set_up.heal()
    set_up.forget_fleets(forget=False)
    set_up.capacity = Capacity()
    for machine in living(set_up):
        set_up.powered_off(machine.id)
    set_up.calls.clear()
    return set_up


@pytest.fixture(scope="module")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("aws") / "store")


@pytest.fixture
def run() -> str:
    """Runs of one name would be one run: all tests share the store, into which Starling is packed but once."""
    return f"run-{secrets.token_hex(3)}"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(time.time())


@pytest.fixture
def provider(cloud: EmulatedCloud, store_uri: str, clock: FakeClock) -> AwsProvider:
    return AwsProvider(SECTION, store_uri, clock=clock)


def living(cloud: EmulatedCloud) -> list[MachineView]:
    return [machine for machine in cloud.instances() if machine.alive]


def test_a_spec_s_section_makes_the_provider(store_uri: str) -> None:
    assert isinstance(provider_for(SECTION, store_uri), AwsProvider)


def test_a_launch_is_one_tagged_machine(provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str) -> None:
    launched = provider.launch(an_intent(run), store_uri)
    machine = living(cloud)[0]
    assert (launched.instance_id, launched.offer) == (machine.id, an_offer())
    assert (machine.type, machine.zone, machine.market) == ("g5.xlarge", "us-east-1a", Market.SPOT)
    assert {key: value for key, value in machine.tags.items() if key.startswith("starling:")} == {
        tags.PROJECT: "starling",
        tags.STACK: "starling",
        tags.STORE: store_uri,
        tags.RUN: run,
        tags.NODE: f"{run}.0.0",
        tags.OWNER: "moto",
        tags.ATTEMPT: "0",
        tags.SWEEP: "",
    }
    assert machine.user_data is not None
    assert f'"run": "{run}"' in machine.user_data
    assert machine.profile is not None


def test_the_same_attempt_again_is_the_same_machine(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str, clock: FakeClock
) -> None:
    first = provider.launch(an_intent(run), store_uri)
    other = AwsProvider(SECTION, store_uri, clock=clock)
    assert other.launch(an_intent(run), store_uri).instance_id == first.instance_id
    provider.terminate([f"{run}.0.0"])
    assert other.launch(an_intent(run), store_uri).instance_id == first.instance_id
    assert not living(cloud)


def test_a_launch_whose_answer_was_lost_is_found_by_repeating_it(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    cloud.fail("CreateFleet", "InternalError", times=3, after=True)
    with pytest.raises(ProviderUnavailable):
        provider.launch(an_intent(run), store_uri)
    assert provider.launch(an_intent(run), store_uri).instance_id == living(cloud)[0].id
    assert len(living(cloud)) == 1


def test_a_repeated_launch_that_is_told_the_fleet_alone_asks_for_the_rest(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    cloud.forget_fleets()
    offers = (an_offer(), an_offer(zone="b"))
    cloud.capacity.set("g5.xlarge", "us-east-1a", "spot", 0)
    cloud.fail("CreateFleet", "InternalError", times=3, after=True)
    with pytest.raises(ProviderUnavailable):
        provider.launch(an_intent(run, *offers), store_uri)
    launched = provider.launch(an_intent(run, *offers), store_uri)
    assert (launched.instance_id, launched.offer) == (living(cloud)[0].id, offers[1])
    assert len(living(cloud)) == 1


def test_a_repeated_launch_that_had_been_refused_is_refused_for_the_same_reasons(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    cloud.forget_fleets()
    cloud.capacity.set("g5.xlarge", "us-east-1a", "spot", 0)
    refusals = []
    for _ in range(2):
        with pytest.raises(NoCapacity, match="InsufficientInstanceCapacity") as caught:
            provider.launch(an_intent(run), store_uri)
        refusals.append(caught.value.refusals)
    assert refusals[0] == refusals[1]
    assert cloud.calls["DescribeFleets"] == 1


@pytest.mark.parametrize("code", ["InvalidFleetId.NotFound", "UnauthorizedOperation", "InternalError"])
def test_while_nobody_tells_what_a_launch_bought_no_other_is_made(
    cloud: EmulatedCloud, store_uri: str, run: str, code: str
) -> None:
    AwsProvider(SECTION, store_uri).launch(an_intent(run), store_uri)
    cloud.forget_fleets()
    cloud.fail("DescribeFleets", code)
    after_a_restart = AwsProvider(SECTION, store_uri)
    for _ in range(2):
        with pytest.raises((ProviderUnavailable, NotAuthorised)):
            after_a_restart.launch(an_intent(run), store_uri)
    cloud.heal()
    assert after_a_restart.launch(an_intent(run), store_uri).instance_id == living(cloud)[0].id
    assert len(living(cloud)) == 1


def test_a_fleet_that_tells_nothing_at_all_is_asked_for_again(cloud: EmulatedCloud, store_uri: str, run: str) -> None:
    AwsProvider(SECTION, store_uri).launch(an_intent(run), store_uri)
    cloud.forget_fleets()
    clients = AwsClients("us-east-1")
    nothing = AWSResponse("https://ec2", 200, {}, None), {"Fleets": [{"FleetId": "fleet-1", "FleetState": "active"}]}
    coming = [nothing]
    clients.ec2.meta.events.register("before-call.ec2.DescribeFleets", lambda **_: coming.pop() if coming else None)
    provider = AwsProvider(SECTION, store_uri, clients=clients)
    with pytest.raises(ProviderUnavailable, match="the same launch is asked for again"):
        provider.launch(an_intent(run), store_uri)
    assert provider.launch(an_intent(run), store_uri).instance_id == living(cloud)[0].id
    assert len(living(cloud)) == 1


def test_an_attempt_that_was_made_with_other_settings_is_found(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    """Such as by a controller that another version of Starling runs in: its user data differs."""
    first = provider.launch(an_intent(run), store_uri)
    changed = AwsProvider(SECTION | {"disk": 200}, store_uri).launch(an_intent(run), store_uri)
    assert (changed.instance_id, changed.offer) == (first.instance_id, first.offer)
    assert len(living(cloud)) == 1


def test_an_attempt_with_other_settings_that_bought_nothing_has_failed_once_that_is_certain(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str, clock: FakeClock
) -> None:
    cloud.fail("CreateFleet", "IdempotentParameterMismatch")
    with pytest.raises(ProviderUnavailable, match="does not show yet"):
        provider.launch(an_intent(run), store_uri)
    # Another controller's call may have begun just before: it is answered, or given up, after three tries of 65 s.
    clock.advance(3 * 65.0 + provider.pace.settle)
    with pytest.raises(ProviderUnavailable, match="does not show yet"):
        provider.launch(an_intent(run), store_uri)
    clock.advance(ANOTHERS_SECONDS - 3 * 65.0 - provider.pace.settle)
    with pytest.raises(NoCapacity, match="bought nothing"):
        provider.launch(an_intent(run), store_uri)


def deny_next_fleet(clients: AwsClients) -> None:
    """As AWS does without iam:PassRole: HTTP 200, no machine, and the reason among the errors."""
    errors = [{"ErrorCode": "UnauthorizedOperation", "ErrorMessage": "not authorized to perform: iam:PassRole"}]
    answer = AWSResponse("https://ec2", 200, {}, None), {"FleetId": "fleet-1", "Errors": errors, "Instances": []}
    coming = [answer]
    clients.ec2.meta.events.register(
        "before-call.ec2.CreateFleet", lambda **_: coming.pop() if coming else None, unique_id="denied"
    )


def test_once_it_is_permitted_the_attempt_goes_on_and_still_buys_one_machine(
    cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    """AWS would answer the first token with the old refusal for ever."""
    ids = set()
    for _ in range(2):
        clients = AwsClients("us-east-1")
        provider = AwsProvider(SECTION, store_uri, clients=clients)
        deny_next_fleet(clients)
        with pytest.raises(NotAuthorised, match="iam:PassRole"):
            provider.launch(an_intent(run), store_uri)
        ids.add(provider.launch(an_intent(run), store_uri).instance_id)
    assert ids == {machine.id for machine in living(cloud)}
    assert len(ids) == 1
    fresh = AwsProvider(SECTION, store_uri).launch(an_intent(run), store_uri).instance_id
    assert fresh not in ids, "so it went on under another token: this one had never been answered here"


def test_what_cannot_be_had_is_refused_offer_by_offer(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    cloud.capacity.set("g5.xlarge", "us-east-1a", "spot", 0)
    cloud.capacity.set("g4dn.xlarge", "*", "spot", 0)
    offers = (an_offer(), an_offer("g4dn.xlarge"), an_offer("g4dn.xlarge", "b"))
    with pytest.raises(NoCapacity, match=r"g5.xlarge in us-east-1a.*InsufficientInstanceCapacity") as caught:
        provider.launch(an_intent(run, *offers), store_uri)
    assert {(each.instance_type, each.zone, each.market) for each in caught.value.refusals} <= {o.key for o in offers}
    assert provider.launch(an_intent(run, an_offer("g5.xlarge", "b"), attempt=1), store_uri).offer.zone == "us-east-1b"


def test_some_of_many_nodes_are_had(provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str) -> None:
    cloud.capacity.set("g5.xlarge", "*", "spot", 2)

    def launch(slot: int) -> str:
        try:
            return provider.launch(an_intent(run, slot=slot), store_uri).instance_id
        except NoCapacity:
            return ""

    with ThreadPoolExecutor(4) as pool:
        bought = list(pool.map(launch, range(4)))
    assert sorted(filter(None, bought)) == sorted(machine.id for machine in living(cloud))
    assert sum(map(bool, bought)) == 2


def test_threads_make_the_template_once(provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda slot: provider.launch(an_intent(run, slot=slot), store_uri), range(4)))
    assert cloud.calls["CreateLaunchTemplate"] == 1
    assert cloud.calls["CreateFleet"] == 4
    again = AwsProvider(SECTION, store_uri)
    again.launch(an_intent(run, slot=9), store_uri)
    assert cloud.calls["CreateLaunchTemplate"] == 1


def test_two_providers_that_make_the_template_at_once_share_it(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    others = [provider, AwsProvider(SECTION, store_uri)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: pair[1].launch(an_intent(run, slot=pair[0]), store_uri), enumerate(others)))
    assert len({machine.tags["aws:ec2launchtemplate:id"] for machine in living(cloud)}) == 1


def test_a_template_that_was_removed_is_made_again(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    AwsProvider(SECTION, store_uri).close(run)
    assert provider.launch(an_intent(run, slot=1), store_uri).instance_id
    assert cloud.calls["CreateLaunchTemplate"] == 2


def test_close_removes_the_templates_of_this_run_and_store_only(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str, tmp_path: Path
) -> None:
    elsewhere = str(tmp_path / "elsewhere")
    provider.launch(an_intent(run), store_uri)
    provider.launch(an_intent(f"{run}-2"), store_uri)
    AwsProvider(SECTION, elsewhere).launch(an_intent(run), elsewhere)
    provider.close(run)
    of_both = [{"Name": f"tag:{tags.RUN}", "Values": [run, f"{run}-2"]}]
    left = AwsClients("us-east-1").ec2.describe_launch_templates(Filters=of_both)["LaunchTemplates"]  # type: ignore[arg-type]
    ours = [tags.as_dict(template["Tags"]) for template in left]
    kept = {(each[tags.RUN], each[tags.STORE]) for each in ours}
    assert kept == {(f"{run}-2", store_uri), (run, elsewhere)}
    provider.close(run)


def test_nodes_have_encrypted_disks_and_our_metadata_rules(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    ec2 = AwsClients("us-east-1").ec2
    versions = ec2.describe_launch_template_versions(
        LaunchTemplateId=living(cloud)[0].tags["aws:ec2launchtemplate:id"], Versions=["1"]
    )
    data = versions["LaunchTemplateVersions"][0]["LaunchTemplateData"]
    assert (
        data["BlockDeviceMappings"][0]["Ebs"] | {"VolumeSize": 100, "Encrypted": True, "VolumeType": "gp3"}
        == (data["BlockDeviceMappings"][0]["Ebs"])
    )
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["InstanceMetadataTags"] == "enabled"
    assert data["InstanceInitiatedShutdownBehavior"] == "terminate"


def test_gpu_and_cpu_nodes_boot_from_their_own_images(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    provider.launch(an_intent(run, an_offer("c7i.xlarge", gpus=0), slot=1), store_uri)
    ssm = AwsClients("us-east-1").ssm
    from starling.infra.providers.aws.images import CPU_IMAGE, GPU_IMAGE

    wanted = {name: ssm.get_parameter(Name=name)["Parameter"]["Value"] for name in (GPU_IMAGE, CPU_IMAGE)}
    assert {machine.type: machine.image for machine in living(cloud)} == {
        "g5.xlarge": wanted[GPU_IMAGE],
        "c7i.xlarge": wanted[CPU_IMAGE],
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image": "ami-12345678"}, r"provider\.image"),
        ({"image": "/no/such/parameter"}, r"ParameterNotFound.*provider\.image"),
        ({"stack": "nowhere"}, r"no stack nowhere.*starling aws setup"),
    ],
)
def test_a_wrong_setting_is_named(
    cloud: EmulatedCloud, store_uri: str, run: str, change: dict[str, str], words: str
) -> None:
    with pytest.raises(Misconfigured, match=words):
        AwsProvider(SECTION | change, store_uri).launch(an_intent(run), store_uri)


def test_a_set_up_that_cannot_be_read_hides_no_machine(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    cloud.fail("DescribeStacks", "AccessDenied")
    assert [machine.node for machine in AwsProvider(SECTION, store_uri).list(run)] == [f"{run}.0.0"]


def test_a_zone_without_a_subnet_is_a_wrong_setting(provider: AwsProvider, store_uri: str, run: str) -> None:
    with pytest.raises(Misconfigured, match=r"us-east-1z.*provider\.zones"):
        provider.launch(an_intent(run, an_offer(zone="z")), store_uri)


@pytest.mark.parametrize(
    ("code", "kind", "calls"),
    [
        ("InsufficientInstanceCapacity", NoCapacity, 1),
        ("MaxSpotInstanceCountExceeded", QuotaReached, 1),
        ("SpotMaxPriceTooLow", PriceTooLow, 1),
        ("RequestLimitExceeded", Throttled, 3),
        ("UnauthorizedOperation", NotAuthorised, 1),
    ],
)
def test_a_refused_call_is_named_and_repeated_only_if_that_may_help(
    provider: AwsProvider,
    cloud: EmulatedCloud,
    store_uri: str,
    run: str,
    code: str,
    kind: type[ProviderError],
    calls: int,
) -> None:
    cloud.fail("CreateFleet", code)
    with pytest.raises(kind, match=rf"cannot launch node {run}\.0\.0") as caught:
        provider.launch(an_intent(run), store_uri)
    assert type(caught.value) is kind
    assert cloud.calls["CreateFleet"] == calls


def test_machines_are_listed_with_what_is_known(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    provider.launch(an_intent(run, an_offer(market=ON_DEMAND), slot=1), store_uri)
    by_node = {machine.node: machine for machine in provider.list(run) if machine.alive}
    assert by_node.keys() == {f"{run}.0.0", f"{run}.1.0"}
    node = by_node[f"{run}.0.0"]
    seen = next(machine for machine in living(cloud) if machine.id == node.instance_id)
    assert (node.instance_type, node.zone, node.market) == (seen.type, seen.zone, Market.SPOT)
    assert (node.address, node.launched_at) == (seen.address, pytest.approx(seen.launched_at, abs=2))
    assert by_node[f"{run}.1.0"].market is ON_DEMAND


def test_how_a_machine_ended_is_told(provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str) -> None:
    by_slot = [provider.launch(an_intent(run, slot=slot), store_uri).instance_id for slot in range(3)]
    cloud.interrupt(by_slot[0], None)
    cloud.powered_off(by_slot[1])
    provider.terminate([f"{run}.2.0"])
    ended = {machine.instance_id: machine for machine in provider.list(run)}
    assert not any(machine.alive for machine in ended.values())
    assert [ended[instance].ended_reason for instance in by_slot] == [
        "taken by AWS (spot interruption)",
        "shut itself down",
        "terminated",
    ]
    assert [ended[instance].taken for instance in by_slot] == [True, False, False]
    assert all(machine.ended_at is not None for machine in ended.values())


def test_other_stores_and_runs_are_not_listed(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str, tmp_path: Path
) -> None:
    elsewhere = f"{tmp_path / 'elsewhere'}"
    other = AwsProvider(SECTION, elsewhere)
    mine = provider.launch(an_intent(run), store_uri).instance_id
    theirs = other.launch(an_intent(run), elsewhere).instance_id
    assert mine != theirs
    assert [machine.instance_id for machine in provider.list(run)] == [mine]
    provider.terminate([f"{run}.0.0"])
    assert [machine.id for machine in living(cloud)] == [theirs]


def test_many_nodes_end_in_one_call(provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str) -> None:
    nodes = [an_intent(run, slot=slot) for slot in range(5)]
    for intent in nodes:
        provider.launch(intent, store_uri)
    cloud.calls.clear()
    provider.terminate([intent.node for intent in nodes] + [f"{run}.{slot}.0" for slot in range(5, 250)])
    assert cloud.calls == {"DescribeInstances": 2, "TerminateInstances": 1}
    assert not living(cloud)
    provider.terminate([intent.node for intent in nodes])
    assert cloud.calls["TerminateInstances"] == 1, "nothing was left to end"


def test_a_machine_that_is_not_listed_yet_is_ended_as_well(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.launch(an_intent(run), store_uri)
    monkeypatch.setattr("starling.infra.providers.aws.provider.read_instances", lambda *_: [])
    provider.terminate([f"{run}.0.0"])
    assert not living(cloud)


def test_long_lists_are_paged(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("starling.infra.providers.aws.describing.PAGE", 5)  # EC2's own least
    for slot in range(6):
        provider.launch(an_intent(run, slot=slot), store_uri)
    cloud.calls.clear()
    assert len(provider.list(run)) == 6
    assert cloud.calls["DescribeInstances"] == 2


def test_a_steady_run_asks_aws_twice_a_list(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    provider.list(run)
    cloud.calls.clear()
    for _ in range(2):
        provider.list(run)
    assert cloud.calls["DescribeInstances"] == 2
    assert cloud.calls.keys() == {"DescribeInstances", "ReceiveMessage"}
    assert provider.pace.list_calm >= 2 * 30


def test_announced_interruptions_are_heard(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    ids = [provider.launch(an_intent(run, slot=slot), store_uri).instance_id for slot in range(3)]
    cloud.recommend_rebalance(ids[0])
    cloud.interrupt(ids[1], 120)
    told_at = time.time()
    first = second = None
    give_up_at = time.monotonic() + 60
    while (first is None or second is None) and time.monotonic() < give_up_at:  # a queue may give a part at a time
        notices = {machine.instance_id: machine.notice for machine in provider.list(run)}
        first, second = notices[ids[0]], notices[ids[1]]
    assert first is not None
    assert second is not None
    assert (first.kind, first.takes_effect_at) == (NoticeKind.REBALANCE, None)
    assert second.kind is NoticeKind.INTERRUPTION
    assert second.takes_effect_at == pytest.approx(told_at + 120, abs=15)
    assert notices[ids[2]] is None


def test_a_hard_interruption_takes_the_machine(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    provider.interrupt(f"{run}.0.0", None)
    assert not living(cloud)
    with pytest.raises(ProviderError, match=r"no running instance"):
        provider.interrupt(f"{run}.0.0", None)


def test_a_rehearsed_notice_comes_from_aws_itself(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    launched = provider.launch(an_intent(run), store_uri)
    provider.interrupt(f"{run}.0.0", 30.0)
    warned = cloud.warned(launched.instance_id)
    assert warned.taken_at is not None
    assert warned.taken_at >= time.time() + 100, "AWS gives two minutes at least"
    assert len(living(cloud)) == 1


def test_only_spot_machines_can_be_given_notice(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run, an_offer(market=ON_DEMAND)), store_uri)
    with pytest.raises(ProviderError, match="on demand"):
        provider.interrupt(f"{run}.0.0", 120.0)


def test_a_notice_that_may_not_be_given_says_what_is_needed(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str
) -> None:
    provider.launch(an_intent(run), store_uri)
    for call in ("CreateExperimentTemplate", "StartExperiment"):
        cloud.heal()
        cloud.fail(call, "AccessDeniedException")
        with pytest.raises(ProviderError, match=r"starling-fis.*fis:StartExperiment.*iam:CreateServiceLinkedRole"):
            provider.interrupt(f"{run}.0.0", 120.0)
        assert AwsClients("us-east-1").fis.list_experiment_templates()["experimentTemplates"] == []


def test_a_template_of_fis_that_stays_behind_does_not_hide_why(
    provider: AwsProvider, cloud: EmulatedCloud, store_uri: str, run: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider.launch(an_intent(run), store_uri)
    cloud.fail("StartExperiment", "ServiceQuotaExceededException")
    cloud.fail("DeleteExperimentTemplate", "ConflictException")
    with pytest.raises(ProviderError, match="ServiceQuotaExceededException"):
        provider.interrupt(f"{run}.0.0", 120.0)
    assert "stays behind" in caplog.text
    cloud.heal()
    fis = AwsClients("us-east-1").fis
    for template in fis.list_experiment_templates()["experimentTemplates"]:
        fis.delete_experiment_template(id=template["id"])


def test_a_new_login_is_picked_up_and_nothing_secret_is_logged(
    cloud: EmulatedCloud,
    store_uri: str,
    run: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "starling")
    login = tmp_path / "credentials"
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(login))
    login.write_text("[default]\naws_access_key_id = AKIAOLD\naws_secret_access_key = OLDSECRET\n")
    clients = AwsClients("us-east-1")
    provider = AwsProvider(SECTION, store_uri, clients=clients)
    provider.list(run)
    before = clients.ec2
    cloud.fail("DescribeInstances", "RequestExpired", times=1)
    with pytest.raises(CredentialsExpired, match="log in again") as caught:
        provider.list(run)
    login.write_text("[default]\naws_access_key_id = AKIANEW\naws_secret_access_key = NEWSECRET\n")
    provider.launch(an_intent(run), store_uri)
    assert clients.ec2 is not before
    signer = clients.ec2._request_signer  # type: ignore[attr-defined]  # nothing public tells whose keys are used
    assert signer._credentials.access_key == "AKIANEW"
    assert "SECRET" not in caplog.text + str(caught.value) + repr(clients)
    assert "SECRET" not in str(living(cloud)[-1])
