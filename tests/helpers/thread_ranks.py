"""Ranks that are threads, for what they do between exchanges; the exchange itself is not tried."""

import pickle
import threading

from alignzoo.engine.parallel.exchange import Crew


class Threads(Crew):
    """Ranks that are threads: they meet at a barrier and lay down what they give."""

    def __init__(self, rank, size, table, barrier):
        super().__init__(rank, size)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "barrier", barrier)

    def gathered(self, value):
        self.barrier.wait(20)
        self.table[self.rank] = pickle.dumps(value)
        self.barrier.wait(20)
        found = [pickle.loads(given) for given in self.table]
        self.barrier.wait(20)
        return found


def on_ranks(size, work):
    """What `work(crew)` gives on every rank."""
    table, barrier, found = [None] * size, threading.Barrier(size), [None] * size

    def one(rank):
        found[rank] = work(Threads(rank, size, table, barrier))

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found
