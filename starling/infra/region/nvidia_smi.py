"""Stands in for nvidia-smi on an emulated machine: `nvidia_smi.py GPUS [options of nvidia-smi]`.

GPUS is a JSON list of {"uuid", "name", "memory" (MiB)}. Only queries and lists are known; standard library only.
"""

from __future__ import annotations

import json
import sys
from typing import Any

DRIVER = "580.95.05"


def main() -> int:
    gpus: list[dict[str, Any]] = json.loads(sys.argv[1])
    query = next((word.partition("=")[2] for word in sys.argv[2:] if word.startswith("--query-gpu=")), None)
    shape = next((word.partition("=")[2].split(",") for word in sys.argv[2:] if word.startswith("--format=")), ["csv"])
    if not gpus:
        print("No devices were found")
        return 6
    if query is None:
        for index, gpu in enumerate(gpus):
            print(f"GPU {index}: NVIDIA {gpu['name']} (UUID: {gpu['uuid']})")
        return 0
    fields = query.split(",")
    if "noheader" not in shape:
        print(", ".join(fields))
    for index, gpu in enumerate(gpus):
        print(", ".join(_value(gpu, index, field, units="nounits" not in shape) for field in fields))
    return 0


def _value(gpu: dict[str, Any], index: int, field: str, *, units: bool) -> str:
    known: dict[str, str] = {
        "index": str(index),
        "uuid": gpu["uuid"],
        "gpu_uuid": gpu["uuid"],
        "name": f"NVIDIA {gpu['name']}",
        "memory.total": f"{gpu['memory']} MiB" if units else str(gpu["memory"]),
        "driver_version": DRIVER,
        "count": "1",
    }
    return known.get(field, "[N/A]")


if __name__ == "__main__":
    sys.exit(main())
