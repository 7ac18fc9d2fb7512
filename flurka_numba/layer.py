"""FlurkaLayer: self-attention with its weights, in the order that compresses x before it makes keys and values."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from flurka_numba.api import run
from flurka_numba.backends import choose_executor
from flurka_numba.gradients import attention_vjp, kernel_attention_vjp
from flurka_numba.heads import merge, product, split, with_queries, with_views
from flurka_numba.layer_parameters import PARAMETERS, Parameters, check_input, framework
from flurka_numba.problem import Call
from splat_numba.arguments.frozen import check_frozen
from splat_numba.arguments.keywords import FLURKA
from splat_numba.runtime.jax_arrays import is_traced
from splat_numba.signatures import strict

VIEWING = ("numpy", "torch", "cupy")  # whose arrays have views that can be written through
LayerVjp: TypeAlias = Callable[[Any], dict[str, Any]]


class FlurkaLayer(Parameters):
    """FLuRKA self-attention from the layer's input: q, k, v = x w_q, x w_k, x w_v; out = merge(attention(q, k, v)) w_o.

    w_q, w_k, w_v, w_o: (model_dim, model_dim), applied as x @ w, without biases. proj_k, proj_v: (rank, seq), or
    (heads, rank, seq); proj_v is proj_k unless given. heads divides model_dim. feature_map, omega, eps: as in
    `flurka_numba.attention`, omega (rows, model_dim / heads). All of x's kind, place and dtype.

    ``layer(x)``, x (batch, seq, model_dim) or (seq, model_dim), gives the same shape. Zero the rows of x that are
    padding: they then add nothing to any slot.

    Order (b), where the projections are shared by the heads: E (x w_k) = (E x) w_k, so x is compressed to rank rows,
    once if the projection is shared by keys and values too, and only those are multiplied by w_k and w_v. What is left,
    phi of the slots and so on, *is* `kernel_attention` of q over the slots; a GPU's tensor cores make q and use it in
    one stage. Order (a), as in `attention`, serves
    projections a head and ranks near or above seq. `explain()` says which is used, and why. Products with weights are
    the arrays' own `@` (NumPy's BLAS, PyTorch, CuPy, JAX); NumPy's 16-bit arrays are widened for them.

    Raises ArgumentError, ArgumentTypeError when it is made from parameters that do not fit, or called with such an x.
    """

    @strict(FLURKA)
    def __call__(self, x: Any, *, backend: str = "auto", target: str | None = None) -> Any:
        """The layer's output, shaped as x. backend, target: as in `attention`."""
        check_input(self, "x", x)
        if len(x.shape) == 3 and x.shape[0] == 1 and framework(x) in VIEWING:
            # As matrices: PyTorch's E @ x of a batch makes seven views, which take 2.7 us.
            return self._attend(x[0], backend, target)[None]
        return self._attend(x, backend, target)

    def _attend(self, x: Any, backend: str, target: str | None) -> Any:
        if self.order == "b":
            method, (k, v), proj_k, proj_v = "kernel", self._slots(x)[1], None, None
        else:
            method, k, v = "flurka", product(x, self.w_k), product(x, self.w_v)
            proj_k, proj_v = self.proj_k, self.proj_v
        call = Call(
            method, x, k, v, proj_k, proj_v, self.feature_map, self.omega, self.eps,
            backend=backend, target=target, out=_room(x), heads=self.heads, w_q=self.w_q,
        )  # fmt: skip
        return product(attend_rows(call), self.w_o)

    @strict(FLURKA)
    def vjp(
        self, x: Any, *, frozen: Collection[str] = (), backend: str = "auto", target: str | None = None
    ) -> tuple[Any, LayerVjp]:
        """(out, vjp); vjp(dout) gives a dict of gradients by parameter name and "x", None for frozen and absent ones.

        frozen: names of parameters, or "x", whose gradients are not wanted. In 16 bits out may round another way than
        the layer's own call, in which a GPU's tensor cores do not round q.
        """
        check_input(self, "x", x)
        kept = set(PARAMETERS) - check_frozen(frozen, PARAMETERS)
        options = {**self._options, "backend": backend, "target": target}
        step = self._compressed_vjp if self.order == "b" else self._whole_vjp
        heads_out, pull = step(x, kept, options)
        merged = merge(heads_out)

        def vjp(dout: Any) -> dict[str, Any]:
            check_input(self, "dout", dout, tuple(x.shape))
            found = pull(split(product(dout, self.w_o.T), self.heads))
            if "w_o" in kept:
                found["w_o"] = _outer(merged, dout)
            return {name: found.get(name) if name in kept else None for name in PARAMETERS}

        return product(merged, self.w_o), vjp

    @property
    def _options(self) -> dict[str, Any]:
        return {"feature_map": self.feature_map, "omega": self.omega, "eps": self.eps}

    def _slots(self, x: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """E x and F x, and from these the slots of keys and values, (..., rank, model_dim)."""
        x_k = product(self.proj_k, x)
        x_v = x_k if self.proj_v is None else product(self.proj_v, x)
        return (x_k, x_v), (product(x_k, self.w_k), product(x_v, self.w_v))

    def _compressed_vjp(self, x: Any, kept: set[str], options: dict[str, Any]) -> tuple[Any, LayerVjp]:
        q = product(x, self.w_q)
        (x_k, x_v), (k, v) = self._slots(x)
        out, core = kernel_attention_vjp(*(split(rows, self.heads) for rows in (q, k, v)), **options)
        proj_v = self.proj_k if self.proj_v is None else self.proj_v

        def pull(dout: Any) -> dict[str, Any]:
            dq, dk, dv = (merge(gradient) for gradient in core(dout)[:3])
            dx_k, dx_v = product(dk, self.w_k.T), product(dv, self.w_v.T)
            found = _weights({"w_q": (x, dq), "w_k": (x_k, dk), "w_v": (x_v, dv)}, kept)
            if self.proj_v is None:
                dx_k = dx_k + dx_v
            if "proj_k" in kept:
                found["proj_k"] = _summed(product(dx_k, _t(x)))
            if "proj_v" in kept and self.proj_v is not None:
                found["proj_v"] = _summed(product(dx_v, _t(x)))
            if "x" in kept:
                found["x"] = product(dq, self.w_q.T) + product(self.proj_k.T, dx_k)
                if self.proj_v is not None:
                    found["x"] = found["x"] + product(proj_v.T, dx_v)
            return found

        return out, pull

    def _whole_vjp(self, x: Any, kept: set[str], options: dict[str, Any]) -> tuple[Any, LayerVjp]:
        q, k, v = (split(product(x, w), self.heads) for w in (self.w_q, self.w_k, self.w_v))
        frozen = {"proj_k", "proj_v"} - kept
        out, core = attention_vjp(q, k, v, self.proj_k, self.proj_v, **options, frozen=frozen)

        def pull(dout: Any) -> dict[str, Any]:
            *dheads, dproj_k, dproj_v = core(dout)
            dq, dk, dv = (merge(gradient) for gradient in dheads)
            found = _weights({"w_q": (x, dq), "w_k": (x, dk), "w_v": (x, dv)}, kept)
            if "x" in kept:
                found["x"] = product(dq, self.w_q.T) + product(dk, self.w_k.T) + product(dv, self.w_v.T)
            return found | {"proj_k": dproj_k, "proj_v": dproj_v}

        return out, pull


def attend_rows(call: Call) -> Any:
    """The result of a call with rows, as rows. A GPU reads heads where they are (8 views of 1 us each less), and makes
    the queries itself where it can.
    """
    if is_traced(call.q, call.k, call.v, call.w_q, call.proj_k, call.proj_v, call.omega):
        return merge(run(with_views(with_queries(call))))
    executor = choose_executor(call)
    whole = not executor.takes_rows or call.out is None
    out = executor.attend(with_views(with_queries(call)) if whole else call)
    return merge(out) if call.out is None else call.out


def _room(rows: Any) -> Any:
    """An array like ``rows``, so that the heads' results are written where w_o reads them; None where none can be."""
    kind = framework(rows)
    return sys.modules[kind].empty_like(rows) if kind in VIEWING else None


def _t(rows: Any) -> Any:
    return rows.swapaxes(-1, -2)


def _weights(products: dict[str, tuple[Any, Any]], kept: set[str]) -> dict[str, Any]:
    return {name: _outer(x, dy) for name, (x, dy) in products.items() if name in kept}


def _outer(x: Any, dy: Any) -> Any:
    """The gradient of w in y = x @ w, summed over the batch."""
    return product(x.reshape(-1, x.shape[-1]).T, dy.reshape(-1, dy.shape[-1]))


def _summed(gradients: Any) -> Any:
    return gradients.sum(0) if len(gradients.shape) == 3 else gradients
