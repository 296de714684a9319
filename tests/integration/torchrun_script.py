"""A plain torchrun script that knows nothing of Starling: adds up ranks, and dies once if it is told to."""

import os
import sys
import time
from pathlib import Path

import torch
import torch.distributed as dist

out = Path(sys.argv[1])
dist.init_process_group("gloo")
value = torch.tensor([dist.get_rank() + 1])
dist.all_reduce(value)
marker = out / f"{os.environ['TORCHELASTIC_RUN_ID']}-{dist.get_world_size()}-{dist.get_rank()}"
(aside := out / f"new-{os.getpid()}").write_text(f"{int(value)} {os.environ['TORCHELASTIC_RESTART_COUNT']}")
aside.replace(marker)  # whole whenever it is looked at
while not (out / "finish").exists():
    time.sleep(0.05)
    dist.all_reduce(value)
    aside.write_text(str(os.getppid()))
    aside.replace(out / f"pid-{dist.get_rank()}")
    flag = torch.tensor([int((out / "finish").exists())])
    dist.all_reduce(flag)
    if flag.item():
        break
dist.destroy_process_group()
