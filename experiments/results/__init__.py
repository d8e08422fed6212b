"""Run folders and their files: location, lock, record, history, predictions.

A run folder holds config.yaml, history.jsonl, predictions/, adapter/, run.log and, written last,
metrics.json: it exists if and only if the run finished. A failed run leaves failure.json instead.
"""
