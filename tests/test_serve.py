"""The server: texts made together equal texts made alone, over a real connection."""

import asyncio
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

from benchmarks.serving import load
from fourierft import AdapterBank, FourierFTConfig, export_compact
from fourierft.serve.decoding import Decoder, TextRequest

NAMES = ["a", "b", "c"]


def make_net(kind):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=64
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=48,
            max_position_embeddings=64,
        )
    config.pad_token_id = config.eos_token_id = config.bos_token_id = 0
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def save_adapters(folder, kind):
    targets = {"gpt2": ["c_attn"], "llama": ["q_proj", "v_proj"]}[kind]
    for seed, name in enumerate(NAMES):
        config = FourierFTConfig(target_modules=targets, n_frequency=40, scaling=300.0)
        torch.manual_seed(seed)
        net = get_peft_model(make_net(kind), config)
        net.save_pretrained(folder / name)


class Collector:
    def __init__(self, tokens, adapter, **options):
        self.tokens, self.reason = [], None
        self.request = TextRequest(tokens, adapter, emit=self.emit, **options)

    def emit(self, token, reason):
        if token is not None:
            self.tokens.append(token)
        self.reason = reason


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_texts_made_together_equal_texts_made_alone(kind, tmp_path):
    """Prompts and texts of many lengths, that join while others are being made."""
    save_adapters(tmp_path, kind)
    net = make_net(kind)
    bank = AdapterBank(net)
    bank.add_folder(tmp_path)
    decoder = Decoder(bank, [0])
    generator = torch.Generator().manual_seed(3)
    asked = []
    for number in range(8):
        length = int(torch.randint(1, 12, (), generator=generator))
        tokens = torch.randint(1, 64, (length,), generator=generator).tolist()
        name = [*NAMES, None][number % 4]
        pinned = None if name is None else bank.pin(name)
        asked.append((name, Collector(tokens, pinned, max_tokens=4 + 3 * number)))
    waiting = [collector.request for _, collector in asked]
    decoder.join([waiting.pop(0)])
    while decoder.requests or waiting:
        if decoder.requests:
            decoder.step()
        if waiting:
            joining, waiting = waiting[:2], waiting[2:]
            decoder.join(joining)
    for name, collector in asked:
        alone = make_net(kind)
        if name is not None:
            alone = PeftModel.from_pretrained(alone, tmp_path / name)
        request = collector.request
        found = alone.generate(
            input_ids=torch.tensor([request.tokens]),
            max_new_tokens=request.max_tokens,
            do_sample=False,
        )[0, len(request.tokens) :].tolist()
        ended = found[-1] == 0
        assert collector.tokens == (found[:-1] if ended else found)
        assert collector.reason == ("stop" if ended else "length")


TEMPLATE = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"


@pytest.fixture(scope="module")
def server(data_folder, tmp_path_factory):
    """Function: path, body -> status and answer of a real server of a real, tiny LLaMA."""
    pytest.importorskip("fastapi")
    uvicorn = pytest.importorskip("uvicorn")
    from fourierft.serve.app import make_app
    from fourierft.serve.service import Service

    source, folder = data_folder / "models/stories260K", tmp_path_factory.mktemp("adapters")
    for seed, name in enumerate([*NAMES, "spare"]):
        config = FourierFTConfig(target_modules=["q_proj", "v_proj"], n_frequency=40, scaling=20.0)
        torch.manual_seed(seed)
        base = transformers.AutoModelForCausalLM.from_pretrained(source)
        get_peft_model(base, config).save_pretrained(folder / name)
    (folder / "damaged.safetensors").write_bytes(b"nothing")
    net = transformers.AutoModelForCausalLM.from_pretrained(source).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    tokenizer.chat_template = TEMPLATE
    bank = AdapterBank(net)
    for name in NAMES:
        bank.add(name, folder / name)
    service = Service(bank, tokenizer, "stories", folder, largest=8)
    config = uvicorn.Config(make_app(service), host="127.0.0.1", port=0, log_level="warning")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]

    def ask(path, body=None, method=None):
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                status, text = answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read().decode()
        return status, json.loads(text) if text.startswith("{") else text

    ask.folder, ask.source, ask.port = folder, source, port
    yield ask
    running.should_exit = True
    thread.join()


def completion(model, prompt="Once upon a time", **options):
    given = {"model": model, "prompt": prompt, "max_tokens": 12, "temperature": 0, **options}
    return "/v1/completions", given


def alone(server, name, prompt="Once upon a time", count=12):
    net = transformers.AutoModelForCausalLM.from_pretrained(server.source)
    if name != "stories":
        net = PeftModel.from_pretrained(net, server.folder / name)
    tokenizer = transformers.AutoTokenizer.from_pretrained(server.source)
    given = tokenizer(prompt, return_tensors="pt")
    found = net.generate(**given, max_new_tokens=count, do_sample=False)[0]
    return tokenizer.decode(found[given["input_ids"].shape[1] :], skip_special_tokens=True)


def test_many_clients_at_once(server):
    """Each gets the text of its adapter alone, whatever it was made with."""
    expected = {name: alone(server, name) for name in ["stories", *NAMES]}
    assert len(set(expected.values())) > 1
    names = list(expected) * 6
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda name: server(*completion(name)), names))
    for name, (status, body) in zip(names, answers, strict=True):
        assert status == 200 and body["choices"][0]["text"] == expected[name]
        assert body["usage"]["completion_tokens"] == 12
        assert body["choices"][0]["finish_reason"] == "length"


def test_chat_streams_and_stops(server):
    messages = [{"role": "user", "content": "Once upon a time"}]
    asked = {"model": "b", "messages": messages, "max_tokens": 12, "temperature": 0}
    _, whole = server("/v1/chat/completions", asked)
    text = whole["choices"][0]["message"]["content"]
    counted = {"stream": True, "stream_options": {"include_usage": True}}
    _, streamed = server("/v1/chat/completions", {**asked, **counted})
    *chunks, last, done = [line[6:] for line in streamed.splitlines() if line]
    assert done == "[DONE]" and json.loads(last)["choices"] == []
    assert json.loads(last)["usage"] == whole["usage"]
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert "".join(choice["delta"]["content"] for choice in choices) == text
    assert choices[-1]["finish_reason"] == "length"
    stop = text[3:6]
    _, cut = server("/v1/chat/completions", {**asked, "stop": stop})
    assert cut["choices"][0]["message"]["content"] == text[: text.find(stop)]
    assert cut["choices"][0]["finish_reason"] == "stop"
    drawn = [
        server("/v1/chat/completions", {**asked, "temperature": 1.5, "top_p": 0.9, "seed": seed})[1]
        for seed in (1, 1, 2)
    ]
    first, again, other = (one["choices"][0]["message"]["content"] for one in drawn)
    assert first == again != other


ASKS_NOTHING = {
    **{"user": "me", "metadata": {"a": "b"}, "store": True, "logprobs": None, "echo": False},
    **{"best_of": 1, "frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}},
    **{"tools": [], "response_format": {"type": "text"}, "stream_options": {}},
}


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        (*completion("nobody"), 404, "no adapter 'nobody'"),
        (*completion("a", n=2), 400, "n: got 2"),
        (*completion("a", temperature=-1), 400, "temperature"),
        (*completion("a", stop=[""], max_tokens=1), 200, None),
        (*completion("a", prompt="word " * 600), 400, "the model reads 512"),
        ("/v1/completions", b"{", 400, "body: not valid JSON (Expecting property name"),
        ("/", None, 404, "found here: /health, /v1/models, /v1/chat/completions"),
        ("/v1/embeddings", {"model": "a"}, 404, "POST /v1/embeddings"),
        ("/v1/completions", None, 405, "GET /v1/completions"),
        (*completion("a", logprobs=0), 400, "logprobs: got 0, not supported"),
        (*completion("a", best_of=3, logit_bias={"5": 1}), 400, "3; logit_bias: got {'5': 1}, not"),
        (*completion("a", tools=[{"type": "function"}], n=2), 400, "n: got 2; tools: got [{"),
        (*completion("a", response_format={"type": "json_object"}), 400, "response_format"),
        (*completion("a", presence_penalty=0.5), 400, "presence_penalty: got 0.5"),
        (*completion("a", top_k=5), 400, "top_k: got 5"),
        (*completion("a", **ASKS_NOTHING, max_tokens=1), 200, None),
        ("/v1/completions", {"model": "a"}, 400, "prompt"),
        ("/v1/completions", b" " * 10_000_000, 413, "1048576 bytes"),
        ("/v1/chat/completions", {"model": "a", "messages": []}, 400, "messages"),
    ],
)
def test_what_cannot_be_done_is_said(server, path, body, status, word):
    found, said = server(path, body)
    assert found == status
    if word is not None:
        assert word in said["error"]["message"]


def test_adapters_come_and_go_while_texts_are_made(server):
    before = alone(server, "a", count=60)
    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(server, *completion("a", max_tokens=60)) for _ in range(4)]
        while "requests_running 4" not in server("/metrics")[1] and not running[-1].done():
            time.sleep(0.001)
        status, about = server("/v1/adapters/a", {"path": "spare"}, "PUT")
        assert status == 200 and about["version"] == 2
        assert {one.result()[1]["choices"][0]["text"] for one in running} == {before}
    assert server(*completion("a"))[1]["choices"][0]["text"] == alone(server, "spare")
    for path, status in (("damaged.safetensors", 400), ("../x", 403), ("/etc", 403), ("\0", 400)):
        assert server("/v1/adapters/b", {"path": path}, "PUT")[0] == status
    assert server("/v1/adapters/b")[1]["version"] == 1
    assert server("/v1/adapters/new", {"path": "b"}, "PUT")[0] == 200
    assert [one["id"] for one in server("/v1/models")[1]["data"]] == ["stories", *NAMES, "new"]
    assert server("/v1/adapters/new", method="DELETE")[0] == 200
    assert server(*completion("new"))[0] == 404
    assert server("/v1/adapters/a", {"path": "a"}, "PUT")[1]["version"] == 3
    found = metrics(server)
    assert found["adapters"] == 3 and found["tokens_total"] > 240
    listed = server("/v1/adapters")[1]["data"]
    assert [(one["name"], one["version"]) for one in listed] == [("a", 3), ("b", 1), ("c", 1)]
    assert found["adapter_bytes"] == sum(one["bytes"] for one in listed)
    assert found["adapter_memory_bytes"] > found["adapter_bytes"]
    assert server("/health")[1] == {"status": "ok"}


def metrics(server):
    lines = [one for one in server("/metrics")[1].splitlines() if not one.startswith("#")]
    return {name.removeprefix("fourierft_"): float(value) for name, value in map(str.split, lines)}


@pytest.mark.parametrize("stream", [False, True])
def test_a_text_whose_client_is_gone_ends(server, stream):
    """Not at its 450 tokens, and nobody else is disturbed."""
    before = metrics(server)["tokens_total"]
    path, body = completion("c", max_tokens=450, stream=stream)
    body = json.dumps(body).encode()
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        while metrics(server)["tokens_total"] == before:
            time.sleep(0.01)
    assert server(*completion("a"))[1]["choices"][0]["text"] == alone(server, "a")
    while metrics(server)["requests_running"]:
        time.sleep(0.01)
    assert metrics(server)["tokens_total"] - before < 300


def test_an_adapter_is_replaced_again_and_again(server):
    """Each text is of the old or of the new one; meanwhile clients leave, and some are refused."""
    for source, name in zip(load.SOURCES, ("a", "b"), strict=True):
        model = PeftModel.from_pretrained(
            transformers.AutoModelForCausalLM.from_pretrained(server.source), server.folder / name
        )
        export_compact(model, server.folder / f"{source}.safetensors")
    (server.folder / "damaged").write_bytes(b"nothing")
    assert server(f"/v1/adapters/{load.REPLACED}", {"path": "a"}, "PUT")[0] == 200
    process = load.ServerProcess.__new__(load.ServerProcess)
    process.port = server.port
    known = {source: load.text_of(process.write(source, 12)) for source in ("a", "b")}
    alone = dict(zip(load.SOURCES, known.values(), strict=True))
    assert alone["first"] != alone["second"]
    disturbance = load.Disturbance(process)
    disturbance.start()
    found = load.load(process, [load.REPLACED] * 24, clients=6, tokens=12)
    while disturbance.replacements < 2:
        time.sleep(0.01)
    disturbance.done.set()
    disturbance.join()
    assert set(found["texts"]) <= set(known.values()) and not disturbance.wrong
    assert not load.compare([load.REPLACED] * 24, found["texts"], alone)
    assert load.compare(["first", load.REPLACED], ["other", "other"], alone) == [
        "first",
        load.REPLACED,
    ]
    assert server(f"/v1/adapters/{load.REPLACED}", method="DELETE")[0] == 200


def test_small_temperatures_and_broken_logits(tmp_path):
    """One request never ends the others."""
    save_adapters(tmp_path, "llama")
    bank = AdapterBank(make_net("llama"))
    bank.add_folder(tmp_path)
    broken = bank.pin("a")
    broken.coefficients.fill_(float("nan"))
    collectors = [
        Collector([5, 6], bank.pin("b"), max_tokens=4, temperature=1e-40),
        Collector([5, 6], bank.pin("b"), max_tokens=4),
        Collector([5, 6], broken, max_tokens=4, temperature=1.0),
        Collector([5, 6], broken, max_tokens=4),
    ]
    decoder = Decoder(bank, [0])
    decoder.join([one.request for one in collectors])
    while decoder.requests:
        decoder.step()
    first, greedy, *lost = collectors
    assert first.tokens == greedy.tokens and first.reason in ("stop", "length")
    assert [(one.reason, one.tokens) for one in lost] == [("error", [])] * 2


def test_characters_of_several_tokens_arrive_whole(data_folder):
    pytest.importorskip("fastapi")
    from fourierft.serve.service import Service

    source = data_folder / "models/stories260K"
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    bank = AdapterBank(transformers.AutoModelForCausalLM.from_pretrained(source))
    service = Service(bank, tokenizer, "stories")
    tokens = tokenizer("hi \U0001f600 ok", add_special_tokens=False)["input_ids"]
    assert len(tokens) > 6

    def submit(request):
        for token in tokens:
            request.emit(token, None)
        request.emit(None, "length")
        return True

    service.scheduler.submit = submit

    async def write():
        return [piece async for piece, _ in service.write(TextRequest([1], None, 9), [])]

    pieces = asyncio.run(write())
    assert "".join(pieces).strip() == "hi \U0001f600 ok" and len(pieces) > 2


@pytest.fixture
def start(monkeypatch):
    """Function: arguments -> the service that the command would run."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    from fourierft.serve.__main__ import main

    served = []
    monkeypatch.setattr("fourierft.serve.app.make_app", served.append)
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: None)

    def start(*arguments):
        main([str(one) for one in arguments])
        return served.pop()

    return start


def test_the_command_freezes_the_base_model(start, data_folder):
    """Only then few adapters are multiplied with as W0 + DeltaW."""
    net = start(data_folder / "models/stories260K").bank.net
    assert not net.training and not any(value.requires_grad for value in net.parameters())


def test_one_bad_adapter_does_not_keep_the_server_from_starting(
    start, data_folder, tmp_path, capsys
):
    source, folder = data_folder / "models/stories260K", tmp_path / "adapters"
    made = {"good": FourierFTConfig, "lora": LoraConfig, "stories": FourierFTConfig}
    for name, kind in made.items():
        net = transformers.AutoModelForCausalLM.from_pretrained(source)
        get_peft_model(net, kind(target_modules=["q_proj"])).save_pretrained(folder / name)
    (folder / "cut.safetensors").write_bytes(b"nothing")
    command = (source, "--adapters", folder, "--name", "stories")
    assert start(*command).bank.names == ["good"]
    said = capsys.readouterr().err
    assert f"skipped: {folder}/lora: an adapter of the type LORA" in said
    assert f"skipped: {folder}/cut.safetensors: not a complete" in said
    assert "skipped: stories: an adapter of the base model's name" in said
    with pytest.raises(SystemExit, match="cut.safetensors.*lora: an adapter of the type LORA"):
        start(*command, "--strict")
    (tmp_path / "none").mkdir()
    (tmp_path / "none/README.md").touch()
    assert not start(source, "--adapters", tmp_path / "none").bank.names


def test_what_the_command_refuses_before_it_reads_the_model(start, tmp_path):
    with pytest.raises(SystemExit) as caught:
        start("/nothere", "--adapters", tmp_path / "gone", "--capacity", 0, "--device", "tpu")
    said = str(caught.value)
    assert said.startswith("fourierft.serve: /nothere: no such folder, and not a hub")
    assert f"--adapters {tmp_path}/gone: no such folder" in said
    assert "--capacity 0: allowed 1 or more" in said and "--device tpu: " in said
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit, match=f"fourierft.serve: {tmp_path}/empty: "):
        start(tmp_path / "empty")
    with pytest.raises(SystemExit, match="nothere: no such folder, nor found on the hub: "):
        start("nothere")
