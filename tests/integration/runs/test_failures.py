"""What goes wrong is said once, clearly, with the right exit code, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

from tests.integration.runs.commands import Commands


def test_a_task_that_raises_fails_the_run_with_its_own_traceback(starling: Commands) -> None:
    starling.write_spec({"raise_error": True}, max=2)
    done = starling.type("run", str(starling.spec), "--name", "r")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "ZeroDivisionError: the user's task divided by zero" in done.stdout + done.stderr
    assert "probe.py" in done.stdout + done.stderr, "the traceback must point into the user's file"
    result = starling.result()
    assert result["state"] == "failed"
    assert "ZeroDivisionError" in result["error"]
    assert "probe.py" in result["traceback"]
    assert not starling.controllers()


def test_a_task_that_cannot_be_imported_fails_the_run_at_once(starling: Commands) -> None:
    probe = starling.folder / "code" / "probe.py"
    probe.write_text(f"import no_such_module\n{probe.read_text().replace('from __future__ import annotations', '')}")
    done = starling.type("run", str(starling.spec), "--name", "r")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no_such_module" in done.stdout + done.stderr
    starling.result()


def test_a_sick_node_is_replaced_instead_of_failing_the_run(starling: Commands, undisturbed: str) -> None:
    """Its disk is full: three rounds fail because of it alone, then another node takes its place."""
    starling.write_spec({"sick_node": "r.1.0"}, max=2)
    starling.run()
    starling.wait("another node", lambda s: any(node["id"] == "r.1.1" for node in s["nodes"]))
    result = starling.result()
    assert (result["state"], result["state_sha256"]) == ("done", undisturbed), result
    assert result["interruptions"] == 0, "a failure of the run's own is no interruption"
    (replaced,) = [e for e in starling.events("node-wanted") if e["subject"] == "r.1.1"]
    assert "No space left on device" in replaced["reason"]
    assert {e["subject"] for e in starling.events("worker-failed")} == {"r.1.0"}


def test_requirements_come_with_the_code(starling: Commands, tmp_path: Path) -> None:
    """A wheel in the code folder, named in requirements.txt, is there when the task is imported."""
    _write_wheel(starling.folder / "code")
    (starling.folder / "code" / "requirements.txt").write_text("./tiny-1.0-py3-none-any.whl\n")
    task = starling.folder / "code" / "probe.py"
    task.write_text(
        "import tiny\n\nassert tiny.ANSWER == 42\n" + task.read_text().replace("from __future__ import annotations", "")
    )
    starling.brake.unlink()
    done = starling.type("run", str(starling.spec), "--name", "r", "-o", "training.epochs=1", "-o", "nodes.max=1")
    assert done.returncode == 0, done.stdout + done.stderr
    starling.result()


def test_missing_data_is_refused_before_anything_starts(starling: Commands) -> None:
    spec = starling.folder / "digits.yaml"
    text = "name: d\ntask: classification\nmodel: small-cnn\ndata: {dataset: digits}\n"
    spec.write_text(text + "training: {epochs: 1, global_batch: 64, optimizer: {name: sgd, lr: 0.1}}\n")
    done = starling.type("run", str(spec), "--name", "r")
    assert done.returncode == 2
    assert "starling data prepare" in done.stderr
    assert "Traceback" not in done.stderr
    assert starling.json("list") == {"runs": []}


def test_an_unwritable_store_is_refused_before_anything_starts(starling: Commands) -> None:
    for place in ("/proc/nothing", str(starling.spec)):
        done = starling.type("run", str(starling.spec), "--store", place)
        assert done.returncode in (1, 2)
        assert place in done.stderr
        assert "Traceback" not in done.stderr
    assert not starling.controllers()


def test_a_bad_spec_is_refused_with_every_problem(starling: Commands) -> None:
    text = starling.spec.read_text().replace("epochs: 20", "epoch: 20").replace("global_batch: 16", "global_batch: 15")
    starling.spec.write_text(text)
    done = starling.type("run", str(starling.spec))
    assert done.returncode == 2
    assert "training.epoch" in done.stderr
    assert "global_batch" in done.stderr or "epochs" in done.stderr
    assert "Traceback" not in done.stderr


def _write_wheel(folder: Path) -> None:
    import zipfile

    info = "tiny-1.0.dist-info"
    with zipfile.ZipFile(folder / "tiny-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("tiny.py", "ANSWER = 42\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", f"tiny.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
