"""From a resolved spec to what its task is built from: on nodes that train, and wherever its model is looked at."""

from __future__ import annotations

from pathlib import Path

from starling.infra.store import Store
from starling.trainer.config import Job
from starling.trainer.task import TaskContext


def task_context(job: Job, store: Store, cache_dir: Path) -> TaskContext:
    """`store` holds the run; `cache_dir` may be used for data by any number of processes."""
    return TaskContext(
        options=job.task_options,
        model_name=job.model,
        model_options=job.model_options,
        model_weights=job.model_weights,
        dataset=job.dataset,
        data_fraction=job.data_fraction,
        needs=job.needs,
        run=job.run,
        store=store,
        cache_dir=cache_dir,
        cache_bytes=job.data_cache,
        seed=job.training.seed,
    )
