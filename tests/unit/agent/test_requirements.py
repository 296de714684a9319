"""What a user's requirements.txt makes of a node's Python."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from starling.infra.agent.requirements import install_requirements
from starling.infra.errors import StarlingError
from tests.support.wheels import write_wheel


def test_requirements_are_installed_once(tmp_path: Path) -> None:
    project, site = tmp_path / "code", tmp_path / "site"
    package = project / "vendored"
    package.mkdir(parents=True)
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (package / "backend.py").write_text(BACKEND)
    (project / "requirements.txt").write_text("--no-index\n./vendored\n")
    install_requirements(project, site)
    assert (site / "tiny.py").read_text() == "value = 1\n"
    (site / "tiny.py").write_text("touched")
    install_requirements(project, site)
    assert (site / "tiny.py").read_text() == "touched"


def test_requirements_that_cannot_be_installed_say_why(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "requirements.txt").write_text("--no-index\nno-such-package-anywhere==1\n")
    with pytest.raises(StarlingError, match="no-such-package-anywhere"):
        install_requirements(tmp_path / "code", tmp_path / "site")


def test_no_requirements_need_nothing(tmp_path: Path) -> None:
    install_requirements(tmp_path, tmp_path / "site")
    assert not (tmp_path / "site").exists()


def install_with(packages: Path, code: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """As an agent would whose Python has these packages, too."""
    script = (
        f"import sys; sys.path.insert(0, {str(packages)!r})\n"
        "from pathlib import Path\n"
        "from starling.infra.agent.requirements import install_requirements\n"
        f"install_requirements(Path({str(code)!r}), Path({str(site)!r}))\n"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A folder of wheels, and the packages of a node that has the first version of `heavy`."""
    for name in ("wheels", "code", "packages"):
        (tmp_path / name).mkdir()
    for version in ("1.0", "2.0"):
        write_wheel(tmp_path / "wheels", "heavy", version, {"heavy.py": f"version = '{version}'\n"})
    write_wheel(tmp_path / "wheels", "light", "1.0", {"light.py": "import heavy\n"}, requires=["heavy"])
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--find-links", str(tmp_path / "wheels")]
    subprocess.run([*pip, "--target", str(tmp_path / "packages"), "heavy==1.0"], check=True)
    return tmp_path


def require(node: Path, *lines: str) -> None:
    text = "".join(f"{line}\n" for line in ("--no-index", f"--find-links {node / 'wheels'}", *lines))
    (node / "code" / "requirements.txt").write_text(text)


def test_what_the_node_has_is_neither_installed_again_nor_replaced(node: Path) -> None:
    require(node, "light", "numpy")
    ran = install_with(node / "packages", node / "code", node / "site")
    assert ran.returncode == 0, ran.stderr
    found = sorted(path.name for path in (node / "site").glob("*.dist-info"))
    assert found == ["light-1.0.dist-info"], "not heavy 2.0, and no second numpy"
    ask = "import json, heavy, light, numpy; print(json.dumps([heavy.version, numpy.__version__]))"
    path = f"{node / 'site'}:{node / 'packages'}"
    answer = subprocess.run(
        [sys.executable, "-c", ask], env={"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert json.loads(answer.stdout) == ["1.0", metadata.version("numpy")]
    assert (node / "packages" / "heavy-1.0.dist-info").is_dir(), "the node's own packages are left alone"


def test_another_version_of_what_the_node_has_is_refused(node: Path) -> None:
    require(node, "heavy==2.0")
    ran = install_with(node / "packages", node / "code", node / "site")
    assert ran.returncode != 0
    assert "packages that the node has keep their versions" in ran.stderr
    assert "heavy==1.0" in ran.stderr


def test_other_packages_of_the_node_are_a_reason_to_look_again(node: Path) -> None:
    require(node, "light")
    assert install_with(node / "packages", node / "code", node / "site").returncode == 0
    assert install_with(node / "none", node / "code", node / "site").returncode == 0
    assert (node / "site" / "heavy-2.0.dist-info").is_dir(), "this Python has no heavy"


BACKEND = """
import zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(f"{folder}/{name}", "w") as wheel:
        wheel.writestr("tiny.py", "value = 1\\n")
        wheel.writestr("tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\\nName: tiny\\nVersion: 1\\n")
        wheel.writestr("tiny-1.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: t\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr("tiny-1.dist-info/RECORD", "tiny.py,,\\ntiny-1.dist-info/METADATA,,\\ntiny-1.dist-info/WHEEL,,\\ntiny-1.dist-info/RECORD,,\\n")
    return name
"""  # noqa: E501
