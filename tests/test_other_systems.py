"""macOS and Windows: all modules can be imported there, and what stands in for the missing parts of a system works."""

from __future__ import annotations

import pytest

PREPARE = '''
import builtins, importlib, os, pkgutil, select, signal, socket, sys, time, types

OURS = ("eventful_vit", "eventful_vitdet", "detectron2")
MISSING_MODULES = {"fcntl", "grp", "pwd", "resource", "syslog", "termios", "triton", "tty"}
MISSING_NAMES = {
    "os": """O_CLOEXEC O_DIRECTORY O_NOFOLLOW O_NONBLOCK chown fchmod fchown fork forkpty getegid geteuid getgid
        getloadavg getpgid getpriority getsid getuid killpg lchown mkfifo nice openpty posix_fadvise posix_fallocate
        posix_spawn pread pwrite register_at_fork sched_getaffinity sched_setaffinity sched_yield sendfile setpgid
        setpriority setsid setuid statvfs sync sysconf uname wait3 wait4""",
    "select": "epoll poll POLLERR POLLHUP POLLIN POLLOUT",
    "signal": """SIGALRM SIGBUS SIGCHLD SIGCONT SIGHUP SIGKILL SIGPIPE SIGQUIT SIGSTOP SIGTSTP SIGUSR1 SIGUSR2 SIG_BLOCK
        SIG_SETMASK SIG_UNBLOCK alarm getitimer pause pthread_kill pthread_sigmask setitimer sigwait""",
    "socket": "AF_UNIX SO_REUSEPORT",
    "time": "clock_gettime tzset",
}


class Lacking(types.ModuleType):
    """A module of the standard library as another system has it. Other packages still get the real one."""

    def __init__(self, module, names):
        super().__init__(module.__name__)
        self.__dict__.update({name: value for name, value in vars(module).items() if name not in names})


LACKING = {name: Lacking(sys.modules[name], names.split()) for name, names in MISSING_NAMES.items()}
real_import = builtins.__import__


def import_elsewhere(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__", "").partition(".")[0]
    first = name.partition(".")[0]
    if level == 0 and importer in OURS:
        if first in MISSING_MODULES:
            raise ModuleNotFoundError(f"{globals['__name__']} imports {name}", name=first)
        if name in LACKING or first in LACKING and not fromlist:
            return LACKING[first]
    return real_import(name, globals, locals, fromlist, level)


builtins.__import__ = import_elsewhere
'''

IMPORT_ALL = '''
import eventful_vitdet, eventful_vit, detectron2

NEEDS_TRITON = ("eventful_vit.ops.gpu.", "eventful_vitdet.modeling.gpu_detector.", "eventful_vitdet.gpu_report.")
EXTRAS = {"fastapi", "segment_anything", "supervision", "timm", "trackers", "transformers", "uvicorn"}
packages = [eventful_vit, eventful_vitdet] + [detectron2] * ("embedded" in detectron2.__version__)
count, without_triton = 0, 0
for package in packages:
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}.", onerror=lambda name: None):
        if found.name.startswith("eventful_vitdet.embedded"):
            continue
        try:
            importlib.import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name == "triton" and found.name.startswith(NEEDS_TRITON):
                without_triton += 1
            elif error.name not in EXTRAS:
                raise
        count += 1
assert count > 300 and without_triton < 60, (count, without_triton)
'''

WORK = """
import logging, torch
import eventful_vitdet
from eventful_vit import EventfulViT, TopR
from eventful_vit.ops.cpu.build import load_library
from eventful_vitdet import interruption, usable_cores
from eventful_vitdet.cli.console import reaches_somebody
from eventful_vitdet.cli.process_launch import handlers_kept
from eventful_vitdet.config_files import build_cfg
from eventful_vitdet.data.parallel_map import map_in_processes

assert load_library() is None
vit = EventfulViT(img_size=64, patch_size=16, embed_dim=32, depth=2, num_heads=2, policy=TopR(4)).eval()
with torch.inference_mode():
    assert all(torch.isfinite(vit(torch.rand(1, 3, 64, 64))["last_feat"]).all() for _ in range(3))
assert usable_cores.usable_cores() == os.cpu_count()
assert build_cfg("demo/vitdet_tiny.yaml").DATALOADER.NUM_WORKERS <= 8
assert list(map_in_processes(abs, [-1, 2, -3], 2)) == [1, 2, 3]
with interruption.held_back(), interruption.signals_handled(print), handlers_kept():
    assert reaches_somebody()
"""


@pytest.mark.parametrize("program", [IMPORT_ALL, WORK], ids=["import", "work"])
def test_without_what_linux_alone_has(program, forked_programs):
    forked_programs.check(PREPARE + program)
