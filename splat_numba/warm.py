"""warm_up: compile ahead of time, in several processes, so that no call waits."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from splat_numba.arguments.masks import Mask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.sizes import check_size
from splat_numba.arguments.typed import Ahead, Backend, Dtype, Target
from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.plain import kind
from splat_numba.runtime import cache, notice
from splat_numba.runtime.device import cores
from splat_numba.runtime.notice import Told
from splat_numba.settings import current
from splat_numba.signatures import strict
from splat_numba.warm_jobs import Job, check_operators, distinct, make_jobs, several

WORKER = "from splat_numba.warm import serve; serve()"
MOST_PROCESSES = 256


@strict()
def warm_up(
    masks: Sequence[Mask],
    *,
    seq_q: int,
    seq_kv: int,
    head_dim: int | Sequence[int],
    dtype: Dtype | Sequence[Dtype],
    operators: Ahead | Sequence[Ahead] = "attention",
    backward: bool = False,
    backend: Backend = "auto",
    target: Target | None = None,
    processes: int | None = None,
) -> tuple[Told, ...]:
    """Compile the kernels of every mask with every head_dim and dtype, and with ``backward`` those of their gradients.

    Masks that share a text are compiled once. For a GPU it needs none, as compile(). Where attention() is made of the
    packed operators (``plan(...).fused`` is False), these are compiled too.

    Parameters
    ----------
    masks : list of masks
        Each as in compile().
    seq_q, seq_kv : int
        Queries and keys, in tokens.
    head_dim : int, or a list of them
        Numbers of a query, a key and a value.
    dtype : NumPy dtype or its name, or a list of them
        "bfloat16" included.
    operators : "attention", "sddmm", "softmax" or "spmm", or a list of them
        What will be called with the masks; of the packed ones with rows of head_dim numbers that lie side by side.
    backward : bool
        Compile gradients too: what attention_vjp, sddmm_vjp, softmax_vjp and spmm_vjp call.
    backend, target
        As in compile(); packed operators have no target, and no emulated kernels.
    processes : int
        How many compile at once, as many as there are cores unless given; what they make is left in the disk cache,
        where the first call finds it.

    Returns
    -------
    tuple of records
        Of each kernel that was compiled or read: ``kernel``, its name, ``seconds``, and ``cached``, if it was on disk
        already; kernels that this process holds have none.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, PlanError, CompileError
        As compile() does.
    BackendError
        As compile() does, and where several processes have no disk cache to leave kernels in.
    """
    if not isinstance(masks, (list, tuple)) or not masks:
        raise ArgumentTypeError(f"masks wanted as a list of masks, got {kind(masks)}. Give [mask] for one.")
    named = check_operators(operators, backend)
    options = {"seq_q": seq_q, "seq_kv": seq_kv, "backend": backend, "target": target,
               "backward": check_flag("backward", backward)}  # fmt: skip
    most = cores() if processes is None else check_size("processes", processes, 1, MOST_PROCESSES)
    work = distinct(make_jobs(masks, several("head_dim", head_dim), several("dtype", dtype), options, named))
    if min(len(work), most) <= 1:
        return _compile(work)
    return _in_processes(work, min(len(work), most))


def _compile(jobs: Sequence[Job]) -> tuple[Told, ...]:
    settings = current()
    with notice.heard() as told:
        for one in jobs:
            one.work.compile(settings)
    return tuple(told)


def _in_processes(jobs: Sequence[Job], processes: int) -> tuple[Told, ...]:
    settings = current()
    if cache.folder(settings) is None:
        raise BackendError(
            "processes wanted as 1 without a disk cache, where several would leave what they compile, got more. "
            "Set SPLAT_CACHE_DIR to a folder of yours, unset SPLAT_CACHE, or give processes=1."
        )
    if not sys.executable:
        raise BackendError("processes wanted as 1 where Python is embedded in a program, got more. Give processes=1.")
    shares = [jobs[number::processes] for number in range(processes)]
    words = f"{len(jobs)} kernels in {processes} processes"
    with notice.showing(words, settings.progress), ThreadPoolExecutor(processes) as pool:
        answers = list(pool.map(_ask, shares))
    told = tuple(one for answer, _ in answers for one in answer)
    for one in told:
        notice.log(one)
    for _, error in answers:
        if error is not None:
            raise error
    return told


def _ask(jobs: Sequence[Job]) -> tuple[tuple[Told, ...], Exception | None]:
    """What a process of its own answers: what it compiled, and what it raised."""
    places = os.pathsep.join(place for place in sys.path if place and isinstance(place, str))  # as imports skip others
    given = {**os.environ, "PYTHONPATH": places, "SPLAT_PROGRESS": "0"}
    command = [sys.executable, "-W", "ignore", "-c", WORKER]  # warnings were given when the jobs were planned
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=given) as process:  # noqa: S603 - our own text
        try:
            answer, _ = process.communicate(pickle.dumps([one.work for one in jobs]))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        failed = f"processes: one that compiles ended with status {process.returncode}. Give processes=1 to see why."
        return (), BackendError(failed)
    told, error = pickle.loads(answer)  # noqa: S301 - our own process wrote it
    return told, error


def serve() -> None:
    """What such a process does: the jobs on its standard input, the answer on its standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    error: Exception | None = None
    settings = current()
    with notice.heard() as told:
        for one in pickle.load(sys.stdin.buffer):  # noqa: S301 - our own process wrote it
            try:
                one.compile(settings)
            except Exception as raised:  # noqa: BLE001 - raised again by who asked
                error = error or raised
    with answers:
        pickle.dump((tuple(told), error), answers)
