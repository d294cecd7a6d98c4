"""A program of this folder that runs each job in a process of its own, which may be killed: that costs
a fork, not an import of everything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Forker:
    """Start a program that reads one JSON job per line and answers with the exit status of its
    process; -9: it was killed.
    """

    def __init__(self, program: str) -> None:
        file = Path(__file__).with_name(program)
        path = [str(file.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.process = subprocess.Popen(
            [sys.executable, str(file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        )

    def run(self, job: Mapping[str, Any]) -> int:
        """Run a job; return its exit status."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin and stdout
        stdin.write(json.dumps(job) + "\n")
        stdin.flush()
        return int(json.loads(stdout.readline()))

    def close(self) -> None:
        """End the program."""
        with self.process:
            assert self.process.stdin
            self.process.stdin.close()
