"""Builds the wheel and tries it where nothing else is installed: `make wheel`.

Fails when the wheel brings another top-level package, lacks a file of ours, or does not run in an
empty environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "sources" / "stripe_feed"

PUBLIC_NAMES = """
import stripe_feed, sys
from pathlib import Path

home = Path(stripe_feed.__file__).parent
assert home.is_relative_to(sys.prefix), f"{home} is not what was installed"
assert (home / "py.typed").exists(), "py.typed is missing"
for name in stripe_feed.__all__:
    assert getattr(stripe_feed, name), name
print(stripe_feed.__version__)
"""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="stripe-feed-wheel-") as folder:
        here = Path(folder)
        wheel = build(here / "dist")
        check_contents(wheel)
        bin_folder = install(wheel, here / "venv")
        version = smoke(bin_folder, here)
    print(f"wheel {version}: one top-level package, installs into an empty environment, runs there")


def uv() -> str | None:
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.exists() else shutil.which("uv")


def build(folder: Path) -> Path:
    tool = uv()
    if not (tool and succeeds(tool, "build", "-q", "--wheel", "--out-dir", folder, ROOT)):
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--wheel-dir", folder, ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


def check_contents(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")}
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    if packages != {"stripe_feed"}:
        sys.exit(f"the wheel's top-level packages are {sorted(packages)}, not stripe_feed alone")
    ours = {
        f"stripe_feed/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    if missing := ours - names:
        sys.exit(f"the wheel lacks {sorted(missing)}: is it ignored by .gitignore?")


def install(wheel: Path, environment: Path) -> Path:
    tool = uv()
    venv.create(environment, with_pip=tool is None)
    bin_folder = environment / ("Scripts" if os.name == "nt" else "bin")
    if not (
        tool and succeeds(tool, "pip", "install", "-q", "--python", bin_folder / "python", wheel)
    ):
        venv.create(environment, with_pip=True)
        run(bin_folder / "python", "-m", "pip", "install", "-q", wheel)
    return bin_folder


def smoke(bin_folder: Path, here: Path) -> str:
    """Runs the command and the public names in an empty folder, with a home of its own and no
    setting of the user's.
    """
    empty = here / "empty"
    empty.mkdir()
    environment = {
        "PATH": os.defpath,
        "HOME": str(here),
        "DLT_DATA_DIR": str(here / "dlt"),
        "RUNTIME__DLTHUB_TELEMETRY": "false",
    }
    version = run(bin_folder / "python", "-I", "-c", PUBLIC_NAMES, cwd=empty, env=environment)
    command = bin_folder / "stripe-feed"
    run(command, "--help", cwd=empty, env=environment)
    database = empty / "demo.duckdb"
    run(command, "demo", "--customers", "50", "--database", database, cwd=empty, env=environment)
    if not database.exists():
        sys.exit(f"`stripe-feed demo --database {database.name}` made no such file")
    return version.strip()


def succeeds(*command: str | Path) -> bool:
    return subprocess.run([str(part) for part in command]).returncode == 0


def run(*command: str | Path, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """What the command prints; when it fails, everything that it said, and an end."""
    parts = [str(part) for part in command]
    done = subprocess.run(
        parts,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{' '.join(parts)}\n{done.stdout}\nfailed with exit code {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
