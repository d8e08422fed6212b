"""Many adapters on one base model: time of a batch, memory and loading, against PEFT's LoRA."""
