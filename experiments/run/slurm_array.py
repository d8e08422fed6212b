"""Wait for a SLURM array: its number, its logs and what becomes of it.

Submitit asks sacct, which many clusters do not have, and says nothing while jobs wait. squeue is on
every login node and knows why a job waits.
"""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

ENDED = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "BOOT_FAIL", "DEADLINE"}
ENDED |= {"OUT_OF_MEMORY", "REVOKED", "GONE"}
"""States after which no result comes any more. A preempted or requeued job may start again."""
NEVER = {"PartitionConfig", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints"}
"""Reasons for which a job waits until its owner changes what it asks for."""
PATIENCE = 60.0
"""Seconds before the reason of waiting is told."""
INTERVAL = 30
"""Seconds between two looks at the queue; submitit looks more often in the first minute."""


class QueueWatcher(SlurmInfoWatcher):
    """States of arrays as squeue has them, told when they change."""

    def __init__(self, sweeps: Path):
        super().__init__(delay_s=INTERVAL)
        self._sweeps = sweeps
        self._told: dict[str, str] = {}

    def update(self) -> None:
        """See `submitit.core.core.InfoWatcher.update`."""
        self._last_status_check = time.time()
        for array in self.list_arrays():
            jobs = [job for job in self._registered if job.startswith(f"{array}_")]
            if array not in self._told:
                self._tell(array, self._introduce(array, len(jobs)))
            queue = self._read_queue(array)
            if queue is None:
                continue
            for job in jobs:
                state, reason = queue.get(job, ("GONE", ""))
                self._info_dict[job] = {"State": state, "Reason": reason}
                if state in ENDED:
                    self._finished.add(job)
            self._tell(array, self._summarize([self._info_dict[job] for job in jobs]))

    def is_done(self, job_id: str, mode: str = "standard") -> bool:
        """See `submitit.core.core.InfoWatcher.is_done`."""
        return self.get_state(job_id, mode=mode) in ENDED

    def list_arrays(self) -> list[str]:
        """Return the arrays with jobs that have not ended."""
        left = {job.partition("_")[0] for job in self._registered - self._finished if "_" in job}
        return sorted(left, key=int)

    def describe_rest(self) -> str | None:
        """Return how to go on with the arrays that have not ended; None if all have."""
        arrays = self.list_arrays()
        if not arrays:
            return None
        # Not before: a cell that still runs is not waited for by the next array, but refused.
        named, listed = " ".join(arrays), ",".join(arrays)
        return (
            f"array {named} goes on: `squeue -j {listed}` shows it, `scancel {named}` stops it; "
            "when it has ended, the same command prints the table and runs what is missing"
        )

    def _introduce(self, array: str, cells: int) -> str:
        folders = self._sweeps.glob(f"*/.submitit/{array}_0")
        newest = max(folders, key=lambda path: path.stat().st_mtime, default=None)
        logs = "" if newest is None else f", logs in {newest.parent}/{array}_*"
        noun = "cell" if cells == 1 else "cells"
        return f"{cells} {noun}{logs}; `squeue -j {array}` shows it, `scancel {array}` stops it"

    def _summarize(self, jobs: list[dict[str, str]]) -> str:
        """Return "1 of 4 done, 1 running, 2 waiting"; later with the reasons of waiting."""
        counts = Counter(job["State"] for job in jobs)
        done, waiting = counts.pop("COMPLETED", 0) + counts.pop("GONE", 0), counts.pop("PENDING", 0)
        parts = [f"{done} of {len(jobs)} done"]
        parts += [f"{count} {state.lower()}" for state, count in sorted(counts.items())]
        reasons = sorted({job["Reason"] for job in jobs if job["State"] == "PENDING"} - {"None"})
        if waiting and reasons and time.time() - self._start_time >= PATIENCE:
            parts.append(f"{waiting} waiting ({', '.join(reasons)})")
            if NEVER & set(reasons):
                parts[-1] += (
                    ": no node of the partition has what a cell asks for by "
                    "hydra.launcher.cpus_per_task, mem_gb, timeout_min or gpus_per_node "
                    "(`sinfo -o '%P %c %m %l %G'` lists nodes)"
                )
        elif waiting:
            parts.append(f"{waiting} waiting")
        return ", ".join(parts)

    def _tell(self, array: str, text: str) -> None:
        if self._told.get(array) != text:
            self._told[array] = text
            print(f"array {array}: {text}", flush=True)

    def _read_queue(self, array: str) -> dict[str, tuple[str, str]] | None:
        """Return state and reason of the jobs that squeue lists; None if it cannot tell."""
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T|%r"]
        try:
            asked = subprocess.run(
                [*command, f"--jobs={array}"], capture_output=True, text=True, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired):
            return None  # the next look is soon
        if asked.returncode and "Invalid job id" not in asked.stderr:
            return None
        rows = [line.split("|", 2) for line in asked.stdout.splitlines()]
        return {job.strip(): (state, reason) for job, state, reason in rows}


def watch_queue(output: Path) -> QueueWatcher:
    """Let submitit's jobs be watched by squeue from now on.

    Args:
        output: folder of all runs.
    """
    watcher = QueueWatcher(output / ".sweeps")
    SlurmJob.watcher = watcher
    return watcher
