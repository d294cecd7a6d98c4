"""Each deliberate mistake makes a test fail: the suite can see what it claims to see."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import NamedTuple

import pytest

import stripe_feed
from tests.chosen import chosen
from tests.mutants import MUTANTS, Mutant

PACKAGE = Path(stripe_feed.__file__).parent
ROOT = Path(__file__).parents[1]
FAILED = 1  # pytest's exit code when tests ran and some failed; a broken import would be 2
AT_ONCE = 2
FEW = 5
CHEAP_KILLERS = sorted(
    {mutant.killer for mutant in MUTANTS if mutant.killer.startswith("test_windows")}
)

each_mutant = pytest.mark.parametrize(
    "mutant",
    [pytest.param(m, id=m.name, marks=() if m.quick else pytest.mark.broad) for m in MUTANTS],
)


class Verdict(NamedTuple):
    """How a test run ended."""

    code: int
    output: str


def copy_with(folder: Path, mutant: Mutant | None) -> Path:
    """A copy of the package and of what was compiled of it, with the mistake in it; returns what goes
    before everything else on Python's path.
    """
    shutil.copytree(PACKAGE, folder / "stripe_feed")  # with the times, by which Python compares
    if mutant is not None:
        file = folder / "stripe_feed" / mutant.file
        file.write_text(file.read_text().replace(mutant.old, mutant.new))
        for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
            compiled.unlink()
    return folder


class Runner:
    """The process that forks the test runs."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mutant_runs.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, path: Path, *tests: str) -> Verdict:
        """Run tests with the copy in place of the package; the first failure is enough."""
        output = path / "output.txt"
        job = {"path": str(path), "root": str(ROOT), "tests": tests, "output": str(output)}
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin and stdout
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        code = int(json.loads(stdout.readline()))
        return Verdict(code, output.read_text(encoding="utf-8", errors="replace"))

    def close(self) -> None:
        with self.process:
            assert self.process.stdin
            self.process.stdin.close()


@pytest.fixture(scope="module")
def runners(request: pytest.FixtureRequest) -> Iterator[SimpleQueue[Runner]]:
    """Those that have nothing to do; for a few runs, one is enough."""
    idle: SimpleQueue[Runner] = SimpleQueue()
    count = AT_ONCE if len(chosen(request, "mutant")) > FEW else 1
    for _ in range(count):
        idle.put(Runner())
    yield idle
    for _ in range(count):
        idle.get().close()


@pytest.fixture
def runner(runners: SimpleQueue[Runner]) -> Iterator[Runner]:
    runner = runners.get()
    yield runner
    runners.put(runner)


@pytest.fixture(scope="module")
def verdicts(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    runners: SimpleQueue[Runner],
) -> Iterator[dict[str, Future[Verdict]]]:
    """All runs that the tests of this session ask for, by mistake, several at a time."""
    folder = tmp_path_factory.mktemp("mutants")

    def judge(number: int, mutant: Mutant) -> Verdict:
        runner = runners.get()
        try:
            return runner.run(
                copy_with(folder / f"mutant{number}", mutant), f"tests/{mutant.killer}"
            )
        finally:
            runners.put(runner)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            mutant.name: pool.submit(judge, number, mutant)
            for number, mutant in enumerate(chosen(request, "mutant"))
        }


def test_the_copy_is_what_runs(runner: Runner, tmp_path: Path) -> None:
    """Not the package that is installed."""
    path = copy_with(tmp_path / "copy", None)
    (tmp_path / "test_where.py").write_text(
        f"import stripe_feed\n\ndef test_where():\n    assert stripe_feed.__file__ == {str(path / 'stripe_feed' / '__init__.py')!r}\n"
    )

    verdict = runner.run(path, str(tmp_path / "test_where.py"))

    assert verdict.code == 0, verdict.output


@pytest.mark.parametrize("mistake", MUTANTS, ids=[m.name for m in MUTANTS])
def test_every_mistake_can_be_made(mistake: Mutant) -> None:
    """Its place in the code is there, once, and so is its test. After a change of that place, make
    the mistake anew.
    """
    file, _, test = mistake.killer.partition("[")[0].partition("::")  # without a test: all of it
    assert (PACKAGE / mistake.file).read_text().count(mistake.old) == 1
    assert mistake.old != mistake.new
    assert f"def {test}(" in Path(__file__).with_name(file).read_text() or not test


def test_there_are_enough_of_them() -> None:
    """At least twelve in CI and a few for those who wait, each with a name of its own."""
    assert len(MUTANTS) >= 12 and sum(mutant.quick for mutant in MUTANTS) >= 3
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)


def test_without_a_mistake_a_test_passes(runner: Runner, tmp_path: Path) -> None:
    """Or the failures of copies would mean nothing. That all of them pass against the package
    itself is what the suite shows.
    """
    path = copy_with(tmp_path / "copy", None)

    verdict = runner.run(path, *(f"tests/{killer}" for killer in CHEAP_KILLERS))

    assert verdict.code == 0, verdict.output


@each_mutant
def test_a_mistake_is_noticed(verdicts: dict[str, Future[Verdict]], mutant: Mutant) -> None:
    """By the test that names the promise."""
    verdict = verdicts[mutant.name].result()

    assert verdict.code == FAILED, (
        f"{mutant.killer} does not notice: {mutant.name}\n{verdict.output}"
    )
