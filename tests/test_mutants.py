"""Each deliberate mistake makes a test fail: the suite can see what it claims to see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

import stripe_feed
from tests.mutants import MUTANTS, Mutant

PACKAGE = Path(stripe_feed.__file__).parent
ROOT = Path(__file__).parents[1]
FAILED = 1  # pytest's exit code when tests ran and some failed; a broken import would be 2
AT_ONCE = max(2, (os.cpu_count() or 2))

each_mutant = pytest.mark.parametrize(
    "mutant",
    [pytest.param(m, id=m.name, marks=() if m.quick else pytest.mark.long) for m in MUTANTS],
)


class Verdict(NamedTuple):
    """How a test run ended."""

    code: int
    output: str


def copy_with(folder: Path, mutant: Mutant | None) -> Path:
    """A copy of the package, with the mistake in it; returns what goes before everything else on
    Python's path.
    """
    shutil.copytree(PACKAGE, folder / "stripe_feed", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant is not None:
        file = folder / "stripe_feed" / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
    return folder


def python(path: Path, *arguments: str) -> Verdict:
    """Run Python in the checkout, with the copy in place of the package."""
    environment = os.environ | {
        "PYTHONPATH": f"{path}{os.pathsep}{ROOT}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    found = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return Verdict(found.returncode, found.stdout + found.stderr)


def judge(folder: Path, mutant: Mutant | None, killers: Iterable[str]) -> Verdict:
    """Run tests against a copy; the first failure is enough."""
    tests = [f"tests/{killer}" for killer in killers]
    return python(
        copy_with(folder, mutant), "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests
    )


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Verdict]]]:
    """All runs that the tests of this session ask for, several at a time; the one without a mistake
    is called "none".
    """
    chosen: dict[Mutant, None] = {
        callspec.params["mutant"]: None
        for item in request.session.items
        if (callspec := getattr(item, "callspec", None)) and "mutant" in callspec.params
    }
    folder = tmp_path_factory.mktemp("mutants")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = {
            "none": pool.submit(
                judge, folder / "none", None, sorted({mutant.killer for mutant in chosen})
            )
        }
        found |= {
            m.name: pool.submit(judge, folder / f"mutant{n}", m, [m.killer])
            for n, m in enumerate(chosen)
        }
        yield found


def test_the_copy_is_what_runs(tmp_path: Path) -> None:
    """Not the package that is installed."""
    path = copy_with(tmp_path / "copy", None)

    found = python(path, "-c", "import stripe_feed; print(stripe_feed.__file__)").output.strip()
    assert Path(found).parent == path / "stripe_feed"


@pytest.mark.parametrize("mistake", MUTANTS, ids=[m.name for m in MUTANTS])
def test_every_mistake_can_be_made(mistake: Mutant) -> None:
    """Its place in the code is there, once. After a change of that place, make the mistake anew."""
    assert (PACKAGE / mistake.file).read_text().count(mistake.old) == 1
    assert mistake.old != mistake.new


def test_there_are_enough_of_them() -> None:
    """At least twelve in CI, each with a name of its own."""
    assert sum(mutant.quick for mutant in MUTANTS) >= 12
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


@pytest.mark.parametrize(
    "mutant", [MUTANTS[0], pytest.param(MUTANTS[1], marks=pytest.mark.long)], ids=["quick", "all"]
)
def test_without_a_mistake_the_tests_pass(
    verdicts: dict[str, Future[Verdict]], mutant: Mutant
) -> None:
    """Or their failures would mean nothing."""
    verdict = verdicts["none"].result()

    assert verdict.code == 0, verdict.output


@each_mutant
def test_a_mistake_is_noticed(verdicts: dict[str, Future[Verdict]], mutant: Mutant) -> None:
    """By the test that names the promise."""
    verdict = verdicts[mutant.name].result()

    assert verdict.code == FAILED, (
        f"{mutant.killer} does not notice: {mutant.name}\n{verdict.output}"
    )
