"""Speed of the engine, against the frozen model, LoRA and PEFT's own FourierFT."""

import os

# Read once, when torch is imported: threads that spin for work falsify a shared machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
