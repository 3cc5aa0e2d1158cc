"""How one of several processes ends: with its own exit status, whatever threads still hold."""

import os
import subprocess
import sys

import pytest

# The first thing that is registered is done last, with the interpreter's lock in its hands: rank 1
# answers meanwhile, so a thread of gloo waits for that lock when the interpreter's end begins. The
# group lives on, as it does under DDP, FSDP2 and DeepSpeed.
LATE = """
import atexit, ctypes, sys, time
atexit.register(ctypes.PyDLL(None).usleep, 2_000_000)
import torch
from torch import distributed
from alignzoo.engine.parallel.agreement import end

rank, meeting = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method="file://" + meeting, rank=rank, world_size=2)
owner = distributed.group.WORLD
if rank == 1:
    time.sleep(1.0)
    distributed.all_reduce(torch.ones(3))
    end(0)
x = torch.ones(3)
x.seen = True  # Python's own, so letting it go needs the lock
work = distributed.all_reduce(x, async_op=True)
del x, work
atexit.register(print, "tidied up")
end(7)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="usleep is taken from the C library of Linux")
def test_a_process_ends_with_its_own_status_while_a_thread_of_gloo_is_late(tmp_path):
    words = [sys.executable, "-c", LATE]
    how = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": os.environ}
    ranks = [subprocess.Popen([*words, str(n), str(tmp_path / "meet")], **how) for n in (0, 1)]
    said = [rank.communicate(timeout=120) for rank in ranks]
    assert [rank.returncode for rank in ranks] == [7, 0], said
    assert said[0][0] == "tidied up\n"
