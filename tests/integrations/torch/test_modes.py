"""Autocast, checkpoints, modes, classes of tensors; and what is refused, by name."""

from typing import ClassVar

import pytest

import splat_numba as splat
from splat_numba.errors import ArgumentError
from tests.integrations.torch.ways import MASK, assert_same, compiled, eager_gradients, inputs, torch

DOUT = torch.linspace(-1, 1, 2 * 4 * 24 * 16).reshape(2, 4, 24, 16)


def gradients(run):
    """Of run(q, k, v)."""
    given = [one.requires_grad_() for one in inputs()]
    return torch.autograd.grad(run(*given), given, DOUT)


def attend(q, k, v):
    return splat.attention(q, k, v, MASK)


@pytest.mark.parametrize("kinds", [("float32",) * 3, ("float32", "bfloat16", "float32"), ("float16",) * 3])
def test_autocast_promotes_as_sdpa_does(kinds):
    given = [one.to(getattr(torch, kind)) for one, kind in zip(inputs(), kinds, strict=True)]
    with torch.autocast("cpu", torch.bfloat16):
        found = attend(*given)
        dense = torch.from_numpy(splat.ACSR.from_pattern(MASK, 24, 24).to_dense())
        sdpa = torch.nn.functional.scaled_dot_product_attention(*given, attn_mask=dense, enable_gqa=True)
        assert torch.equal(compiled(attend)(*given), found)
    assert found.dtype == sdpa.dtype == torch.bfloat16
    assert torch.equal(found, attend(*(one.bfloat16() for one in given)))


def test_autocast_is_differentiated_and_leaves_float64():
    given = [one.requires_grad_() for one in inputs()]
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(*given)
        wide = [one.detach().double() for one in given]
        assert torch.equal(attend(*wide), splat.attention(*wide, MASK))
        assert attend(*wide).dtype == torch.float64
    found = torch.autograd.grad(out, given, DOUT.bfloat16())
    narrow = eager_gradients(*(one.bfloat16() for one in given), DOUT.bfloat16())
    assert_same(found, [one.float() for one in narrow])


def test_mixed_dtypes_without_autocast_are_refused():
    q, k, v = inputs()
    with pytest.raises(ArgumentError, match=r"^k wanted"):
        attend(q.requires_grad_(), k.bfloat16(), v)


@pytest.mark.parametrize("compiling", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpoints(reentrant, compiling):
    from torch.utils.checkpoint import checkpoint

    def run(q, k, v):
        return checkpoint(attend, q, k, v, use_reentrant=reentrant)

    if compiling and reentrant:
        pytest.skip("PyTorch compiles the other kind")
    given = [one.requires_grad_() for one in inputs()]
    (compiled(run) if compiling else run)(*given).backward(DOUT)
    assert_same([one.grad for one in given], gradients(attend))


class Watching(torch.Tensor):
    """Sees functions."""

    seen: ClassVar = []

    @classmethod
    def __torch_function__(cls, function, kinds, arguments=(), named=None):
        cls.seen.append(str(function))
        return super().__torch_function__(function, kinds, arguments, named or {})


def test_a_class_that_watches_functions_sees_the_operator_and_is_kept():
    q, k, v = inputs()
    found = attend(q.as_subclass(Watching), k, v)
    assert type(found) is Watching
    assert "splat_numba.attention" in Watching.seen
    assert torch.equal(found.as_subclass(torch.Tensor), attend(q, k, v))
    found = gradients(lambda q, k, v: attend(q.as_subclass(Watching), k, v).as_subclass(torch.Tensor))
    assert_same(found, gradients(attend))


class Wrapping(torch.Tensor):
    """Holds a tensor, and passes every operator on to it."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, kinds, arguments=(), named=None):
        bare = [one.inner if isinstance(one, cls) else one for one in arguments]
        found = function(*bare, **(named or {}))
        return tuple(map(cls, found)) if isinstance(found, tuple) else cls(found)


def test_a_class_with_operators_of_its_own_gets_the_operator():
    found = attend(*map(Wrapping, inputs()))
    assert type(found) is Wrapping
    assert torch.equal(found.inner, attend(*inputs()))


def test_modes_over_operators_see_them():
    from torch.utils._python_dispatch import TorchDispatchMode

    class Mode(TorchDispatchMode):
        seen: ClassVar = []

        def __torch_dispatch__(self, function, kinds, arguments=(), named=None):
            self.seen.append(str(function))
            return function(*arguments, **(named or {}))

    with Mode():
        found = gradients(attend)
    assert_same(found, gradients(attend))
    assert [name for name in Mode.seen if "splat" in name] == [
        "splat_numba.attention.default",
        "splat_numba.attention_backward.default",
    ]


def test_modes_over_functions_see_them():
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        seen: ClassVar = []

        def __torch_function__(self, function, kinds, arguments=(), named=None):
            self.seen.append(str(function))
            return function(*arguments, **(named or {}))

    with Mode():
        found = gradients(attend)
    assert_same(found, gradients(attend))
    assert "splat_numba.attention" in Mode.seen


def test_a_default_device_takes_the_quick_way(monkeypatch):
    from splat_numba.bridges.torch import door

    monkeypatch.setattr(door, "_whole", None)
    with torch.device("cpu"):
        assert torch.equal(attend(*inputs()), attend(*inputs()))


def test_out_is_refused_where_it_would_not_be_seen():
    q, k, v = inputs()
    with pytest.raises(ArgumentError) as caught:
        splat.attention(q.requires_grad_(), k, v, MASK, out=torch.empty(2, 4, 24, 16))
    assert str(caught.value) == (
        "out wanted left out where PyTorch records, traces, transforms or watches the call, got an array: what is "
        "written to it is not seen. Leave it out, or call within torch.no_grad()."
    )
    with torch.no_grad():
        out = torch.empty(2, 4, 24, 16)
        assert splat.attention(q, k, v, MASK, out=out) is out
        with torch.autocast("cpu", torch.bfloat16):
            assert splat.attention(q, k, v, MASK, out=out.bfloat16()).dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore")  # of PyTorch: torch.jit.trace is deprecated
@pytest.mark.parametrize("wants", [False, True])
def test_jit_traces_are_refused(wants):
    q, k, v = inputs()
    with pytest.raises(ArgumentError) as caught:
        torch.jit.trace(lambda q: attend(q, k, v), (q.requires_grad_(wants),))
    assert str(caught.value) == (
        "q wanted outside traces, got it while torch.jit.trace, make_fx or a mode of fake tensors is at work, which "
        "would keep this call's numbers as a constant. Call it outside them."
    )


@pytest.mark.parametrize("wants", [False, True])
def test_a_negative_bit_is_read(wants):
    q, k, v = inputs()
    odd = torch.complex(q * 0, -q).conj().imag
    assert odd.is_neg()
    assert torch.equal(attend(odd.requires_grad_(wants), k, v), attend(q, k, v))
    assert torch.equal(compiled(attend)(odd, k, v), attend(q, k, v))
    dout = torch.complex(DOUT * 0, -DOUT).conj().imag
    assert_same(eager_gradients(q, k, v, dout), eager_gradients(q, k, v, DOUT))


@pytest.mark.parametrize("bad", [{"layout": "x"}, {"scale": "x"}, {"autotune": 3}, {"backend": "x"}, {"target": 3}])
def test_arguments_are_checked_alike_with_gradients(bad):
    q, k, v = inputs()
    messages = []
    for one in (q, q.clone().requires_grad_()):
        with pytest.raises(splat.SplatError) as caught:
            splat.attention(one, k, v, MASK, **bad)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
