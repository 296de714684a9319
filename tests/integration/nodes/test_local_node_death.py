"""Interruptions and sudden deaths of local nodes, with real processes: nothing of a node survives its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
from local_nodes import RUN, LocalNodes, eventually

from starling.infra.processes import HOME, MARKER, kill_all, marked
from starling.infra.records import EventKind, NodeState, Termination


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(map(lives, processes))


def lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:  # between the one look and the other
        return False


def test_a_node_on_notice_leaves_before_it_is_taken(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    processes = nodes.processes(node)
    asked_at = time.time()
    nodes.provider.interrupt(node, 30.0)
    asked_by = time.time()
    assert nodes.wait_ended(node).ended_reason == "interruption notice"
    eventually(lambda: all_gone(processes), "all are gone")
    kinds = [event.kind for event in nodes.events()]
    assert kinds == [EventKind.NODE_UP, EventKind.NODE_NOTICE, EventKind.NODE_ENDED]
    notice = nodes.events()[1]
    assert notice.data["kind"] == "interruption"
    assert int(asked_at) <= notice.data["takes_effect_at"] - 30 <= asked_by, "IMDS tells whole seconds"
    status = nodes.status(node)
    assert status is not None
    assert status.notice is not None
    assert status.state is NodeState.ENDED


def test_a_node_that_does_not_leave_is_taken_when_the_notice_ends(
    nodes_with: Callable[[str], LocalNodes],
) -> None:
    nodes = nodes_with("deaf")
    node = nodes.launch()
    nodes.wait_training(node)
    nodes.provider.interrupt(node, 120.0)
    eventually(lambda: state(nodes, node) is NodeState.LEAVING, "the node has heard of it")
    asked_at = time.time()
    nodes.provider.interrupt(node, 1.5)  # earlier than announced
    ended = nodes.wait_ended(node)
    assert ended.ended_reason == "interrupted after a notice of 1.5 s"
    assert ended.ended_at is not None
    assert ended.ended_at - asked_at >= 1.5
    assert nodes.left_over() == []
    assert state(nodes, node) is NodeState.LEAVING, "taken without last words"


def state(nodes: LocalNodes, node: str) -> NodeState | None:
    status = nodes.status(node)
    return status.state if status is not None else None


def test_after_a_rebalance_recommendation_a_node_stays_until_it_is_relieved(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    nodes.provider.recommend_rebalance(node)
    eventually(lambda: (status := nodes.status(node)) is not None and status.notice is not None, "the notice is told")
    assert nodes.events()[1].data == {"kind": "rebalance", "takes_effect_at": None}
    assert state(nodes, node) is NodeState.TRAINING
    nodes.intent(leave=Termination(at=time.time(), reason="another one takes over"))
    assert nodes.wait_ended(node).ended_reason == "another one takes over"


def test_a_hard_interruption_leaves_nothing_of_processes_that_cling_to_life(
    nodes_with: Callable[[str], LocalNodes],
) -> None:
    nodes = nodes_with("stubborn")
    node = nodes.launch()
    nodes.wait_training(node)
    machine = nodes.process(node, "local.machine")
    eventually(lambda: len(machine.children(recursive=True)) >= 9, "daemons and their children are there")
    processes = [machine, *machine.children(recursive=True)]
    assert len(processes) > len(nodes.machine(node).pids), "some have dropped the marker"
    nodes.provider.interrupt(node, None)
    assert nodes.wait_ended(node).ended_reason == "interrupted without notice"
    eventually(lambda: all_gone(processes), "all are gone")


def test_the_agent_killed_alone_takes_the_node_with_it(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    processes = nodes.processes(node)
    nodes.process(node, "starling.infra.agent").kill()
    assert nodes.wait_ended(node).ended_reason == "agent died (SIGKILL)"
    eventually(lambda: all_gone(processes), "all are gone")


def test_the_supervisor_killed_alone_is_restarted_and_its_workers_are_gone(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    supervisor, worker = nodes.process(node, "job.json"), nodes.process(node, "time.sleep")
    supervisor.kill()
    eventually(lambda: all_gone([supervisor, worker]), "the worker went with its supervisor")
    eventually(lambda: "signal 9" in nodes.log(node), "the agent says why")
    eventually(lambda: nodes.has_another(node, "job.json", supervisor), "it is started again")
    assert nodes.machine(node).alive


def test_the_machine_killed_alone_takes_everything_and_is_found_lost(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    machine = nodes.process(node, "local.machine")
    ours = [machine, nodes.process(node, "starling.infra.agent"), nodes.process(node, "job.json")]
    processes = nodes.processes(node)
    machine.kill()
    eventually(lambda: all_gone(ours), "agent and supervisor die with their machine")
    found = nodes.machine(node)
    assert not found.alive
    assert found.ended_reason == "machine lost"
    assert all_gone(processes), "the provider swept the worker, which did not die with its parent"
    nodes.launch()
    assert not nodes.machine(node).alive


def test_terminate_works_without_the_machine_process(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    processes = nodes.processes(node)
    nodes.process(node, "local.machine").kill()
    nodes.provider.terminate([node])
    assert all_gone(processes)
    assert nodes.machine(node).ended_reason == "terminated"


def test_terminate_ends_a_node_whose_machine_process_hangs(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    processes = nodes.processes(node)
    nodes.process(node, "local.machine").send_signal(signal.SIGSTOP)
    nodes.provider.terminate([node])
    assert all_gone(processes)
    assert not nodes.machine(node).alive


def test_terminate_is_done_when_it_returns(nodes: LocalNodes) -> None:
    first, second = nodes.launch(0), nodes.launch(1)
    nodes.wait_training(first)
    nodes.wait_training(second)
    nodes.provider.terminate([first])
    assert marked({MARKER: first, HOME: str(nodes.home)}) == []
    assert nodes.machine(second).alive
    assert (nodes.folder(second) / "work" / RUN / "progress.json").exists()


def test_a_shutdown_of_the_machine_is_heeded(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    nodes.process(node, "starling.infra.agent").terminate()
    assert nodes.wait_ended(node).ended_reason == "the machine shuts down (SIGTERM)"
    other = nodes.launch(1)
    nodes.process(other, "local.machine").terminate()
    assert nodes.wait_ended(other).ended_reason == "machine process got SIGTERM"


def test_a_kill_misses_nobody_else(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    assert kill_all({MARKER: node, HOME: "/somewhere/else"}) == 0
    assert kill_all({MARKER: f"{node}0", HOME: str(nodes.home)}) == 0
    assert nodes.machine(node).alive


def lead_to(link: Path, place: Path) -> None:
    """In one moment: nobody may find nothing there, and make it. Where a link leads to itself, every access fails with
    "too many levels of symbolic links"."""
    fresh = link.with_name("fresh")
    fresh.symlink_to(place)
    fresh.replace(link)


def test_a_store_that_is_away_stops_neither_training_nor_leaving(nodes: LocalNodes) -> None:
    store, there = nodes.home / "store", nodes.home / "store.there"
    store.rename(there)
    lead_to(store, there)
    node = nodes.launch()
    nodes.wait_training(node)
    lead_to(store, store)
    agent_log = nodes.folder(node) / "agent.log"
    eventually(lambda: "the store cannot be used" in agent_log.read_text(), "the agent notices")
    step = nodes.step(node)
    eventually(lambda: nodes.step(node) > step + 5, "training goes on")
    lead_to(store, there)
    back_at = time.time()
    eventually(lambda: (status := nodes.status(node)) is not None and status.at > back_at, "heartbeats resume")
    assert nodes.log(node).count("the store cannot be used") == 1

    lead_to(store, store)
    nodes.provider.interrupt(node, 30.0)
    assert nodes.wait_ended(node).ended_reason == "interruption notice"
