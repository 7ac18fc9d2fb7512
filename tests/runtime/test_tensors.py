"""PyTorch's tensors on a GPU that are more than numbers in memory: refused by name, in a repeated call, too.

Without PyTorch: by a stand-in. What PyTorch's own tensors are refused for stands in test_torch_arrays.py.
"""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import pytest

from splat_numba.errors import ArgumentError, ArgumentTypeError, SplatError
from splat_numba.executors.gpu import call as gpu_call
from splat_numba.executors.gpu.alike import Alike
from splat_numba.runtime.arrays import kind_of
from splat_numba.runtime.cuda.frameworks import TORCH, describe, framework_of, known_keys
from splat_numba.runtime.tensors import check_tensor
from tests.runtime.fake_cuda import fake
from tests.runtime.fake_torch import ODD_TENSORS, ODD_TIMES, Tensor, torch
from tests.runtime.test_cuda_launch import DIM, HEADS, LENGTH, SHAPE, Recipe, box_pass, call


class Derived(Tensor):
    """A subclass that adds nothing."""


class Foreign(Tensor):
    """A subclass with operations of its own."""

    @classmethod
    def __torch_function__(cls, *_):
        return NotImplemented


@pytest.mark.parametrize("name", ODD_TENSORS)
def test_a_tensor_that_is_more_than_numbers_is_refused(torch, name):
    changes, start = ODD_TENSORS[name]
    array = Tensor(**changes)
    assert framework_of(array) is TORCH
    with pytest.raises(SplatError) as caught:
        describe("v", array, TORCH)
    assert str(caught.value).startswith(f"v wanted {start}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"is_nested": True},
            "k wanted as a tensor of numbers in memory, got a nested one. Give torch.nested.to_padded_tensor(k, 0.0).",
        ),
        (
            {"is_quantized": True},
            "k wanted as a tensor of numbers in memory, got a quantized one. Give k.dequantize().",
        ),
        (
            {"layout": "torch.sparse_csr"},
            "k wanted as a tensor of numbers in memory, got torch.sparse_csr. Give k.to_dense().",
        ),
    ],
)
def test_a_tensor_whose_numbers_are_elsewhere_is_refused(torch, changes, message):
    with pytest.raises(ArgumentTypeError) as caught:
        describe("k", Tensor(**changes), TORCH)
    assert str(caught.value) == message


def test_gradients_are_asked_for_where_they_are_recorded_alone(torch):
    array = Tensor(requires_grad=True)
    with pytest.raises(ArgumentError) as caught:
        check_tensor("q", array, " Ask elsewhere.")
    assert str(caught.value) == (
        "q wanted without requires_grad while gradients are recorded, since autograd does not see into this call. Give "
        "q.detach(), or call within torch.no_grad(), as in the forward of a torch.autograd.Function. Ask elsewhere."
    )
    torch.recording = False
    check_tensor("q", array)


def test_a_tangent_is_refused_and_a_level_alone_is_not(torch):
    torch.autograd.forward_ad._current_level = 0
    check_tensor("q", Tensor())
    with pytest.raises(ArgumentError, match=r"^q wanted without a tangent"):
        check_tensor("q", Tensor(tangent=object()))


def test_modes_that_only_look_on_are_no_hindrance(torch):
    torch.modes = 1
    check_tensor("q", Tensor())


def test_subclasses_are_the_frameworks_but_for_those_with_operations_of_their_own(torch):
    assert framework_of(Derived()) is TORCH
    check_tensor("q", Derived())
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as a plain torch.Tensor, got .*Foreign, whose operations"):
        check_tensor("q", Foreign())


def test_a_tensor_that_records_gradients_is_not_asked_for_an_array_interface(torch):
    class Recording(Derived):
        @property
        def __cuda_array_interface__(self):
            raise RuntimeError("can't get it of a tensor that requires grad")

    assert framework_of(Recording()) is TORCH


def test_other_classes_of_a_framework_are_no_arrays():
    storage = type("UntypedStorage", (), {"__module__": "torch.storage", "is_cuda": True})
    proxy = type("Proxy", (), {"__module__": "torch.fx.proxy", "__getattr__": lambda self, _: self})
    assert kind_of(storage()) == kind_of(proxy()) == ""
    assert framework_of(proxy()) is None
    assert kind_of(Derived()) == "torch"


@pytest.fixture
def operands(torch, fake, monkeypatch):
    """q, k and v of a call that was made once."""
    monkeypatch.setattr(gpu_call, "_ready", Alike(512))
    recipe = Recipe((box_pass(),))

    def make(**changes):
        return [
            Tensor((2, HEADS, LENGTH, DIM), (n + 1) << 28, "torch.float16", 0, **(changes if n == 1 else {}))
            for n in range(3)
        ]

    call(recipe, make())
    return recipe, make


@pytest.mark.parametrize("name", ODD_TENSORS)
def test_a_repeated_call_looks_at_its_tensors_anew(operands, fake, name):
    recipe, make = operands
    changes, start = ODD_TENSORS[name]
    with pytest.raises(SplatError) as caught:
        call(recipe, make(**changes))
    assert str(caught.value).startswith(f"k wanted {start}")
    call(recipe, make())
    assert (recipe.asked, len(fake.launches)) == (1, 2)


@pytest.mark.parametrize("name", ODD_TIMES)
def test_a_repeated_call_looks_at_what_is_at_work(operands, torch, fake, name):
    recipe, make = operands
    changes, start = ODD_TIMES[name]
    vars(torch).update(changes)
    with pytest.raises(ArgumentError) as caught:
        call(recipe, make())
    assert str(caught.value).startswith(f"q wanted {start}")
    assert len(fake.launches) == 1


def test_a_repeated_call_looks_at_tangents(operands, torch, fake):
    recipe, make = operands
    torch.autograd.forward_ad._current_level = 0
    call(recipe, make())
    with pytest.raises(ArgumentError, match=r"^k wanted without a tangent"):
        call(recipe, make(tangent=object()))
    assert len(fake.launches) == 2


def test_a_repeated_call_without_recording_takes_parameters(operands, torch, fake):
    recipe, make = operands
    torch.recording = False
    call(recipe, make(requires_grad=True))
    torch.recording = True
    with pytest.raises(ArgumentError, match=r"^k wanted without requires_grad"):
        call(recipe, make(requires_grad=True))
    assert (recipe.asked, len(fake.launches)) == (1, 2)


@pytest.mark.parametrize("name", ["wants a gradient", "negated", "wrapped"])
def test_out_is_looked_at_as_well(operands, name):
    recipe, make = operands
    changes, start = ODD_TENSORS[name]
    for odd in ({}, changes):
        out = Tensor(SHAPE, 9 << 28, "torch.float16", 0, **odd)
        if odd:
            with pytest.raises(ArgumentError) as caught:
                call(recipe, make(), out=out)
            assert str(caught.value).startswith(f"out wanted {start}")
        else:
            assert call(recipe, make(), out=out) is out


def test_keys_of_what_has_no_memory_are_left_to_the_checks(torch):
    assert known_keys([Tensor(), Tensor(wrapped=True)], TORCH) is None
    assert known_keys([Tensor(), 3], TORCH) is None
