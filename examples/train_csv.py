"""Fine-tune a classifier on a CSV file with transformers' Trainer.

    python examples/train_csv.py reviews.csv --text review --label sentiment

The file has a column of texts and one of labels, words or numbers. A fifth of the rows is held out.
With few rows take more --epochs: coefficients need about a hundred steps, 80 rows give two each.
"""

import argparse

import numpy as np
import torch
from datasets import load_dataset
from peft import get_peft_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
)

import fourierft

parser = argparse.ArgumentParser(description="Fine-tune a classifier on a CSV file.")
parser.add_argument("file")
parser.add_argument("--text", default="text", help="column of the texts")
parser.add_argument("--label", default="label", help="column of the labels")
parser.add_argument(
    "--base", default="FacebookAI/roberta-base", help="name on the hub, or a folder"
)
parser.add_argument("--epochs", type=float, default=3)
parser.add_argument("--out", default="adapter", help="folder for the adapter")
given = parser.parse_args()

rows = load_dataset("csv", data_files=given.file, split="train").class_encode_column(given.label)
names = rows.features[given.label].names
tokenizer = AutoTokenizer.from_pretrained(given.base)
rows = rows.map(
    lambda row: {**tokenizer(row[given.text], truncation=True), "labels": row[given.label]},
    remove_columns=rows.column_names,
)
parts = rows.train_test_split(test_size=0.2, seed=0)

base = AutoModelForSequenceClassification.from_pretrained(
    given.base, num_labels=len(names), label2id={name: i for i, name in enumerate(names)},
    id2label=dict(enumerate(names)),
)  # fmt: skip
config = fourierft.FourierFTConfig(
    task_type="SEQ_CLS", n_frequency=1000, scaling=150.0, target_modules=["query", "value"]
)
net = get_peft_model(base, config)
net.print_trainable_parameters()

# The head learns at a usual rate, the coefficients at a much higher one.
trained = [(name, value) for name, value in net.named_parameters() if value.requires_grad]
rates = [
    {"params": [value for name, value in trained if "fourierft" in name], "lr": 5e-2},
    {"params": [value for name, value in trained if "fourierft" not in name], "lr": 1e-3},
]
trainer = Trainer(
    net,
    TrainingArguments(
        "checkpoints", num_train_epochs=given.epochs, per_device_train_batch_size=32,
        eval_strategy="epoch", logging_strategy="epoch", save_strategy="no", report_to=[],
    ),
    train_dataset=parts["train"],
    eval_dataset=parts["test"],
    data_collator=DataCollatorWithPadding(tokenizer),
    optimizers=(torch.optim.AdamW(rates, weight_decay=0.0), None),
    compute_metrics=lambda one: {"accuracy": np.mean(one.predictions.argmax(-1) == one.label_ids)},
)  # fmt: skip
trainer.train()
accuracy = trainer.evaluate()["eval_accuracy"]
net.save_pretrained(given.out)
print(f"accuracy on {len(parts['test'])} held-out rows: {accuracy:.3f}; written: {given.out}")
