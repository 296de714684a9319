"""The code of a user's own task, on this process' path for as long as it is needed."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from starling.infra.code import unpack_code
from starling.infra.errors import UsageError
from starling.infra.store import Store


@contextmanager
def code_on_path(store: Store, sha256: str | None) -> Iterator[None]:
    """Unpack the run's code (verified by its hash) into a temporary folder that can be imported from.

    Nothing is installed: a package that the code imports and that is not here is a UsageError that names it.
    """
    if sha256 is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="starling-code-") as folder:
        path = str(unpack_code(store, sha256, Path(folder).resolve() / "code"))
        sys.path.insert(0, path)
        try:
            yield
        except ModuleNotFoundError as error:
            raise UsageError(
                f"the run's code needs the package {error.name!r}, which is not installed here; "
                "install what its requirements.txt names, then try again"
            ) from error
        finally:
            sys.path.remove(path)
            _forget(path)


def _forget(folder: str) -> None:
    """Another run's code may have modules of the same names."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(folder):
            del sys.modules[name]
