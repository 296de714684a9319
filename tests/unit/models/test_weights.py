from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from starling.infra.errors import UsageError
from starling.infra.store import Store, open_store
from starling.trainer.models.build import build
from starling.trainer.models.head import Head, head_path
from starling.trainer.models.torchvision_shim import import_torchvision
from starling.trainer.models.weights import put_weights, start_from
from starling.trainer.task import TaskContext

SLOW_ON_META = "regnet"
"""Its constructor computes its widths with tensors, which have no values on the meta device."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_store(str(tmp_path / "store"))


def context(store: Store, tmp_path: Path, weights: str | None, model: str = "small-cnn") -> TaskContext:
    return TaskContext(
        options={},
        model_name=model,
        model_options={},
        dataset="d",
        store=store,
        cache_dir=tmp_path / "cache",
        seed=0,
        model_weights=weights,
    )


def small(classes: int = 2, **options: Any) -> nn.Module:
    return build("small-cnn", {"channels": [4, 4], **options}, num_classes=classes, in_channels=3)


def equal(left: nn.Module, right: nn.Module, but: str = "-") -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().values(), strict=True)
    return all(torch.equal(mine, theirs) for (name, mine), theirs in pairs if not name.startswith(but))


def test_the_head_of_every_torchvision_model_is_found() -> None:
    models = import_torchvision().models
    families = {re.match("[a-z]+", name)[0]: name for name in models.list_models(module=models)}  # type: ignore[index]
    assert len(families) > 15
    for name in families.values():
        if name.startswith(SLOW_ON_META):
            continue
        with torch.device("meta"):
            model = build(f"torchvision/{name}", {}, num_classes=7, in_channels=3)
        head = model.get_submodule(head_path(model))
        assert getattr(head, "out_features", None) == 7 or getattr(head, "out_channels", None) == 7, name


@pytest.mark.parametrize("name", ["small-cnn", "efficientnet-lite0", "torchvision/resnet18", "torchvision/vgg11"])
def test_a_head_with_a_hidden_layer(name: str) -> None:
    with torch.device("meta"):
        model = build(name, {"head": {"hidden": 128, "dropout": 0.3}}, num_classes=5, in_channels=3)
    head = model.get_submodule(head_path(model))
    assert isinstance(head, Head)
    sizes = [layer.out_features for layer in head if isinstance(layer, nn.Linear)]
    assert sizes == [128, 5]
    assert [layer.p for layer in head if isinstance(layer, nn.Dropout)] == [0.3, 0.3]


def test_a_head_of_one_layer_and_wrong_heads() -> None:
    model = small(head={"dropout": 0.5})
    assert model(torch.rand(2, 3, 8, 8)).shape == (2, 2)
    with pytest.raises(
        UsageError, match=r"model.options.head.width: there is no such option; there are hidden, dropout"
    ):
        small(head={"width": 3})
    with pytest.raises(UsageError, match="SqueezeNet ends in a Conv2d"):
        build("torchvision/squeezenet1_1", {"head": {"hidden": 8}}, num_classes=2, in_channels=3)


def test_efficientnet_lite0_knows_imagenet_offline(store: Store, tmp_path: Path) -> None:
    models = [build("efficientnet-lite0", {}, num_classes=3, in_channels=3) for _ in range(2)]
    head_before = models[0].get_submodule("classifier").weight.clone()  # type: ignore[operator, union-attr]
    for model in models:
        start_from(model, context(store, tmp_path, "imagenet", "efficientnet-lite0"))
    assert equal(models[0], models[1], but="classifier")
    assert torch.equal(head_before, models[0].get_submodule("classifier").weight)  # type: ignore[arg-type]
    assert models[0].get_submodule("blocks.3.depthwise.1").running_var.std() > 0.01  # type: ignore[operator, union-attr]


@pytest.mark.parametrize("size", [(64, 64), (97, 65), (224, 224)])
def test_efficientnet_lite0_is_the_published_network(size: tuple[int, int]) -> None:
    """Compared with an independent implementation; it pads for 224, so other sizes only where that is the same."""
    package = pytest.importorskip("efficientnet_lite_pytorch")
    from starling.trainer.models.efficientnet_lite import from_package
    from starling.trainer.models.vendor_files import efficientnet_lite0

    tensors = efficientnet_lite0()
    theirs = package.EfficientNet.from_name("efficientnet-lite0", num_classes=1000)
    theirs.load_state_dict(tensors)
    ours = build("efficientnet-lite0", {}, num_classes=1000, in_channels=3)
    assert put_weights(ours, from_package(tensors), "imagenet") == []
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        made, expected = ours.eval()(images), theirs.eval()(images)
    assert made.shape == (1, 1000)
    if size[0] % 32 == 0:
        torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("uri", [False, True])
def test_a_file_in_the_store_is_loaded(store: Store, tmp_path: Path, uri: bool) -> None:
    trained, fresh = small(), small()
    save_file(trained.state_dict(), tmp_path / "file")
    store.upload(tmp_path / "file", "weights/mine.safetensors")
    name = f"{store.uri}/weights/mine.safetensors" if uri else "weights/mine.safetensors"
    start_from(fresh, context(store, tmp_path, name))
    assert equal(fresh, trained)


def test_a_file_that_changes_is_fetched_anew(store: Store, tmp_path: Path) -> None:
    for _ in range(2):
        trained, fresh = small(), small()
        save_file(trained.state_dict(), tmp_path / "file")
        store.upload(tmp_path / "file", "mine.safetensors")
        start_from(fresh, context(store, tmp_path, "mine.safetensors"))
        assert equal(fresh, trained)


def test_a_head_of_other_shape_stays_fresh(store: Store, tmp_path: Path) -> None:
    trained, fresh = small(classes=1000), small(classes=3)
    before = fresh.get_submodule("classifier").weight.clone()  # type: ignore[operator, union-attr]
    left = put_weights(fresh, trained.state_dict(), "x")
    assert left == ["classifier.bias", "classifier.weight"]
    assert torch.equal(before, fresh.get_submodule("classifier").weight)  # type: ignore[arg-type]
    assert equal(fresh.get_submodule("blocks"), trained.get_submodule("blocks"))
    hidden = small(head={"hidden": 4})
    assert len(put_weights(hidden, trained.state_dict(), "x")) == 4


def test_weights_that_do_not_fit_are_named() -> None:
    tensors = small().state_dict()
    tensors["blocks.0.0.weight"] = torch.zeros(4, 1, 3, 3)
    del tensors["blocks.1.0.weight"]
    tensors["stem"] = torch.zeros(1)
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(UsageError) as refusal:
        put_weights(model, tensors, "mine.safetensors")
    said = str(refusal.value)
    assert "blocks.0.0.weight is [4, 1, 3, 3] there and [4, 3, 3, 3] in the model" in said
    assert "blocks.1.0.weight is missing" in said
    assert "stem has no place in the model" in said
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("imagenet", "small-cnn has no ImageNet weights; use efficientnet-lite0"),
        ("weights/mine.pth", "weights/mine.pth is no .safetensors file. .*docs/tasks.md"),
        ("weights/none.safetensors", "there is no weights/none.safetensors in"),
        ("damaged.safetensors", "damaged.safetensors is no safetensors file, or a damaged one"),
        ("needs:main", "nothing is called 'main'"),
    ],
)
def test_weights_that_cannot_be_had_are_explained(store: Store, tmp_path: Path, weights: str, said: str) -> None:
    store.put("damaged.safetensors", b"\x80\x04K\x01.")
    with pytest.raises(UsageError, match=said):
        start_from(small(), context(store, tmp_path, weights))


def test_without_a_network_the_alternatives_are_named(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("starling.trainer.models.vendor_files.TRIES", 1)
    model = build("torchvision/resnet18", {}, num_classes=2, in_channels=3)
    with pytest.raises(
        UsageError, match=r"cannot be downloaded: .*\n.*efficientnet-lite0 has its weights in a package"
    ):
        start_from(model, context(store, tmp_path, "imagenet", "torchvision/resnet18"))


def test_torchvisions_downloaded_file_is_used_under_its_models_names(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file as the download leaves it, with the hash in its name, and DenseNet's old names in it."""
    import hashlib

    models = import_torchvision().models
    trained = build("torchvision/densenet121", {}, num_classes=1000, in_channels=3)
    old = {
        name.replace("norm1.", "norm.1.").replace("conv1.", "conv.1.") if "denselayer" in name else name: tensor
        for name, tensor in trained.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    torch.save(old, tmp_path / "file")
    digits = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()[:8]
    weights = models.get_model_weights("densenet121").DEFAULT
    monkeypatch.setattr(
        weights, "_value_", type(weights.value)(f"https://localhost/densenet121-{digits}.pth", None, {}), raising=True
    )
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "file").rename(tmp_path / "cache" / "weights" / f"densenet121-{digits}.pth")
    fresh = build("torchvision/densenet121", {}, num_classes=5, in_channels=3)
    start_from(fresh, context(store, tmp_path, "imagenet", "torchvision/densenet121"))
    assert equal(fresh.get_submodule("features"), trained.get_submodule("features"))
