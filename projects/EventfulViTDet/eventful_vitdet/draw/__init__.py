"""Pictures of what a detector does: boxes, updated tokens and costs on video, and figures of whole runs."""
