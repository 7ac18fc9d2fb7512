"""All cases, and the hardware's recorded answers to them."""

import json
from pathlib import Path

import numpy as np

from tests.emulator import fidelity_memory, fidelity_products, fidelity_values

CASES = (*fidelity_values.CASES, *fidelity_memory.CASES, *fidelity_products.CASES)
RECORDED = Path(__file__).parent / "recorded" / "hopper.npz"


def save(path, answers, about):
    """answers: by the cases' names. about: the GPU, and what else was there."""
    digests = {case.name: case.digest for case in CASES if case.name in answers}
    facts = json.dumps({**about, "digests": digests}, indent=1, sort_keys=True)
    np.savez_compressed(path, about=np.array(facts), **answers)


def recorded(case):
    """The hardware's answer. Raises LookupError where there is none, or of another text or input."""
    with np.load(RECORDED) as file:
        digest = json.loads(str(file["about"]))["digests"].get(case.name)
        if digest != case.digest:
            got = "none" if digest is None else "one of another text or input"
            raise LookupError(
                f"case {case.name!r} wanted with a recorded answer, got {got}. "
                "On a Hopper GPU run: python -m tests.gpu.record_fidelity"
            )
        return file[case.name]
