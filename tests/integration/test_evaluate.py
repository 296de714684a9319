"""`evaluate` and `predict` as a user types them, on runs that the real trainer has made."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from starling.cli import main
from starling.infra import layout
from starling.infra.code import pack_code
from starling.infra.home import HOME
from starling.infra.records import RunRecord
from starling.infra.store import Store, open_store
from starling.trainer.data.prepare import prepare
from starling.trainer.data.rendition import Rendition
from starling.trainer.data.sources.found import LabelTable
from tests.support import shades
from tests.support.rounds import Run, probe_spec

ADAM = {"name": "adam", "lr": 0.02, "momentum": 0.9, "weight_decay": 0.0, "betas": [0.9, 0.999], "eps": 1e-8}


@dataclass(frozen=True, slots=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Starling = Callable[..., Answer]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two trained runs: `r` of a task of its own, `graded` of the built-in grading task."""
    multiprocessing.set_forkserver_preload(["starling.trainer.forkserver_preload"])
    folder = tmp_path_factory.mktemp("trained")
    uri = str(folder / "store")
    own = probe_spec(epochs=3, optimizer=ADAM) | {"task": {"name": "tests.support.shades:ShadesTask", "options": {}}}
    _train(Run(folder / "own", uri, own, name="r"))
    _write_grades(folder / "grades", count=16)
    prepare(str(folder / "grades"), open_store(uri), "grades", rendition=Rendition(size=10))
    graded = probe_spec(epochs=2, optimizer=ADAM) | {
        "task": {"name": "grading", "options": {"classes": 3, "loss": {"name": "weighted"}}},
        "model": {"name": "small-cnn", "options": {"channels": [8]}, "weights": None},
        "data": {"dataset": "grades", "fraction": 1.0, "cache": None},
    }
    _train(Run(folder / "graded", uri, graded, name="graded"))
    return folder / "store"


@pytest.fixture
def starling(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Starling]:
    """Types a command in an empty folder, in this process: importing torch anew each time would take longer."""
    monkeypatch.setenv(HOME, str(tmp_path / "home"))
    monkeypatch.setenv("STARLING_STORE", str(trained))
    monkeypatch.chdir(tmp_path)
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()

    def type_in(*words: str) -> Answer:
        few = ["--resamples", "5"] if words[0] == "evaluate" and "--resamples" not in words else []
        monkeypatch.setattr(sys, "argv", ["starling", *words, *few])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return Answer(int(end.value.code or 0), said.out, said.err)

    yield type_in
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def test_the_numbers_are_those_of_the_run_itself_to_the_last_bit(starling: Starling, trained: Path) -> None:
    for run in ("r", "graded"):
        newest = _manifest(trained, run)
        told = starling("evaluate", run, "--json").json
        assert {name: metric["value"] for name, metric in told["metrics"].items()} == newest["meta"]["history"][-1][
            "val"
        ]
        assert told["recorded"]["equal"] is True
        assert (told["step"], told["weights_sha256"]) == (newest["step"], newest["weights_sha256"])


def test_the_report_is_two_whole_files_and_tables(starling: Starling, tmp_path: Path) -> None:
    answer = starling("evaluate", "r", "--resamples", "1000")
    assert answer.code == 0
    for words in ("94 samples of 47 patients", "accuracy", "precision", "true class", "the same, to the last bit"):
        assert words in answer.out
    told = json.loads((tmp_path / "evaluation-r" / "evaluation.json").read_text())
    assert told["bootstrap"] == {"resamples": 1000, "seed": 0, "confidence": 0.95, "unit": "patient"}
    assert sum(map(sum, told["sorting"]["confusion"])) == told["dataset"]["samples"] == 94
    for metric in told["metrics"].values():
        assert metric["low"] < metric["value"] < metric["high"]
    assert told["command"] == "starling evaluate r --resamples 1000"
    text = (tmp_path / "evaluation-r" / "evaluation.html").read_text()
    found = _Markup.of(text)
    assert found.open_tags == []
    assert not found.addresses, "the page asks for something outside of itself"
    assert found.pictures == min(24, told["sorting"]["mistake_count"])
    for fact in (told["weights_sha256"], told["checkpoint"], told["command"], "val/"):
        assert fact in text


def test_without_resamples_there_are_no_intervals(starling: Starling) -> None:
    told = starling("evaluate", "r", "--json", "--resamples", "0").json
    assert all((m["low"], m["high"]) == (None, None) for m in told["metrics"].values())


def test_the_same_evaluation_twice_says_the_same(starling: Starling) -> None:
    first, second = (starling("evaluate", "r", "--json", "--split", "hard").json for _ in range(2))
    assert first | {"at": 0} == second | {"at": 0}
    assert first["recorded"] is None
    assert first["dataset"]["samples"] == 30


def test_another_batch_size_changes_the_last_bits_at_most(starling: Starling) -> None:
    as_trained = starling("evaluate", "r", "--json").json["metrics"]
    other = starling("evaluate", "r", "--json", "--batch", "7").json["metrics"]
    assert {n: m["value"] for n, m in other.items()} == pytest.approx({n: m["value"] for n, m in as_trained.items()})


def test_a_checkpoint_can_be_chosen(starling: Starling, trained: Path) -> None:
    history = _manifest(trained, "r")["meta"]["history"]
    first = starling("evaluate", "r", "--json", "--step", str(history[0]["step"])).json
    assert first["recorded"] == {"metrics": history[0]["val"], "equal": True}
    best = min(history, key=lambda record: record["val"]["cross_entropy"])
    assert starling("evaluate", "r", "--json", "--best", "cross_entropy").json["step"] == best["step"]
    wrong = starling("evaluate", "r", "--step", "3")
    assert wrong.code == 2
    assert f"there are: {', '.join(str(record['step']) for record in history)}" in wrong.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nobody"], "there is no run nobody"),
        (["r", "--split", "moon"], "there are train, val, hard"),
        (["r", "--device", "tpu"], "there are auto, cpu, cuda"),
        (["r", "--step", "1", "--best", "accuracy"], "give one of them"),
        (["r", "--data", "grades"], "reads no dataset"),
        (["graded", "--data", "nothing"], "there is no dataset called nothing"),
        (["graded", "--split", "moon"], "it has train, val"),
    ],
)
def test_wrong_usage_is_one_clear_message(starling: Starling, tmp_path: Path, words: list[str], message: str) -> None:
    answer = starling("evaluate", *words)
    assert answer.code == 2
    assert message in answer.err
    assert answer.err.count("\n") == 1
    assert not list(tmp_path.glob("evaluation-*"))


def test_the_report_of_another_run_is_not_written_over(starling: Starling, tmp_path: Path) -> None:
    assert starling("evaluate", "r", "--out", "report").code == 0
    before = (tmp_path / "report" / "evaluation.html").read_bytes()
    assert starling("evaluate", "r", "--out", "report").code == 0
    refused = starling("evaluate", "graded", "--out", "report")
    assert refused.code == 2
    assert "is of another run" in refused.err
    (tmp_path / "report" / "evaluation.json").write_text("{")
    assert starling("evaluate", "r", "--out", "report").code == 2
    assert len((tmp_path / "report" / "evaluation.html").read_bytes()) == pytest.approx(len(before), abs=40)


def test_another_dataset_must_have_the_same_classes(starling: Starling, trained: Path, tmp_path: Path) -> None:
    _write_grades(tmp_path / "same", count=6, seed=900)
    prepare(str(tmp_path / "same"), open_store(str(trained)), "same")
    answer = starling("evaluate", "graded", "--json", "--data", "same")
    assert "another way than grades: as large as they were, not 10 pixels a side" in answer.err
    told = answer.json
    assert told["dataset"]["name"] == "same"
    assert told["dataset"]["trained_on"] is False
    assert told["recorded"] is None
    assert len(told["sorting"]["classes"]) == 3  # five grades, grouped as in training
    shutil.rmtree(tmp_path / "same" / "4")
    prepare(str(tmp_path / "same"), open_store(str(trained)), "fewer")
    refused = starling("evaluate", "graded", "--data", "fewer")
    assert refused.code == 2
    assert "it lacks 4" in refused.err


def test_on_another_dataset_the_loss_is_weighed_as_in_training(
    starling: Starling, trained: Path, tmp_path: Path
) -> None:
    """Two datasets validate on the same images, but would train on others."""
    losses = []
    for name, more in (("even", 0), ("uneven", 30)):
        _write_grades(tmp_path / name / "train", count=4)
        _write_grades(tmp_path / name / "val", count=6, seed=900)
        for number in range(more):
            shutil.copy(tmp_path / name / "train" / "4" / "4000.png", tmp_path / name / "train" / "4" / f"{number}.png")
        prepare(str(tmp_path / name), open_store(str(trained)), name)
        losses.append(starling("evaluate", "graded", "--json", "--data", name).json["metrics"]["loss"]["value"])
    assert losses[0] == losses[1]


def test_patients_that_a_table_tells_are_drawn_whole(starling: Starling, trained: Path, tmp_path: Path) -> None:
    _write_grades(tmp_path / "seen", count=10, seed=700)
    rows = [
        f"{grade}/{grade}{number:03}.png,{grade},Jo {number // 2},{'val' if number < 8 else 'train'}"
        for grade in range(5)
        for number in range(10)
    ]
    table = tmp_path / "seen" / "labels.csv"
    table.write_text("\n".join(["image,label,patient,split", *rows]))
    prepare(str(tmp_path / "seen"), open_store(str(trained)), "seen", labels=LabelTable(path=str(table)))
    told = starling("evaluate", "graded", "--json", "--data", "seen").json
    assert (told["dataset"]["samples"], told["dataset"]["patients"]) == (40, 4)
    assert told["bootstrap"]["unit"] == "patient"
    assert "Jo" not in (trained / "data" / "seen" / "index.json").read_text(), "who they are stays at the source"


def test_predictions_come_in_the_order_of_the_images(starling: Starling, tmp_path: Path) -> None:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for name, grade in {"b.png": 0, "deep/a.png": 4}.items():
        (tmp_path / "images" / name).write_bytes(shades.png(grade, seed=5))
    (tmp_path / "zero.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes(shades.png(1, seed=5)[:90])
    answer = starling("predict", "r", "zero.png", "images", "cut.png", "none.png", "images/b.png")
    assert answer.code == 2
    lines = [line.split()[:2] for line in answer.out.splitlines()]
    assert [path for path, _ in lines] == ["images/b.png", "images/deep/a.png", "images/b.png"]
    assert lines[0] == lines[2] == ["images/b.png", "none"]
    assert "zero.png: the file is empty (0 bytes)" in answer.err
    assert "none.png: cannot read none.png: No such file or directory" in answer.err
    assert "cut.png: " in answer.err
    assert "3 of 6 images could not be read" in answer.err
    told = starling("predict", "r", "images", "--json").json
    assert [sum(each["probabilities"].values()) for each in told["images"]] == pytest.approx([1, 1])
    assert list(told["images"][0]["probabilities"]) == shades.GRADES
    assert starling("predict", "r", str(tmp_path / "home")).code == 2


def test_a_prediction_is_what_the_evaluation_saw(starling: Starling, trained: Path) -> None:
    """Of images of the built-in task's own validation split, out of the folder that it was prepared from: cut down to
    another size and compressed on the way, as they were then."""
    mistakes = starling("evaluate", "graded", "--json").json["sorting"]["mistakes"]
    assert mistakes, "the run is too good to be compared by its mistakes"
    for mistake in mistakes[:3]:
        path = trained.parent / "grades" / mistake["key"].removesuffix(".jpg")
        (said,) = starling("predict", "graded", str(path), "--json").json["images"]
        assert said["class"] == mistake["predicted"]
        assert said["probability"] == pytest.approx(mistake["probability"], abs=1e-5)


def test_a_damaged_newest_checkpoint_is_noted_and_the_one_before_taken(starling: Starling, trained: Path) -> None:
    store = open_store(str(trained))
    _copy_run(store, "r", "damaged")
    history = _manifest(trained, "r")["meta"]["history"]
    newest = _manifest(trained, "r")
    key = f"{layout.checkpoints('damaged')}{newest['step']:010d}/manifest.json"
    store.put(key, json.dumps(newest | {"state_sha256": "0" * 64}).encode())
    answer = starling("evaluate", "damaged", "--json")
    assert answer.json["step"] == history[-2]["step"]
    assert f"step {newest['step']} is damaged" in answer.err
    assert json.loads(store.get(key).data)["step"] == newest["step"], "nothing is set aside"
    assert starling("evaluate", "damaged", "--step", str(newest["step"])).code == 1


def test_code_of_ones_own_comes_out_of_the_store(starling: Starling, trained: Path, tmp_path: Path) -> None:
    store = open_store(str(trained))
    (tmp_path / "code").mkdir()
    shutil.copy(shades.__file__, tmp_path / "code" / "mine.py")
    _copy_run(store, "r", "own", task="mine:ShadesTask", code_sha256=pack_code(tmp_path / "code", store))
    assert starling("evaluate", "own", "--json").json["recorded"]["equal"] is True
    assert "mine" not in sys.modules
    (tmp_path / "code" / "mine.py").write_text("import a_package_that_nobody_has\n")
    _copy_run(store, "r", "lacking", task="mine:ShadesTask", code_sha256=pack_code(tmp_path / "code", store))
    lacking = starling("evaluate", "lacking")
    assert lacking.code == 2
    assert "needs the package 'a_package_that_nobody_has'" in lacking.err


def test_a_task_that_tells_no_classes_has_its_loss_and_scores(starling: Starling, trained: Path) -> None:
    _copy_run(open_store(str(trained)), "r", "plain", task="tests.support.shades:PlainShades")
    told = starling("evaluate", "plain", "--json").json
    of_the_run = _manifest(trained, "r")["meta"]["history"][-1]["val"]
    found = {name: metric["value"] for name, metric in told["metrics"].items()}
    assert found == {name: of_the_run[name] for name in ("cross_entropy", "accuracy")}
    assert told["sorting"] is None
    assert told["recorded"]["equal"] is False
    assert "cross entropy" in Path("evaluation-plain/evaluation.html").read_text()
    refused = starling("predict", "plain", "x.png")
    assert refused.code == 2
    assert "cannot be asked about image files" in refused.err


def test_a_run_without_a_model_says_so(starling: Starling, trained: Path) -> None:
    store = open_store(str(trained))
    spec = yaml.safe_load(store.get(layout.spec("r", 0)).data)
    for run, more in {"young": {}, "script": {"command": {"run": ["train.py"]}}}.items():
        store.put(layout.spec(run, 0), yaml.safe_dump(spec | more).encode())
        store.put(layout.run_record(run), RunRecord(run=run, created_at=0.0).to_bytes())
    young, script = (starling("evaluate", run) for run in ("young", "script"))
    assert (young.code, script.code) == (2, 2)
    assert "run young has no checkpoint yet" in young.err
    assert "starling fetch script FOLDER" in script.err


def test_without_torch_it_says_what_to_install(trained: Path) -> None:
    code = "import sys; sys.modules['torch'] = None; from starling.cli import main; main()"
    command = [sys.executable, "-c", code, "evaluate", "r", "--store", str(trained)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=trained.parent, timeout=60)
    assert ran.returncode == 2
    assert "needs the package torch" in ran.stderr
    assert "Traceback" not in ran.stderr


class _Markup(HTMLParser):
    """What is left open, and what a browser would fetch."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open_tags: list[str] = []
        self.addresses: list[str] = []
        self.pictures = 0

    @classmethod
    def of(cls, text: str) -> _Markup:
        found = cls()
        found.feed(text)
        found.close()
        return found

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert tag not in ("script", "link", "iframe", "object")
        if tag == "img":
            self.pictures += 1
            assert given["alt"]
        if tag == "svg":
            assert given.get("aria-label") or given.get("aria-hidden")
        values = [given.get(name) or "" for name in ("src", "href", "xlink:href", "action")]
        self.addresses += [value for value in values if value and not value.startswith("data:image/jpeg;base64,")]
        if tag not in self.VOID:
            self.open_tags.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Closed at once, as drawings' shapes are."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open_tags.pop() == tag


def _train(run: Run) -> None:
    assert run.train(["a"]) == [0]
    store = open_store(run.store_uri)
    store.put(layout.run_record(run.name), RunRecord(run=run.name, created_at=0.0).to_bytes())
    store.put(layout.spec(run.name, 0), yaml.safe_dump(run.spec).encode())


def _copy_run(store: Store, run: str, name: str, *, task: str | None = None, code_sha256: str | None = None) -> None:
    """Its manifests go on naming the first run's parts."""
    spec = yaml.safe_load(store.get(layout.spec(run, 0)).data)
    spec["task"]["name"] = task or spec["task"]["name"]
    store.put(layout.spec(name, 0), yaml.safe_dump(spec).encode())
    store.put(layout.run_record(name), RunRecord(run=name, created_at=0.0, code_sha256=code_sha256).to_bytes())
    for info in list(store.list(layout.checkpoints(run))):
        if info.key.endswith("/manifest.json"):
            store.put(info.key.replace(layout.checkpoints(run), layout.checkpoints(name)), store.get(info.key).data)


def _manifest(store: Path, run: str) -> dict[str, Any]:
    """The newest one."""
    path = max((store / layout.checkpoints(run)).glob("*/manifest.json"))
    manifest: dict[str, Any] = json.loads(path.read_text())
    return manifest


def _write_grades(folder: Path, *, count: int, seed: int = 0) -> None:
    """Five class folders of so many images."""
    for grade in range(5):
        (folder / str(grade)).mkdir(parents=True)
        for number in range(count):
            path = folder / str(grade) / f"{grade}{number:03}.png"
            path.write_bytes(shades.png(grade, seed=seed + 100 * grade + number))
