"""Fits a small network to noisy sine waves with Lightning, which saves into a folder and resumes from it.

python lightning_fit.py --epochs 30 --out out
"""

import argparse
import os
import time

import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class SineFit(LightningModule):
    def __init__(self, slow: float) -> None:
        super().__init__()
        self.slow = slow
        self.net = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 1))

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        x, y = batch
        time.sleep(self.slow)
        return nn.functional.mse_loss(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=0.01)

    def on_train_start(self) -> None:
        print(f"training starts at epoch {self.current_epoch}, step {self.global_step}", flush=True)


def make_loader(samples: int, batch: int) -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 1, generator=generator) * 6.28
    y = torch.sin(x) + 0.1 * torch.randn(samples, 1, generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--out", default="out")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds to sleep in every step")
    args = parser.parse_args()

    seed_everything(0)
    trainer = Trainer(
        max_epochs=args.epochs,
        accelerator="cpu",
        devices=int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        num_nodes=int(os.environ.get("GROUP_WORLD_SIZE", 1)),
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ModelCheckpoint(dirpath=args.out, save_last=True, every_n_epochs=1)],
    )
    trainer.fit(SineFit(args.slow), make_loader(256, 32), ckpt_path="last")
    print(f"finished at epoch {trainer.current_epoch}, step {trainer.global_step}", flush=True)


if __name__ == "__main__":
    main()
