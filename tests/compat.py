"""Installs the package with the lowest and the newest allowed versions of what it needs, and runs a
share of the tests there: `make compat`.

Each environment lies in `.venv-compat/`. The oldest Python gets the lowest versions that
pyproject.toml allows, and each Python that is present the newest ones. Needs uv. With arguments:
only the environments whose names begin so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
HOME = ROOT / ".venv-compat"
TESTS = (
    "test_package.py",
    "test_small_accounts.py",
    "test_dlt_native.py::test_a_source_runs_again_with_dlt_s_own_settings",
    "test_windows.py",
    "test_fetch.py",
    "test_codec.py",
    "test_engine.py",
    "test_app.py",
    "test_consumers.py",
    "test_destinations.py::test_two_runs",
)
SHOWN = ("dlt", "duckdb", "stripe", "pyarrow", "sqlglot")


class Environment(NamedTuple):
    """A Python, and whether it gets the lowest versions."""

    python: str
    lowest: bool

    @property
    def name(self) -> str:
        return f"{self.python}-{'lowest' if self.lowest else 'newest'}"


def pythons() -> list[str]:
    """The versions that the classifiers name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    prefix = "Programming Language :: Python :: 3."
    return [
        name.removeprefix(prefix[:-2]) for name in project["classifiers"] if name.startswith(prefix)
    ]


def present(version: str) -> str | None:
    """A Python of this version that starts: on the path, or among those of pyenv."""
    kept = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    named = [shutil.which(f"python{version}"), *map(str, kept.glob(f"{version}.*/bin/python3"))]
    return next(
        (
            name
            for name in named
            if name and subprocess.run([name, "-V"], capture_output=True).returncode == 0
        ),
        None,
    )


def run(*command: str | Path, **environment: str) -> int:
    print("$", *command, flush=True)
    return subprocess.run(
        [str(part) for part in command], cwd=ROOT, env=os.environ | environment, check=False
    ).returncode


def tried(uv: str, environment: Environment) -> str:
    """What came of an environment."""
    folder, base = HOME / environment.name, present(environment.python)
    interpreter = folder / "bin" / "python"
    if base is None or run(uv, "venv", "-q", "--clear", "--python", base, folder):
        return "no such Python here"
    resolution = "lowest-direct" if environment.lowest else "highest"
    if run(
        uv,
        "pip",
        "install",
        "-q",
        "--python",
        interpreter,
        "--resolution",
        resolution,
        "-e",
        ".[dev]",
    ):
        return "cannot be installed"
    versions = "; ".join(f"print('{name}', metadata.version('{name}'))" for name in SHOWN)
    run(interpreter, "-c", f"from importlib import metadata; {versions}")
    tests = [str(ROOT / "tests" / name) for name in TESTS]
    code = run(interpreter, "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *tests)
    return "well" if code == 0 else f"pytest ends with {code}"


def main() -> None:
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if uv is None:
        sys.exit("make compat needs uv: pip install uv")
    oldest, *_ = all_of_them = pythons()
    chosen = [Environment(oldest, True), *(Environment(python, False) for python in all_of_them)]
    found = {
        environment.name: tried(uv, environment)
        for environment in chosen
        if environment.name.startswith(tuple(sys.argv[1:]) or "")
    }
    for name, result in found.items():
        print(f"{name:15} {result}")
    if set(found.values()) - {"well", "no such Python here"} or "well" not in found.values():
        sys.exit(1)


if __name__ == "__main__":
    main()
