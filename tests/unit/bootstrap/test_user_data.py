"""User data: one script for all nodes of a run."""

from __future__ import annotations

import ast
import difflib
import sys
from pathlib import Path

import pytest

from starling.infra.bootstrap import stage0
from starling.infra.bootstrap.user_data import MAX_BYTES, BootConfig, user_data
from starling.infra.errors import StarlingError

CONFIG = BootConfig(
    store_uri="s3://bucket/store?region=eu-west-1", region="eu-west-1", run="eyes-1", package_sha256="ab"
)
FILLED = (
    'CONFIG: dict[str, str] = {"store_uri": "s3://bucket/store?region=eu-west-1", "region": "eu-west-1", '
    '"run": "eyes-1", "package_sha256": "ab"}'
)
BOOTSTRAP = Path(stage0.__file__).parent
RUN_BY_OLD_PYTHONS = [
    *(BOOTSTRAP / f"{name}.py" for name in ("__init__", "stage0", "install", "environment", "pythons", "driver")),
    *(BOOTSTRAP / f"{name}.py" for name in ("interface", "machine")),
    *(BOOTSTRAP.parent / name for name in ("__init__.py", "layout.py", "agent/__init__.py", "agent/gpus.py")),
    BOOTSTRAP.parents[1] / "__init__.py",
]


def test_it_is_stage_0_with_one_line_filled_in() -> None:
    before, after = Path(stage0.__file__).read_text().splitlines(), user_data(CONFIG).splitlines()
    changes = [line for line in difflib.ndiff(before, after) if line[0] in "-+"]
    assert changes == ["- CONFIG: dict[str, str] = {}", f"+ {FILLED}"]
    assert after[0] == "#!/usr/bin/env python3", "cloud-init executes what begins like this"


def test_what_is_filled_in_is_what_python_reads() -> None:
    hostile = BootConfig(store_uri='s3://b/"\\\n{}', region="é", run="'", package_sha256="")
    [line] = [node for node in ast.parse(user_data(hostile)).body if isinstance(node, ast.AnnAssign)]
    assert line.value is not None
    assert ast.literal_eval(line.value)["store_uri"] == hostile.store_uri
    assert ast.literal_eval(line.value)["region"] == hostile.region


def test_the_same_configuration_gives_the_same_bytes_within_ec2s_limit() -> None:
    assert user_data(CONFIG) == user_data(CONFIG)
    longest = BootConfig(
        store_uri=f"s3://{'b' * 63}/{'p' * 100}", region="r" * 20, run="n" * 80, package_sha256="a" * 64
    )
    assert len(user_data(longest).encode()) < MAX_BYTES


def test_more_than_ec2_takes_is_refused() -> None:
    with pytest.raises(StarlingError, match="more than EC2's 16384"):
        user_data(BootConfig(store_uri="s" * MAX_BYTES, region="", run="", package_sha256=""))


@pytest.mark.parametrize("path", RUN_BY_OLD_PYTHONS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_an_images_own_python_runs_is_python_3_8_and_needs_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    ours = {f"starling.infra.{name}" for name in ("layout", "agent.gpus")}
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [
                f"{node.module}.{alias.name}" if node.module == "starling.infra" else node.module or ""
                for alias in node.names
            ]
        for name in names:
            if name.split(".")[0] == "starling":
                listed = {f"starling.infra.bootstrap.{path.stem}" for path in RUN_BY_OLD_PYTHONS}
                assert name in ours | listed, f"{name} may need what is not installed yet"
            else:
                assert name.split(".")[0] in sys.stdlib_module_names, name
