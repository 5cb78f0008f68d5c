"""What base training, midtraining and SFT have in common: open, train, save, say what came out.

Each stage's script says what its rows are; everything else about a stage is here: which checkpoint
it starts from, batch sizes, resuming, hooks at step boundaries, the last words.
"""

from __future__ import annotations

import math
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import psutil
import torch

from nanochat.conversation import render_prompt
from nanochat.data.dataloader import Ahead, Position, Row, batches
from nanochat.engine import Engine, Sampling
from nanochat.gpt import GPT
from nanochat.system import storage
from nanochat.system.cli import Failure, Interrupted, UserError
from nanochat.system.device import Device, open_device
from nanochat.system.log import Metrics, duration, say
from nanochat.system.memory_profile import BatchSizes, batch_sizes
from nanochat.tokenizer import Tokenizer
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.faults import Diverged
from nanochat.training.loop import LoopConfig, TrainState, train
from nanochat.training.optim import MuonAdamW, schedule
from nanochat.training.runs import TOO_LARGE, TRAINED
from nanochat.training.stage_config import PLANNED, OptimConfig, StageConfig
from nanochat.training.time_budget import TimeBudget

NAMES = {stage.checkpoint: stage.title for stage in TRAINED}
NEXT = {"base": "scripts.mid_train", "mid": "scripts.chat_sft", "sft": "scripts.chat_cli -i sft"}
COMPLETIONS = ("The capital of France is", "The opposite of hot is", "Once there was a")
QUESTIONS = ("What color is the sky?", "What is the opposite of hot?", "Who are you?")
RETRY_SAVE_S, RETRY_LAST_SAVE_S = 60.0, 12 * 3600.0
MOST_ROLLBACKS = 3  # to one and the same step


@dataclass(frozen=True)
class Opened:
    """A stage ready to start: what its script filled in, and what follows from it."""

    stage: str
    tag: str
    config: StageConfig  # with every planned field resolved
    data: str
    optim: OptimConfig
    model: GPT
    tokenizer: Tokenizer
    device: Device
    batch: BatchSizes
    state: TrainState
    resumed: checkpoints.Checkpoint | None


RowsFrom = Callable[[Position | None], Iterator[Row]]
Evaluate = Callable[[], dict[str, float]]


def memory_gb_here() -> int:
    """Physical memory in GB, rounded up to the next multiple of 4 (the kernel keeps a part)."""
    return -(-psutil.virtual_memory().total // 2**30 // 4) * 4


def find_resumable(stage: str, config: StageConfig) -> checkpoints.Checkpoint:
    """The unfinished checkpoint that --resume means. Raises UserError where there is none."""
    newest = checkpoints.find(stage, config.model_tag)
    found = checkpoints.newest_whole(checkpoints.find_all(stage, newest.tag))
    if found is None:
        raise UserError(f"no checkpoint of {stage} {newest.tag} can be resumed: train it again")
    if found.state["finished"]:
        raise UserError(
            f"{stage} {found.tag} is finished (step {found.step}): there is nothing to resume; "
            f"go on with python -m {NEXT[stage]}"
        )
    return found


def resumed_config(config: StageConfig, saved: checkpoints.Checkpoint) -> StageConfig:
    """The saved run's config with this command's run-time choices.

    Raises UserError for a planned field that says otherwise than the saved one.
    """
    before = saved.state["config"]
    defaults = {f.name: f.default for f in fields(config)}
    planned = [name for name in PLANNED if name in defaults]
    said = {
        n: (getattr(config, n), before[n]) for n in planned if getattr(config, n) != defaults[n]
    }
    optim = asdict(config.optim).items()
    said |= {name: (value, before["optim"][name]) for name, value in optim if value is not None}
    for name, (given, has) in said.items():
        if given != has:
            raise UserError(
                f"--{name}={given} can't be changed in a resumed run (it has {has}): "
                "leave it out, or start anew without --resume"
            )
    taken: dict[str, Any] = {name: before[name] for name in planned}
    for name in ("device_batch_size", "dtype", "compile", "eval_every", "eval_tokens"):
        taken[name] = before[name] if getattr(config, name) in (None, 0) else getattr(config, name)
    return replace(config, **taken)


def set_aside(opened: Opened) -> None:
    """Keep an earlier result under this stage and tag: its folder gets a free name, and a line."""
    if opened.resumed is None:
        kept_as = checkpoints.set_aside(opened.stage, opened.tag)
        if kept_as:
            say(f"{opened.stage} {opened.tag} was there already: kept as {kept_as}")


def resolve_batch(config: StageConfig, max_seq_len: int, inherited: int | None) -> BatchSizes:
    """Batch sizes for this stage, with a line for each number that had to be raised."""
    batch = batch_sizes(
        config.memory_gb or memory_gb_here(),
        max_seq_len,
        config.device_batch_size,
        config.total_batch_size,
        config.eval_tokens,
        inherited_total=inherited,
    )
    for note in batch.notes:
        say(note)
    return batch


def print_plan(opened: Opened) -> None:
    """What is about to be done: `name: value` lines for --dry_run, else a line or two."""
    config, model, batch = opened.config, opened.model.config, opened.batch
    length, rows = model.max_seq_len, batch.device_batch_size
    shape = (
        f"{rows} rows x {length} tokens x {batch.grad_accum(length)} micro-batches "
        f"= {batch.total_batch_size:,} tokens a step"
    )
    device = f"{opened.device.type}, {str(opened.device.dtype).removeprefix('torch.')}"
    iterations = f"{config.num_iterations or 0:,}"
    tokens = f"{(config.num_iterations or 0) * batch.total_batch_size:,}"
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
        ("memory_gb", f"about {model.training_bytes(rows) / 1e9:.1f} and torch itself"),
        ("device", device),
    ):
        say(f"{name}: {value}")


def planned_tokens(opened: Opened) -> int | None:
    """Tokens that the stage was to read when it began; None where a time budget decides."""
    if opened.resumed is not None:  # the same conversations again, whatever is said anew
        return opened.resumed.state["planned_tokens"]
    if opened.config.time_budget_s is not None:
        return None
    return (opened.config.num_iterations or 0) * opened.batch.total_batch_size


def run(
    opened: Opened,
    rows_from: RowsFrom,
    evaluate: Evaluate,
    warmup: float = 0.0,
    warmdown: float = 0.2,
) -> None:
    """Train an opened stage to its end. Raises Interrupted after a signal, everything saved."""
    stage, device, state = opened.stage, opened.device, opened.state
    model, length = opened.model, opened.model.config.max_seq_len
    check_room(opened)
    opened, loss_of = checked_compile(opened)
    optimizer = MuonAdamW(model, opened.optim)
    if opened.resumed is not None:
        _restore(optimizer, opened.resumed)
        say(f"resuming {stage} {opened.tag} at step {state.step} of {state.num_iterations}")
        _say_if_not_exact(opened)
    metrics = Metrics(stage, opened.tag, state.step, opened.config.wandb_run)
    stream = Ahead(batches(rows_from(state.position), opened.batch.device_batch_size))
    started = time.monotonic()
    save = _Save(opened, optimizer)
    goes_back = opened.config.on_divergence == "rollback"
    try:
        finished = train(
            loss_of,
            optimizer,
            stream,
            LoopConfig(
                stage,
                opened.batch.grad_accum(length),
                lambda progress: schedule(progress, warmup, warmdown),
                _budget(opened),
                _Rollback(opened, optimizer, metrics) if goes_back else None,
            ),
            state,
            (save, _Evaluate(opened, evaluate), _Sample(opened, metrics)),
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
        at = f"step {save.saved_step} is" if save.saved_step >= 0 else "nothing of it is"
        raise Failure(f"interrupted, and step {state.step} could not be saved; {at} on the disk")
    if not finished:
        raise Interrupted(
            f"interrupted: {stage} {opened.tag} is saved at step {state.step} of "
            f"{state.num_iterations}; continue "
            f"with bash dev/continue_training.sh, or this command with --resume"
        )
    folder = checkpoints.step_folder(stage, opened.tag, state.step)
    say(f"{NAMES[stage]} took {duration(time.monotonic() - started)}; the model is in {folder}")


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
    needed = model.training_bytes(rows)
    if needed > free:
        say(
            f"training needs about {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: close "
            f"other programs, or {TOO_LARGE}"
        )


@torch.no_grad()
def mean_loss(opened: Opened, rows: Iterator[Row]) -> float:
    """Loss in nats a supervised token over eval_tokens of rows."""
    total, count, read = 0.0, 0, 0
    for batch in batches(rows, opened.batch.device_batch_size):
        inputs = batch.inputs.to(opened.device.torch)
        total += opened.model.loss(inputs, batch.targets.to(opened.device.torch)).item()
        count += batch.n_valid
        read += inputs.numel()
        if read >= opened.batch.eval_tokens:
            break
    return total / count


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


def checked_compile(opened: Opened) -> tuple[Opened, Callable[..., torch.Tensor]]:
    """The stage and its loss function; compiled only where that gives what the plain model gives.

    Compilers fail in many ways, and on MPS silently: one batch is computed both ways first.
    """
    model, device = opened.model, opened.device
    if not device.compile:
        return opened, model.loss
    hidden = torch.compile(model.hidden, dynamic=False)
    shape = (opened.batch.device_batch_size, model.config.max_seq_len)
    ids = torch.zeros(shape, dtype=torch.long, device=device.torch)
    say("compiling the model; this takes a minute ...")
    try:
        plain, compiled = model.hidden(ids), hidden(ids)
        torch.testing.assert_close(compiled, plain, rtol=0.05, atol=0.05)
        compiled.sum().backward()
        model.zero_grad(set_to_none=True)
    except Exception as error:  # whatever it is, the plain model works
        say(f"torch.compile does not work here ({type(error).__name__}): going on without it")
        return replace(opened, device=replace(device, compile=False)), model.loss
    return opened, lambda ids, targets: model.loss(ids, targets, hidden)


def _say_if_not_exact(opened: Opened) -> None:
    now = _run_time_choices(opened)
    before = opened.resumed.state["choices"] if opened.resumed else now
    changed = [f"{k} {before.get(k)} -> {v}" for k, v in now.items() if before.get(k) != v]
    if changed:
        say(f"not bit for bit what an uninterrupted run would be: {', '.join(changed)}")


def _run_time_choices(opened: Opened) -> dict[str, Any]:
    device = opened.device
    return {
        "device": device.type,
        "dtype": str(device.dtype).removeprefix("torch."),
        "compile": device.compile,
        "device_batch_size": opened.batch.device_batch_size,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _restore(optimizer: MuonAdamW, saved: checkpoints.Checkpoint) -> None:
    """Optimiser and random state as they were saved."""
    tensors = saved.optimizer_tensors()
    torch.set_rng_state(tensors.pop("random.torch"))
    optimizer.load_state_tensors(tensors)


class _Save:
    """Write a checkpoint: every save_every updates or save_minutes, at the end, when interrupted.

    A write that fails leaves the checkpoints before it, and the run goes on: it is tried again
    after a minute, and after the last step until it succeeds or a signal says to give up.
    """

    def __init__(self, opened: Opened, optimizer: MuonAdamW) -> None:
        self.opened, self.optimizer = opened, optimizer
        self.saved_step = opened.state.step if opened.resumed else -1
        self.minutes = opened.config.save_minutes
        self.next_s = time.monotonic() + 60 * self.minutes if self.minutes else math.inf

    def due(self, step: int, last: bool) -> bool:
        every = self.opened.config.save_every
        by_step = every > 0 and step > 0 and step % every == 0
        by_step |= step == 0 and self.opened.config.on_divergence == "rollback"
        return step != self.saved_step and (last or by_step or time.monotonic() >= self.next_s)

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        if state.step == self.saved_step:
            return {}
        give_up = time.monotonic() + (RETRY_LAST_SAVE_S if last else 0)
        while True:
            try:
                self._write(state, last)
                self.saved_step = state.step
                self.next_s = time.monotonic() + 60 * self.minutes if self.minutes else math.inf
                return {}
            except UserError as error:
                if not last:
                    say(f"step {state.step} is not saved: {error}")
                    self.next_s = time.monotonic() + RETRY_SAVE_S
                    return {}
                if time.monotonic() >= give_up:
                    raise
                say(
                    f"the trained model is not saved yet: {error}. Trying again every "
                    f"{RETRY_SAVE_S:.0f} s; Ctrl-C twice gives up"
                )
                time.sleep(RETRY_SAVE_S)

    def _write(self, state: TrainState, last: bool) -> None:
        opened = self.opened
        config = {
            f.name: getattr(opened.config, f.name)
            for f in fields(opened.config)
            if f.name not in ("optim", "log_file", "resume", "dry_run")
        }
        whole = {
            "stage": opened.stage,
            "tag": opened.tag,
            "time": time.time(),
            "finished": last,
            **asdict(state),
            "model": opened.model.config.to_json(),
            "config": config | {"optim": asdict(opened.optim)},
            "batch": asdict(opened.batch),
            "planned_tokens": planned_tokens(opened),
            "choices": _run_time_choices(opened),
            "tokenizer_sha256": opened.tokenizer.sha256,
            "machine": f"{platform.platform()}, Python {platform.python_version()}",
            "git_commit": _git_commit(),
        }
        tensors = self.optimizer.state_tensors() | {"random.torch": torch.get_rng_state()}
        checkpoints.save(opened.stage, whole, opened.model, opened.tokenizer, tensors)


class _Rollback:
    """After a Diverged: the last checkpoint's weights and optimiser, the data after the batch."""

    def __init__(self, opened: Opened, optimizer: MuonAdamW, metrics: Metrics) -> None:
        self.opened, self.optimizer, self.metrics = opened, optimizer, metrics
        self.times: Counter[int] = Counter()  # that it went back to this step

    def __call__(self, state: TrainState, error: Diverged) -> None:
        opened = self.opened
        found = checkpoints.newest_whole(checkpoints.find_all(opened.stage, opened.tag))
        if found is None or self.times[found.step] == MOST_ROLLBACKS:
            raise error
        self.times[found.step] += 1
        _restore(self.optimizer, found)
        opened.model.load_state_dict(found.model(opened.device).state_dict())
        state.step, state.tokens = found.step, found.state["tokens"]
        state.position = error.position
        self.metrics.roll_back(found.step)
        say(f"diverged at {error}: back to step {found.step}, and past that batch")


class _Evaluate:
    """Measure on held-out data, after the save: a failing evaluation loses nothing."""

    def __init__(self, opened: Opened, evaluate: Evaluate) -> None:
        self.opened, self.evaluate = opened, evaluate

    def due(self, step: int, last: bool) -> bool:
        every = self.opened.config.eval_every
        return last or (every > 0 and step % every == 0)

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        say(f"evaluating {self.opened.stage} at step {state.step} ...")
        found = self.evaluate()
        say("  ".join(f"{name} {value:.4f}" for name, value in found.items()))
        checkpoints.note_best(self.opened.stage, self.opened.tag, state.step, min(found.values()))
        return found


class _Sample:
    """Show what the model says at the end, and keep it for the report."""

    def __init__(self, opened: Opened, metrics: Metrics) -> None:
        self.opened, self.metrics = opened, metrics

    def due(self, step: int, last: bool) -> bool:
        return last

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        opened = self.opened
        engine = Engine(opened.model, opened.tokenizer)
        length = opened.model.config.max_seq_len
        sampling = Sampling(max_new_tokens=24)
        base, samples = opened.stage == "base", []
        for text in COMPLETIONS if base else QUESTIONS:
            if base:
                prompt = [opened.tokenizer.bos, *opened.tokenizer.encode(text)]
            else:
                asked = [{"role": "user", "content": text}]
                try:
                    prompt, _ = render_prompt(asked, opened.tokenizer, length - 1)
                except UserError:  # a context of a few tokens holds no question
                    continue
            if len(prompt) < length:
                answer = " ".join(engine.complete([prompt], sampling)[0].split())
                say(f"  {text} {'...' if base else '->'} {answer}")
                samples.append([text, answer])
        self.metrics.write(step=state.step, eval={}, samples=samples)
        return {}


PARENT = {"mid": "base", "sft": "mid"}


def open_resumed(stage: str, config: StageConfig) -> Opened:
    """An interrupted stage as it stands, to go on with."""
    saved = find_resumable(stage, config)
    config = resumed_config(config, saved)
    device = open_device(config.device_type, config.dtype, config.compile)
    model = saved.model(device)
    batch = resolve_batch(config, model.config.max_seq_len, None)
    names = {f.name for f in fields(TrainState)}
    state = TrainState(**{k: v for k, v in saved.state.items() if k in names})
    optim, data = OptimConfig(**saved.state["config"]["optim"]), saved.state["config"]["data"]
    tokenizer = saved.tokenizer()
    return Opened(
        stage, saved.tag, config, data, optim, model, tokenizer, device, batch, state, saved
    )


def open_next(stage: str, config: StageConfig, default_iterations: int) -> Opened:
    """Midtraining or SFT on the model of the stage before, inheriting what was not given."""
    if config.resume:
        return open_resumed(stage, config)
    parent = checkpoints.find(PARENT[stage], config.model_tag)
    before = parent.state
    if not before["finished"]:
        say(f"{PARENT[stage]} {parent.tag} is not finished: going on from its step {parent.step}")
    device = open_device(config.device_type, config.dtype, config.compile)
    model = parent.model(device)
    if config.max_seq_len is not None:
        model.config = replace(model.config, max_seq_len=config.max_seq_len)
    data = config.data or before["config"]["data"]
    iterations = config.num_iterations or default_iterations
    optim = config.optim.over(OptimConfig(**before["config"]["optim"]))
    config = replace(
        config,
        num_iterations=iterations,
        max_seq_len=model.config.max_seq_len,
        data=data,
        memory_gb=config.memory_gb or before["config"]["memory_gb"],
    )
    if config.device_batch_size is None and config.total_batch_size is None:
        config = replace(config, device_batch_size=before["batch"]["device_batch_size"])
    inherited_total = before["batch"]["total_batch_size"]
    batch = resolve_batch(config, model.config.max_seq_len, inherited_total)
    config = replace(config, total_batch_size=batch.total_batch_size)
    state, tokenizer = TrainState(iterations), parent.tokenizer()
    return Opened(
        stage, parent.tag, config, data, optim, model, tokenizer, device, batch, state, None
    )
