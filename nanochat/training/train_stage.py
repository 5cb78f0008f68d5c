"""What base training, midtraining and SFT have in common: train, save, say how it ended.

Each stage's script says what its rows are; stage_run.py what it starts from, hooks.py what happens
between two steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import psutil
import torch

from nanochat.data import dataset, mixture
from nanochat.data.dataloader import Position, Prefetcher, Row, batches
from nanochat.stages import Stage
from nanochat.system import storage
from nanochat.system.errors import Failure, Interrupted
from nanochat.system.log import Metrics, duration, log_to, say
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.batch_sizes import TOO_LARGE, batch_in_words
from nanochat.training.compiled_loss import try_compiling
from nanochat.training.faults import Diverged
from nanochat.training.hooks import Evaluate, Rollback, Sample, Save, restore
from nanochat.training.loop import LoopConfig, train
from nanochat.training.optim import MuonAdamW, schedule
from nanochat.training.signals import Signals
from nanochat.training.stage_config import StageConfig
from nanochat.training.stage_run import StageRun, start
from nanochat.training.time_budget import TimeBudget


def train_stage(
    run: StageRun,
    rows_from: Callable[[Position | None], Iterator[Row]],
    evaluate: Callable[[], dict[str, float]],
) -> None:
    """Train a stage to its end. Raises Interrupted after a signal, everything saved.

    rows_from(position) yields the rows after it, so that a resume reads on where it stopped;
    evaluate() measures on held-out data.
    """
    config, settings, state, model = run.config, run.settings, run.state, run.model
    # The cheap refusals come first, while nothing has changed on the disk.
    check_room(run)
    metrics = Metrics(run.kind, run.tag, state.step, config.wandb_run)
    kept_as = None if run.resumed else checkpoints.set_aside(run.kind, run.tag)
    if kept_as:
        say(f"{run.kind} {run.tag} already exists: kept as {kept_as}")
    # The compiled model trains; the plain one is saved, evaluated and sampled. They share weights.
    loss_of = None
    if run.device.compile:
        rows = run.batch.device_batch_size
        loss_of, state.parts = try_compiling(model, run.device, rows, state.parts)
        run = replace(run, device=replace(run.device, compile=loss_of is not None))
    optimizer = MuonAdamW(model, run.optim)
    if run.resumed is not None:
        restore(optimizer, run.resumed)
        say(f"resuming {run.kind} {run.tag} at step {state.step} of {state.num_iterations}")
        _say_if_not_exact(run)
    # Rows are read and tokenized a few batches ahead, in a thread of their own.
    stream = Prefetcher(batches(rows_from(state.position), run.batch.device_batch_size))
    started, signals = time.monotonic(), Signals()
    save = Save(run, optimizer, signals)
    goes_back = settings.on_divergence == "rollback"
    loop = LoopConfig(
        name=run.kind,
        grad_accum=run.batch.grad_accum(model.config.max_seq_len),
        multiplier=lambda progress: schedule(progress, settings.warmup, settings.warmdown),
        budget=_budget(run),
        rollback=Rollback(run, optimizer, metrics, save) if goes_back else None,
        signals=signals,
    )
    hooks = (Evaluate(run, evaluate), Sample(run, metrics))
    try:
        finished = train(
            loss_of or model.loss, optimizer, stream, loop, state, save, hooks, metrics, run.device
        )
    except Diverged as error:
        raise Failure(
            f"{run.kind} {run.tag} diverged at {error}; the bad update was not applied. Try lower "
            "learning rates (--matrix_lr, --embedding_lr, --unembedding_lr), or "
            "--on_divergence=rollback to skip that batch"
        ) from None
    finally:
        stream.close()
        metrics.close()
    if not finished and save.saved_step != state.step:
        raise Failure(f"interrupted, and {save.last_saved(state.step)}")
    if not finished:
        raise Interrupted(
            f"interrupted: {run.kind} {run.tag} is saved at step {state.step} of "
            f"{state.num_iterations}; continue "
            f"with bash dev/continue_training.sh, or this command with --resume"
        )
    folder = checkpoints.step_folder(run.kind, run.tag, state.step)
    took = duration(time.monotonic() - started)
    say(f"{run.stage.title} took {took}; the model is in {folder}")


def train_on_conversations(
    stage: Stage, config: StageConfig, rows_of: Callable[..., Iterator[Row]]
) -> None:
    """Midtraining or SFT: start or resume, train, save.

    rows_of(conversations, tokenizer, max_seq_len, position=None) makes rows of them.
    """
    log_to(config.log_file)
    run = start(stage, config)
    print_plan(run)
    if config.dry_run:
        return
    say("reading conversations ...")
    source = dataset.find_source(run.data)
    # How many conversations are wanted follows from the tokens of the plan: a resume must get the
    # same ones, so it is the number of the first start.
    talks, held_out = mixture.conversations_of(source, run.kind, run.planned_tokens)
    shape = run.tokenizer, run.model.config.max_seq_len
    train_stage(
        run,
        lambda position: rows_of(talks, *shape, position),
        lambda: {"val_loss": mean_loss(run, rows_of(held_out, *shape))},
    )


def print_plan(run: StageRun) -> None:
    """What is about to be done: `name: value` lines for --dry_run, else a line."""
    config, model, batch = run.config, run.model.config, run.batch
    rows, shape = batch.device_batch_size, batch_in_words(batch, model.max_seq_len)
    needed = model.training_bytes(rows, run.device.type, run.device.dtype.itemsize)
    device = f"{run.device.type}, {str(run.device.dtype).removeprefix('torch.')}"
    steps = f"{run.state.num_iterations:,}"
    tokens = f"{run.state.num_iterations * batch.total_batch_size:,}"
    if config.time_budget_s is not None:
        steps = tokens = f"as many as fit in {duration(config.time_budget_s)}"
    if not config.dry_run:
        say(f"{run.tag}: {model.num_params():,} parameters, {device}; {shape}")
        return
    for name, value in (
        ("stage", run.stage.title),
        ("model_tag", run.tag),
        ("data", run.data),
        ("parameters", f"{model.num_params():,}"),
        ("vocab_size", f"{model.vocab_size:,}"),
        ("batch", shape),
        ("num_iterations", steps),
        ("tokens", tokens),
        ("memory_gb", f"about {needed / 1e9:.1f} and torch itself"),
        ("device", device),
    ):
        say(f"{name}: {value}")


def check_room(run: StageRun) -> None:
    """Look before the first step whether disk and memory will do.

    Raises UserError where the disk can't hold what will be saved. Memory is an estimate, so it
    only warns.
    """
    model, rows = run.model.config, run.batch.device_batch_size
    # Weights and up to two moments of each, for the steps that are kept and the one being written.
    checkpoint = 4 * 3 * model.num_params()
    storage.check_space(
        checkpoints.stage_folder(run.kind) / run.tag,
        (checkpoints.KEPT_STEPS + 1) * checkpoint,
    )
    if run.device.type == "cuda":
        free = torch.cuda.mem_get_info()[0]
    else:
        free = psutil.virtual_memory().available
    needed = model.training_bytes(rows, run.device.type, run.device.dtype.itemsize)
    if needed > free:
        say(
            f"training needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: close "
            f"other programs, or {TOO_LARGE}"
        )


@torch.no_grad()
def mean_loss(run: StageRun, rows: Iterator[Row]) -> float:
    """Loss in nats per supervised token over eval_tokens of rows; NaN if none is supervised."""
    total, count, read = 0.0, 0, 0
    for batch in batches(rows, run.batch.device_batch_size):
        inputs = batch.inputs.to(run.device.torch)
        total += run.model.loss(inputs, batch.targets.to(run.device.torch)).item()
        count += batch.n_valid
        read += inputs.numel()
        if read >= run.batch.eval_tokens:
            break
    return total / count if count else math.nan


def _budget(run: StageRun) -> TimeBudget | None:
    """The clock of a stage with a time budget; it runs from the start of this process."""
    seconds = run.config.time_budget_s
    if seconds is None:
        return None
    # Save, evaluation and samples after the last step; a guess, generous for a slow disk.
    end_s = min(0.1 * seconds, 3.0 + run.batch.eval_tokens / 4_000)
    budget = TimeBudget(seconds, psutil.Process().create_time(), end_s)
    if run.resumed is not None and run.state.iterations_fixed:
        # The schedule has followed this number: another one would bend the learning rate.
        budget.fixed = run.state.num_iterations
    return budget


def _say_if_not_exact(run: StageRun) -> None:
    """Name what keeps a resumed run from repeating the uninterrupted one bit for bit."""
    now = run.run_time_choices()
    before = run.resumed.state["choices"] if run.resumed else now
    changed = [f"{k} {before.get(k)} -> {v}" for k, v in now.items() if before.get(k) != v]
    if run.resumed and run.device.type != "cpu":
        say(f"resumed on {run.device.type}, where a run repeats up to rounding, not bit for bit")
    if changed:
        say(f"not bit for bit what an uninterrupted run would be: {', '.join(changed)}")
