"""Stores: a folder or an S3 bucket behind one small protocol."""

from starling.infra.store.base import ObjectInfo, Store, Versioned
from starling.infra.store.opening import object_uri, open_store

__all__ = ["ObjectInfo", "Store", "Versioned", "object_uri", "open_store"]
