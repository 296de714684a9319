"""On PYTHONPATH, this lets any program import torchvision where only PyPI's CUDA build of it lies beside a CPU build
of torch: Lightning and transformers import it, unasked, wherever it is installed. See torchvision_shim.py."""

import sys
from collections.abc import Sequence
from types import ModuleType


class MendTorchvision:
    """Declares what is missing just before torchvision is imported; finds nothing itself."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)  # type: ignore[arg-type]
            from starling.trainer.models.torchvision_shim import declare_missing_operators

            declare_missing_operators()


sys.meta_path.insert(0, MendTorchvision())  # type: ignore[arg-type]
