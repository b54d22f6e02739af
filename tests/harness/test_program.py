"""How commands end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import signal, sys
from harness.program import run_program
def main():
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN, "a closed connection would kill a training"
    for number in range(int(sys.argv[1])):
        print("a line of a table", number)
run_program(main)
"""


def start(lines: int) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(lines)], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def test_a_reader_that_has_had_enough():
    program = start(100_000)
    assert program.stdout.readline() == "a line of a table 0\n"
    program.stdout.close()
    assert program.stderr.read() == "" and program.wait() == 141
    program.stderr.close()


def test_a_reader_that_is_gone_before_the_first_line():
    """A short table, which is written only when the program ends."""
    reading, writing = os.pipe()
    os.close(reading)
    program = subprocess.run([sys.executable, "-c", PROGRAM, "3"], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE,
                             text=True)
    os.close(writing)
    assert (program.returncode, program.stderr) == (141, "")


def test_a_reader_that_stays():
    program = start(3)
    output, errors = program.communicate()
    assert (program.returncode, output.count("\n"), errors) == (0, 3, "")
