"""Write the report of a run again. `python -m scripts.report`"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from nanochat.system import cli


@dataclass(frozen=True)
class Config:
    """Write report/report.md: what came out of a run, in words, figures and plots."""

    model_tag: Annotated[str | None, tyro.conf.arg(aliases=["-g"])] = None
    """which model (default: the newest)"""
    copy: Path | None = None
    """write the text to this file, too"""
    log_file: Path | None = None
    """append everything that is said to this file, too"""


def main(config: Config) -> None:
    """Write it and say where it is."""
    from nanochat import report
    from nanochat.system import log

    log.log_to(config.log_file)
    tag = config.model_tag or report.newest_tag()
    path = report.write(tag, config.copy)
    log.say(f"the report is in {config.copy or path}")


if __name__ == "__main__":
    cli.run(main, Config, "python -m scripts.report")
