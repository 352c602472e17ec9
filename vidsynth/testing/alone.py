"""Importing modules where nothing else is imported and no GPU is seen."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from typing import IO

# Torch, which every plugin imports and which takes seconds, is imported once; each module then in a
# process of its own, forked from that one.
_SERVE = """
import json, os, sys, traceback
import torch, vidsynth.kinds
for line in sys.stdin:
    heard, said = os.pipe()
    if not (child := os.fork()):
        os.dup2(2, 1)
        complaint = ""
        try:
            module, sys.path[:] = json.loads(line)
            __import__(module)
        except BaseException:
            complaint = traceback.format_exc()
        os.write(said, complaint.encode()[-4000:])
        os._exit(0)
    os.close(said)
    with os.fdopen(heard, "rb") as answer:
        complaint = answer.read().decode()
    status = os.waitpid(child, 0)[1]
    if status and not complaint:
        complaint = f"the process ended with status {status}"
    print(json.dumps(complaint), flush=True)
"""


@cache
def complaint_on_import(module: str) -> str:
    """What Python says on importing `module` in a process without a GPU in which nothing but torch
    and vidsynth's base classes is imported; "" if nothing."""
    if not hasattr(os, "fork"):
        return _in_a_new_process(module)
    ask, hear = _server()
    print(json.dumps([module, sys.path]), file=ask, flush=True)
    answer = hear.readline()
    return json.loads(answer) if answer else "the process that imports ended"


@cache
def _server() -> tuple[IO[str], IO[str]]:
    """Where to ask and to hear; it ends with this process, when its input does."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        env=_without_gpu(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    return process.stdin, process.stdout


def _in_a_new_process(module: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        env=_without_gpu(),
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr if done.returncode else ""


def _without_gpu() -> dict[str, str]:
    path = os.pathsep.join(p for p in sys.path if p)
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path}
