"""Interruptions and sudden deaths of local nodes, with real processes: nothing of a node survives its end."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import psutil
from local_nodes import RUN, LocalNodes, eventually

from starling.infra.processes import HOME, MARKER, kill_all, marked
from starling.infra.records import EventKind, NodeState


def members(nodes: LocalNodes, node: str) -> list[psutil.Process]:
    return [psutil.Process(pid) for pid in nodes.machine(node).pids]


def all_gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_a_node_on_notice_leaves_before_it_is_taken(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    processes = members(nodes, node)
    nodes.provider.interrupt(node, 30.0)
    assert nodes.wait_ended(node).ended_reason == "interruption notice"
    assert all_gone(processes)
    kinds = [event.kind for event in nodes.events()]
    assert kinds == [EventKind.NODE_UP, EventKind.NODE_NOTICE, EventKind.NODE_ENDED]
    notice = nodes.events()[1]
    assert notice.data["kind"] == "interruption"
    assert 25 < notice.data["takes_effect_at"] - notice.at <= 30
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
    asked_at = time.time()
    nodes.provider.interrupt(node, 2.5)
    ended = nodes.wait_ended(node)
    assert ended.ended_reason == "interrupted after a notice of 2.5 s"
    assert ended.ended_at is not None
    assert 2.5 <= ended.ended_at - asked_at < 6.0
    assert nodes.left_over() == []
    status = nodes.status(node)
    assert status is not None
    assert status.state is NodeState.LEAVING, "taken without last words"


def test_a_rebalance_recommendation_makes_the_node_leave(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    nodes.provider.recommend_rebalance(node)
    assert nodes.wait_ended(node).ended_reason == "rebalance notice"
    assert nodes.events()[1].data == {"kind": "rebalance", "takes_effect_at": None}


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
    processes = members(nodes, node)
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
    assert nodes.process(node, "job.json").pid != supervisor.pid
    assert nodes.machine(node).alive


def test_the_machine_killed_alone_takes_everything_and_is_found_lost(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    machine = nodes.process(node, "local.machine")
    ours = [machine, nodes.process(node, "starling.infra.agent"), nodes.process(node, "job.json")]
    processes = members(nodes, node)
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
    processes = members(nodes, node)
    nodes.process(node, "local.machine").kill()
    nodes.provider.terminate([node])
    assert all_gone(processes)
    assert nodes.machine(node).ended_reason == "terminated"


def test_terminate_ends_a_node_whose_machine_process_hangs(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    processes = members(nodes, node)
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


def test_a_store_that_is_away_stops_neither_training_nor_leaving(nodes: LocalNodes) -> None:
    node = nodes.launch()
    nodes.wait_training(node)
    store, away = nodes.home / "store", nodes.home / "store.away"

    store.rename(away)
    store.symlink_to(store)  # every access fails with "too many levels of symbolic links"
    agent_log = nodes.folder(node) / "agent.log"
    eventually(lambda: "the store cannot be used" in agent_log.read_text(), "the agent notices")
    step = nodes.step(node)
    eventually(lambda: nodes.step(node) > step + 5, "training goes on")
    store.unlink()
    away.rename(store)
    back_at = time.time()
    eventually(lambda: (status := nodes.status(node)) is not None and status.at > back_at, "heartbeats resume")
    assert nodes.log(node).count("the store cannot be used") == 1

    store.rename(away)
    store.symlink_to(store)
    nodes.provider.interrupt(node, 30.0)
    assert nodes.wait_ended(node).ended_reason == "interruption notice"
