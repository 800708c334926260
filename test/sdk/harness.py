"""What the Python scripts here share: settings, clients, the upstream's record and the checks' protocol.

A script defines functions with @check and ends with run(). Each check prints "ok NAME", or why
not and then "not ok NAME"; run() prints "done N", so that a script that died is seen.
"""

import asyncio
import contextlib
import inspect
import json
import os
import sys
import time
import traceback
import urllib.error
import urllib.request

import openai

URL = os.environ["BULKHEAD_URL"]
BASE = URL + "/v1"
OPS = os.environ["BULKHEAD_OPS_URL"]
KEY = os.environ["BULKHEAD_KEY"]
TEST_KEY = os.environ["BULKHEAD_TEST_KEY"]
ADMIN_KEY = os.environ["BULKHEAD_ADMIN_KEY"]
OPERATOR_KEY = os.environ["BULKHEAD_OPERATOR_KEY"]
PROJECT = os.environ["BULKHEAD_PROJECT"]
CANARY = os.environ["PROMPT_CANARY"]
UPSTREAM = os.environ.get("UPSTREAM_URL", "")

# Prompts hold a mark that must not be found in any log.
ASK = [{"role": "user", "content": "Say hello. " + CANARY}]

_checks = []


def check(f):
    _checks.append(f)
    return f


def run():
    failed = 0
    for f in _checks:
        name = f.__name__
        try:
            asyncio.run(f()) if inspect.iscoroutinefunction(f) else f()
            print("ok", name)
        except Exception as e:
            failed += 1
            explain(e)
            print("not ok", name)
    print("done", len(_checks), flush=True)
    sys.exit(1 if failed else 0)


def explain(e):
    """Prints the error and the lines of these scripts that led to it, without those of the libraries."""
    here = os.path.dirname(os.path.abspath(__file__))
    for frame in traceback.extract_tb(e.__traceback__):
        if os.path.dirname(frame.filename) == here:
            print(f"{os.path.basename(frame.filename)}:{frame.lineno}: {frame.line}")
    print("".join(traceback.format_exception_only(e)).strip())


def same(got, want, what):
    assert got == want, f"{what}: got {got!r}, want {want!r}"


def within(value, low, high, what):
    assert low <= value <= high, f"{what}: {value} is not within {low} to {high}"


@contextlib.contextmanager
def raises(kind, status=None, **fields):
    """Expects exactly this error class. fields are attributes of the error; a function judges its value."""
    box = Box()
    try:
        yield box
    except openai.OpenAIError as e:
        assert type(e) is kind, f"raised {type(e).__name__} ({e}), want {kind.__name__}"
        if status is not None:
            same(e.status_code, status, "status")
        for name, want in fields.items():
            got = getattr(e, name)
            if callable(want):
                assert want(got), f"{name} is {got!r}"
            else:
                same(got, want, name)
        box.error = e
        return
    raise AssertionError(f"nothing was raised, want {kind.__name__}")


class Box:
    error = None


class Recorder:
    """Keeps the last request and answer that went through a client, as bytes."""

    def __init__(self):
        self.sent = self.body = None

    def request(self, request):
        self.sent = request.content if "multipart" not in request.headers.get("content-type", "") else None

    def response(self, response):
        if "text/event-stream" not in response.headers.get("content-type", ""):
            self.body = response.read()


def client(key=KEY, **options):
    """A client that does not retry, so that every answer is seen. Its record is client.record."""
    record = Recorder()
    http = openai.DefaultHttpxClient(
        event_hooks={"request": [record.request], "response": [record.response]}, trust_env=False)
    options = {"max_retries": 0, "timeout": 30, **options}
    c = openai.OpenAI(base_url=BASE, api_key=key, http_client=http, **options)
    c.record = record
    return c


def async_client(key=KEY, **options):
    options = {"max_retries": 0, "timeout": 30, **options}
    return openai.AsyncOpenAI(
        base_url=BASE, api_key=key, http_client=openai.DefaultAsyncHttpxClient(trust_env=False), **options)


def admin_client(key=ADMIN_KEY):
    return client(key="not-used", admin_api_key=key)


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def fetch(method, url, key=None, body=None):
    """Calls without an SDK. body is bytes, or is sent as JSON. Returns status, headers and the decoded answer."""
    data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method)
    if data is not None:
        request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", "Bearer " + key)
    try:
        with _opener.open(request, timeout=30) as r:
            status, headers, text = r.status, r.headers, r.read()
    except urllib.error.HTTPError as e:
        with e:
            status, headers, text = e.code, e.headers, e.read()
    return status, headers, json.loads(text) if text else None


def page(url):
    """The text of a page that is not JSON."""
    with _opener.open(url, timeout=30) as r:
        return r.read().decode()


def seen(model=None):
    """The requests the upstream got since forget(), all or of one of its models."""
    _, _, all = fetch("GET", UPSTREAM + "/_requests")
    return [r for r in all if model is None or r["model"] == model]


def forget():
    """Makes the upstream forget its record."""
    fetch("DELETE", UPSTREAM + "/_requests")


def last(model):
    """The last request of that model; there must be one."""
    all = seen(model)
    assert all, f"the upstream saw no request for {model}"
    return all[-1]


def eventually(seconds, what, condition):
    """Waits until condition() holds and returns how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - start


def closed_upstream(model):
    """Expects that the upstream sees this model's request closed by its client within 1 s from now."""
    eventually(1, f"the upstream sees {model} closed", lambda: last(model)["closed"])


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
