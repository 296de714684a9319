"""The life of local nodes, with real processes: launch, work, leave, stop, be forgotten."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from local_nodes import RUN, LocalNodes, eventually

from starling.infra import layout
from starling.infra.code import pack_code
from starling.infra.errors import ProviderError
from starling.infra.records import EventKind, Failure, NodeState, RunRecord, RunState, StopRequest, Termination, Verdict


def test_a_node_trains_and_tells(nodes: LocalNodes) -> None:
    node = nodes.launch()
    machine = nodes.machine(node)
    assert machine.alive
    assert machine.address == "127.0.0.1"
    assert machine.instance_id == f"local-{node}"
    nodes.wait_training(node)
    eventually(lambda: (status := nodes.status(node)) is not None and status.state is NodeState.TRAINING, "training")
    status = nodes.status(node)
    assert status is not None
    assert status.instance_id == f"local-{node}"
    assert status.progress is not None
    eventually(lambda: "stand-in supervisor: train" in nodes.log(node), "the output is shipped")
    eventually(lambda: bool(list(nodes.store.list(layout.metrics(RUN)))), "the metrics are shipped")
    assert [(event.kind, event.subject) for event in nodes.events()] == [(EventKind.NODE_UP, node)]
    pids = nodes.machine(node).pids
    assert len(pids) == 4, "machine, agent, supervisor, worker"


def test_the_launching_command_may_go(nodes: LocalNodes) -> None:
    intent = nodes.intent()
    script = (
        "import sys; from pathlib import Path; from starling.infra.records import NodeIntent;"
        "from starling.infra.providers.local.provider import LocalProvider;"
        "LocalProvider(agent_options=('--supervisor-module', 'stand_in_supervisor'))"
        ".launch(NodeIntent.from_bytes(sys.argv[1].encode()), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", script, intent.to_bytes().decode(), nodes.store.uri], check=True, timeout=60)
    nodes.wait_training(intent.node)
    machine = nodes.process(intent.node, "local.machine")
    assert machine.terminal() is None
    assert psutil.Process() not in machine.parents()


def test_racing_launches_start_one_node(nodes: LocalNodes) -> None:
    intent = nodes.intent()
    script = (
        "import sys; from starling.infra.records import NodeIntent;"
        "from starling.infra.providers.local.provider import LocalProvider;"
        "provider = LocalProvider(agent_options=('--supervisor-module', 'stand_in_supervisor'));"
        "sys.stdin.read();"
        "provider.launch(NodeIntent.from_bytes(sys.argv[1].encode()), sys.argv[2])"
    )
    command = [sys.executable, "-c", script, intent.to_bytes().decode(), nodes.store.uri]
    racers = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(6)]
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.close()  # off they go, all at once
    assert [racer.wait(120) for racer in racers] == [0] * 6
    nodes.wait_training(intent.node)
    assert (nodes.folder(intent.node) / "machine.log").read_text().count("is on") == 1
    assert len([cmd for cmd in nodes.left_over() if "starling.infra.agent" in cmd]) == 1


def test_a_node_never_starts_twice(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.provider.terminate([node])
    assert not nodes.machine(node).alive
    nodes.launch()
    nodes.another_provider().launch(nodes.intent(), nodes.store.uri)
    assert not nodes.machine(node).alive
    assert nodes.left_over() == []


def test_a_stop_request_stops_the_run_and_the_node(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    key = layout.run_record(RUN)
    record = nodes.store.get(key)
    stopped = RunRecord.from_bytes(record.data).but(stop=StopRequest(at=time.time(), reason="enough"))
    nodes.store.replace(key, stopped.to_bytes(), record.version)
    assert nodes.wait_ended(node).ended_reason == "the run has ended"
    status = nodes.status(node)
    assert status is not None
    assert status.state is NodeState.ENDED


def test_a_node_of_a_finished_run_ends_at_once(nodes: LocalNodes) -> None:
    verdict = Verdict(state=RunState.DONE, at=time.time(), by="test", reason="done")
    nodes.store.create(layout.verdict(RUN, 0), verdict.to_bytes())
    assert nodes.wait_ended(nodes.launch()).ended_reason == "the run is done"


def test_a_terminate_intent_drains_the_node(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    nodes.intent(terminate=Termination(at=time.time(), reason="scale down"))
    assert nodes.wait_ended(node).ended_reason == "terminated: scale down"
    assert '"reason": "terminated: scale down"' in (nodes.folder(node) / "work" / RUN / "control" / "leave").read_text()
    assert [event.kind for event in nodes.events()] == [EventKind.NODE_UP, EventKind.NODE_ENDED]


def test_the_authorised_time_ends_the_node_without_any_controller(nodes: LocalNodes) -> None:
    now = time.time()
    node = nodes.launch(wanted_at=now, authorised_until=now + 3.0)
    ended = nodes.wait_ended(node)
    assert ended.ended_reason == "authorised time is over"
    assert ended.ended_at is not None
    assert 2.7 <= ended.ended_at - now <= 30, "a tenth of the time is kept for the drain; agents are not up at once"


def test_a_crashed_supervisor_is_restarted_and_its_traceback_is_in_the_logs(
    nodes_with: Callable[[str], LocalNodes],
) -> None:
    nodes = nodes_with("crash")
    node = nodes.launch()
    eventually(lambda: nodes.log(node).count("RuntimeError: the stand-in crashed as told") >= 2, "it was restarted")


def test_the_users_code_is_on_the_supervisors_path(nodes_with: Callable[[str], LocalNodes], tmp_path: Path) -> None:
    nodes = nodes_with("code")
    code = tmp_path / "code"
    code.mkdir()
    (code / "users_own.py").write_text("WHO = 'a user'\n")
    record = RunRecord(run=RUN, created_at=time.time(), code_sha256=pack_code(code, nodes.store))
    nodes.store.put(layout.run_record(RUN), record.to_bytes())
    node = nodes.launch()
    assert nodes.wait_ended(node).ended_reason == "the run has ended"
    assert "code of a user" in nodes.log(node)


def test_an_unfit_node_says_so_and_ends(nodes_with: Callable[[str], LocalNodes]) -> None:
    nodes = nodes_with("unfit")
    node = nodes.launch()
    assert nodes.wait_ended(node).ended_reason == "unfit: wrong kind of processor"
    status = nodes.status(node)
    assert status is not None
    assert status.unfit == "wrong kind of processor"


def test_a_run_that_cannot_be_prepared_is_recorded_as_a_fatal_failure(nodes: LocalNodes) -> None:
    nodes.store.put(layout.spec(RUN, 0), b"just: nonsense\n")
    node = nodes.launch()
    assert "no resolved spec" in (nodes.wait_ended(node).ended_reason or "")
    [failure] = [Failure.from_bytes(nodes.store.get(i.key).data) for i in nodes.store.list(layout.failures(RUN, 0))]
    assert failure.fatal
    assert "lacks nodes and limits" in failure.error


def test_idle_nodes_end_themselves(nodes_with: Callable[[str], LocalNodes]) -> None:
    nodes = nodes_with("wait")
    nodes.write_spec(idle=1.0)
    node = nodes.launch()
    assert nodes.wait_ended(node).ended_reason == "idle: in no round for 1 s"


def test_forget_removes_ended_nodes_only(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.provider.forget(node)
    assert nodes.machine(node).alive
    nodes.provider.terminate([node])
    nodes.provider.forget(node)
    assert nodes.provider.list() == []
    assert list((nodes.home / "nodes").iterdir()) == []
    nodes.provider.forget(node)
    nodes.provider.terminate([node])


def test_two_stores_do_not_meet_in_one_home(nodes: LocalNodes) -> None:
    node = nodes.launch()
    other = str(nodes.home / "other-store")
    with pytest.raises(ProviderError, match="of another store"):
        nodes.provider.launch(nodes.intent(), other)
    nodes.provider.terminate([node])
    nodes.provider.launch(nodes.intent(), other)
    assert nodes.provider.list() == []
    nodes.provider.terminate([node])


def test_an_interruption_needs_a_running_node(nodes: LocalNodes) -> None:
    with pytest.raises(ProviderError, match="not running"):
        nodes.provider.interrupt("nobody.0.0", 5.0)
