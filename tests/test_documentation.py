"""README and docs are true: snippets and commands run, links lead somewhere, figures are those that were measured."""

import contextlib
import io
import json
import re
from statistics import median

import pytest

from splat_numba.cli import main
from splat_numba.cli.entry import APP
from splat_numba.cli.measure import Timed
from tests.documentation import PAGES, ROOT, blocks_of, commands_of, name_of, needed_blocks, table_below

QUICK = {"explain", "source", "doctor"}  # commands that are run; the others' arguments are parsed
RESULTS = ROOT / "benchmarks" / "results"


def run_blocks(page, *needs):
    """Run the blocks of a page that say `python` and one of ``needs``, and what these build upon, in one namespace.
    What a block prints must stand in the block below it, if there is one.
    """
    space, printed, needed = {"__name__": "__main__"}, "", needed_blocks(page, *needs)
    for block in blocks_of(page):
        if block in needed:
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, space)  # noqa: S102 - what users are told to do
            printed = out.getvalue()
        elif block.words[:1] == ["python"]:
            printed = None  # it was passed over, and so is what it prints
        elif block.follows and printed is not None:
            assert printed.splitlines() == block.text.splitlines(), f"{name_of(page)}:{block.line}"


def with_python(*words):
    return [page for page in PAGES if any(block.words == ["python", *words] for block in blocks_of(page))]


@pytest.mark.parametrize("page", with_python(), ids=name_of)
def test_python_runs_as_it_is_written(page, tmp_path, monkeypatch):
    """Blocks that say `python gpu` or `python torch` need one, and are read only."""
    monkeypatch.chdir(tmp_path)  # for files that they write
    run_blocks(page)
    for block in blocks_of(page):
        if block.words[:1] == ["python"]:
            compile(block.text, str(page), "exec")


@pytest.mark.gpu
@pytest.mark.parametrize("page", with_python("gpu"), ids=name_of)
def test_python_for_a_gpu_runs_as_it_is_written(page, tmp_path, monkeypatch):
    if not pytest.importorskip("torch").cuda.is_available():
        pytest.skip("torch without a GPU")
    monkeypatch.chdir(tmp_path)
    run_blocks(page, "gpu")


@pytest.mark.parametrize("page", with_python("jax"), ids=name_of)
def test_python_for_jax_runs_as_it_is_written(page, tmp_path, monkeypatch):
    for package in ("jax", "flax"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    run_blocks(page, "jax")


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning",  # of PyTorch, about parts of itself
    "ignore:flex_attention called without:UserWarning",  # compiled it wants a C++ compiler
)
@pytest.mark.parametrize("page", with_python("torch"), ids=name_of)
def test_python_for_pytorch_runs_as_it_is_written(page, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.chdir(tmp_path)
    run_blocks(page, "torch")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of transformers, about itself
@pytest.mark.parametrize("page", with_python("transformers"), ids=name_of)
def test_python_for_transformers_runs_as_it_is_written(page, tmp_path, monkeypatch):
    for package in ("torch", "transformers"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    run_blocks(page, "transformers")


def test_every_block_says_what_it_is():
    """A wrong word would have it passed over in silence. Blocks without one are what something prints, or drawings."""
    known = [[], ["python"], ["python", "gpu"], ["python", "torch"], ["python", "jax"]]
    known += [["python", "transformers"], ["python", "theirs"], ["sh"]]  # theirs: another library's, read only
    assert [f"{name_of(page)}:{b.line}" for page in PAGES for b in blocks_of(page) if b.words not in known] == []


def commands():
    """All `splat-numba` commands of the pages and of the help texts, each once."""
    helps = "".join(f"```sh\n{command.help_epilogue}```\n" for command in (APP, *APP.resolved_commands().values()))
    found = [command for page in PAGES for command in commands_of(page.read_text(encoding="utf-8"))]
    found += commands_of(helps)
    return sorted(set(map(tuple, found)))


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_commands_of_the_pages_run_or_are_parsed(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments[0] in QUICK:
        assert main(arguments) == 0
        assert "error" not in capsys.readouterr().err
    else:
        command, bound, _ = APP.parse_args(arguments)
        assert command.__name__.startswith("run")
        assert bound is not None


def test_pages_have_commands():
    assert {"demo", "explain", "source", "selftest", "doctor", "bench"} <= {arguments[0] for arguments in commands()}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_and_scripts_are_there(page):
    text = page.read_text(encoding="utf-8")
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link}
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    named = re.findall(r"(?:benchmarks|examples|tests|docs|splat_numba)/[\w/]+\.(?:py|md|json|png)\b", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_readme_s_gpu_table_is_what_was_measured():
    rows = json.loads((RESULTS / "gpu_attention_all_peers.json").read_text())["sections"]["main"]
    assert all(peer["how"] == "measured" for row in rows for peer in row["peers"].values())
    wanted = []
    for case in [row["case"] for row in rows if row["dim"] == 128]:
        cells = [case]
        for row in (row for dim in (128, 64) for row in rows if (row["case"], row["dim"]) == (case, dim)):
            best = f"{row['best']['ms']:.3f} {row['best']['name']}"
            cells += [f"{row['times'][name]['ms']:.3f}" for name in ("splat", "Flex")] + [
                best,
                f"{row['best_ratio']:.2f}",
            ]
        wanted.append(cells)
    assert table_below(ROOT / "README.md", "### On a GPU") == wanted
    apart = [rounds_apart(time) for row in rows for time in row["times"].values() if "ms" in time]
    words = f"The two rounds of a time lie {median(apart):.1%} apart in the median, {max(apart):.1%} at most."
    assert words in (ROOT / "README.md").read_text(encoding="utf-8")


def test_readme_s_gradients_on_a_gpu_are_what_was_measured():
    found = json.loads((RESULTS / "gpu_gradients.json").read_text())
    ratio = {(row["case"], row["dim"]): f"{row['best_ratio']:.2f}" for row in found["rows"]}
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    words = [f"{case} {ratio[case, 128]} and {ratio[case, 64]}" for case in ("full", "causal")]
    assert ", ".join(words) in readme
    means = found["geomeans"]
    assert f"{means['128']:.2f} times the best peer at head_dim 128 and {means['64']:.2f} at 64" in readme


def rounds_apart(time):
    """The share of a time by which its rounds differ; the time is the less of two ways to take it."""
    (way,) = [name for name in ("event_ms", "graph_ms") if time.get(name) == time["ms"]]
    first, second = time["runs"][way]
    return abs(first - second) / time["ms"]


def test_readme_s_cpu_table_is_what_was_measured():
    rows = json.loads((RESULTS / "cpu_attention.json").read_text())["rows"]
    peers = ("splat", "SDPA", "SDPA mask", "Flex")
    wanted = [[row["pattern"], f"{row['density']:.1%}", *(f"{1e3 * row[name]:.1f} ms" for name in peers),
               f"{row['splat'] / row['SDPA']:.3f}", f"{row['Flex'] / row['splat']:.1f}x"] for row in rows]  # fmt: skip
    assert table_below(ROOT / "README.md", "### On a CPU") == wanted
    spreads = sorted(Timed.of(row[f"{name} runs"]).spread for row in rows for name in peers)
    words = f"calls spans {spreads[0]:.1%} to {spreads[-1]:.1%} of the time, {median(spreads):.1%} in the median."
    assert words in (ROOT / "README.md").read_text(encoding="utf-8")
    assert words in (RESULTS / "cpu_attention.md").read_text(encoding="utf-8")


def rounded(ratio):
    """As sentences have it: two digits, whole numbers from 10 on."""
    return f"{ratio:.0f}" if ratio >= 9.95 else f"{ratio:.1f}"


def test_readme_s_gradients_on_a_cpu_are_what_was_measured():
    rows = json.loads((RESULTS / "cpu_gradients.json").read_text())["rows"]
    times = {name: rounded(row["SDPA, masked"] / row["forward + backward"]) for name, row in rows.items()}
    with_flag = rounded(rows["causal"]["SDPA, is_causal"] / rows["causal"]["forward + backward"])
    shares = sorted(row["forward + backward"] / row["forward"] for row in rows.values())
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{shares[0]:.1f} to {shares[-2]:.1f} times as long as our forward ({shares[-1]:.1f} for the" in readme
    causal = f"{times['causal']} for causal (with `is_causal=True` {with_flag}), {times['full']} for full"
    assert f"{times['window(128)']} times as long as ours for window(128), {times['strided(16)']} for" in readme
    assert causal in readme


def test_readme_s_packed_operators_on_a_cpu_are_what_was_measured():
    rows = json.loads((RESULTS / "cpu_packed.json").read_text())["rows"]
    words = {}
    for operator in ("sddmm", "softmax", "spmm"):
        for kind in ("", " vjp"):
            ratios = [row[operator][f"scipy{kind}"] / row[operator][f"splat{kind}"] for row in rows]
            words[operator + kind] = f"{rounded(min(ratios))} to {rounded(max(ratios))}"
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"`sddmm` takes {words['sddmm']} times as long there as ours on two threads" in readme
    assert f"`softmax` {words['softmax']}, `spmm` {words['spmm']}; their gradients {words['sddmm vjp']}," in readme
    assert f"{words['softmax vjp']} and {words['spmm vjp']}." in readme


def trained(preset, seq, method):
    """The training runs of a kind of attention, as they were measured."""
    runs = json.loads((RESULTS / f"flurka_pretraining_{preset}.json").read_text())["runs"]
    return [run for run in runs if (run["purpose"], run["seq"], run["method"]) == ("training", seq, method)]


METHODS = ("dense", "low_rank", "kernel", "flurka", "none")


@pytest.mark.parametrize(("preset", "seq"), [("cpu", 1024), ("cuda", 4096), ("cuda", 16384)])
def test_the_pretraining_tables_are_what_was_measured(preset, seq):
    wanted, ends = [], []
    for mine in (trained(preset, seq, method) for method in METHODS):
        steps, bits = [run["steps"] for run in mine], [run["points"][-1][2] for run in mine]
        each = f"{1000 * sum(run['seconds'] for run in mine) / sum(steps):.1f}"
        ends.append(f"{sum(bits) / len(bits):.3f}")
        after = f"{ends[-1]} ({min(bits):.3f} to {max(bits):.3f})"
        wanted.append([f"{mine[0]['rate']:g}", str(len(mine)), each, f"{sum(steps) / len(steps):.0f}", after])
    found = table_below(RESULTS / f"flurka_pretraining_{preset}.md", f"{seq} bytes a sequence")
    assert [row[1:6] for row in found] == wanted
    column = {1024: 1, 4096: 2, 16384: 3}[seq]
    summary = table_below(ROOT / "docs" / "flurka.md", "### Training for the same time")
    assert [row[column] for row in summary] == ends
