"""A dataset in numbers: what `starling data inspect` prints."""

from __future__ import annotations

from typing import Any

from starling.infra.errors import ObjectCorrupt
from starling.infra.store import Store
from starling.trainer.data.index import load_index, locate


def describe(store: Store, dataset: str) -> dict[str, Any]:
    """What `--json` prints. UsageError if there is no such dataset, ObjectCorrupt if it is empty; no shard is read."""
    index, place = load_index(store, dataset), locate(store, dataset)
    shards = [shard for split in index.splits.values() for shard in split.shards]
    lengths = sorted(sample.length for split in index.splits.values() for sample in split.samples)
    if not lengths:
        raise ObjectCorrupt(f"the index of dataset {index.name} names no image; prepare the dataset again")
    return {
        "dataset": index.name,
        "uri": place.uri,
        "source": index.source,
        "content_sha256": index.content_sha256,
        "classes": index.classes,
        "image": index.image.model_dump(),
        "splits": {
            name: {
                "images": len(split.samples),
                "shards": len(split.shards),
                "bytes": sum(shard.size for shard in split.shards),
                "class_counts": index.class_counts(name),
            }
            for name, split in index.splits.items()
        },
        "shards": len(shards),
        "bytes": sum(shard.size for shard in shards),
        "image_bytes": {"smallest": lengths[0], "median": lengths[len(lengths) // 2], "largest": lengths[-1]},
        "prepared": index.prepared.model_dump(),
        "left_out": [entry.model_dump(mode="json") for entry in index.left_out],
        "left_out_counts": index.left_out_counts,
        "whole_images": index.whole_images,
        "ignored": index.ignored,
    }
