"""What is wrong with a spec is said with file, line, key, and what would be right; all of it at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from starling.infra.errors import UsageError
from starling.orchestrator.loading import load_spec
from starling.orchestrator.spec import Spec, schema
from tests.support.specs import plain_spec

GOOD = """\
name: small
task: classification
model: small-cnn
data: {dataset: digits}
training:
  epochs: 2
  global_batch: 64
  optimizer: {name: sgd, lr: 1e-1}
"""


def refused(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refusal:
        load_spec(path, list(overrides))
    assert refusal.value.exit_code == 2
    return [line.replace(f"{tmp_path}/", "") for line in str(refusal.value).splitlines()]


def accepted(tmp_path: Path, text: str, *overrides: str) -> Spec:
    path = tmp_path / "spec.yaml"
    path.write_text(text)
    return load_spec(path, list(overrides))


@pytest.mark.parametrize(
    ("changed", "line", "said"),
    [
        ("epochs: 2 -> epoch: 2", 6, "training.epoch: unknown key; did you mean epochs?"),
        ("epochs: 2 -> epochs: two", 6, "training.epochs: should be a whole number, not 'two'"),
        ("epochs: 2 -> epochs: 0", 6, "training.epochs: should be greater than or equal to 1, not 0"),
        ("epochs: 2 -> epochs: '2'", 6, "training.epochs: should be a whole number, not '2'"),
        ("global_batch: 64 -> global_batch: 65", 7, "global_batch: 65 is no multiple of virtual_shards (8); use 64"),
        ("epochs: 2 -> epochs: 2\n  virtual_shards: 12", 7, "virtual_shards: 12 is no power of two; use 8 or 16"),
        ("name: sgd -> name: sdg", 8, "training.optimizer.name: unknown value 'sdg'; did you mean sgd?"),
        ("lr: 1e-1 -> lr: -1", 8, "training.optimizer.lr: should be greater than 0, not -1"),
        ("lr: 1e-1 -> lr: 1, eps: 1", 8, "training.optimizer.eps: has no effect with optimizer sgd; drop it"),
        ("lr: 1e-1} -> lr: 1}\n  schedule: {name: step, step_epochs: [6, 3]}", 9, "step_epochs: must ascend, each"),
        ("lr: 1e-1} -> lr: 1}\n  schedule: {name: step, step_epochs: [3, 3]}", 9, "each epoch once; use [3]"),
        (", lr: 1e-1 -> ", 8, "training.optimizer.lr: is required: Learning rate"),
        ("name: small\n -> name: Small\n", 1, "name: 'Small' does not fit"),
        ("model: small-cnn -> model: resnet18", 3, "efficientnet-lite0, pratt-cnn or torchvision/resnet18"),
        ("model: small-cnn -> model: {name: small-cnn, weights: imagenet}", 3, "small-cnn has no ImageNet weights"),
        ("model: small-cnn -> model: {name: small-cnn, weights: a.pth}", 3, "'a.pth' is neither imagenet"),
        ("model: small-cnn -> modle: small-cnn", 3, "modle: unknown key; did you mean model?"),
        ("task: classification -> task: mine:Task", None, "code: task mine:Task is your own: name the folder"),
        ("epochs: 2 -> epochs: 2\n  phases: [{rates: {a: 1}}, {rates: {a: 1}}]", 7, "phases.0.epochs: is required"),
        ("epochs: 2 -> epochs: 2\n  phases: [{rates: {head: 0}}]", 7, "phases.0.rates: trains nothing; give a part"),
        ("epochs: 2 -> epochs: 2\n  phases: [{epochs: 3, rates: {a: 1}}]", 7, "take 3 epochs, but training.epochs is"),
        ("epochs: 2 -> epochs: 2\n  phases: [{epochs: 2, rates: {a: 1}}, {rates: {b: 1}}]", 7, "which leaves none"),
        ("epochs: 2 -> epochs: 2\n  phases: [{rates: {a: -1}}]", 7, "phases.0.rates: should be greater"),
        ("{dataset: digits} -> {dataset: a/b}", 4, "data.dataset: 'a/b' is no dataset name"),
        ("epochs: 2 -> nodes: {min: 3}\n  epochs: 2", 6, "training.nodes: unknown key"),
        ("name: small\n -> name: small\nnodes: {min: 3, max: 2}\n", 2, "nodes.min: 3 is more than nodes.max (2)"),
        ("name: small\n -> name: small\nnodes: {max: 3, gpus_per_node: 4}\n", 2, "3 nodes x 4 ranks = 12 ranks"),
        ("name: small\n -> name: small\nlimits: {max_duration: 5 years}\n", 2, "'5 years' is no duration"),
        ("name: small\n -> name: small\nlimits: {deadline: 2027-01-01T10:00:00}\n", 2, "no time with a time zone"),
        ("name: small\n -> name: small\nlimits: {budget: .nan}\n", 2, "limits.budget: should be"),
        ("name: small\n -> name: small\nname: other\n", 2, "name: given twice (first in line 1)"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(tmp_path: Path, changed: str, line: int | None, said: str) -> None:
    before, after = changed.split(" -> ")
    assert before in GOOD
    lines = refused(tmp_path, GOOD.replace(before, after, 1))
    where = f"spec.yaml:{line}: " if line else "spec.yaml: "
    assert any(entry.startswith(where) and said in entry for entry in lines), lines


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("azure", "provider: unknown value 'azure'; Valid here: aws, local, ssh"),
        ("{name: aw}", "provider.name: unknown value 'aw'; did you mean aws? Valid here: aws, local, ssh"),
        ("3", "provider: should be a section of keys, not 3"),
        ("{price: 2}", "provider.price: unknown key; Valid here: name, price_per_hour"),
        ("{name: local, local: 3}", "provider.local: unknown key; Valid here: name, price_per_hour"),
        ("ssh", "provider.hosts: is required: One node a host"),
        ("{name: ssh, hosts: []}", "provider.hosts: must not be empty: One node a host"),
        ("{name: ssh, hosts: [{adress: a}]}", "provider.hosts.0.adress: unknown key; did you mean address?"),
        ("{name: aws, regoin: x}", "provider.regoin: unknown key; did you mean region? Valid here: disk, gpu_memory,"),
        ("{name: aws, region: US}", "provider.region: 'US' does not fit: Where instances are launched"),
        ("{name: aws, region: cn-north-1}", "provider.region: cn-north-1 is in China, where Starling does not work"),
        ("{name: aws, zones: [a]}", "provider.zones.0: 'a' does not fit: Availability zones to choose from, such as"),
        ("{name: aws, disk: 0}", "provider.disk: should be greater than or equal to 1, not 0"),
    ],
)
def test_mistakes_in_a_provider_are_told_in_terms_of_that_provider(tmp_path: Path, section: str, said: str) -> None:
    lines = refused(tmp_path, f"{GOOD}provider: {section}\n")
    assert any(entry.startswith(f"spec.yaml:9: {said}") for entry in lines), lines


HOSTS = "provider: {name: ssh, hosts: [{address: a, gpus: 2}, {address: b, gpus: 4}]}\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("nodes: {market: on-demand, on_demand_after: 5m}", "nodes.on_demand_after: has no effect with market"),
        ("nodes: {market: on-demand, on_demand_for_deadline: true}", "nodes.on_demand_for_deadline: has no effect"),
        ("nodes: {on_demand_for_deadline: true}", "on_demand_for_deadline: has no effect without limits.deadline"),
        (f"nodes: {{on_demand_after: 5m}}\n{HOSTS}", "nodes.on_demand_after: has no effect with provider ssh"),
        (f"nodes: {{gpus_per_node: 8}}\n{HOSTS}", "nodes.gpus_per_node: 8 are more than any of provider.hosts has"),
        (f"nodes: {{max: 3}}\n{HOSTS}", "nodes.max: 3 is more than the 2 hosts in provider.hosts; use 2"),
        (f"nodes: {{max: 2, gpus_per_node: 3}}\n{HOSTS}", "nodes.max: 2 is more than the 1 hosts with 3 GPUs"),
        ("provider: {name: aws, zones: [us-east-1a, eu-west-1b]}", "zones: eu-west-1b is not in provider.region"),
    ],
)  # fmt: skip
def test_rules_of_markets_and_hosts(tmp_path: Path, lines: str, said: str) -> None:
    told = refused(tmp_path, f"{GOOD}{lines}\n")
    assert any(entry.startswith("spec.yaml:") and said in entry for entry in told), told


IN_PARTS = GOOD.replace("epochs: 2", "epochs: 2\n  strategy: fsdp")


def test_an_exact_model_in_parts_needs_a_fixed_number_of_nodes(tmp_path: Path) -> None:
    said = refused(tmp_path, IN_PARTS + "nodes: {min: 1, max: 2}\n")
    assert len(said) == 1
    assert "nodes.min: 1 to 2 nodes: with strategy fsdp the bits depend on how many there are" in said[0]
    assert "use 2 (nodes.max), or training.exact: false" in said[0]
    assert accepted(tmp_path, IN_PARTS + "nodes: {min: 2, max: 2}\n").nodes.max == 2
    assert accepted(tmp_path, IN_PARTS + "nodes: {min: 1, max: 2}\n", "training.exact=false").nodes.max == 2


def test_a_model_in_parts_has_work_for_as_many_ranks_as_virtual_shards(tmp_path: Path) -> None:
    """Also if it is not exact: there is nothing for a rank without a shard to run."""
    said = refused(tmp_path, IN_PARTS + "nodes: {min: 9, max: 9}\n", "training.exact=false")
    assert "a run with strategy fsdp has work for 8 (training.virtual_shards); use at most 8" in said[0]


def test_a_scripts_deadline_cannot_be_bought_for(tmp_path: Path) -> None:
    (tmp_path / "t.py").write_text("pass")
    text = "name: s\ncode: .\ncommand: {run: t.py, folder: out}\nnodes: {on_demand_for_deadline: true}\n"
    (told,) = refused(tmp_path, text + "limits: {deadline: 2030-01-01T00:00:00Z}\n")
    assert "nodes.on_demand_for_deadline: has no effect with command" in told


def test_what_fits_the_market_and_the_hosts_is_accepted(tmp_path: Path) -> None:
    accepted(tmp_path, f"{GOOD}nodes: {{max: 2, gpus_per_node: 2}}\n{HOSTS}")
    deadline = "limits: {deadline: 2030-01-01T00:00:00Z}"
    text = f"{GOOD}provider: aws\nnodes: {{on_demand_after: 5m, on_demand_for_deadline: true}}\n{deadline}\n"
    assert accepted(tmp_path, text).nodes.on_demand_after == 300


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    lines = refused(tmp_path, GOOD.replace("epochs: 2", "epoch: 2").replace("small-cnn", "3"), "nodes.mix=1", "x")
    assert len(lines) == 5
    assert any(line.startswith("-o nodes.mix=1: nodes.mix: unknown key") for line in lines)
    assert any(line.startswith("-o x: write KEY=VALUE") for line in lines)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "name: is required"),
        ("- a\n", "a spec is a mapping of keys"),
        ("name: [\n", "spec.yaml:2: this is not valid YAML"),
        ("name: \x00", "this is not valid YAML"),
        (GOOD + "code: nowhere\n", "spec.yaml:9: code: "),
    ],
)
def test_no_spec_at_all(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in line for line in refused(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml: cannot read the spec: No such file"):
        load_spec(tmp_path / "none.yaml", [])


def test_overrides_are_yaml_and_reach_into_short_forms(tmp_path: Path) -> None:
    spec = accepted(
        tmp_path,
        GOOD,
        "training.optimizer={name: adam, lr: 1e-3, betas: [0.8, 0.9]}",
        "model.options.width=3",
        "training.schedule=cosine",
        "provider.price_per_hour=2",
        "limits.max_duration=1h30m",
    )
    assert spec.training.optimizer.lr == 0.001
    assert spec.training.optimizer.betas == (0.8, 0.9)
    assert spec.model is not None
    assert spec.model.options == {"width": 3}
    assert spec.training.schedule.name == "cosine"
    assert spec.provider.price_per_hour == 2
    assert spec.limits.max_duration == 5400


def test_an_override_cannot_reach_into_a_value(tmp_path: Path) -> None:
    assert refused(tmp_path, GOOD, "training.epochs.x=1") == [
        "-o training.epochs.x=1: training.epochs is 2, not a section with keys"
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12h", 43200), ("1h30m", 5400), ("45s", 45), ("2d", 172800), (90, 90), (0.5, 0.5), ("1.5h", 5400)],
)
def test_durations(text: object, seconds: float) -> None:
    spec = Spec.model_validate(plain_spec(limits={"max_duration": text}))
    assert spec.limits.max_duration == seconds


def test_a_resolved_spec_is_a_spec_and_resolves_to_itself() -> None:
    full = plain_spec(
        limits={"max_duration": "2h", "deadline": "2027-01-01T10:00:00Z", "budget": 3},
        nodes={"max": 2, "gpus_per_node": 2},
        provider="local",
    )
    resolved = Spec.model_validate(full).resolved()
    again = yaml.safe_load(yaml.safe_dump(resolved))
    assert Spec.model_validate(again).resolved() == resolved
    assert resolved["nodes"]["ranks_per_node"] == 2
    assert resolved["limits"]["stall"] == 1800.0
    assert set(resolved["training"]["optimizer"]) == {"name", "lr", "momentum", "weight_decay", "betas", "eps"}


def test_the_shipped_spec_is_valid() -> None:
    spec = load_spec(Path(__file__).parents[3] / "configs" / "digits.yaml", [])
    assert spec.training.virtual_shards == 8
    assert spec.nodes.max == 3


def test_the_schema_describes_every_key() -> None:
    document = schema()
    sections = [document, *document["$defs"].values()]
    keys = [(name, key) for section in sections for name, key in section["properties"].items()]
    assert len(keys) > 45
    assert [name for name, key in keys if not key.get("description")] == []
    assert all(section["additionalProperties"] is False for section in sections)


@pytest.mark.parametrize("limit", ["stall", "idle", "max_duration"])
def test_a_limit_of_nothing_is_refused(limit: str) -> None:
    with pytest.raises(ValueError, match=rf"limits\.{limit}"):
        Spec.model_validate(plain_spec(limits={limit: 0}))
