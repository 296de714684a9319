"""`python -m benchmarks.data_peers READER` reads, turn after turn; with IMAGES FOLDER BYTES it writes a dataset."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from benchmarks.data_peers.turn import serve

READERS = {
    "s3fs": ("objects", "read_with_s3fs"),
    "boto3": ("objects", "read_with_boto3"),
    "streaming": ("mosaic", "read"),
    "litdata": ("lit", "read"),
    "webdataset": ("tars", "read"),
}
"""Name -> module and function. Each is imported only where it is used."""


def main(name: str, *writing: str) -> None:
    module, function = READERS[name]
    found = importlib.import_module(f"benchmarks.data_peers.{module}")
    if writing:
        images, folder, size = writing
        found.write(sorted(Path(images).rglob("*.jpg"), key=lambda path: path.name), Path(folder), int(size))
    else:
        serve(getattr(found, function))


if __name__ == "__main__":
    main(*sys.argv[1:])
