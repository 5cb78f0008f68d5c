"""What base training, midtraining and SFT have in common: train, save, say what came out.

Each stage's script says what its rows are; opening.py which checkpoint it starts from, hooks.py
what happens between two steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import psutil
import torch

from nanochat import fused
from nanochat.data import dataset, mixture
from nanochat.data.dataloader import Position, Prefetcher, Row, batches
from nanochat.gpt import GPT, Block
from nanochat.stages import TRAINED
from nanochat.system import storage
from nanochat.system.device import Device
from nanochat.system.errors import Failure, Interrupted
from nanochat.system.log import Metrics, duration, log_to, say
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import TOO_LARGE, batch_in_words
from nanochat.training.faults import Diverged, is_out_of_memory
from nanochat.training.hooks import Evaluate, Rollback, Sample, Save, restore
from nanochat.training.loop import LoopConfig, Signals, train
from nanochat.training.opening import Opened, open_next
from nanochat.training.optim import MuonAdamW, schedule
from nanochat.training.stage_config import StageConfig
from nanochat.training.time_budget import TimeBudget

LossOf = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # inputs, targets -> nats, summed

NAMES = {stage.checkpoint: stage.title for stage in TRAINED}


def print_plan(opened: Opened) -> None:
    """What is about to be done: `name: value` lines for --dry_run, else a line or two."""
    config, model, batch = opened.config, opened.model.config, opened.batch
    rows, shape = batch.device_batch_size, batch_in_words(batch, model.max_seq_len)
    needed = model.training_bytes(rows, opened.device.type, opened.device.dtype.itemsize)
    device = f"{opened.device.type}, {str(opened.device.dtype).removeprefix('torch.')}"
    iterations = f"{opened.state.num_iterations:,}"
    tokens = f"{opened.state.num_iterations * batch.total_batch_size:,}"
    if config.time_budget_s is not None:
        iterations = tokens = f"as many as fit into {duration(config.time_budget_s)}"
    if not config.dry_run:
        say(f"{opened.tag}: {model.num_params():,} parameters, {device}; {shape}")
        return
    for name, value in (
        ("stage", NAMES[opened.stage]),
        ("model_tag", opened.tag),
        ("data", opened.data),
        ("parameters", f"{model.num_params():,}"),
        ("vocab_size", f"{model.vocab_size:,}"),
        ("batch", shape),
        ("num_iterations", iterations),
        ("tokens", tokens),
        ("memory_gb", f"about {needed / 1e9:.1f} and torch itself"),
        ("device", device),
    ):
        say(f"{name}: {value}")


def run(
    opened: Opened,
    rows_from: Callable[[Position | None], Iterator[Row]],
    evaluate: Callable[[], dict[str, float]],
) -> None:
    """Train an opened stage to its end. Raises Interrupted after a signal, everything saved."""
    stage, config, device, state = opened.stage, opened.config, opened.device, opened.state
    model, length = opened.model, opened.model.config.max_seq_len
    check_room(opened)
    # Before anything changes: W&B may be missing, or refuse.
    metrics = Metrics(stage, opened.tag, state.step, config.wandb_run)
    kept_as = None if opened.resumed else checkpoints.set_aside(stage, opened.tag)
    if kept_as:
        say(f"{stage} {opened.tag} was there already: kept as {kept_as}")
    opened, loss_of = checked_compile(opened)
    optimizer = MuonAdamW(model, opened.optim)
    if opened.resumed is not None:
        restore(optimizer, opened.resumed)
        say(f"resuming {stage} {opened.tag} at step {state.step} of {state.num_iterations}")
        _say_if_not_exact(opened)
    stream = Prefetcher(batches(rows_from(state.position), opened.batch.device_batch_size))
    started = time.monotonic()
    signals = Signals()
    save = Save(opened, optimizer, signals)
    goes_back = config.on_divergence == "rollback"
    try:
        finished = train(
            loss_of,
            optimizer,
            stream,
            LoopConfig(
                stage,
                opened.batch.grad_accum(length),
                lambda progress: schedule(progress, config.warmup or 0.0, config.warmdown or 0.0),
                _budget(opened),
                Rollback(opened, optimizer, metrics, save) if goes_back else None,
                signals,
            ),
            state,
            (save, Evaluate(opened, evaluate), Sample(opened, metrics)),
            metrics,
            device,
        )
    except Diverged as error:
        raise Failure(
            f"{stage} {opened.tag} diverged at {error}; nothing was updated with it. Try lower "
            "learning rates (--matrix_lr, --embedding_lr, --unembedding_lr), or "
            "--on_divergence=rollback to pass over that batch"
        ) from None
    finally:
        stream.close()
        metrics.close()
    if not finished and save.saved_step != state.step:
        raise Failure(f"interrupted, and {save.what_is_there(state.step)}")
    if not finished:
        raise Interrupted(
            f"interrupted: {stage} {opened.tag} is saved at step {state.step} of "
            f"{state.num_iterations}; continue "
            f"with bash dev/continue_training.sh, or this command with --resume"
        )
    folder = checkpoints.step_folder(stage, opened.tag, state.step)
    say(f"{NAMES[stage]} took {duration(time.monotonic() - started)}; the model is in {folder}")


def run_on_conversations(
    name: str, config: StageConfig, rows_of: Callable[..., Iterator[Row]]
) -> None:
    """Midtraining or SFT: open or resume, train, save.

    rows_of(conversations, tokenizer, max_seq_len, position=None) makes rows of them.
    """
    log_to(config.log_file)
    opened = open_next(name, config)
    print_plan(opened)
    if config.dry_run:
        return
    say("reading conversations ...")
    source = dataset.find_source(opened.data)
    talks, held_out = mixture.conversations_of(source, name, opened.planned_tokens)
    shape = opened.tokenizer, opened.model.config.max_seq_len
    run(
        opened,
        lambda position: rows_of(talks, *shape, position),
        lambda: {"val_loss": mean_loss(opened, rows_of(held_out, *shape))},
    )


def check_room(opened: Opened) -> None:
    """Look before the first step whether disk and memory will do.

    Raises UserError where the disk can't hold what will be saved; memory is an estimate, and so
    is only warned of.
    """
    model, rows = opened.model.config, opened.batch.device_batch_size
    # Weights and up to two moments of each, for the steps that are kept and the one being written.
    checkpoint = 4 * 3 * model.num_params()
    storage.check_space(
        checkpoints.stage_folder(opened.stage) / opened.tag,
        (checkpoints.KEPT_STEPS + 1) * checkpoint,
    )
    if opened.device.type == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = psutil.virtual_memory().available
    needed = model.training_bytes(rows, opened.device.type, opened.device.dtype.itemsize)
    if needed > free:
        say(
            f"training needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: close "
            f"other programs, or {TOO_LARGE}"
        )


@torch.no_grad()
def mean_loss(opened: Opened, rows: Iterator[Row]) -> float:
    """Loss in nats per supervised token over eval_tokens of rows; NaN where there is none."""
    total, count, read = 0.0, 0, 0
    for batch in batches(rows, opened.batch.device_batch_size):
        inputs = batch.inputs.to(opened.device.torch)
        total += opened.model.loss(inputs, batch.targets.to(opened.device.torch)).item()
        count += batch.n_valid
        read += inputs.numel()
        if read >= opened.batch.eval_tokens:
            break
    return total / count if count else math.nan


def _budget(opened: Opened) -> TimeBudget | None:
    """The clock of a stage with a time budget runs from the start of this process."""
    seconds = opened.config.time_budget_s
    if seconds is None:
        return None
    # Save, evaluation and samples after the last step; a guess, generous for a slow disk.
    end_s = min(0.1 * seconds, 3.0 + opened.batch.eval_tokens / 4_000)
    budget = TimeBudget(seconds, psutil.Process().create_time(), end_s)
    if opened.resumed is not None and opened.state.iterations_fixed:
        budget.fixed = opened.state.num_iterations  # a resumed run goes by step
    return budget


# How far a compiled loss and its gradients may be from the plain ones, as a share of their norm.
# Rounding alone makes up to 3 % in bfloat16; a mask or a rotation that is lost makes over 40 %.
COMPILED_APART = {torch.float32: 0.01, torch.bfloat16: 0.1}
# One graph for every layer, or one for the whole model: the second fuses a little more, and takes
# several times as long before step 1, in each of three stages (bench/gpu.py --modes blocks,whole).
COMPILE_BLOCKS = False


def compiled_loss(model: GPT, blocks: bool = COMPILE_BLOCKS, **options: bool) -> LossOf:
    """model.loss by torch.compile, of fixed shapes; nothing is compiled before the first call."""
    logits_pass = torch.compile(fused.logits_pass, dynamic=False, **options)
    if blocks:
        # The function and not the modules: weights are then arguments, and one graph does for all.
        block = torch.compile(Block.forward, dynamic=False, **options)
        hidden = partial(model.hidden, block=block)
    else:
        hidden = torch.compile(model.hidden, dynamic=False, **options)
    return partial(model.loss, hidden=hidden, logits_pass=logits_pass)


def checked_compile(opened: Opened) -> tuple[Opened, LossOf]:
    """The stage and its loss function; compiled only where that gives what the plain model gives.

    Compilers fail in many ways, and some silently: one batch is computed both ways first.
    """
    model, device = opened.model, opened.device
    if not device.compile:
        return opened, model.loss
    say("compiling the model; this takes a minute ...")
    try:
        loss_of = compiled_loss(model)
        rows, state = opened.batch.device_batch_size, opened.state
        state.parts = check_loss(model, device, rows, loss_of, state.parts)
        return opened, loss_of
    except Exception as error:  # whatever it is, the plain model works
        reason = (str(error).splitlines() or [""])[0][:200]
        say(f"torch.compile does not work here ({type(error).__name__}: {reason}): not compiled")
        return replace(opened, device=replace(device, compile=False)), model.loss
    finally:
        model.zero_grad(set_to_none=True)
        device.empty_cache()


def check_loss(model: GPT, device: Device, rows: int, loss_of: LossOf, parts: int = 1) -> int:
    """Raise ValueError where loss_of or one of its gradients is not what model.loss gives.

    Of one batch of the size that steps will have, so nothing is compiled twice. Returns into how
    many parts its rows are cut: more than were given where memory ran out.
    """
    shape = (rows, model.config.max_seq_len + 1)
    # Random ids: were all of them the same, attention would give the same whatever it looks at.
    ids = torch.randint(model.config.vocab_size, shape, generator=torch.Generator().manual_seed(0))
    while True:
        some = ids.chunk(parts)[0].to(device.torch)
        try:
            found = _loss_and_gradients(model, loss_of, [some])
            break
        except RuntimeError as error:
            if not is_out_of_memory(error) or len(some) == 1:
                raise
        device.empty_cache()
        parts *= 2
    # A row at a time: the plain model keeps more for its backward pass than the compiled one.
    for name, right in _loss_and_gradients(model, model.loss, some.split(1)).items():
        apart = ((found[name] - right).norm() / right.norm().clamp(min=1e-12)).item()
        if not apart <= COMPILED_APART[device.dtype]:
            raise ValueError(f"{name} is off by {apart:.0%}")
    return parts


def _loss_and_gradients(
    model: GPT, loss_of: LossOf, batches: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """By name, on the CPU: the loss over batches of (B, T + 1) ids, every weight's gradient."""
    model.zero_grad(set_to_none=True)
    total = torch.zeros(())
    for ids in batches:
        loss = loss_of(ids[:, :-1].contiguous(), ids[:, 1:].contiguous())
        loss.backward()
        total += loss.item()
    gradients = {n: w.grad.cpu() for n, w in model.named_parameters() if w.grad is not None}
    return {"loss": total} | gradients


def _say_if_not_exact(opened: Opened) -> None:
    now = opened.run_time_choices()
    before = opened.resumed.state["choices"] if opened.resumed else now
    changed = [f"{k} {before.get(k)} -> {v}" for k, v in now.items() if before.get(k) != v]
    if opened.resumed and opened.device.type != "cpu":
        say(f"resumed on {opened.device.type}, where a run repeats up to rounding, not bit for bit")
    if changed:
        say(f"not bit for bit what an uninterrupted run would be: {', '.join(changed)}")
