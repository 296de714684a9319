"""Stores: a folder or an S3 bucket behind one small protocol."""

from starling.infra.store.base import ObjectInfo, Store, Versioned
from starling.infra.store.opening import open_store

__all__ = ["ObjectInfo", "Store", "Versioned", "open_store"]
