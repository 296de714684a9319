"""Trains a tiny random GPT-2 on made-up text with the Hugging Face Trainer, which saves and resumes by itself.

python hf_trainer.py --steps 200 --out out
"""

import argparse
import time

import torch
from torch.utils.data import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed
from transformers.trainer_utils import get_last_checkpoint


class CountingText(Dataset):
    """Sequences that count upwards from a random start."""

    def __init__(self, samples: int, length: int = 16, words: int = 64) -> None:
        starts = torch.randint(words, (samples, 1), generator=torch.Generator().manual_seed(0))
        self.tokens = (starts + torch.arange(length)) % words

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": self.tokens[index], "labels": self.tokens[index]}


class Slow(TrainerCallback):
    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_begin(self, args, state, control, **kwargs):
        print(f"training starts at step {state.global_step}", flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        time.sleep(self.seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--save-steps", type=int, default=20)
    parser.add_argument("--out", default="out")
    parser.add_argument("--slow", type=float, default=0.0, help="seconds to sleep after every step")
    args = parser.parse_args()

    set_seed(0)
    config = GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0)
    trainer = Trainer(
        model=GPT2LMHeadModel(config),
        args=TrainingArguments(
            output_dir=args.out,
            max_steps=args.steps,
            per_device_train_batch_size=8,
            save_steps=args.save_steps,
            save_total_limit=2,
            logging_steps=20,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=CountingText(512),
        callbacks=[Slow(args.slow)],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(args.out))
    trainer.save_model(args.out)
    print(f"finished at step {trainer.state.global_step}", flush=True)


def last_checkpoint(out: str) -> str | None:
    try:
        return get_last_checkpoint(out)
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    main()
