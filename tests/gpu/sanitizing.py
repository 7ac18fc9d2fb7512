"""What the scripts for `compute-sanitizer` have in common: checks by name, run one after the other."""

from __future__ import annotations


def report(checks, names):
    """Run the checks that are named, or all, and say of each whether its result was right; 1 if one was wrong, else 0.

    checks: by name functions that give the share of the allowed error that was used, or None.
    """
    failed = 0
    for name in names or checks:
        try:
            used = checks[name]()
            print(f"ok      {name}" + ("" if used is None else f": {used:.2f} of the allowed error"), flush=True)  # noqa: T201
        except AssertionError as error:
            failed += 1
            print(f"WRONG   {name}: {error}", flush=True)  # noqa: T201
    return 1 if failed else 0
