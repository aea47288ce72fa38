from .distributed_sampler import TrainingSampler

__all__ = ["TrainingSampler"]
