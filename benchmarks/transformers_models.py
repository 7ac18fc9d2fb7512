"""A small Mistral of Hugging Face's transformers by splat_numba, beside its sdpa: prefill, training step, generate().

    python benchmarks/transformers_models.py            # writes benchmarks/results/transformers_models.{json,md}

Two layers with random weights in Mistral's proportions: feed-forward 3.5 times the hidden size, four query heads of 64
a key head; a vocabulary of 1,024, sliding window 256, one sequence, float32. Prefill: 4,096 tokens, logits
of the last. Training step: loss and gradients of the same tokens. generate(): 64 new tokens after 512, greedy, with the
dynamic cache, by the new token. All of a model is timed: the larger its hidden size, the less of it is attention.
"attention" is what both layers' attention takes of a prefill, from q, k and v to its result. The implementations take
turns.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import transformers
from cpu_attention import hardware
from frameworks import in_turns
from results_files import options, save
from tables import markdown_table

from splat_numba.integrations.transformers import register

WAYS = ("splat", "sdpa")
WINDOW, NEW, PROMPT = 256, 64, 512


def models(hidden: int) -> dict[str, Any]:
    """The same model by every way."""
    register()
    config = transformers.MistralConfig(
        vocab_size=1024, hidden_size=hidden, intermediate_size=hidden * 7 // 2, num_hidden_layers=2,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 256, sliding_window=WINDOW,
        pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    found = {}
    for way in WAYS:
        torch.manual_seed(0)
        made = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=way)
        found[way] = made.eval()
    return found


def prefill(model: Any, ids: Any) -> Any:
    """Logits of the last token."""
    with torch.no_grad():
        return model(ids, use_cache=False, logits_to_keep=1).logits


def attention_in(model: Any, ids: Any) -> Callable[[], Any]:
    """What a prefill calls of its attention implementation, to be called again."""
    way = model.config._attn_implementation  # noqa: SLF001 - transformers has no public name for it
    interface, calls = transformers.AttentionInterface(), []
    plain = interface[way]

    def noted(*given: Any, **options: Any) -> Any:
        calls.append((given, options))
        return plain(*given, **options)

    transformers.AttentionInterface.register(way, noted)
    prefill(model, ids)
    transformers.AttentionInterface.register(way, plain)

    def again() -> None:
        with torch.no_grad():
            for given, options in calls:
                plain(*given, **options)

    return again


def step(model: Any, ids: Any) -> Any:
    """The loss, after a forward and a backward pass."""
    model.zero_grad(set_to_none=True)
    loss = model(ids, labels=ids, use_cache=False).loss
    loss.backward()
    return loss.detach()


def generate(model: Any, ids: Any) -> Any:
    """Tokens."""
    return model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False)


def measure(hidden: int, seq: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    """[least, median] microseconds of each job by each way."""
    made = models(hidden)
    long = torch.randint(2, 1024, (1, seq), generator=torch.Generator().manual_seed(1))
    jobs: dict[str, tuple[Callable[[Any, Any], Any], Any]] = {
        "prefill": (prefill, long), "training step": (step, long), "generate": (generate, long[:, :PROMPT]),
    }  # fmt: skip
    found = {"attention": in_turns({way: attention_in(made[way], long) for way in WAYS}, rounds, 1)}
    for name, (job, ids) in jobs.items():
        ours, theirs = (job(made[way], ids) for way in WAYS)
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
        found[name] = in_turns({way: partial(job, made[way], ids) for way in WAYS}, rounds, 1)
    return found


def report(facts: dict[str, Any]) -> str:
    """The measured numbers as a page."""
    lines = []
    for hidden, times in facts["times"].items():
        for name, ways in times.items():
            each = NEW if name == "generate" else 1
            shown = [f"{ways[way][1] / each / 1e3:.2f} ({ways[way][0] / each / 1e3:.2f})" for way in WAYS]
            named = "generate, a new token" if name == "generate" else name
            ratio = ways["sdpa"][1] / ways["splat"][1]
            lines.append([hidden, named, *shown, f"{ratio:.2f}"])
    return "\n".join([
        "# Models of transformers: splat beside sdpa\n",
        f"{facts['hardware']}; by benchmarks/transformers_models.py, which says what is measured.",
        f"{facts['seq']} tokens, window {WINDOW}, threads {facts['threads']}; medians (least) in milliseconds.\n",
        f"{markdown_table(('hidden size', '', *WAYS, 'sdpa / splat'), lines)}\n",
    ])  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = options(__doc__)
    parser.add_argument("--seq", type=int, default=4096)
    parser.add_argument("--hidden", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of PyTorch, and of splat")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["SPLAT_NUM_THREADS"] = str(args.threads)
    facts = {
        "hardware": hardware(("numpy", "numba", "torch", "transformers")), "seq": args.seq, "threads": args.threads,
        "times": {str(hidden): measure(hidden, args.seq, args.rounds) for hidden in args.hidden},
    }  # fmt: skip
    save(args.output, "transformers_models", facts, report(facts))
    print(report(facts))


if __name__ == "__main__":
    main()
