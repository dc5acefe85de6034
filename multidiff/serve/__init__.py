"""Models behind a service: ``multidiff serve`` (extra ``serve``)."""

from multidiff.serve.app import create_app
from multidiff.serve.settings import ServerSettings

__all__ = ["ServerSettings", "create_app"]
