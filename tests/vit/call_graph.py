"""A CUDA graph's place on a CPU."""

import ctypes

import torch
from eventful_vit.ops.tape import recording
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

WAITING = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}


class CallGraph(TorchDispatchMode):
    """A recorder that repeats operations as a CUDA graph does: on the memory that they were recorded with, without the
    Python around them. It keeps nothing of that in memory but results, and notices if something else was freed."""

    def __init__(self):
        super().__init__()
        self.refusal, self.held, self.replays = None, [], 0

    def record(self, run):
        self._calls, self._results, self._outside = [], {}, {}
        with recording(self), self:
            self._result = run()
        # What a CPU's operators refuse, a graph can hold.
        self.refusal = next((f"{call} waits" for call, *_ in self._calls if WAITING & set(call.tags)), None)
        return self._result

    def replay(self):
        self.replays += 1
        assert not torch.jit.is_tracing(), "a graph's result is a constant for who traces"
        assert not any(memory.expired() for memory in self._outside.values()), "a graph reads memory that was freed"
        for call, args, kwargs, results in self._calls:
            for new, known in zip(_tensors(call(*args, **kwargs)), results):
                if new.data_ptr() != known.data_ptr():
                    known.copy_(new)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            read = tree_map_only(torch.Tensor, self._place, (args, kwargs))
            for tensor in _tensors(result):
                place = tensor.untyped_storage().data_ptr()
                if place not in self._outside:
                    self._results[place] = tensor
            self._calls.append((func, *read, [self._place(tensor) for tensor in _tensors(result)]))
        return result

    def _place(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same memory, which this does not keep if it was there before."""
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._results or not storage.nbytes():
            return tensor.detach()
        self._outside.setdefault(place, StorageWeakRef(storage))
        memory = torch.frombuffer((ctypes.c_char * storage.nbytes()).from_address(place), dtype=torch.uint8)
        there = torch.empty(0, dtype=tensor.dtype)
        return there.set_(memory.untyped_storage(), tensor.storage_offset(), tensor.shape, tensor.stride())


def _tensors(result) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
