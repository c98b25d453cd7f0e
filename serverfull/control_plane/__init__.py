"""Everything that deploys and manages functions, wired together; a part of the composition root."""

from serverfull.control_plane.plane import MEMORY, ControlPlane

__all__ = ["MEMORY", "ControlPlane"]
