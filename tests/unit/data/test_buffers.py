from __future__ import annotations

from starling.trainer.data.buffers import Buffers


def test_memory_is_used_again_only_after_the_last_view_of_it_is_gone() -> None:
    buffers = Buffers()
    _, tensor = buffers.take((2, 3))
    view, address = tensor[1:], tensor.data_ptr()
    del tensor, _
    assert buffers.take((2, 3))[1].data_ptr() != address
    del view
    assert buffers.take((2, 3))[1].data_ptr() == address


def test_memory_of_another_shape_is_not_taken() -> None:
    buffers = Buffers()
    buffers.take((2, 3))
    assert buffers.take((3, 2))[1].shape == (3, 2)
