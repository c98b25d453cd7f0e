"""Everything that deploys and manages functions, wired together; a part of the composition root."""

from serverfull.control_plane.plane import ControlPlane

__all__ = ["ControlPlane"]
