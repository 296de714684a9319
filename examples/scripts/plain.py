"""Fits a small network to noisy sine waves: distributed data parallel, saves every few steps, resumes from its folder.

torchrun --nproc-per-node=2 plain.py --steps 300 --out out
"""

import argparse
import glob
import json
import os
import time

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def make_dataset(samples: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 1, generator=generator) * 6.28
    y = torch.sin(x) + 0.1 * torch.randn(samples, 1, generator=generator)
    return TensorDataset(x, y)


def newest_checkpoint(out: str) -> str | None:
    found = glob.glob(os.path.join(out, "step-*.pt"))
    return max(found, default=None)


def save(out: str, step: int, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    os.makedirs(out, exist_ok=True)
    state = {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, os.path.join(out, f"step-{step:06d}.pt"))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--save-every", type=int, default=20)
    parser.add_argument("--out", default="out")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds to sleep after every step")
    args = parser.parse_args()

    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1)))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    step = 0
    if (path := newest_checkpoint(args.out)) is not None:
        state = torch.load(path, weights_only=True)
        model.module.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    if rank == 0:
        os.makedirs(args.out, exist_ok=True)
        print(f"starting at step {step} with {world} processes", flush=True)
        with open(os.path.join(args.out, "starts.jsonl"), "a") as record:
            record.write(json.dumps({"step": step, "world": world}) + "\n")

    dataset = make_dataset(1024)
    sampler = DistributedSampler(dataset)
    loader = DataLoader(dataset, batch_size=args.batch, sampler=sampler, num_workers=1)
    epoch = 0
    while step < args.steps:
        sampler.set_epoch(epoch)
        for x, y in loader:
            loss = nn.functional.mse_loss(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
            if rank == 0 and step % args.save_every == 0:
                save(args.out, step, model.module, optimizer)
                print(f"step {step}: loss {loss.item():.4f}, saved", flush=True)
            time.sleep(args.slow)
            if step == args.steps:
                break
        epoch += 1
    if rank == 0:
        save(args.out, step, model.module, optimizer)
        print(f"finished at step {step}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
