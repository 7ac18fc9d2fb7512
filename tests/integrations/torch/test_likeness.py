"""Tensors that are as earlier ones but for their addresses: what is taken for that, what is not, and fresh tensors."""

import pytest

from splat_numba.runtime import tensors

torch = pytest.importorskip("torch")
SHAPE = (2, 3, 8, 4)


def drawn(count=2):
    return [torch.randn(SHAPE) for _ in range(count)]


def test_others_of_the_same_make_give_their_addresses():
    question = tensors.likeness(drawn())
    others = drawn()
    assert question(others) == [one.data_ptr() for one in others]
    with torch.no_grad():
        assert question(others) is not None


class Own(torch.Tensor):
    """A class of someone's."""


ODD = {
    "dtype": lambda one: one.double(),
    "sizes": lambda one: one[:1],
    "strides": lambda one: one.transpose(1, 2).contiguous().transpose(1, 2),
    "negated": lambda one: one._neg_view(),
    "class": lambda one: one.as_subclass(Own),
    "parameter": torch.nn.Parameter,
    "gradient": lambda one: one.clone().requires_grad_(),
    "device": lambda one: one.to("meta"),
    "layout": lambda one: one.to_sparse(),
}


@pytest.mark.parametrize("name", ODD)
def test_a_tensor_that_differs_is_not_taken(name):
    question = tensors.likeness(drawn())
    first, second = drawn()
    assert question([first, ODD[name](second)]) is None


def test_fewer_or_more_are_not_taken():
    question = tensors.likeness(drawn())
    assert question(drawn(1)) is question(drawn(3)) is None


def test_a_tensor_without_memory_is_not_taken():
    question = tensors.likeness(drawn())
    first, second = drawn()
    second.untyped_storage().resize_(0)
    assert question([first, second]) is None


def test_leaves_are_taken_while_nothing_is_recorded():
    leaves = [one.requires_grad_() for one in drawn()]
    with torch.no_grad():
        question = tensors.likeness(leaves)
        assert question(leaves) is not None
    assert question(leaves) is None


def test_what_watches_is_noticed():
    from torch.utils._python_dispatch import TorchDispatchMode

    given = drawn()
    question = tensors.likeness(given)
    with TorchDispatchMode():
        assert question(given) is None
    with torch.inference_mode():
        assert question(given) is None
    with torch.autograd.forward_ad.dual_level():
        assert question(given) is None
        assert tensors.likeness(given) is None
    found = []
    torch.func.vmap(lambda one: (found.append(question([one, given[1]])), one)[1])(torch.randn(5, *SHAPE))
    assert found == [None]
    assert question(given) is not None


def test_a_trace_is_noticed():
    given, found = drawn(), []
    question = tensors.likeness(given)

    def run(one, other):
        found.append(question([one, other]))
        return one + other

    torch.jit.trace(run, tuple(given), check_trace=False)
    assert found == [None]


def test_one_tensor_in_two_places_has_no_question():
    (one,) = drawn(1)
    assert tensors.likeness([one, one]) is None


def test_there_is_none_without_pytorch_s_guards(monkeypatch):
    monkeypatch.setattr(tensors, "_guards", lambda _: None)
    assert tensors.likeness(drawn()) is None


@pytest.mark.parametrize("quick", [True, False])
def test_fresh_tensors_are_as_they_are_wanted(monkeypatch, quick):
    if not quick:
        monkeypatch.setattr(tensors, "_guards", lambda _: None)
    steps = (96, 32, 4, 1)
    make = tensors.maker(SHAPE, steps, torch.bfloat16, torch.device("cpu"))
    one, other = make(None), make(None)
    assert (one.shape, one.stride(), one.dtype, one.requires_grad) == (SHAPE, steps, torch.bfloat16, False)
    assert one.data_ptr() != other.data_ptr()


@pytest.mark.parametrize("chosen", [0, 1])
def test_fresh_tensors_are_on_their_device_whichever_is_chosen(monkeypatch, chosen):
    class Guards:
        """The quick way, which takes the device that is chosen."""

        @staticmethod
        def _empty_strided_cuda(*_):
            return "quick"

    monkeypatch.setattr(tensors, "_guards", lambda _: Guards)
    monkeypatch.setattr(torch._C, "_cuda_getDevice", lambda: chosen, raising=False)
    monkeypatch.setattr(torch, "empty_strided", lambda *_, device, **__: device)
    device = torch.device("cuda", 1)
    assert tensors.maker(SHAPE, SHAPE, torch.float32, device)(None) == ("quick" if chosen == 1 else device)
