"""Which backend a call takes, and what is said where it is not there. Nothing here needs a GPU."""

# ruff: noqa: ARG001, N802 - fixtures are asked for by name; the driver names its functions

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.api import choose_executor
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError, PatternError
from splat_numba.executors.choice import choose_packed
from splat_numba.executors.cpu.executor import CPU, CpuExecutor
from splat_numba.executors.cpu.packed import CPU_PACKED
from splat_numba.executors.emulated.packed import EMULATED_PACKED
from splat_numba.executors.gpu.executor import CudaExecutor, disassemble
from splat_numba.executors.gpu.packed import UPLOADING
from splat_numba.executors.packed.machine import HostMachine
from splat_numba.runtime.cuda import driver
from tests.runtime.fake_cuda import FakeDriver, GpuMemory, Status, forget, install

SHAPE = {"seq_q": 200, "seq_kv": 200, "head_dim": 64, "dtype": "float16"}
ON_CPU, ON_GPU = np.zeros((8, 4), np.float32), GpuMemory((8, 4))


@pytest.fixture
def no_gpu(monkeypatch):
    """A driver that finds no device, on every machine."""
    yield install(monkeypatch, FakeDriver(status=Status.CUDA_ERROR_NO_DEVICE))
    forget()


@pytest.mark.parametrize(
    ("backend", "target", "q", "wanted"),
    [
        ("auto", None, ON_CPU, CPU),
        ("auto", None, ON_GPU, CudaExecutor()),
        ("auto", None, None, CPU),
        ("auto", "cpu", ON_CPU, CpuExecutor("cpu")),
        ("auto", "sm_90a", None, CudaExecutor("sm_90a")),
        ("auto", "sm_90a", ON_GPU, CudaExecutor("sm_90a")),
        ("cpu", None, ON_CPU, CPU),
        ("cpu", "cpu", ON_GPU, CpuExecutor("cpu")),
        ("cuda", None, ON_CPU, CudaExecutor()),
        ("cuda", "sm_90a", None, CudaExecutor("sm_90a")),
        ("auto", "simt", None, CudaExecutor("simt")),
        ("auto", "sm80", None, CudaExecutor("sm80")),
        ("auto", "sm_80", None, CudaExecutor("sm80")),
        ("cuda", "sm_80", ON_GPU, CudaExecutor("sm80")),
    ],
)
def test_auto_runs_where_q_is(backend, target, q, wanted):
    assert choose_executor(backend, target, q) == wanted


@pytest.mark.parametrize(
    ("backend", "target", "message"),
    [
        ("gpu", None, "backend wanted as one of auto, cpu, cuda, emulate, got 'gpu'. Leave it out to choose for you."),
        (
            "emulate",
            "cpu",
            "target wanted as None, 'sm_90a', 'sm80' or 'simt' for backend 'emulate', got 'cpu'. Leave it out.",
        ),
        (
            "cuda",
            "sm_86",
            "target wanted as None, 'sm_90a', 'sm80' or 'simt' for backend 'cuda', got 'sm_86'. Leave it out.",
        ),
        ("cpu", "sm_90a", "target wanted as None or 'cpu' for backend 'cpu', got 'sm_90a'. Leave it out."),
    ],
)
def test_what_this_version_has_not_is_refused(backend, target, message):
    with pytest.raises(BackendError) as caught:
        choose_executor(backend, target)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("backend", "q", "wanted"),
    [
        ("auto", ON_CPU, CPU_PACKED),
        ("cpu", ON_CPU, CPU_PACKED),
        ("cuda", ON_CPU, UPLOADING),
        ("emulate", ON_CPU, EMULATED_PACKED),
    ],
)
def test_the_packed_operators_run_where_their_first_array_is(backend, q, wanted):
    assert choose_packed(backend, "q", q) == HostMachine(wanted)


def test_packed_operators_want_a_gpu_where_it_is_asked_for(no_gpu):
    with pytest.raises(BackendError, match="CUDA_ERROR_NO_DEVICE"):
        splat.sddmm(ON_CPU, ON_CPU, splat.causal(), backend="cuda")


def test_an_array_on_a_gpu_is_refused_by_the_cpu():
    class Tensor(GpuMemory):
        def __dlpack_device__(self):
            return 2, 0

        def __dlpack__(self, **_):
            raise AssertionError("not to be read")

    q = Tensor((8, 4))
    with pytest.raises(
        BackendError, match=r"^q wanted in CPU memory for backend 'cpu', got an array on another device"
    ):
        splat.attention(q, q, q, splat.causal(), backend="cpu")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_dtypes_that_tensor_cores_do_not_multiply(dtype, no_gpu):
    wanted = f"wanted as float16 or bfloat16 for target 'sm_90a', got {dtype}. "
    for make in (splat.plan, splat.compile):
        with pytest.raises(ArgumentTypeError, match=f"^dtype {wanted}"):
            make(splat.causal(), **(SHAPE | {"dtype": dtype}), backend="cuda", target="sm_90a")
    q = np.zeros((8, 64), dtype)
    with pytest.raises(ArgumentTypeError, match=f"^q {wanted}"):
        splat.attention(q, q, q, splat.causal(), backend="cuda", target="sm_90a")
    found = splat.plan(splat.causal(), **(SHAPE | {"dtype": dtype}), backend="cuda")
    assert found.target == {"float32": "sm80", "float64": "simt"}[dtype]
    assert f"refused   sm_90a: {wanted}" in found.explain()


def test_without_the_extra_the_message_says_what_to_install(monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(driver, "import_module", missing)
    forget()
    q = np.zeros((8, 64), np.float16)
    with pytest.raises(BackendError) as caught:
        splat.attention(q, q, q, splat.causal(), backend="cuda")
    assert str(caught.value) == (
        "backend 'cuda' wanted the packages of the extra 'cuda', got No module named 'cuda.bindings.driver'. "
        'Run: python -m pip install "splat-numba[cuda]"'
    )
    forget()


def test_without_a_driver_the_message_says_where_to_run(monkeypatch):
    class NoLibrary(FakeDriver):
        def cuInit(self, _):
            raise RuntimeError("libcuda.so.1 not found")

    install(monkeypatch, NoLibrary())
    q = np.zeros((8, 64), np.float16)
    with pytest.raises(BackendError) as caught:
        splat.attention(q, q, q, splat.causal(), backend="cuda")
    assert str(caught.value) == (
        "backend 'cuda' wanted an NVIDIA GPU, got no NVIDIA driver (libcuda). "
        "Run it where one is, or give backend='cpu'."
    )
    forget()


def test_a_plan_needs_no_gpu(no_gpu):
    plan = splat.plan(splat.causal(), **SHAPE, backend="cuda")
    assert plan.target == "sm_90a"
    assert plan.explain()
    asked = splat.plan(splat.causal(), **SHAPE, target="sm_90a")
    assert asked.passes[0].traits == plan.passes[0].traits
    assert "target: sm_90a (the one that was asked for)" in asked.explain()


@pytest.fixture(scope="module")
def compiled():
    """A kernel, if this machine can compile one: that takes the extra, no GPU."""
    pytest.importorskip("numba_cuda", reason="the extra 'cuda' is not installed")
    return splat.compile(splat.causal(), **SHAPE, backend="cuda", target="sm_90a")


def test_a_kernel_is_compiled_without_a_gpu(compiled):
    facts = compiled.resources
    assert facts["registers"] > 0
    assert facts["spill_bytes"] == 0
    assert 0 < facts["shared_bytes"] <= 232448
    assert facts["warnings"] == ()
    assert "ptxas" in facts["log"]
    assert compiled.path.read_text(encoding="utf-8") == compiled.source
    assert "def attention(" in compiled.source
    assert compiled.cubin[:4] == b"\x7fELF"
    assert ".entry" in compiled.ptx()
    assert compiled.explain() == compiled.plan.explain()


def test_masks_of_equal_traits_share_the_kernel(compiled):
    other = splat.compile(splat.causal() & splat.window(70), **SHAPE, backend="cuda")
    if [one.traits for one in other.plan.passes] == [one.traits for one in compiled.plan.passes]:
        assert other.cubin is compiled.cubin or other.cubin == compiled.cubin
        assert other.source == compiled.source


def test_calling_it_without_a_gpu_is_refused(compiled, no_gpu):
    q = np.zeros((2, 200, 64), np.float16)
    with pytest.raises(BackendError) as caught:
        compiled(q, q, q)
    assert str(caught.value) == (
        "backend 'cuda' wanted an NVIDIA GPU, got CUDA_ERROR_NO_DEVICE from the driver. "
        "Run it where one is, or give backend='cpu'."
    )
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as float16 or bfloat16 for target 'sm_90a'"):
        compiled(*(np.zeros((2, 200, 64), np.float32),) * 3)


def test_a_kernel_for_the_cpu_has_no_listing():
    kernel = splat.compile(splat.causal(), seq_q=8, seq_kv=8, head_dim=4, dtype="float32")
    for ask in (kernel.ptx, kernel.sass, lambda: kernel.cubin):
        with pytest.raises(BackendError, match="of a kernel for backend 'cuda', got one for 'cpu'"):
            ask()


def test_without_a_disassembler_the_message_says_where_to_get_one(monkeypatch):
    monkeypatch.setattr("splat_numba.executors.gpu.executor.shutil.which", lambda _: None)
    monkeypatch.setattr("splat_numba.executors.gpu.executor._packaged", lambda _: None)
    with pytest.raises(BackendError, match="pip install nvidia-cuda-nvdisasm"):
        disassemble(b"")


def test_other_lengths_are_planned_anew_and_reuse_the_text(compiled, no_gpu):
    from dataclasses import replace

    from splat_numba.settings import current

    problem = replace(compiled.problem, seq_q=333, seq_kv=500)
    (part,) = compiled.parts_for(problem, compiled.scale, current(), ragged=False)
    assert (part.plan.problem.seq_q, part.plan.problem.seq_kv) == (333, 500)
    made = dict(zip(compiled.parts[0].compiled.planned, compiled.parts[0].compiled.cubins, strict=True))
    for text, cubin in zip(part.compiled.planned, part.compiled.cubins, strict=True):
        assert text not in made or cubin is made[text]
    assert compiled.parts_for(compiled.problem, compiled.scale, current(), ragged=False) == compiled.parts


def test_a_stored_mask_serves_its_own_lengths_only(no_gpu):
    from dataclasses import replace

    from splat_numba.kernel import Kernel, Part
    from splat_numba.settings import current

    mask = splat.from_dense(np.tri(200, dtype=bool))
    plan, executor = splat.plan(mask, **SHAPE, backend="cuda"), CudaExecutor()  # it is not going to run
    kernel = Kernel((Part(mask, None, plan, None),), plan.problem, 1.0, "bhsd", executor)  # it is not going to run
    with pytest.raises(ArgumentError, match=r"^q and k wanted with lengths \(200, 200\), as compiled for, got"):
        kernel.parts_for(replace(plan.problem, seq_q=100), 1.0, current(), ragged=False)
    documents = Kernel((Part(splat.documents((100, 100)), None, plan, None),), plan.problem, 1.0, "bhsd", executor)
    with pytest.raises(PatternError, match=r"^lengths: wanted documents of 100"):
        documents.parts_for(replace(plan.problem, seq_q=100, seq_kv=100), 1.0, current(), ragged=False)
