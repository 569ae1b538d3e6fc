"""Writing: whole or not at all, one process at a time, and never over what this package did not write.

`replacing` is how every file and folder of this package gets its name. What it promises:

- **Whole.** Contents are written under another name, in a hidden folder beside the target, and are on the disk before
  they get their own name in one step. A crash, a kill or a power cut leaves the old or the new, never a part.
- **Ours.** With `overwrite=True` only what is recognized by its content as the same `Kind` of output is replaced, a
  SavedModel only if nothing else lies in its folder; an empty file or folder may be. Nothing else is ever removed.
- **One at a time.** The hidden folder holds a lock. A second process on the same target ends with `InUseError`.
- **Clean.** What a dead process left there is finished or removed by the next one on the same target.

A symbolic link is followed: what it points to is replaced, and the link stays.
"""

from se_keras.files.kinds import FIGURE, SAVED_MODEL, Kind, json_with, kind_of, table_of, text_of
from se_keras.files.locks import locked
from se_keras.files.moves import signature
from se_keras.files.writing import check_targets, finish_targets, replacing, replacing_together, whole

__all__ = [
    "FIGURE",
    "SAVED_MODEL",
    "Kind",
    "check_targets",
    "finish_targets",
    "json_with",
    "kind_of",
    "locked",
    "replacing",
    "replacing_together",
    "signature",
    "table_of",
    "text_of",
    "whole",
]
