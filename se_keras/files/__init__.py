"""Writes outputs completely or not at all, one process at a time, and never over files that this package did not write.

Every file and folder of this package is written through `replacing`. It promises:

- **Whole.** An output is written in a hidden folder next to the target, and is on the disk before it gets its name in
  one step. A crash, a kill, or a power failure leaves the old or the new output, never part of one.
- **Ours.** With `overwrite=True`, only an output of the same `Kind` is replaced, recognized by its content: a
  SavedModel only if its folder holds nothing else. An empty file or folder may be replaced. Nothing else is removed.
- **One at a time.** The hidden folder holds a lock. A second process with the same target ends with `InUseError`.
- **Clean.** The next process with the same target finishes or removes what a dead process left there.

A symbolic link is followed: what it points to is replaced, and the link stays.
"""

from se_keras.files.kinds import (
    FIGURE,
    SAVED_MODEL,
    TIMM_LAYOUT,
    Kind,
    json_with,
    kind_of,
    openvino_weights,
    table_of,
    text_of,
)
from se_keras.files.locks import locked
from se_keras.files.moves import signature
from se_keras.files.writing import check_targets, finish_targets, replacing, replacing_together, whole

__all__ = [
    "FIGURE",
    "SAVED_MODEL",
    "TIMM_LAYOUT",
    "Kind",
    "check_targets",
    "finish_targets",
    "json_with",
    "kind_of",
    "locked",
    "openvino_weights",
    "replacing",
    "replacing_together",
    "signature",
    "table_of",
    "text_of",
    "whole",
]
