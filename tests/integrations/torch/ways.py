"""The ways through PyTorch that give attention's gradients, each called as splat_numba.attention_vjp is."""

import ml_dtypes
import numpy as np
import pytest

import splat_numba as splat

torch = pytest.importorskip("torch", reason="PyTorch is not installed")


def tensor(array):
    """A leaf of an array's numbers; NumPy's own bfloat16 is ml_dtypes'."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


def array(found):
    if found is None or isinstance(found, np.ndarray):
        return found
    found = found.detach()
    if found.dtype == torch.bfloat16:
        return found.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return found.numpy()


def leaves(*arrays):
    return [tensor(one).requires_grad_() for one in arrays]


def levels(dout, dlse):
    """What is given to the outputs that have a gradient."""
    return (tensor(dout),) if dlse is None else (tensor(dout), tensor(dlse))


def by_autograd(run):
    """The gradients of run(q, k, v, mask, ...) by torch.autograd.grad."""

    def attention_vjp(q, k, v, mask, **options):
        inputs = leaves(q, k, v)
        outs = run(*inputs, mask, return_lse=True, **options)

        def vjp(dout, dlse=None):
            given = levels(dout, dlse)
            found = torch.autograd.grad(outs[: len(given)], inputs, given)
            assert all(one.is_contiguous() for one in found)
            return tuple(map(array, found))

        return array(outs[0]), vjp

    return attention_vjp


def compiled(function, **options):
    """function as one graph; another trace each time it is asked for."""
    torch._dynamo.reset()
    return torch.compile(function, **({"fullgraph": True, "backend": "aot_eager"} | options))


def in_a_graph(q, k, v, mask, **options):
    out, lse = compiled(lambda q, k, v: splat.attention(q * 1, k, v, mask, **options))(q, k, v)
    return out, lse


def pulled_back(q, k, v, mask, options, given):
    """The gradients by torch.func.vjp."""
    outs, pull = torch.func.vjp(lambda q, k, v: splat.attention(q, k, v, mask, return_lse=True, **options), q, k, v)
    whole = given if len(given) == 2 else (*given, torch.zeros_like(outs[1]))
    return pull(whole)


def by_func(compiling):
    """The gradients by torch.func.vjp, in a graph or not."""

    def attention_vjp(q, k, v, mask, **options):
        inputs = [tensor(one) for one in (q, k, v)]
        lengths = options.get("kv_lengths")  # as a tensor: Dynamo's own guards fail on NumPy's arrays under transforms
        told = options | {"kv_lengths": None if lengths is None else torch.as_tensor(lengths)}

        def vjp(dout, dlse=None):
            def run(*arguments):
                return pulled_back(*arguments[:3], mask, told, arguments[3:])

            return tuple(map(array, (compiled(run) if compiling else run)(*inputs, *levels(dout, dlse))))

        return None, vjp

    return attention_vjp


NEW = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)
for_new = pytest.mark.skipif(not NEW, reason="Dynamo holds no objects before PyTorch 2.13")
WAYS = {
    "eager": by_autograd(splat.attention),
    "graph": by_autograd(in_a_graph),
    "func": by_func(compiling=False),
    "func in a graph": by_func(compiling=True),
}
MASK = splat.window(5, 0) | splat.sinks(2)
SHAPES = (2, 4, 24, 16), (2, 2, 24, 16), (2, 2, 24, 16)


def inputs(seed=0):
    """q, k and v, two heads of which share a key head."""
    rng = np.random.default_rng(seed)
    return [tensor(rng.standard_normal(shape, np.float32)) for shape in SHAPES]


def eager_gradients(q, k, v, dout, mask=MASK, **options):
    """What the other ways are compared with, bit for bit: it is compared with the oracle in test_gradients.py."""
    own = [one.detach().clone().requires_grad_() for one in (q, k, v)]
    return torch.autograd.grad(splat.attention(*own, mask, **options), own, dout)


def assert_same(found, wanted):
    for one, two in zip(found, wanted, strict=True):
        assert torch.equal(one, two)
