"""Fine-tune a language model on prompts and answers with TRL's SFTTrainer.

    pip install trl
    python examples/train_sft.py pairs.jsonl --base HuggingFaceTB/SmolLM2-135M-Instruct

A line of the file is {"prompt": "...", "completion": "..."}; the loss is of completions alone.
"""

import argparse

from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

import fourierft

parser = argparse.ArgumentParser(description="Fine-tune a language model on pairs.")
parser.add_argument("file")
parser.add_argument("--base", default="HuggingFaceTB/SmolLM2-135M-Instruct", help="name or folder")
parser.add_argument("--epochs", type=float, default=3)
parser.add_argument("--out", default="adapter", help="folder for the adapter")
given = parser.parse_args()

trainer = SFTTrainer(
    model=AutoModelForCausalLM.from_pretrained(given.base),
    processing_class=AutoTokenizer.from_pretrained(given.base),
    train_dataset=load_dataset("json", data_files=given.file, split="train"),
    peft_config=fourierft.FourierFTConfig(
        task_type="CAUSAL_LM", n_frequency=1000, scaling=300.0, target_modules=["q_proj", "v_proj"]
    ),
    # There is no head, so one rate is enough: a high one.
    args=SFTConfig(
        "checkpoints", num_train_epochs=given.epochs, learning_rate=3e-2, weight_decay=0.0,
        per_device_train_batch_size=8, logging_strategy="epoch", save_strategy="no", report_to=[],
        use_cpu=False, bf16=False,
    ),
)  # fmt: skip
trainer.train()
trainer.model.save_pretrained(given.out)
print(f"written: {given.out}")
