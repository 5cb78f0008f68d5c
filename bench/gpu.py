"""What an accelerator is asked first, in under eight minutes: is it right, is it fast, does it fit.

    python bench/gpu.py                        on a CUDA card
    python bench/gpu.py --tiny                 on the CPU, small, to see that every section runs
    python bench/gpu.py --only train --depths 12 --modes eager,whole

parity: loss and gradients against float32 on the CPU. compile: whether the check that a stage makes
takes the compiler. resume: a run that was saved and resumed, against one that was not. decode:
answers as users get them, and the model alone, by each way of decoding. train: tokens/s, MFU, where
a step's time goes, peak memory against the plan, the longest shapes first. profile: the kernels of
a training step and of a decoded token. The last line is all of it as one JSON object with the
card's name. Exit code 1 where a section found something wrong; the next section runs all the same.

Needs the project's modules and torch alone: argparse, because a machine that is lent for minutes
may not have the rest.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as system/cli.py says

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from nanochat import fused  # noqa: E402
from nanochat.data.dataloader import Batch  # noqa: E402
from nanochat.engine import Engine  # noqa: E402
from nanochat.gpt import GPT  # noqa: E402
from nanochat.gpt_config import GPTConfig  # noqa: E402
from nanochat.sampling import Sampling  # noqa: E402
from nanochat.system.device import DTYPES, Device, open_device  # noqa: E402
from nanochat.tokenizer import Tokenizer  # noqa: E402
from nanochat.training.compiled_loss import COMPILED_APART, check_loss, compiled_loss  # noqa: E402
from nanochat.training.faults import DivergenceGuard  # noqa: E402
from nanochat.training.loop import train_step  # noqa: E402
from nanochat.training.optim import MuonAdamW  # noqa: E402
from nanochat.training.stage_config import OptimConfig  # noqa: E402

# Dense bfloat16 FLOP/s with float32 sums, from the data sheets; the first name that matches counts.
PEAK = {
    "B200": 2250e12, "H200": 989.4e12, "H100 PCIe": 756e12, "H100": 989.4e12, "A100": 312e12,
    "L40S": 362e12, "L4": 121e12, "A10": 125e12, "5090": 209.5e12, "4090": 165.2e12, "3090": 71e12,
}  # fmt: skip
SPECIAL_TOKENS = 9


@dataclass
class Bench:
    """The device, the sizes that suit it, and what was found so far."""

    args: argparse.Namespace
    device: Device
    vocab_size: int
    length: int
    found: dict[str, object]
    wrong: list[str]
    started: float

    @property
    def is_cuda(self) -> bool:
        return self.device.type == "cuda"

    def model(
        self,
        depth: int,
        length: int | None = None,
        dtype: torch.dtype | None = None,
        where: torch.device | None = None,
    ) -> GPT:
        """A model as after some training: with matrices of zeros a block is the identity, and
        nothing in it would be tested; and no special token ends a greedy answer.

        where: drawn on the CPU, the same for every device; else on the device, which is quicker.
        """
        config = GPTConfig(depth, self.vocab_size, length or self.length)
        drawn_on = torch.device("cpu") if where is not None else self.device.torch
        with drawn_on:
            model = GPT(config)
        generator = torch.Generator(drawn_on).manual_seed(0)
        with torch.no_grad():
            for name, weight in model.named_parameters():
                scale = {"wte.weight": 1.0, "lm_head.weight": 0.1}.get(name, weight.size(1) ** -0.5)
                weight.normal_(0, scale, generator=generator)
            model.lm_head.weight[-SPECIAL_TOKENS:] = 0
        model.to(where or self.device.torch).dtype = dtype or self.device.dtype
        return model

    def batch(self, rows: int, length: int | None = None, seed: int = 0) -> Batch:
        """Random ids, on the CPU as the loader gives them."""
        shape, generator = (rows, (length or self.length) + 1), torch.Generator().manual_seed(seed)
        ids = torch.randint(self.vocab_size - SPECIAL_TOKENS, shape, generator=generator)
        inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
        return Batch(inputs, targets, targets.numel(), {})

    def seconds(self, what: Callable[[], object], n: int = 5, warm: int = 2) -> tuple[float, float]:
        """(median of n, the first): the first one compiles."""
        times = []
        for _ in range(n + warm):
            self.device.synchronize()
            begun = time.monotonic()
            what()
            self.device.synchronize()
            times.append(time.monotonic() - begun)
        return statistics.median(times[warm:]), times[0]

    def waits(self, what: Callable[[], object]) -> list[str] | None:
        """Where the host waits for the card while it does this; None where torch can't say."""
        if not self.is_cuda:
            return None
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                what()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        found = [warning for warning in said if "synchroniz" in str(warning.message)]
        return [f"{Path(warning.filename).name}:{warning.lineno}" for warning in found]

    def check(self, right: bool, what: str) -> str:
        """'' where it is right, else a mark for the line; what is wrong is kept."""
        if not right:
            self.wrong.append(what)
        return "" if right else "  <-- WRONG"

    def is_late(self) -> bool:
        return time.monotonic() - self.started > self.args.seconds


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """float32 products in full, or by TF32 where the card has it."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def parity(bench: Bench) -> None:
    depth, length = (1, 32) if bench.args.tiny else (4, 256)
    cpu, on = torch.device("cpu"), bench.device.torch
    full, own = torch.float32, bench.device.dtype
    rows = [("float32", on, full, "highest", False)]
    if bench.is_cuda and not bench.args.short:
        rows.append(("tf32", on, full, "high", False))
    if own != full and not bench.args.short:
        rows.append((f"{own}"[6:], on, own, "high", False))
    rows.append((f"{own}, compiled"[6:], on, own, "high", True))
    # A third of the targets teach nothing, as in SFT.
    batch = bench.batch(4, length)
    batch.targets[:, ::3] = -1
    loss, want = loss_and_gradients(bench.model(depth, length, full, cpu), batch, "highest", False)
    for name, where, dtype, precision, is_compiled in rows:
        model = bench.model(depth, length, dtype, where)
        value, gradients = loss_and_gradients(model, batch, precision, is_compiled)
        worst, of = max(
            (((g - want[n]).norm() / want[n].norm()).item(), n) for n, g in gradients.items()
        )
        most = {"float32": 1e-3, "tf32": 0.02}.get(name, COMPILED_APART[dtype])
        mark = bench.check(worst < most, f"parity {name}: gradient of {of} off by {worst:.1%}")
        bench.found[f"parity {name}"] = {"loss": value, "off": value - loss, "gradient": worst}
        print(
            f"  {name:19} loss {value:.5f} ({value - loss:+.1e})  worst gradient {worst:.1e}{mark}",
            flush=True,
        )


def loss_and_gradients(
    model: GPT, batch: Batch, precision: str, is_compiled: bool
) -> tuple[float, dict[str, Tensor]]:
    where, loss_of = (
        model.wte.weight.device,
        compiled_loss(model, fullgraph=True) if is_compiled else model.loss,
    )
    with matmul_precision(precision):
        n_valid = int((batch.targets >= 0).sum())
        loss = loss_of(batch.inputs.to(where), batch.targets.to(where)) / n_valid
        loss.backward()
    grads = {n: w.grad.double().cpu() for n, w in model.named_parameters() if w.grad is not None}
    return loss.item(), grads


def compile(bench: Bench) -> None:
    depth, rows = (1, 4) if bench.args.tiny else (4, 16)
    model = bench.model(depth, 32 if bench.args.tiny else 256)
    begun = time.monotonic()
    check_loss(
        model, bench.device, rows, compiled_loss(model, fullgraph=True)
    )  # raises where it would refuse
    bench.found["compile"] = {"accepted": True, "seconds": time.monotonic() - begun}
    print(f"  accepted, {time.monotonic() - begun:.1f} s with the first compilation")


def resume(bench: Bench) -> None:
    length = 32 if bench.args.tiny else 256

    def more(model: GPT, optimizer: MuonAdamW, seeds: range) -> list[float]:
        guard = DivergenceGuard()
        step = partial(train_step, model.loss, optimizer)
        return [step([bench.batch(4, length, s)], 1.0, bench.device, guard).loss for s in seeds]

    model = bench.model(2, length)
    optimizer = MuonAdamW(model, OptimConfig())
    more(model, optimizer, range(3))
    weights = {name: w.detach().cpu().clone() for name, w in model.state_dict().items()}
    state = {name: t.detach().cpu().clone() for name, t in optimizer.state_tensors().items()}
    runs = [(model, more(model, optimizer, range(3, 6)))]
    for _ in range(2):
        model = bench.model(2, length)
        model.load_state_dict(weights)
        optimizer = MuonAdamW(model, OptimConfig())
        optimizer.load_state_tensors({name: tensor.clone() for name, tensor in state.items()})
        runs.append((model, more(model, optimizer, range(3, 6))))
    pairs = (("resumed", *runs[0], *runs[1]), ("resumed again", *runs[1], *runs[2]))
    for name, one, losses, other, again in pairs:
        apart = max(
            (a - b).norm().item() / a.norm().item()
            for a, b in zip(one.parameters(), other.parameters(), strict=True)
        )
        # A CPU repeats itself to the last bit; a card sums in any order.
        right = apart == 0 if bench.device.type == "cpu" else apart < 0.02
        mark = bench.check(right, f"{name}: weights apart by {apart:.1e}")
        bench.found[name] = {"losses_equal": losses == again, "weights_apart": apart}
        equal = "equal" if losses == again else f"{losses} and {again}"
        print(f"  {name}: losses {equal}, weights apart by {apart:.1e} of their norm{mark}")


def decode(bench: Bench) -> None:
    x = torch.empty((2**20 if bench.args.tiny else 2**30) // 4, device=bench.device.torch)
    bandwidth = 2 * x.nbytes / bench.seconds(x.clone)[0]
    del x
    for depth in (1,) if bench.args.tiny else map(int, bench.args.decode_depths.split(",")):
        model = bench.model(depth).freeze()
        for rows in (1, 8):
            greedy: list[list[int]] = []
            for way in ("plain", "recorded"):
                try:
                    decode_way(bench, model, rows, way, bandwidth, greedy)
                except Exception as error:  # another way may work
                    what = f"d{depth} batch {rows} {way}: {type(error).__name__}: {error}"[:300]
                    print(f"  {what}{bench.check(False, what)}", flush=True)


def decode_way(
    bench: Bench, model: GPT, rows: int, way: str, bandwidth: float, greedy: list
) -> None:
    """One line: answers of so many rows, decoded in one way. greedy: what the first way said."""
    new = 8 if bench.args.tiny else 128
    tokenizer = Tokenizer([(i // 256, i % 256) for i in range(bench.vocab_size - 265)])
    engine, prompts = Engine(model, tokenizer, way == "recorded"), [list(range(16))] * rows
    answer = partial(engine.complete, prompts, Sampling(max_new_tokens=new))
    whole, first = bench.seconds(answer, 2, 1)
    said, logits, cache = [], *engine.prefill(prompts)
    for _ in range(new // 2):
        said.append(logits.argmax(-1).tolist())
        logits = engine.decode_one_token(logits.argmax(-1), cache)
    if not greedy:
        greedy.extend([said, logits])
    same = next((i for i, (a, b) in enumerate(zip(said, greedy[0], strict=True)) if a != b), None)
    n, ids = new // 4, logits.argmax(-1)
    # Many at once: a wait after each would count the time that the next one takes to be launched.
    step = (
        bench.seconds(lambda: [engine.decode_one_token(ids, cache) for _ in range(n)], 1, 1)[0] / n
    )
    moved = model.config.num_matrix_params() + bench.vocab_size * model.config.n_embd
    share = moved * bench.device.dtype.itemsize / step / bandwidth
    waits = bench.waits(answer)
    failed = ""
    if engine.recorder is not None and (failed := engine.recorder.failed):
        failed = bench.check(False, f"d{model.config.depth} batch {rows}: not recorded: {failed}")
    bench.found[f"decode d{model.config.depth} batch {rows} {way}"] = {
        "tokens_per_s": rows * new / whole, "step_s": step,
        "share_of_bandwidth": share, "waits_per_token": waits and len(waits) / new,
        "same_tokens_until": same, "first_s": first,
    }  # fmt: skip
    print(
        f"  d{model.config.depth} batch {rows} {way}: {rows * new / whole:,.0f} tok/s, a step "
        f"{step * 1e6:,.0f} us, weights read once = {share:.1%} of {bandwidth / 1e12:.2f} TB/s; "
        f"first answer {first:.1f} s, {len(waits or []) / new:.1f} waits per token, greedy tokens "
        f"{'the same' if same is None else f'another from {same} on'}"
        f"{failed}",
        flush=True,
    )


def train(bench: Bench) -> None:
    device, tiny = bench.device, bench.args.tiny
    name = torch.cuda.get_device_name() if bench.is_cuda else ""
    peak = next((flops for key, flops in PEAK.items() if key in name), float("nan"))
    n = 256 if tiny else 8_192
    a = torch.randn(n, n, device=device.torch, dtype=device.dtype)
    matmul = 2 * n**3 / bench.seconds(lambda: a @ a)[0]
    sheet = "" if math.isnan(peak) else f"; the data sheet says {peak / 1e12:.0f}"
    print(f"  matmul of {n}: {matmul / 1e12:.2f} TFLOP/s{sheet}")
    bench.found["matmul"] = matmul
    depths = [1] if tiny else [int(depth) for depth in bench.args.depths.split(",")]
    modes = bench.args.modes.split(",")
    full = [
        (d, 4 if tiny else 16 if d >= 20 else 32, bench.length, m) for d in depths for m in modes
    ]
    short = [] if tiny else [(d, 16, 256, modes[0]) for d in depths]
    for depth, rows, length, mode in full + short:
        if bench.is_late():
            print(f"  d{depth} {rows} x {length} {mode}: left out", flush=True)
            continue
        try:
            train_shape(bench, depth, rows, length, mode, peak)
        except Exception as error:  # a smaller shape may fit
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            what = f"d{depth} {rows} x {length} {mode}: {reason}"
            print(f"  {what}{bench.check(False, what)}", flush=True)


def loss_in_mode(model: GPT, mode: str) -> Callable[[Tensor, Tensor], Tensor]:
    """blocks: one graph serves every layer; whole: one for the model."""
    if mode == "eager":
        return model.loss
    return compiled_loss(model, blocks=mode == "blocks", fullgraph=True)


def train_shape(bench: Bench, depth: int, rows: int, length: int, mode: str, peak: float) -> None:
    """A shape in one mode: a line of its speed, and one of its memory."""
    device = bench.device
    gc.collect()
    device.empty_cache()
    torch.compiler.reset()
    if bench.is_cuda:
        torch.cuda.reset_peak_memory_stats()
    model, batch = bench.model(depth, length), bench.batch(rows, length)
    optimizer, guard = MuonAdamW(model, OptimConfig()), DivergenceGuard()
    loss_of = loss_in_mode(model, mode)
    step = partial(train_step, loss_of, optimizer, [batch], 0.01, device, guard)
    took, first = bench.seconds(step, 6)
    used = device.memory_bytes() if bench.is_cuda else None
    waits = bench.waits(step)
    times = parts_of_step(bench, loss_of, optimizer, batch, model)
    planned = model.config.training_bytes(rows, device.type, device.dtype.itemsize)
    mfu = model.config.flops_per_token() * rows * length / took / peak
    share = "" if math.isnan(mfu) else f"MFU {mfu:.1%}, "
    bench.found[f"train d{depth} {rows}x{length} {mode}"] = {
        "tokens_per_s": rows * length / took, "step_s": took, "mfu": mfu if share else None,
        "parts_s": times, "first_s": first, "peak_bytes": used, "planned_bytes": planned,
        "waits": waits,
    }  # fmt: skip
    parts = ", ".join(f"{name} {seconds * 1e3:.1f}" for name, seconds in times.items())
    waited = "" if waits is None else f"; {len(waits)} waits: {', '.join(waits)}"
    print(
        f"  d{depth} {rows} x {length} {mode:6} {rows * length / took:,.0f} tok/s, {share}"
        f"step {took * 1e3:.1f} ms ({parts}{waited}), first {first:.1f} s",
        flush=True,
    )
    if used is not None:
        fits = bench.check(used <= 1.02 * planned, f"d{depth} {rows} x {length}: more than planned")
        peaks = memory_of_step(loss_of, optimizer, batch, device)
        bench.found[f"memory d{depth} {rows}x{length} {mode}"] = peaks
        named = ", ".join(f"{name} {value / 1e6:,.0f}" for name, value in peaks.items())
        print(
            f"    peak {used / 1e6:,.0f} MB, planned {planned / 1e6:,.0f} ({planned / used:.2f} "
            f"of it){fits}; {named}",
            flush=True,
        )


def memory_of_step(
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: MuonAdamW,
    batch: Batch,
    device: Device,
) -> dict[str, int]:
    """Peak bytes of each part of a step, and what is held between them."""
    inputs, targets = batch.inputs.to(device.torch), batch.targets.to(device.torch)
    found = {"at rest": torch.cuda.memory_allocated()}
    torch.cuda.reset_peak_memory_stats()
    loss = loss_of(inputs, targets)
    found["forward and head"] = torch.cuda.max_memory_allocated()
    found["held after"] = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    (loss / batch.n_valid).backward()
    found["backward"] = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    optimizer.clip()
    optimizer.step(0.0)
    found["update"] = torch.cuda.max_memory_allocated()
    optimizer.zero_grad()
    return found


def parts_of_step(
    bench: Bench,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimizer: MuonAdamW,
    batch: Batch,
    model: GPT,
) -> dict[str, float]:
    """Seconds of head and loss with their gradients, and of the update, each by itself."""
    device, targets = bench.device, batch.targets.flatten().to(bench.device.torch)
    shape = (targets.numel(), model.config.n_embd)
    x = torch.randn(shape, device=device.torch, dtype=device.dtype).requires_grad_()
    passes = loss_of.keywords["logits_pass"] if isinstance(loss_of, partial) else None
    weights = [weight for weight in model.parameters() if weight.grad is None]
    for weight in weights:  # on CUDA a step leaves none
        weight.grad = torch.zeros_like(weight)

    def head() -> None:
        weight = model.lm_head.weight
        weight.grad = None
        fused.linear_cross_entropy(x, weight, targets, model.config.softcap, passes).backward()

    def update() -> None:
        optimizer.clip()
        optimizer.step(0.0)

    found = {"head and loss": bench.seconds(head, 3)[0], "update": bench.seconds(update, 3)[0]}
    optimizer.zero_grad()
    return found


def profile(bench: Bench) -> None:
    depth, rows = (1, 4) if bench.args.tiny else (12, 32)
    mode = "eager" if bench.args.tiny else bench.args.modes.split(",")[0]
    model, batch = bench.model(depth), bench.batch(rows)
    optimizer = MuonAdamW(model, OptimConfig())
    loss_of = loss_in_mode(model, mode)
    step = partial(train_step, loss_of, optimizer, [batch], 0.01, bench.device, DivergenceGuard())
    kernels(bench, step, f"a step of d{depth} {rows} x {bench.length} {mode}", 25)
    model.freeze()
    engine = Engine(model, Tokenizer([(i // 256, i % 256) for i in range(bench.vocab_size - 265)]))
    logits, cache = engine.prefill([list(range(100))] if not bench.args.tiny else [[1, 2, 3]])
    ids = logits.argmax(-1)
    kernels(bench, lambda: engine.decode_one_token(ids, cache), f"a token of d{depth}", 12)


def kernels(bench: Bench, what: Callable[[], object], name: str, most: int) -> None:
    """The kernels that take longest, with how often they ran."""
    from torch.profiler import ProfilerActivity

    _, first = bench.seconds(what, 1)
    kind = ProfilerActivity.CUDA if bench.is_cuda else ProfilerActivity.CPU
    with torch.profiler.profile(activities=[kind]) as profiled:
        what()
        bench.device.synchronize()
    rows = [
        (e.self_device_time_total if bench.is_cuda else e.self_cpu_time_total, e.count, e.key)
        for e in profiled.key_averages()
    ]
    total = sum(us for us, _, _ in rows)
    count = sum(n for _, n, _ in rows)
    print(f"  {name}: {total / 1e3:.2f} ms in {count} kernels; first {first:.1f} s")
    for us, count, key in sorted(rows, reverse=True)[:most]:
        print(f"    {us / 1e3:8.3f} ms {us / total:5.1%} {count:5} x {key[:100]}", flush=True)


SECTIONS = {f.__name__: f for f in (parity, compile, resume, decode, train, profile)}


def main() -> None:
    """Open the device, run the sections, print the JSON line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="small shapes, on the CPU")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, with commas between")
    parser.add_argument("--short", action="store_true", help="fewer rows of the section parity")
    parser.add_argument("--depths", default="12,20,4", help="of the section train")
    parser.add_argument("--decode_depths", default="12,4", help="of the section decode")
    parser.add_argument("--modes", default="blocks,whole", help="of the section train; also eager")
    parser.add_argument("--dtype", choices=[*DTYPES], help="default: the card's own")
    parser.add_argument("--seconds", type=float, default=400, help="no new shape after so many")
    args = parser.parse_args()
    unknown = [name for name in args.only.split(",") if name not in SECTIONS]
    if unknown:
        parser.error(f"--only={args.only}: {unknown[0]!r} is not one of {', '.join(SECTIONS)}")
    warnings.filterwarnings("ignore")
    if args.tiny:
        args.modes = "blocks"
    device = open_device("cpu" if args.tiny else None, args.dtype)
    vocab_size, length = (512, 32) if args.tiny else (65_536, 2_048)
    bench = Bench(args, device, vocab_size, length, {}, [], time.monotonic())
    card = torch.cuda.get_device_name() if bench.is_cuda else device.type
    print(f"{card}, torch {torch.__version__}, {device.dtype}")
    for name in args.only.split(","):
        print(f"{name} [{time.monotonic() - bench.started:.0f} s]", flush=True)
        try:
            SECTIONS[name](bench)
        except Exception as error:  # the next section may tell something all the same
            reason = (str(error).splitlines() or [""])[0][:300]
            bench.wrong.append(f"{name}: {type(error).__name__}: {reason}")
            print(f"  FAILED: {bench.wrong[-1]}", flush=True)
    for line in bench.wrong:
        print(f"wrong: {line}")
    print(f"done in {time.monotonic() - bench.started:.0f} s")
    head = {"card": card, "torch": torch.__version__, "dtype": str(device.dtype)}
    print(json.dumps(head | {"wrong": bench.wrong, "found": bench.found}, default=str))
    sys.exit(1 if bench.wrong else 0)


if __name__ == "__main__":
    main()
