"""The report of a run: a verdict in plain words, then every figure, with plots.

It reads plans, checkpoints' state and metrics; it neither trains nor measures, so it can be written
at any time, for a finished run or an interrupted one.
"""

from __future__ import annotations

import itertools
import os
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nanochat.evals import core_tasks
from nanochat.run import records
from nanochat.run.records import SOME_ANSWERS
from nanochat.stages import CHECKPOINTS, STAGES, TRAINED
from nanochat.system import storage
from nanochat.system.errors import UserError
from nanochat.system.log import counted, duration, say
from nanochat.tasks import GUESSING, chatcore_name
from nanochat.training import checkpoint_manager as checkpoints

# Share of held-out questions answered, at least -> what that means, in words.
VERDICTS = (
    (0.85, "It answers nearly all simple questions about its small world."),
    (0.6, "It answers most simple questions about its small world, and gets others wrong."),
    (SOME_ANSWERS, "It answers some simple questions and guesses the rest."),
    (0.0, "It mostly guesses. Longer training helps: TIME_BUDGET=20m bash dev/runcpu.sh"),
)
# What chat_eval measures besides tinyworld's kinds.
OTHER_FIGURES = ("mean", "repetition", "chatcore", "chatcore_tasks", *GUESSING)


def write(tag: str, copy: Path | None = None) -> Path:
    """Write report/report.md and its plots; returns its path. `copy` gets the text as well."""
    folder = storage.ensure_folder(storage.base_dir() / "report")
    plots = draw(tag, folder)
    text = "\n".join(lines(tag, plots))
    storage.write_text(folder / "report.md", text)
    if copy is not None:
        storage.write_text(copy, text.replace("](", f"]({folder}/"))
    return folder / "report.md"


def lines(tag: str, plots: dict[str, str]) -> Iterator[str]:
    """The report, line by line; plots: file names by what they show."""
    yield f"# nanochat {tag}"
    yield ""
    yield from verdict(tag)
    yield from _plan_and_machine(tag)
    yield from _stages(tag, plots)
    yield from _samples(tag)
    yield from _base_figures(tag)
    yield from _chat_figures(tag, plots)
    yield from _time(tag)


# ---- in words ------------------------------------------------------------------------------------


def verdict(tag: str) -> Iterator[str]:
    """The first lines: whether the run is finished, and whether the model is any good."""
    if unfinished := records.unfinished(tag):
        last = records.last_checkpoint(unfinished[0], tag)
        where = f"at step {last.step} of {last.state['num_iterations']}" if last else "not started"
        yield f"**This run is not finished**: {unfinished[0].title}, {where}."
        yield f"Continue it with `MODEL_TAG={tag} bash dev/continue_training.sh`."
        yield ""
    read = f"It has read {records.tokens_read(tag) / 1e6:.1f} M tokens."
    if records.is_smoke_test(tag):
        read += " That is a smoke test: every stage works, but the model has seen next to nothing."
    found = records.measured("chat_eval", tag)
    if found is None:
        yield f"{read} Not evaluated yet."
    else:
        yield f"**It answered {found['mean']:.0%} of the questions held out from its training.**"
        yield next(words for least, words in VERDICTS if found["mean"] >= least)
        if found.get("repetition", 0) > 0.05:
            yield f"It repeats itself in {found['repetition']:.0%} of its answers."
        yield f"{read} It knows nothing else, however confident it sounds."
    yield ""


def _plan_and_machine(tag: str) -> Iterator[str]:
    found = [c for s in TRAINED if (c := records.last_checkpoint(s, tag))]
    states = [checkpoint.state for checkpoint in found]
    yield "## Machine and plan"
    yield ""
    if states:
        choices = states[-1]["choices"]
        yield f"- machine: {states[-1]['machine']}, {os.cpu_count()} cores"
        yield (
            f"- torch {choices['torch']} on {choices['device']}, {choices['dtype']}, "
            f"{'compiled' if choices['compile'] else 'not compiled'}, {choices['threads']} threads"
        )
        yield f"- code: {states[-1]['git_commit'] or 'no git commit'}"
    if records.plan_path(tag).exists():
        recipe = records.read_plan(tag).recipe
        for name in ("driver", "data", "data_shards", "run_budget_s", "memory_gb"):
            if value := getattr(recipe, name):
                yield f"- {name}: {value}"
    if states:
        model, batch = states[0]["model"], states[0]["batch"]
        yield (
            f"- model: depth {model['depth']}, vocabulary {model['vocab_size']:,}, "
            f"context {model['max_seq_len']}, {found[0].model_config().num_params():,} parameters"
        )
        rows = counted(batch["device_batch_size"], "row")
        yield f"- batch: {rows} at once, {batch['total_batch_size']:,} tokens per step"
    yield ""


# ---- figures -------------------------------------------------------------------------------------


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _stages(tag: str, plots: dict[str, str]) -> Iterator[str]:
    rows = []
    for stage in TRAINED:
        lines = records.metrics_of(stage.checkpoint or "", tag)
        steps = [r for r in lines if "loss" in r]
        if not steps:
            continue
        held_out = "not measured"
        if evals := [r for r in lines if r.get("eval")]:
            found = ", ".join(f"{name} {value:.4f}" for name, value in evals[-1]["eval"].items())
            # The last evaluation may have failed: then this is an earlier one's.
            at = evals[-1]["step"]
            held_out = found if at == steps[-1]["step"] else f"{found} (at step {at:,})"
        rows.append(
            (
                stage.title,
                f"{steps[-1]['step']:,} of {steps[-1]['num_iterations']:,}",
                f"{steps[-1]['tokens']:,}",
                duration(sum(r["step_s"] for r in steps)),
                f"{statistics.median(r['tokens_per_s'] for r in steps):,.0f}",
                f"{statistics.mean(r['loss'] for r in steps[-10:]):.3f}",
                held_out,
                f"{max(r['memory_bytes'] for r in steps) / 1e9:.1f} GB",
            )
        )
    if not rows:
        return
    yield "## Training"
    yield ""
    head = ("stage", "steps", "tokens", "time", "tokens/s", "loss", "held out", "memory")
    yield from _table(head, rows)
    if "loss" in plots:
        yield f"![loss by step]({plots['loss']})"
        yield ""


def _samples(tag: str) -> Iterator[str]:
    found = [
        (stage.title, record["samples"])
        for stage in TRAINED
        for record in records.metrics_of(stage.checkpoint or "", tag)[-1:]
        if record.get("samples")
    ]
    if not found:
        return
    yield "## Sample outputs (not cherry-picked)"
    yield ""
    for name, samples in found:
        yield f"After {name}:"
        yield ""
        for prompt, answer in samples:
            yield f"- {_plain(prompt)} → {_plain(answer)}"
        yield ""


def _plain(text: str) -> str:
    """A model's text on one line, with nothing left that Markdown or HTML would act on."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#!" else c for c in " ".join(text.split()))
    return escaped or "(empty)"


def _base_figures(tag: str) -> Iterator[str]:
    found = records.measured("base_eval", tag)
    if found is None:
        return
    yield "## The base model"
    yield ""
    for name in ("train_bpb", "val_bpb"):
        if name in found:
            yield f"- {name.removesuffix('_bpb')}: {found[name]:.4f} bits per byte"
    core = {k[5:]: v for k, v in found.items() if k.startswith("core_") and k != "core_tasks"}
    if "core" in found:
        name = core_tasks.name(int(found["core_tasks"]))
        yield f"- {name}: {found['core']:.4f} (0 is guessing, 1 is perfect)"
    yield ""
    if core:
        rows = [(name, f"{value:.3f}") for name, value in sorted(core.items())]
        yield from _table(("task", "centered"), rows)


def _chat_figures(tag: str, plots: dict[str, str]) -> Iterator[str]:
    found = records.measured("chat_eval", tag)
    if found is None:
        return
    kinds = {k: v for k, v in found.items() if k not in OTHER_FIGURES}
    yield "## Held-out questions"
    yield ""
    yield (
        f"Mean over kinds: {found['mean']:.1%}. Answers that repeat themselves "
        f"(the same four words twice): {found['repetition']:.1%}."
    )
    yield ""
    if "kinds" in plots:
        yield f"![right answers by kind]({plots['kinds']})"
        yield ""
    rows = [(name.replace("_", " "), f"{value:.0%}") for name, value in _sorted(kinds)]
    yield from _table(("kind", "right"), rows)
    tasks = [
        (task, f"{found[task]:.1%}", f"{g:.0%}") for task, g in GUESSING.items() if task in found
    ]
    if "chatcore" in found:
        name = chatcore_name(int(found["chatcore_tasks"]))
        yield f"{name}: {found['chatcore']:.4f} (0 is guessing, 1 is perfect)."
        yield ""
    if tasks:
        yield from _table(("task", "right", "guessing"), tasks)


def _sorted(shares: dict[str, float]) -> list[tuple[str, float]]:
    return sorted(shares.items(), key=lambda item: (-item[1], item[0]))


def _time(tag: str) -> Iterator[str]:
    if not records.plan_path(tag).exists():
        return
    stretches = [w for w in records.worked(tag) if w.stage != "report"]
    if not stretches:
        return
    titles = {stage.name: stage.title for stage in STAGES}
    yield "## Time"
    yield ""
    rows = [
        (
            titles[work.stage],
            time.strftime("%d %b %H:%M", time.localtime(work.started)),
            duration(work.seconds),
        )
        for work in stretches
    ]
    total = sum(work.seconds for work in stretches)
    yield from _table(("stage", "started", "took"), [*rows, ("all", "", duration(total))])
    breaks = [
        (before, after)
        for before, after in itertools.pairwise(stretches)
        if before.session != after.session
    ]
    for before, after in breaks:
        yield (
            f"Interrupted in {titles[before.stage]}; continued "
            f"{duration(after.started - before.ended)} later."
        )
    if not breaks:
        yield "No interruptions."
    yield ""


# ---- plots ---------------------------------------------------------------------------------------


def draw(tag: str, folder: Path) -> dict[str, str]:
    """Draw the plots; returns file names by what they show. Without matplotlib: none."""
    # matplotlib would keep its cache in the home folder.
    os.environ.setdefault("MPLCONFIGDIR", str(folder / ".matplotlib"))
    if find_spec("matplotlib") is None:
        say("matplotlib is not installed, so the report has no plots")
        return {}
    plots = {}
    if losses := _losses(tag):
        plots["loss"] = f"{tag}_loss.svg"
        _draw_losses(losses, folder / plots["loss"])
    found = records.measured("chat_eval", tag)
    if kinds := {k: v for k, v in (found or {}).items() if k not in OTHER_FIGURES}:
        plots["kinds"] = f"{tag}_kinds.svg"
        _draw_kinds(_sorted(kinds), folder / plots["kinds"])
    shutil.rmtree(folder / ".matplotlib", ignore_errors=True)
    return plots


def _losses(tag: str) -> dict[str, list[dict[str, Any]]]:
    found = {}
    for stage in TRAINED:
        steps = [r for r in records.metrics_of(stage.checkpoint or "", tag) if "loss" in r]
        if steps:
            found[stage.title] = steps
    return found


def _draw_losses(losses: dict[str, list[dict[str, Any]]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.6 * len(losses), 2.8), layout="constrained")
    axes = figure.subplots(1, len(losses), squeeze=False)
    for axis, (name, lines) in zip(axes[0], losses.items(), strict=True):
        steps, values = [r["step"] for r in lines], [r["loss"] for r in lines]
        axis.plot(steps, values, color="#9db8d9", linewidth=0.8)
        axis.plot(steps, _smoothed(values), color="#1f4e8c", linewidth=1.6)
        axis.set_title(name, fontsize=10)
        axis.set_xlabel("steps", fontsize=9)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("loss, nats per token", fontsize=9)
    figure.savefig(path)


def _smoothed(values: list[float]) -> list[float]:
    """Mean of the last twentieth of the run up to each value.

    >>> _smoothed([4.0, 2.0])
    [4.0, 2.0]
    """
    width = max(1, len(values) // 20)
    windows = (values[max(0, i + 1 - width) : i + 1] for i in range(len(values)))
    return [statistics.fmean(window) for window in windows]


def _draw_kinds(kinds: list[tuple[str, float]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.5, 0.6 + 0.22 * len(kinds)), layout="constrained")
    axis = figure.subplots()
    names = [name.replace("_", " ") for name, _ in reversed(kinds)]
    axis.barh(names, [100 * share for _, share in reversed(kinds)], color="#1f4e8c", height=0.7)
    axis.set_xlim(0, 100)
    axis.set_xlabel("right answers to held-out questions, %", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def newest_tag() -> str:
    """The tag of the newest model. Raises UserError where none exists."""
    found = [c for kind in CHECKPOINTS for c in checkpoints.find_all(kind)]
    if found:
        return max(found, key=lambda c: c.age).tag
    raise UserError(f"nothing to report in {storage.base_dir()} yet: start with bash dev/runcpu.sh")
