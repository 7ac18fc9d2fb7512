"""Calls on a GPU whose driver only notes them, and their launches."""

import pytest

import splat_numba as splat

torch = pytest.importorskip("torch")
MASK = splat.window(64)
SHAPE = (1, 2, 256, 64)


@pytest.fixture
def given():
    torch.manual_seed(0)
    return [torch.randn(SHAPE).to(torch.bfloat16) for _ in range(4)]


def slopes(given, mask=MASK):
    *plain, dout = given
    leaves = [one.detach().requires_grad_() for one in plain]
    return torch.autograd.grad(splat.attention(*leaves, mask, backend="cuda"), leaves, dout)


def functional(given, mask=MASK):
    *plain, dout = given
    out, lse = splat.attention(*plain, mask, backend="cuda", return_lse=True)
    return splat.attention_backward(dout, *plain, out, lse, mask, backend="cuda")


def kernels(fake):
    """The launches since the last question, as what is launched how."""
    found = [(fake.text_and_entry(one.function)[0], one.sizes, one.shared, one.stream) for one in fake.launches]
    fake.launches.clear()
    return found
