"""Names of tasks, metrics, methods and base models as pages and plots write them."""

from __future__ import annotations

from experiments.report.comparison import reference

TASKS = {
    **{"mnli": "MNLI", "qqp": "QQP", "e2e": "E2E NLG", "dreambooth": "DreamBooth"},
    **{"alpaca": "Alpaca", "alpaca_cleaned": "Alpaca-Cleaned", "toy": "Figure 7's toy"},
    **{"oxford_pets": "OxfordPets", "stanford_cars": "StanfordCars", "cifar10": "CIFAR-10"},
    **{"dtd": "DTD", "eurosat": "EuroSAT", "fgvc": "FGVC", "resisc45": "RESISC45"},
    "cifar100": "CIFAR-100",
}
"""Tasks beside those that Table 2 names."""
METRICS = {
    **{"accuracy": "Accuracy", "matthews": "Matthews", "f1": "F1", "pearson": "Pearson"},
    **{"spearman": "Spearman", "cross_entropy": "Cross entropy", "fid": "FID"},
    **{"bleu": "BLEU", "nist": "NIST", "meteor": "METEOR", "rouge_l": "ROUGE-L", "cider": "CIDEr"},
}
METHODS = {
    **{"fourierft": "FourierFT", "lora": "LoRA", "full": "Full fine-tuning", "dora": "DoRA"},
    **{"bitfit": "BitFit", "linear_probe": "Linear probe", "adalora": "AdaLoRA"},
    **{"dylora": "DyLoRA", "olora": "OLoRA", "vera": "VeRA", "vblora": "VB-LoRA", "c3a": "C3A"},
    **{"waveft": "WaveFT", "unilora": "Uni-LoRA", "lora_all": "LoRA, all layers"},
    **{"houlsby": "Adapter (Houlsby)", "pfeiffer": "Adapter (Pfeiffer)", "lin": "Adapter (Lin)"},
    "adapterdrop": "AdapterDrop",
}
MODELS = {
    **{"roberta_base": "RoBERTa-base", "roberta_large": "RoBERTa-large", "gpt2": "GPT-2"},
    **{"gpt2_medium": "GPT-2 Medium", "gpt2_large": "GPT-2 Large", "vit_base": "ViT-Base"},
    **{"vit_large": "ViT-Large", "vit_s": "ViT-S/14", "minilm": "MiniLM", "mlp": "MLP"},
    **{"smollm2_135m": "SmolLM2-135M", "llama1_7b": "LLaMA-1 7B", "llama1_13b": "LLaMA-1 13B"},
    **{"llama2_7b": "LLaMA-2 7B", "llama2_13b": "LLaMA-2 13B", "sd15": "Stable Diffusion 1.5"},
}


def name_task(task: str) -> str:
    """Return a task's name, its own where no other is known: SST-2 for sst2."""
    known = TASKS | dict(reference.load("table2")["names"])
    return known.get(task, task)


def name_metric(metric: str | None, scale: float = 1) -> str:
    """Return the label of a metric's axis or column: Accuracy (%) for accuracy times 100."""
    name = METRICS.get(metric or "", metric or "")
    if scale == 1 or not name:
        return name
    return f"{name} (%)" if metric in ("accuracy", "f1") else f"{name} x {scale:g}"


def name_method(method: str) -> str:
    """Return a method's name, its own where no other is known: LoRA for lora."""
    return METHODS.get(method, method)


def name_model(model: str) -> str:
    """Return a base model's name, its own where no other is known: MiniLM for minilm."""
    return MODELS.get(model, model)
