"""One of two processes of test_distributed.py: python distributed_run.py rank file."""

import copy
import sys
from functools import partial

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import Shard, distribute_tensor
from torch.distributed.tensor.experimental import local_map
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import splat_numba as splat
from splat_numba.errors import ArgumentTypeError
from splat_numba.integrations.torch import SparseSelfAttention

say = partial(print, flush=True)
MASK = splat.window(5, 0) | splat.sinks(2)
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
torch.manual_seed(0)
layer = SparseSelfAttention(64, 4, MASK, num_kv_heads=2)  # heads of 16, as elsewhere in these tests
whole = torch.randn(4, 24, 64)
ours = whole[2 * rank :][:2]


def loss_of(module, x):
    return (module(x) - x).square().mean()


alone = copy.deepcopy(layer)
wanted = loss_of(alone, whole)
wanted.backward()


def check(name, module, gradients, x=ours):
    """The mean loss of both processes, and every gradient, are one process's."""
    loss = loss_of(module, x)
    loss.backward()
    mean = loss.detach() / 2
    dist.all_reduce(mean)
    torch.testing.assert_close(mean, wanted.detach())
    for one, parameter in zip(gradients(module), alone.parameters(), strict=True):
        torch.testing.assert_close(one, parameter.grad)
    say(name, "agrees")


def plain(module):
    return [one.grad for one in module.parameters()]


def gathered(module):
    return [one.grad.full_tensor() for one in module.parameters()]


def summoned(module):
    with FullyShardedDataParallel.summon_full_params(module, with_grads=True):
        return [one.grad.clone() for one in module.parameters()]


check("DistributedDataParallel", DistributedDataParallel(copy.deepcopy(layer)), plain)
sharded = copy.deepcopy(layer)
fully_shard(sharded, mesh=mesh)
check("fully_shard", sharded, gathered)
old = FullyShardedDataParallel(copy.deepcopy(layer), use_orig_params=True, device_id=torch.device("cpu"))
check("FullyShardedDataParallel", old, summoned)
ways = {name: ColwiseParallel() for name in ("q_proj", "k_proj", "v_proj")} | {"out_proj": RowwiseParallel()}
check("heads of each process", parallelize_module(copy.deepcopy(layer), mesh, ways), gathered, whole)

q = torch.randn(4, 4, 24, 16)
parts = distribute_tensor(q, mesh, [Shard(0)])
for call in (splat.attention, torch.compile(splat.attention, fullgraph=True, backend="aot_eager")):
    try:
        call(parts, parts, parts, MASK)
    except Exception as error:  # noqa: BLE001 - Dynamo's own says ours
        say(isinstance(error, ArgumentTypeError), "q wanted as a tensor of this process, got a DTensor" in str(error))
mapped = local_map(lambda q: splat.attention(q, q, q, MASK), out_placements=[Shard(0)])(parts)
assert torch.equal(mapped.full_tensor(), splat.attention(q, q, q, MASK))
say("local_map agrees")
dist.destroy_process_group()
