"""Imported by a supervisor's forkserver, and by nothing else: the one module with an effect on import.

It ties the forkserver to the supervisor and imports what every worker needs. Left to itself a forkserver would notice
the supervisor's death, but end only after Python's finalisation, for seconds during which orphaned workers live on.
"""

import torch

from starling.infra.processes import die_with_parent
from starling.infra.store import s3
from starling.infra.store.s3_client import prepare_for_clients
from starling.trainer import worker

__all__ = ["s3", "worker"]

die_with_parent()
# The first call imports the compiler's settings, about a second's worth of modules.
torch.use_deterministic_algorithms(False)
# What else would be imported or parsed in the first step of every round: by an optimizer, and by an S3 client.
_parameter = torch.nn.Parameter(torch.zeros(1))
_parameter.grad = torch.zeros(1)
torch.optim.SGD([_parameter]).step()
prepare_for_clients()
