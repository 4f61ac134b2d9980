import threading

import numpy as np
import pytest

from ddl_d2.utils.threads import in_order


@pytest.mark.parametrize("workers", [1, 3])
def test_in_order(workers):
    assert list(in_order(lambda item: item * item, range(500), workers)) == [item * item for item in range(500)]


def test_an_error_stops_the_threads():
    """Of a million items, some of the first chunk are done and nothing of the next."""
    done, lock = [], threading.Lock()

    def one(item: int) -> None:
        if item == 5:
            raise ValueError("stop")
        with lock:
            done.append(item)

    with pytest.raises(ValueError, match="stop"):
        list(in_order(one, range(1_000_000), 2))
    assert max(done) < 128
    assert np.isin(range(5), done).all()
