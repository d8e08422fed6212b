"""Exported adapters: their card, their record without this machine's paths, and the hub."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from peft import get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from experiments.commands import adapter_card, export, hub_upload, predict, trained_run
from experiments.errors import UserError
from experiments.results.record import Record
from fourierft import FourierFTConfig, import_compact


@pytest.fixture(scope="module")
def exported(text_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "moods-adapter"
    assert export.main([str(text_run / "run"), str(out), "--adapter"]) == 0
    return out


def test_card_says_what_it_is(exported, text_run):
    card = (exported / "README.md").read_text()
    _, meta, body = card.split("---\n", 2)
    about = yaml.safe_load(meta)
    assert about["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert about["library_name"] == "peft" and "fourierft" in about["tags"]
    primary = json.loads((text_run / "run/metrics.json").read_text())["metrics"]["primary"]
    low, high = primary["interval"]
    assert f"| validation | accuracy | {primary['value']:.4f} | {low:.4f} to {high:.4f} |" in body
    assert "Scores at epoch 0.4444, the best on the validation rows:" in body
    assert "Classes: 0 glad, 1 sad, 2 so-so" in body
    assert "moods.csv" in body and "72 rows (train)" in body and "held out with seed 0" in body


def test_nothing_names_this_machine(exported, text_run):
    for path in exported.iterdir():
        if path.suffix != ".safetensors":
            assert str(text_run) not in path.read_text(), path.name
    settings = json.loads((exported / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    record = json.loads((exported / "metrics.json").read_text())
    assert record["config"]["task"]["path"] is None
    assert set(record["environment"]) <= set(export.SHARED)


def test_exported_adapter_predicts_as_its_run(exported, text_run, tmp_path):
    rows = pd.read_csv(text_run / "moods.csv")[:9].to_dict("records")
    found = [
        predict.predict(trained_run.open_run(folder, []), rows)
        for folder in (exported, text_run / "run")
    ]
    assert found[0] == found[1] and len(found[0]) == 9


def test_snippet_of_the_card_loads_it(exported, text_run, tmp_path, monkeypatch):
    """Run as it stands, with a folder in place of the hub's name."""
    run = trained_run.open_run(exported, [])
    base = trained_run.build_base(run)
    base.save_pretrained(tmp_path / "base")
    code = adapter_card.make_snippet(run, str(exported))
    assert code in (exported / "README.md").read_text().replace("'moods-adapter'", f"'{exported}'")
    code = code.replace("sentence-transformers/all-MiniLM-L6-v2", str(tmp_path / "base"))
    names = {}
    exec(code, names)
    net = names["net"].eval()
    assert net.config.id2label == {0: "glad", 1: "sad", 2: "so-so"}
    rows = pd.read_csv(text_run / "moods.csv")[:5].to_dict("records")
    task, processor = run.config.task, run.config.model.processor(None)
    prepared, collate = task.prepare_inputs(rows, processor), task.get_collator(processor)
    restored = run.config.method.restore(trained_run.build_base(run), exported, merged=False)
    one, other = (
        predict.compute_logits(found, prepared, collate, 5, "fp32") for found in (net, restored)
    )
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_merged_model_knows_its_classes(text_run, tmp_path):
    assert export.main([str(text_run / "run"), str(tmp_path / "merged")]) == 0
    settings = json.loads((tmp_path / "merged/config.json").read_text())
    assert settings["label2id"] == {"glad": 0, "sad": 1, "so-so": 2}
    assert not (tmp_path / "merged/metrics.json").exists()


def test_altered_adapter_is_not_exported(text_run, tmp_path, capsys):
    import shutil

    shutil.copytree(text_run / "run", tmp_path / "run")
    with (tmp_path / "run/adapter/adapter_model.safetensors").open("ab") as file:
        file.write(b"x")
    assert export.main([str(tmp_path / "run"), str(tmp_path / "out"), "--adapter"]) == 1
    assert "altered since" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["model=roberta_base", "task=cola", "method=lora"], "from peft import PeftModel"),
        (["model=roberta_base", "task=cola", "method.basis=dct"], "import fourierft  # needed"),
        (["model=roberta_base", "task=stsb"], "num_labels=1"),
        (["model=vit_base", "task=dtd"], "AutoModelForImageClassification"),
        (["model=llama2_7b", "task=alpaca"], "AutoModelForCausalLM"),
        (["model=gpt2_medium", "task=e2e"], "GPT-2's q, k and v are split"),
        (["model=roberta_base", "task=cola", "method=full"], "python -m experiments.export"),
        (["model=smollm2_135m", "task=alpaca"], "FOLDER of smollm2_135m"),
    ],
)
def test_ways_to_load_by_model_and_method(overrides, said, compose):
    config = compose(overrides)
    record = Record(
        run={"recipe": "paper"},
        config={},
        parameters={"adapter": 7, "head": 3},
        metrics=None,
        time={},
        memory={},
        environment={"rows": {"train": 10}},
    )
    run = SimpleNamespace(config=config, record=record)
    card = adapter_card.make_card(run, "me/adapter")
    assert said in card and "10 rows (train)" in card
    assert f"10 trained parameters (7 of `{config.method.name}`, 3 of the head)" in card


@pytest.mark.parametrize("form", ["template", "chat"])
def test_card_of_a_language_model_puts_prompts_as_in_training(
    form, compose, data_folder, tmp_path, capsys
):
    """The call runs as it stands, on folders in place of the hub's names."""
    source = data_folder / "models/stories260K"
    net = AutoModelForCausalLM.from_pretrained(source)
    net.save_pretrained(tmp_path / "base")
    tokenizer = AutoTokenizer.from_pretrained(source)
    if form == "chat":
        tokenizer.chat_template = "{% for one in messages %}<{{ one['content'] }}>{% endfor %}"
    tokenizer.save_pretrained(tmp_path / "base")
    settings = FourierFTConfig(target_modules=["q_proj"], n_frequency=9, task_type="CAUSAL_LM")
    get_peft_model(net, settings).save_pretrained(tmp_path / "adapter")
    (tmp_path / "rows.jsonl").write_text(2 * '{"prompt": "p", "answer": "a"}\n')
    given = [
        "model=smollm2_135m",
        "task=generate",
        f"task.path={tmp_path}/rows.jsonl",
        "task.template='{prompt} ='",
    ]
    config = compose([*given, "task.max_new_tokens=3"])
    run = SimpleNamespace(
        config=config,
        record=Record(
            run={},
            config={},
            parameters={"adapter": 7},
            metrics=None,
            time={},
            memory={},
            environment={},
        ),
    )
    card = adapter_card.make_card(run, str(tmp_path / "adapter"))
    assert "if it has one, else as `'{prompt} ='`, the answer right after it" in card
    code = adapter_card.make_snippet(run, str(tmp_path / "adapter"))
    assert code in card
    names = {}
    exec(code.replace("FOLDER of smollm2_135m", str(tmp_path / "base")), names)
    (trained,) = config.task.prepare_inputs([{"prompt": names["prompt"]}], tokenizer)
    assert names["given"]["input_ids"][0].tolist() == trained["input_ids"]
    assert len(names["answer"]) <= 3 and capsys.readouterr().out


def test_one_file_with_adapter_and_head(text_run, tmp_path, capsys):
    """It loads without the project, in two bytes a coefficient."""
    out = tmp_path / "adapters/moods.safetensors"
    assert export.main([str(text_run / "run"), str(out), "--compact", "float16"]) == 0
    assert str(text_run).encode() not in out.read_bytes()
    run = trained_run.open_run(text_run / "run", [])
    net = import_compact(trained_run.build_base(run), out).eval()
    restored = run.config.method.restore(trained_run.build_base(run), run.adapter, merged=False)
    ids = torch.arange(3, 11)[None]
    with torch.no_grad():
        found, expected = net(input_ids=ids).logits, restored.eval()(input_ids=ids).logits
    assert (found - expected).abs().max() < 1e-3
    capsys.readouterr()
    assert export.main([str(text_run / "run"), str(tmp_path / "x"), "--compact", "float32"]) == 1
    assert (
        "x: --compact writes one file, whose name ends in .safetensors" in capsys.readouterr().err
    )


def test_table_of_a_truncation_has_the_rank_that_is_written(text_run, tmp_path, capsys, recwarn):
    asked = [str(text_run / "run"), str(tmp_path / "out"), "--lora", "--rank", "4"]
    assert export.main(asked) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split() == ["r=4", "r=8", "r=16", "r=32", "r=64"]
    assert "experiments.export: export_lora: rank 4 loses" in said.err
    assert not [one for one in recwarn if "export_lora" in str(one.message)]


@pytest.fixture
def hub(monkeypatch):
    """A hub that takes uploads; yields what was sent to it, by address."""
    import huggingface_hub.constants as constants

    sent = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            sent[self.path] = body
            answer = {"url": f"{constants.ENDPOINT}/me/adapter", "id": "me/adapter"}
            if "preupload" in self.path:
                files = json.loads(body)["files"]
                answer = {
                    "files": [
                        {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for one in files
                    ]
                }
            elif "/commit/" in self.path:
                answer = {
                    "success": True,
                    "commitOid": "0" * 40,
                    "commitUrl": f"{constants.ENDPOINT}/me/adapter/commit/0",
                }
            content = json.dumps(answer).encode()
            self.send_response(sent.get("status", 200))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield sent
    server.shutdown()
    server.server_close()


def test_upload_to_a_hub(exported, hub):
    address = hub_upload.push_to_hub(exported, "me/adapter", private=True)
    assert address
    made = next(json.loads(body) for path, body in hub.items() if "create" in path)
    assert made["name"] == "adapter" and made.get("visibility", "private") == "private"
    commit = next(body for path, body in hub.items() if "/commit/" in path)
    lines = [json.loads(line) for line in commit.splitlines()]
    files = {line["value"]["path"] for line in lines if line["key"] == "file"}
    assert files == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "metrics.json",
    }


@pytest.mark.parametrize(("status", "login"), [(401, True), (403, True), (400, False)])
def test_hub_that_refuses(exported, hub, status, login):
    """The upload can be repeated without the export; a login is asked for where it helps."""
    hub["status"] = status
    with pytest.raises(UserError, match="--push-to-hub me/adapter") as caught:
        hub_upload.push_to_hub(exported, "me/adapter", private=True)
    assert f"written all the same: {exported}" in caught.value.problems
    assert caught.value.problems[-1].endswith(f"hf upload me/adapter {exported} --private")
    assert ("hf auth login" in str(caught.value)) == login


def test_hub_that_is_not_there(exported, monkeypatch):
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="--push-to-hub me/adapter") as caught:
        hub_upload.push_to_hub(exported, "me/adapter", private=False)
    assert "login" not in str(caught.value)


def test_uploads_that_cannot_succeed_export_nothing(text_run, tmp_path, capsys):
    """Offline, as tests are, or a name that the hub does not take."""
    for name, said in (
        ("me/adapter", "HF_HUB_OFFLINE is set"),
        ("badname", "expected OWNER/NAME"),
        ("me/not a name", "Repo id must use alphanumeric"),
    ):
        asked = [str(text_run / "run"), str(tmp_path / "out"), "--adapter", "--push-to-hub", name]
        assert export.main(asked) == 1
        text = capsys.readouterr().err
        assert text.startswith(f"experiments.export: --push-to-hub {name}: nothing exported")
        assert said in text and not (tmp_path / "out").exists()
