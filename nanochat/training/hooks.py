"""What happens between two steps of a stage: save, evaluate, sample, roll back."""

from __future__ import annotations

import math
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, fields

from nanochat.conversation import render_prompt
from nanochat.engine import Engine
from nanochat.sampling import Sampling
from nanochat.system import cli
from nanochat.system.errors import Failure, UserError
from nanochat.system.log import Metrics, say
from nanochat.training import checkpoint_manager as checkpoints
from nanochat.training.faults import Diverged
from nanochat.training.loop import TrainState
from nanochat.training.optim import MuonAdamW
from nanochat.training.signals import Signals
from nanochat.training.stage_run import StageRun

COMPLETIONS = ("The capital of France is", "The opposite of hot is", "Once there was a")
QUESTIONS = ("What color is the sky?", "What is the opposite of hot?", "Who are you?")
RETRY_SAVE_S, RETRY_LAST_SAVE_S = 60, 12 * 3600
MAX_ROLLBACKS = 3  # to one and the same step


class Save:
    """Write a checkpoint: every save_every steps or save_minutes, at the end, when interrupted.

    A write that fails leaves the checkpoints before it intact, and training continues; the next
    try comes after a minute. After the last step it keeps trying for a night, in which somebody
    may free some space, or until a signal comes.
    """

    def __init__(self, run: StageRun, optimizer: MuonAdamW, signals: Signals) -> None:
        self.run, self.optimizer, self.signals = run, optimizer, signals
        self.saved_step = run.state.step if run.resumed else -1
        minutes = run.settings.save_minutes
        self.every_s = 60 * minutes if minutes else math.inf
        self.next_s = time.monotonic() + self.every_s

    def due(self, step: int, last: bool) -> bool:
        every = self.run.settings.save_every
        by_step = every > 0 and step > 0 and step % every == 0
        # A rollback needs a checkpoint to go back to, from the very first step on.
        by_step |= step == 0 and self.run.settings.on_divergence == "rollback"
        return step != self.saved_step and (last or by_step or time.monotonic() >= self.next_s)

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        if state.step == self.saved_step:
            return {}
        give_up = time.monotonic() + (RETRY_LAST_SAVE_S if last else 0)
        while True:
            try:
                self._write(state, last)
                self.saved_step = state.step
                self.next_s = time.monotonic() + self.every_s
                return {}
            except UserError as error:
                # In the middle of a run the next save is minutes away; after the last step this is
                # the only one, and hours of work hang on it.
                if not last:
                    say(f"step {state.step} is not saved: {error}")
                    self.next_s = time.monotonic() + RETRY_SAVE_S
                    return {}
                say(f"the trained model is not saved yet: {error}")
                if not self.signals and time.monotonic() < give_up:
                    say(f"Trying again every {RETRY_SAVE_S} s; Ctrl-C or a kill gives up.")
                    self.signals.unless_noted(lambda: time.sleep(RETRY_SAVE_S))
                if self.signals or time.monotonic() >= give_up:
                    raise Failure(self.last_saved(state.step)) from None

    def last_saved(self, step: int) -> str:
        """After a save of this step failed: what is lost, and what is not."""
        on_disk = f"step {self.saved_step} is" if self.saved_step >= 0 else "nothing is"
        return f"step {step} could not be saved; {on_disk} on the disk"

    def _write(self, state: TrainState, last: bool) -> None:
        run = self.run
        # Neither is a property of the run: where it logs, and how this command was meant.
        config = {
            f.name: getattr(run.config, f.name)
            for f in fields(run.config)
            if f.name not in ("optim", "log_file", "resume", "dry_run")
        }
        whole = {
            "stage": run.kind,
            "tag": run.tag,
            "time": time.time(),
            "finished": last,
            **asdict(state),
            "model": run.model.config.to_json(),
            "config": config | asdict(run.settings) | {"optim": asdict(run.optim)},
            "batch": asdict(run.batch),
            "planned_tokens": run.planned_tokens,
            "choices": run.run_time_choices(),
            "machine": f"{platform.platform()}, Python {platform.python_version()}",
            "git_commit": _git_commit(),
        }
        tensors = self.optimizer.state_tensors()
        checkpoints.save(run.kind, whole, run.model, run.tokenizer, tensors)


def _failed(what: str, error: Exception, run: StageRun) -> dict[str, float]:
    """Say it in a line: a measurement on the way must not end a training run."""
    reason = (str(error).splitlines() or [""])[0]
    kept = cli.keep_traceback(run.kind)
    say(f"{what} failed; training is not affected: {type(error).__name__}: {reason}{kept}")
    return {}


class Evaluate:
    """Measure on held-out data, after the save; a failure or a NaN is left out."""

    def __init__(self, run: StageRun, evaluate: Callable[[], dict[str, float]]) -> None:
        self.run, self.evaluate = run, evaluate

    def due(self, step: int, last: bool) -> bool:
        every = self.run.settings.eval_every
        return last or (every > 0 and step % every == 0)

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        run, what = self.run, f"evaluating {self.run.kind} at step {state.step}"
        say(f"{what} ...")
        try:
            found = self.evaluate()
            say("  ".join(f"{name} {value:.4f}" for name, value in found.items()))
            # JSON has no NaN, and the best checkpoint can't be found by one.
            found = {name: value for name, value in found.items() if math.isfinite(value)}
            if found:
                checkpoints.note_best(run.kind, run.tag, state.step, min(found.values()))
            return found
        except Exception as error:
            found = _failed(what, error, run)
        # Not inside the except: the exception keeps alive what had been computed.
        run.device.empty_cache()
        return found


class Sample:
    """Show what the model says at the end, and keep it for the report."""

    def __init__(self, run: StageRun, metrics: Metrics) -> None:
        self.run, self.metrics = run, metrics

    def due(self, step: int, last: bool) -> bool:
        return last

    def __call__(self, state: TrainState, last: bool) -> dict[str, float]:
        try:
            self.metrics.write(step=state.step, eval={}, samples=self.samples())
        except Exception as error:
            _failed(f"sampling from {self.run.kind}", error, self.run)
        return {}

    def samples(self) -> list[list[str]]:
        """[text, what the model says] of some texts; prints each as well."""
        run = self.run
        engine = Engine(run.model, run.tokenizer)
        length = run.model.config.max_seq_len
        sampling = Sampling(max_new_tokens=24, min_confidence=0)
        # A base model has never seen the marks of a conversation: it gets plain text to continue.
        base, samples = run.kind == "base", []
        for text in COMPLETIONS if base else QUESTIONS:
            if base:
                prompt = [run.tokenizer.bos, *run.tokenizer.encode(text)]
            else:
                asked = [{"role": "user", "content": text}]
                try:
                    prompt, _ = render_prompt(asked, run.tokenizer, length - 1)
                except UserError:  # a context of a few tokens has no room for a question
                    continue
            if len(prompt) < length:
                answer = " ".join(engine.complete([prompt], sampling)[0].split())
                say(f"  {text} {'...' if base else '->'} {answer}")
                samples.append([text, answer])
        return samples


class Rollback:
    """After a Diverged: back to the last checkpoint's weights and optimizer, but not to its data.

    The data continue after the bad batch: from the same place the run would diverge again.
    """

    def __init__(self, run: StageRun, optimizer: MuonAdamW, metrics: Metrics, save: Save) -> None:
        self.run, self.optimizer, self.metrics, self.save = run, optimizer, metrics, save
        self.times: Counter[int] = Counter()  # step -> how often the run went back to it

    def __call__(self, state: TrainState, error: Diverged) -> None:
        run = self.run
        found = checkpoints.newest_whole(checkpoints.find_all(run.kind, run.tag))
        if found is None or self.times[found.step] == MAX_ROLLBACKS:
            raise error
        self.times[found.step] += 1
        # Weights and momenta go back; the position does not, and neither does the guard's memory.
        restore(self.optimizer, found)
        run.model.load_state_dict(found.model(run.device).state_dict())
        state.step, state.tokens = found.step, found.state["tokens"]
        state.position = error.position
        self.save.saved_step = found.step  # a later one is damaged, or of what was taken back
        self.metrics.roll_back(found.step)
        say(f"diverged at {error}: back to step {found.step}, skipping that batch")


def restore(optimizer: MuonAdamW, saved: checkpoints.Checkpoint) -> None:
    """The optimizer as it was saved. (Nothing draws from torch's global generator.)"""
    optimizer.load_state_tensors(saved.optimizer_tensors())


def _git_commit() -> str | None:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
