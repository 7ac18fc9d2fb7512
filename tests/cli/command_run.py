"""Run a command in this process, and read the table that it prints."""

from unittest import mock

from splat_numba.cli import main

SMALL = ["--seq", "256", "--heads", "2", "--head-dim", "16"]


def run(capsys, *arguments):
    """(exit status, standard output, standard error) of `splat-numba arguments`."""
    with mock.patch.dict("os.environ", COLUMNS="120"):  # whatever the test run's own terminal
        status = main(list(arguments))
    out, err = capsys.readouterr()
    return status, out, err


def table_rows(out):
    """{first cell: the other cells} of the lines below a table's rule; cells are at least two spaces apart."""
    lines = out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip() and set(line.strip()) == {"─"})
    rows = {}
    for line in lines[first + 1 :]:
        if not line.strip():
            break
        cells = [cell.strip() for cell in line.strip().split("  ") if cell.strip()]
        rows[cells[0]] = cells[1:]
    return rows
