"""milvus_server.py DIR PORT [key=value ...]: runs Milvus standalone, reachable at 127.0.0.1:PORT only.

Milvus 2.3 binds its ports on every interface and no setting changes that. So the
server gets a network namespace of its own, in which there is nothing but a
loopback interface, and this process passes connections on from 127.0.0.1:PORT.
What takes root or user namespaces, and Linux.

key=value are settings of milvus.yaml, such as proxy.timeTickInterval=20. DIR gets
the data and, once the server says that it is healthy, a file server.pid. SIGTERM
ends both processes, and the death of this one the other.
"""

import asyncio
import ctypes
import fcntl
import os
import pathlib
import re
import signal
import socket
import struct
import sys
import urllib.request

import milvus

INNER_PORT = 19530  # the server's own, for gRPC and HTTP
HEALTH = "http://127.0.0.1:9091/healthz"

# From the kernel's headers sched.h, prctl.h, sockios.h and if.h.
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1
SIOCSIFFLAGS, IFF_UP = 0x8914, 1

libc = ctypes.CDLL(None, use_errno=True)


def enter_namespace():
    """Moves this process into a network namespace with a loopback interface that is up."""
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET | (0 if uid == 0 else CLONE_NEWUSER)) != 0:
        raise OSError(ctypes.get_errno(), "cannot make a network namespace")
    if uid != 0:
        pathlib.Path("/proc/self/setgroups").write_text("deny")
        pathlib.Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        pathlib.Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", IFF_UP))


def write_config(data, settings):
    """Writes DATA/configs/milvus.yaml. The package passes over a setting that it does not know; this does not."""
    config = milvus.MilvusServerConfig(data_dir=str(data))
    for setting in settings:
        key, value = setting.split("=", 1)
        if not re.search(rf"^ *{re.escape(key.rpartition('.')[2])}:", config.template_text, re.MULTILINE):
            raise ValueError(f"Milvus has no setting {key}")
        config.set(key, value)
    config.resolve()


async def copy(reader, writer):
    try:
        while data := await reader.read(1 << 18):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def pass_on(reader, writer):
    """Joins a client's connection with one to the server."""
    try:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", INNER_PORT)
    except OSError:
        writer.close()
        return
    await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))


def healthy():
    try:
        with urllib.request.urlopen(HEALTH, timeout=2) as answer:
            return b"OK" in answer.read()
    except OSError:
        return False


async def start(data, programs):
    """Starts the server, which dies with this process."""
    return await asyncio.create_subprocess_exec(
        programs / "bin" / "milvus", "run", "standalone", cwd=data,
        env=dict(os.environ, DEPLOY_MODE="STANDALONE", METRICS_PORT="9091", LD_LIBRARY_PATH=str(programs / "bin")),
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))


async def announce(data, server):
    while not await asyncio.to_thread(healthy):
        await asyncio.sleep(0.1)
    (data / "server.pid").write_text(f"{server.pid}\n")


async def main():
    data, port = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])
    # The socket stays in the namespace that it was made in.
    front = await asyncio.start_server(pass_on, "127.0.0.1", port)
    enter_namespace()

    write_config(data, sys.argv[3:])
    programs = pathlib.Path(os.environ["MILVUS_PROGRAMS"])

    server = await start(data, programs)
    for sig in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sig, server.terminate)
    announced = asyncio.create_task(announce(data, server))
    status = await server.wait()
    announced.cancel()
    front.close()
    # Connections that are still open are not waited for.
    os._exit(0 if status in (0, -signal.SIGTERM) else 1)


asyncio.run(main())
