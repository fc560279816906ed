"""Appends batches for ever, or NUM_BATCHES in each thread, and prints the name of each one that was accepted.

python writer.py WHERE NAME NUM_THREADS BATCH_SIZE [NUM_BATCHES]
"""

import itertools
import os
import sys
import threading

from watchnext.serving.events import LiveEvent
from watchnext.serving.stores.opening import open_store


def main(where: str, name: str, num_threads: str, batch_size: str, num_batches: str | None = None) -> None:
    store = open_store(where)

    def write(thread: int) -> None:
        for number in itertools.count() if num_batches is None else range(int(num_batches)):
            batch = f"{name}.{thread}.{number}"
            store.append(
                [LiveEvent(f"{batch}/{place}", "watch", number, str(place)) for place in range(int(batch_size))]
            )
            os.write(sys.stdout.fileno(), f"{batch}\n".encode())  # in one piece, unlike print

    threads = [threading.Thread(target=write, args=(thread,)) for thread in range(int(num_threads))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
