"""How many operations torch makes within a block."""

from torch.utils._python_dispatch import TorchDispatchMode


class CountingOperations(TorchDispatchMode):
    """Counts operations, of these namespaces only if any are given."""

    def __init__(self, *namespaces):
        super().__init__()
        self.namespaces, self.count = namespaces, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not self.namespaces or func.namespace in self.namespaces
        return func(*args, **(kwargs or {}))
