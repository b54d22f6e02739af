"""Small networks of the papers that timm does not have, one family to a file.

Each registers its variants with timm, so that they are taken by name wherever a timm backbone is, as a
pyramid of features (``features_only``) or as a whole network, and their weights are saved and loaded
like any other's. ``pretrain/main.py`` knows them with ``--plugin mtl_heads/networks/__init__.py``.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

# By full names, so that the file is also good as a plugin; nothing is listed: a family is a file.
for _module in pkgutil.iter_modules([str(Path(__file__).parent)]):
    importlib.import_module(f"mtl_heads.networks.{_module.name}")
