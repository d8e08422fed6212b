"""Tiny architectures of transformers: trained, evaluated, merged, saved and loaded as with PEFT."""

import copy
import warnings

import numpy as np
import peft
import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.tuners.fourierft import FourierFTModel as StockModel
from peft.utils import TRANSFORMERS_MODELS_TO_FOURIERFT_TARGET_MODULES_MAPPING as DEFAULTS
from tiny_architectures import build, inputs

from fourierft.layer import adapted_layers

ARCHITECTURES = """
afmoe aimv2 aimv2_vision_model albert altclip apertus arcee aria_text bart beam beit bert
bert-generation big_bird bigbird_pegasus biogpt bitnet blenderbot blenderbot-small blip bloom
camembert canary canine chinese_clip chinese_clip_vision_model clip clip_text_model
clip_vision_model clipseg cohere cohere2 cohere2_moe cohere_asr convbert convnext cosmos3_edge_text
cpmant ctrl cwm data2vec-audio data2vec-text data2vec-vision deberta deberta-v2 deepseek_v4 deit
diffllama dinov2 dinov2_with_registers dinov3_vit distilbert doge dpr dpt electra
embedding_gemma2_text ernie ernie4_5 eurobert exaone4 exaone_moe falcon falcon_mamba flaubert flava
flex_olmo flint fnet focalnet fsmt gemma gemma2 gemma3_text gemma4_unified_text git glm glm4
glm4_moe glpn gpt-sw3 gpt2 gpt_bigcode gpt_neo gpt_neox gpt_neox_japanese gpt_oss gptj
gradium_phonon_tts granite granite_docling_text granite_docling_vision granite_swa granitemoe
granitemoe_swa granitemoeshared groupvit gte helium higgs_audio_v2 hubert hy_v3 hyperclovax ibert
idefics3_vision ijepa imagegpt inkling2_text inkling_text internlm3 internvl_vision iquestcoder
jais2 jetmoe jina_embeddings_v3 kolibri1 kosmos-2.5 laguna lasr_ctc lasr_encoder layoutlm led lfm2
llama llama4_text longformer longt5 luke m2m_100 mamba mamba2 marian markuplm mbart megatron-bert
mellum metaclip_2 mimo_v2_flash minimax minimax_m2 minimax_m3_vl_text ministral3 mistral mixtral
mlcd mlcd_vision_model modernbert modernbert-decoder molmo2_text moshi mpnet mpt mra mt5
muse_glimmer_text muse_spark_text mvp nanochat nllb-moe nomic_bert nystromformer olmo olmo2 olmo3
olmoe openai-gpt openai_privacy_filter opt owlv2 owlvit parakeet_ctc parakeet_encoder parakeet_rnnt
parakeet_tdt pegasus pegasus_x persimmon phi phi3 phimoe pixio pixtral plbart pocket_tts prophetnet
pvt_v2 qianfan_ocr_vision qwen2 qwen2_moe qwen3 qwen3_moe qwen3_vl_moe_text qwen3_vl_text rembert
roberta roberta-prelayernorm roc_bert roformer rwkv sam3 sam3_lite_text sam3_lite_text_text_model
sam3_vision_model sam3_vit_model sam_hq_vision_model sam_vision_model seed_oss segformer sew sew-d
siglip_vision_model smollm3 smolvlm_vision solar_open splinter squeezebert stablelm starcoder2
swiftformer swin switch_transformers t5 t5gemma tapas tipsv2 tipsv2_text_model tipsv2_vision_model
ultrabert umt5 unispeech unispeech-sat vaultgemma vilt visual_bert vit vit_mae vit_msn vitdet
wav2vec2 wav2vec2-conformer wavlm xglm xlm xlm-roberta xlm-roberta-xl xlnet yolos yoso zaya
""".split()

# PEFT's own tuner trains some adapters there and does not use them: the weights of these layers
# are read past them. Ours are compared with what they merge to.
IGNORED = {"falcon_mamba", "siglip_vision_model", "wavlm"}

# Linear layers of a kind whose output is not W x + b: PEFT's own tuner fails there without saying
# why, ours names them.
UNADAPTABLE = {"deepseek_v4": "o_a_proj", "llama4_text": "router", "phimoe": "router"}


def config(targets, excluded=None):
    values = {"target_modules": targets, "exclude_modules": excluded and [excluded]}
    return peft.FourierFTConfig(n_frequency=4, scaling=10.0, **values)


def run(net, batch):
    """All floating-point outputs as one vector; the same random numbers every time."""
    torch.manual_seed(2)
    np.random.seed(2)
    found = []

    def collect(value):
        if torch.is_tensor(value):
            if value.is_floating_point():
                found.append(value.float().flatten())
        elif isinstance(value, dict):
            for each in value.values():
                collect(each)
        elif isinstance(value, (list, tuple)):
            for each in value:
                collect(each)

    collect(net(**batch))
    output = torch.cat(found)
    output = output.masked_fill(output.isinf(), 0)  # of masks
    assert torch.isfinite(output).all()
    return output


def step(net, batch):
    """One step of training: outputs and the gradient of every coefficient."""
    net.train()
    output = run(net, batch)
    (output * torch.linspace(-1, 1, len(output))).mean().backward()
    gradients = {}
    for name, layer in adapted(net).items():
        c = layer.fourierft_spectrum["default"]
        gradients[name] = torch.zeros_like(c) if c.grad is None else c.grad.clone()
        norm = gradients[name].norm()
        c.data -= 0.1 * gradients[name] / norm if norm > 0 else 0
    return output.detach(), gradients


def adapted(net):
    net = net.get_base_model() if isinstance(net, PeftModel) else net.model
    return {n: m for n, m in net.named_modules() if hasattr(m, "fourierft_spectrum")}


@torch.no_grad()
def evaluate(net, batch):
    return run(net.eval(), batch)


def assert_close(found, expected, what, tolerance=1e-3):
    assert found.shape == expected.shape
    error = (found - expected).norm() / expected.norm().clamp(min=1e-6)
    assert error <= tolerance, f"{what}: {error:.1e}"


def assert_same(trained, result, expected, judged):
    assert_close(trained[0], expected[0], "training")
    assert_close(result, judged, "evaluation")
    assert trained[1].keys() == expected[1].keys()
    scale = max(gradient.norm() for gradient in expected[1].values())
    for name, gradient in expected[1].items():
        assert (trained[1][name] - gradient).norm() <= 2e-3 * scale, f"gradient of {name}"


def compare(net, targets, folder, excluded=None):
    """Train, evaluate, merge, save and load; returns how PEFT's own tuner fared."""
    batch = inputs(net)
    torch.manual_seed(3)
    ours = get_peft_model(copy.deepcopy(net), config(targets, excluded))
    layers = adapted_layers(ours.get_base_model())
    trained = step(ours, batch)
    result = evaluate(ours, batch)

    torch.manual_seed(3)
    try:
        stock = StockModel(copy.deepcopy(net), config(targets, excluded), "default")
        expected = step(stock, batch)
        judged = evaluate(stock, batch)
    except Exception:
        outcome = "fails"
    else:
        outcome = "equal"
        try:
            assert_same(trained, result, expected, judged)
        except AssertionError:
            if not any(layer.weight_is_read for layer in layers.values()):
                raise
            outcome = "ignores"

    ours.save_pretrained(folder)
    loaded = PeftModel.from_pretrained(copy.deepcopy(net), folder)
    loaded.load_state_dict(dict(ours.named_buffers()), strict=False)  # running statistics
    assert torch.equal(evaluate(loaded, batch), result)
    assert_close(run_merged(ours, batch), result, "merged")
    return outcome


def run_merged(net, batch):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return evaluate(net.merge_and_unload(), batch)


@pytest.mark.slow
@pytest.mark.parametrize("model_type", ARCHITECTURES)
@pytest.mark.filterwarnings("ignore")
def test_as_with_peft(model_type, tmp_path):
    net = build(model_type)
    excluded = UNADAPTABLE.get(model_type)
    if excluded:
        with pytest.raises(TypeError, match="is not W x . b, .*: name it in exclude_modules"):
            run(get_peft_model(copy.deepcopy(net), config("all-linear")), inputs(net))
    expected = "ignores" if model_type in IGNORED else "equal"
    assert compare(net, "all-linear", tmp_path / "all", excluded) == expected
    if model_type in DEFAULTS:
        compare(net, None, tmp_path / "default")


def test_enough_architectures():
    assert len(set(ARCHITECTURES)) >= 150
    assert IGNORED | UNADAPTABLE.keys() <= set(ARCHITECTURES)
