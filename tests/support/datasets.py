"""Datasets of files with any bytes, written straight into a store: for tests of reading, which need no images."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterable
from pathlib import Path
from zlib import crc32

from starling.infra.store import Store
from starling.trainer.data.index import DatasetIndex, ImageFormat, PreparedWith, Sample, Shard, Split
from starling.trainer.data.shard import ShardWriter


def some_files(count: int, size: int, seed: int = 0) -> list[bytes]:
    """Files of random bytes, of about this size."""
    draw = random.Random(seed)
    return [draw.randbytes(draw.randint(size * 3 // 4, size * 5 // 4)) for _ in range(count)]


def write_dataset(
    store: Store, files: Iterable[bytes], *, name: str = "files", shard_bytes: int = 32 << 20, side: int = 512
) -> DatasetIndex:
    """A dataset with one split, `train`, of two classes in turn; its images are said to be `side` pixels square."""
    samples: list[Sample] = []
    shards: list[Shard] = []
    waiting = [(f"{number % 2}/{number:06}.jpg", data) for number, data in enumerate(files)]
    with tempfile.TemporaryDirectory() as folder:
        while waiting:
            with ShardWriter(Path(folder) / "shard.tar") as shard:
                while waiting and (shard.size == 0 or shard.size_with(*waiting[0]) <= shard_bytes):
                    key, data = waiting.pop(0)
                    samples.append(
                        Sample(
                            len(shards), shard.add(key, data), len(data), int(key[0]), crc32(data), len(samples), key
                        )
                    )
                sha256 = shard.finish()
            key = f"train/shard-{len(shards):05}.tar"
            store.upload(shard.path, f"data/{name}/{key}")
            shards.append(Shard(key=key, size=shard.size, sha256=sha256))
    index = DatasetIndex(
        name=name,
        source="tests",
        inputs_sha256="0" * 64,
        content_sha256=shards[0].sha256,
        classes=["0", "1"],
        image=ImageFormat(mode="RGB", height=side, width=side),
        splits={"train": Split(samples=samples, shards=shards)},
        prepared=PreparedWith(layout="class folders", shard_bytes=shard_bytes, split_by="folders"),
        left_out=[],
        left_out_counts={},
        whole_images=0,
        ignored={},
    )
    store.put(f"data/{name}/index.json", index.to_bytes())
    return index
