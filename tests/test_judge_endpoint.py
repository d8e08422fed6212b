"""The client against a server that misbehaves in every way that servers do."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from experiments.errors import UserError
from experiments.judge import endpoint
from experiments.judge.endpoint import MAX_BYTES, Endpoint
from experiments.judge.failures import EndpointError, Stopped
from tests.scripted_judge import KEY, Answer, serving

BODY = {"model": "judge", "messages": [{"role": "user", "content": "grade this"}]}
HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Pauses of milliseconds."""
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(endpoint, "MAX_PAUSE", 0.01)


def ask(server, key=KEY, timeout=5.0, retries=2, stop=None):
    there = Endpoint(server.url, key, timeout=timeout, retries=retries)
    return there.request(BODY, stop or threading.Event())


def first(bad: Answer):
    """A script that fails once."""
    return lambda _, number: bad if number == 0 else Answer()


def test_one_good_answer():
    with serving() as server:
        reply = ask(server)
    assert (reply.text, reply.model, reply.finish) == ("Fine. [[7]]", "judge-0613", "stop")
    assert reply.usage == {"prompt_tokens": 100, "completion_tokens": 10}
    assert server.requests == [BODY]
    assert server.headers[0]["Authorization"] == f"Bearer {KEY}"


def test_no_key_no_header():
    with serving() as server:
        ask(server, key=None)
    assert "Authorization" not in server.headers[0]


def test_proxies_are_not_on_the_way_to_this_machine(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    with serving() as server:
        assert ask(server).text


def test_proxies_of_the_environment(monkeypatch):
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:  # which takes what a proxy is sent
        host = server.url.removeprefix("http://").removesuffix("/v1")
        for proxy in (f"http://{host}", host):
            monkeypatch.setenv("http_proxy", proxy)
            there = Endpoint("http://judge.invalid/v1", None, timeout=5, retries=0)
            assert there.request(BODY, threading.Event()).text
    assert [one["Host"] for one in server.headers] == ["judge.invalid"] * 2
    monkeypatch.setenv("http_proxy", "gopher://127.0.0.1:1")
    with pytest.raises(EndpointError, match="gopher") as caught:
        there.request(BODY, threading.Event())
    assert caught.value.final


PASSING = {
    "rate limit": Answer(status=429, raw=b'{"error": {"message": "slow down"}}'),
    "server error": Answer(status=500, raw=b"oops"),
    "gateway": Answer(status=502, raw=b"<html>bad gateway</html>", headers=HTML),
    "dropped": Answer(drop=True),
    "html": Answer(raw=b"<html>welcome</html>", headers=HTML),
    "cut": Answer(raw=b'{"choices": [{"mess'),
    "not utf-8": Answer(raw=b"\xff\xfe"),
    "empty": Answer(raw=b""),
    "no choices": Answer(raw=b'{"choices": []}'),
    "no message": Answer(raw=b'{"choices": [{"text": "x"}]}'),
    "a list": Answer(raw=b"[]"),
    "a list as content": Answer(content=[{"type": "text"}]),
    "error with status 200": Answer(raw=b'{"error": {"message": "upstream is down"}}'),
}


@pytest.mark.parametrize("bad", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(bad):
    with serving(first(bad)) as server:
        assert ask(server).text == "Fine. [[7]]"
        assert len(server.requests) == 2
    with serving(lambda *_: bad) as server:
        with pytest.raises(EndpointError, match="tried 3 times") as caught:
            ask(server)
        assert len(server.requests) == 3 and not caught.value.final


def test_messages_of_what_did_not_pass():
    for name, part in {
        "rate limit": "status 429: slow down",
        "html": "not a chat completion (text/html): '<html>welcome</html>'",
        "error with status 200": "upstream is down",
        "dropped": "disconnected without sending a response",
    }.items():
        with serving(lambda *_, bad=PASSING[name]: bad) as server:
            with pytest.raises(EndpointError) as caught:
                ask(server, retries=0)
        assert part in str(caught.value), name


def test_a_silent_server():
    with serving(first(Answer(delay=2.0))) as server:
        assert ask(server, timeout=0.5).text
    with serving(Answer(delay=2.0)) as server:
        with pytest.raises(EndpointError, match="no answer within 0.1 s"):
            ask(server, timeout=0.1, retries=1)


def test_a_dribbling_server():
    """Every byte comes in time; the answer does not."""
    started = time.monotonic()
    with serving(Answer(dribble=0.05)) as server:
        with pytest.raises(EndpointError, match="no answer within 0.3 s"):
            ask(server, timeout=0.3, retries=0)
    assert time.monotonic() - started < 6


@contextmanager
def dripping(start: bytes, forever: bytes):
    """A server that begins an answer and then sends bytes of it in good time, without end."""
    over = threading.Event()

    def answer(there):
        line, _ = there.accept()
        with line, contextlib.suppress(OSError):
            line.recv(65536)
            line.sendall(start)
            while not over.wait(0.03):
                line.sendall(forever)

    with socket.create_server(("127.0.0.1", 0)) as there:
        thread = threading.Thread(target=answer, args=(there,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{there.getsockname()[1]}"
        finally:
            over.set()
            thread.join(5)


@pytest.mark.parametrize(
    ("start", "forever"),
    [
        (b"HTTP", b"1"),
        (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"X: y\r\n"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 401 No\r\nContent-Length: 100000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b" "),
    ],
    ids=["status", "a header", "headers", "continue", "refusal", "chunks", "body"],
)
def test_a_dripping_server_does_not_outlast_the_timeout(start, forever):
    with dripping(start, forever) as host:
        there = Endpoint(f"http://{host}/v1", KEY, timeout=0.5, retries=0)
        started = time.monotonic()
        with pytest.raises(EndpointError, match="no answer within 0.5 s|status 401"):
            there.request(BODY, threading.Event())
    assert time.monotonic() - started < 3


def test_a_handshake_that_drips():
    with dripping(b"\x16\x03\x03\xff\x00", b"\x00") as host:
        there = Endpoint(f"https://{host}/v1", KEY, timeout=0.5, retries=0)
        started = time.monotonic()
        with pytest.raises(EndpointError):
            there.request(BODY, threading.Event())
    assert time.monotonic() - started < 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_nobody_listens(host):
    with socket.create_server(("127.0.0.1", 0)) as there:
        port = there.getsockname()[1]
    with pytest.raises(EndpointError, match="refused.*tried 2 times"):
        Endpoint(f"http://{host}:{port}", None, timeout=5, retries=1).request(
            BODY, threading.Event()
        )


def test_an_unknown_host():
    there = Endpoint("http://nowhere.invalid", None, timeout=30, retries=1)
    with pytest.raises(EndpointError, match=r"(?i)name.*tried 2 times"):
        there.request(BODY, threading.Event())


def test_an_answer_without_end():
    with dripping(b"HTTP/1.1 200 OK\r\n\r\n", b" " * 2**20) as host:
        there = Endpoint(f"http://{host}/v1", KEY, timeout=60, retries=0)
        with pytest.raises(EndpointError, match=f"an answer of more than {MAX_BYTES} bytes"):
            there.request(BODY, threading.Event())


def test_a_compressed_answer_is_not_unpacked():
    """A small one may unpack to gigabytes."""
    packed = gzip.compress(b" " * 20_000_000)
    with serving(Answer(raw=packed, headers={"Content-Encoding": "gzip"})) as server:
        with pytest.raises(EndpointError, match="not a chat completion"):
            ask(server, retries=0)
        assert server.headers[0]["Accept-Encoding"] == "identity"


def test_half_a_surrogate_pair_is_sent():
    """Language models answer with such texts; clients that send UTF-8 raise at them."""
    body = {"model": "judge", "messages": [{"role": "user", "content": "\ud800"}]}
    with serving() as server:
        Endpoint(server.url, KEY, timeout=5, retries=0).request(body, threading.Event())
        assert server.requests == [body]


def test_a_timeout_beyond_all_clocks():
    with serving() as server:
        assert ask(server, timeout=1e300).text


def test_certificates_are_checked(tmp_path, monkeypatch):
    """One signed by nobody ends the work; one that the system trusts is taken."""
    if not shutil.which("openssl"):
        pytest.skip("makes a certificate with openssl")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout key.pem"
    )
    command += " -addext subjectAltName=DNS:localhost -out certificate.pem"
    subprocess.run(command.split(), cwd=tmp_path, check=True, capture_output=True)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    with serving(tls=tls) as server:
        with pytest.raises(EndpointError, match="certificate") as caught:
            ask(server)
        assert caught.value.final and not server.requests
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        assert ask(server).text and len(server.requests) == 1


def test_retry_after_is_honoured():
    wait = Answer(status=429, headers={"Retry-After": "0.3"})
    with serving(first(wait)) as server:
        assert ask(server).text
        assert server.times[1] - server.times[0] >= 0.3


def test_a_daily_limit_is_not_waited_for():
    with serving(Answer(status=429, headers={"Retry-After": "86400"})) as server:
        with pytest.raises(EndpointError, match="asks to wait 86400 s") as caught:
            ask(server)
        assert caught.value.final and len(server.requests) == 1


def test_an_empty_account_is_not_waited_for():
    raw = b'{"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}'
    with serving(Answer(status=429, raw=raw)) as server:
        with pytest.raises(EndpointError, match="exceeded your quota") as caught:
            ask(server)
        assert caught.value.final and len(server.requests) == 1


def test_pauses_grow(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.04)
    monkeypatch.setattr(endpoint, "MAX_PAUSE", 10)
    with serving(Answer(status=500)) as server:
        with pytest.raises(EndpointError):
            ask(server, retries=3)
        pauses = [late - early for early, late in zip(server.times, server.times[1:], strict=False)]
    for pause, most in zip(pauses, (0.04, 0.08, 0.16), strict=True):
        assert pause >= 0.5 * most


@pytest.mark.parametrize(
    ("status", "final"), [(400, False), (422, False), (401, True), (403, True), (404, True)]
)
def test_refusals_are_not_tried_again(status, final):
    raw = json.dumps({"error": {"message": "no such thing"}}).encode()
    with serving(Answer(status=status, raw=raw)) as server:
        with pytest.raises(EndpointError, match=f"status {status}: no such thing") as caught:
            ask(server)
        assert caught.value.final is final and len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_not_followed(status):
    """The key goes to the server that was named, to no other."""
    with serving() as other:
        moved = Answer(status=status, headers={"Location": other.url + "/chat/completions"})
        with serving(moved) as server:
            with pytest.raises(EndpointError, match="moved to") as caught:
                ask(server)
        assert caught.value.final and not other.requests


@pytest.mark.parametrize("form", ["whole", "beginning"])
def test_a_quoted_key_is_not_repeated(form):
    shown = KEY if form == "whole" else KEY[:8] + "********" + KEY[-4:]
    raw = json.dumps({"error": {"message": f"Incorrect API key provided: {shown}."}}).encode()
    with serving(Answer(status=401, raw=raw)) as server:
        with pytest.raises(EndpointError, match=r"Incorrect API key provided: \*\*\*") as caught:
            ask(server)
    assert KEY[:8] not in str(caught.value)
    with serving(Answer(content=f"your key is {KEY} [[7]]")) as server:
        assert ask(server).text == "your key is *** [[7]]"
    with serving(Answer(raw=f"<p>{KEY}</p>".encode(), headers=HTML)) as server:
        with pytest.raises(EndpointError) as caught:
            ask(server, retries=0)
    assert KEY not in str(caught.value)


ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)


def test_a_key_that_json_spells_otherwise_is_not_repeated():
    reply = (
        '{"choices": [{"message": {"content": "%s [[7]]"}, "finish_reason": "%s"}], "model": "%s"'
    )
    reply += ', "usage": {"%s": 3, "prompt_tokens": 5, "of": {"%s": {"a": 1}}}}'
    with serving(Answer(raw=reply.replace("%s", ESCAPED).encode())) as server:
        found = ask(server)
    assert (found.text, found.finish, found.model) == ("*** [[7]]", "***", "***")
    assert found.usage == {"***": 3, "prompt_tokens": 5, "of": {"***": {"a": 1}}}
    for raw in (f'{{"error": "bad {ESCAPED}"}}', f'{{"error": {{"message": ["{ESCAPED}"]}}}}'):
        with serving(Answer(status=401, raw=raw.encode())) as server:
            with pytest.raises(EndpointError, match=r"\*\*\*") as caught:
                ask(server)
        assert KEY[:8] not in str(caught.value) and ESCAPED[:12] not in str(caught.value)


def test_a_key_in_headers_or_at_the_end_of_what_is_shown_is_not_repeated():
    bad = [
        Answer(status=301, headers={"Location": f"/{KEY}"}),
        Answer(status=401, raw=b"x " * 193 + KEY.encode()),
        Answer(status=401, raw=b"x" * 389 + b" " + KEY.encode()),
        Answer(headers={"Content-Type": f"text/{KEY}"}, raw=b"x"),
    ]
    for answer in bad:
        with serving(answer) as server:
            with pytest.raises(EndpointError) as caught:
                ask(server, retries=0)
        assert KEY[:4].lower() not in str(caught.value).lower()


NESTED = {
    "a list": b"[" * 100_000,
    "objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a digit too many": b"9" * 10_000,
    "choices of nothing": b'{"choices": [null]}',
    "a finish of its own kind": b'{"choices": [[]]}',
}


@pytest.mark.parametrize("raw", NESTED.values(), ids=NESTED)
def test_what_no_parser_reads_is_a_bad_answer_as_any_other(raw):
    with serving(first(Answer(raw=raw))) as server:
        assert ask(server).text == "Fine. [[7]]"
    for status in (200, 500):
        with serving(Answer(status=status, raw=raw)) as server:
            with pytest.raises(EndpointError, match="tried 3 times") as caught:
                ask(server)
        assert not caught.value.final and len(str(caught.value)) < 600


def test_deep_token_counts_are_left_out():
    deep = '{"a":' * 500 + "1" + "}" * 500
    raw = '{"choices": [{"message": {"content": "[[1]]"}}], "usage": {"t": 1, "n": NaN, "d": %s}}'
    with serving(Answer(raw=(raw % deep).encode())) as server:
        usage = ask(server).usage
    assert usage["t"] == 1 and "n" not in usage
    assert json.dumps(usage).count("{") < 10


def test_a_key_in_headers_is_not_logged(caplog):
    """The client's library logs every header of an answer."""
    caplog.set_level(logging.DEBUG)
    with serving(Answer(headers={"X-Key": KEY})) as server:
        ask(server)
    assert KEY not in caplog.text


def test_a_short_key_is_not_repeated_in_messages_but_a_word_of_replies():
    with serving(Answer(status=401, raw=b"bad key EMPTY")) as server:
        with pytest.raises(EndpointError, match=r"bad key \*\*\*"):
            ask(server, key="EMPTY")
    with serving(Answer(content="EMPTY words [[2]]")) as server:
        assert ask(server, key="EMPTY").text == "EMPTY words [[2]]"


def test_a_reply_without_words():
    with serving(Answer(content=None)) as server:
        assert ask(server).text == ""


def test_without_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(UserError, match="needs httpx2: pip install"):
        Endpoint("http://localhost/v1", None, timeout=1, retries=0)


def test_stopping_ends_a_pause(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 60.0)
    monkeypatch.setattr(endpoint, "MAX_PAUSE", 60.0)
    stop = threading.Event()
    with serving(Answer(status=500)) as server:
        threading.Timer(0.2, stop.set).start()
        started = time.monotonic()
        with pytest.raises(Stopped):
            ask(server, stop=stop)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://localhost:8000/v1", True),
        ("http://127.0.0.1", True),
        ("http://[::1]:80/v1", True),
        ("http://127.8.8.8", True),
        ("https://api.openai.com/v1", False),
        ("http://localhost.example.com", False),
        ("http://10.0.0.1", False),
    ],
)
def test_loopback(url, loopback):
    assert endpoint.is_loopback(url) is loopback
