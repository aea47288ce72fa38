"""Vision Transformers of other libraries, made eventful: a file per library, imported for its models only."""
