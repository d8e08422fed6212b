"""Read the records of finished runs: scores, parameters and curves.

    python examples/read_records.py outputs

Records are plain JSON, so nothing of this project is needed to read them.
"""

import json
import sys
from pathlib import Path

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs")
for path in sorted(folder.rglob("metrics.json")):
    record = json.loads(path.read_text(encoding="utf-8"))
    run, score = record["run"], (record["metrics"] or {}).get("primary")
    if score is None:  # only counted, or without a score of its own
        continue
    low, high = score["interval"] or (None, None)
    print(path.parent.relative_to(folder))
    print(f"  {score['name']} {score['value']} [{low}, {high}], {score['select']} epoch")
    print(f"  {record['parameters']['adapter']:,} parameters, {record['time']['train_s']} s")

    curve = [json.loads(line) for line in (path.parent / "history.jsonl").open(encoding="utf-8")]
    losses = [(one["epoch"], one["train/loss"]) for one in curve if "train/loss" in one]
    if losses:
        (_, first), (epochs, last) = losses[0], losses[-1]
        print(f"  training loss {first:.4f} to {last:.4f} in {epochs:g} epochs")
