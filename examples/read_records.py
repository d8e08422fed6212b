"""Read the records of finished runs: scores, parameters and curves.

    python examples/read_records.py outputs

Records are plain JSON, so nothing of this project is needed to read them.
"""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
records = sorted(folder.rglob("metrics.json"))
if not records:
    sys.exit(f"no finished run in {folder}: `python train.py` makes one in seconds")
for path in records:
    record = json.loads(path.read_text(encoding="utf-8"))
    run, score = record["run"], (record["metrics"] or {}).get("primary")
    if score is None:  # only counted, or without a score of its own
        continue
    print(path.parent.relative_to(folder))
    interval = [round(bound, 4) for bound in score["interval"] or ()]
    print(f"  {score['name']} {score['value']:.4f} {interval}, {score['select']} epoch")
    seconds = record["time"]["train_s"]
    print(f"  {record['parameters']['adapter']:,} parameters in the adapter, {seconds:.1f} s")

    curve = [json.loads(line) for line in (path.parent / "history.jsonl").open(encoding="utf-8")]
    losses = [(one["epoch"], one["train/loss"]) for one in curve if "train/loss" in one]
    if losses:
        (_, first), (epochs, last) = losses[0], losses[-1]
        print(f"  training loss {first:.4f} to {last:.4f} in {epochs:g} epochs")
