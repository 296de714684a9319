"""What stage 0 leaves in the store and on the disk."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from starling.infra import layout
from starling.infra.bootstrap.stage0 import BootError, BootLog, Report, unpack
from starling.infra.records import NodeState, NodeStatus

BOOT = {
    "store_uri": "s3://bucket/store?endpoint_url=http://127.0.0.1:9",
    "region": "us-east-1",
    "run": "eyes",
    "node": "eyes.0.0",
    "instance_id": "i-1",
    "address": "10.0.0.1",
    "booted_at": "100.5",
}


class KeptPuts(dict[str, bytes]):
    """Stands in for the bucket of a Report: the network is the integration tests' affair."""

    def put(self, key: str, data: bytes) -> None:
        self[key] = data


def report_into(puts: KeptPuts, root: Path) -> tuple[Report, BootLog]:
    log = BootLog(root)
    report = Report(BOOT, log)
    report._bucket = puts  # type: ignore[assignment]
    return report, log


@pytest.mark.parametrize("unfit", [True, False])
def test_last_words_are_a_status_as_controllers_read_it(tmp_path: Path, unfit: bool) -> None:
    puts = KeptPuts()
    report, log = report_into(puts, tmp_path)
    log.say("it began well")
    report.ended("no luck", unfit=unfit)
    status = NodeStatus.from_bytes(puts[layout.status("eyes.0.0")])
    assert status.state is NodeState.ENDED
    assert status.ended is not None
    assert (status.ended.reason, status.unfit) == ("no luck", "no luck" if unfit else None)
    assert (status.node, status.run, status.booted_at) == ("eyes.0.0", "eyes", 100.5)
    assert set(json.loads(puts[layout.status("eyes.0.0")])) <= set(NodeStatus.model_fields)


def test_the_log_is_shipped_in_chunks_by_all_stages_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    puts = KeptPuts()
    report, log = report_into(puts, tmp_path)
    log.say("one")
    report.ship_log()
    report.ship_log()
    later, log = report_into(puts, tmp_path)  # the next stage is another process
    log.say("two", "ERROR")
    later.ship_log()
    prefix = layout.logs("eyes", "eyes.0.0")
    assert list(puts) == [f"{prefix}00000000-boot.log", f"{prefix}00000001-boot.log"]
    first, second = (value.decode() for value in puts.values())
    assert first.endswith("Z INFO starling.boot: one\n")
    assert second.endswith("Z ERROR starling.boot: two\n")
    assert capsys.readouterr().out == first + second


def archive(name: str, kind: bytes = tarfile.REGTYPE) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        tar.addfile(info)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../outside", tarfile.REGTYPE),
        ("a/../../outside", tarfile.REGTYPE),
        ("/outside", tarfile.REGTYPE),
        ("link", tarfile.SYMTYPE),
        ("link", tarfile.LNKTYPE),
        ("device", tarfile.CHRTYPE),
    ],
)
def test_archives_that_reach_outside_are_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    with pytest.raises(BootError, match="no plain file"):
        unpack(archive(name, kind), tmp_path / "in")
    assert list(tmp_path.iterdir()) == []


def test_plain_files_are_unpacked(tmp_path: Path) -> None:
    unpack(archive("a/b.py"), tmp_path / "in")
    assert (tmp_path / "in" / "a" / "b.py").is_file()


def test_a_disk_that_takes_nothing_keeps_nobody_from_being_told(tmp_path: Path) -> None:
    puts = KeptPuts()
    report, log = report_into(puts, tmp_path / "not-there")
    log.say("one")
    report.ended("no disk")
    assert list(puts) == [layout.status("eyes.0.0")]
