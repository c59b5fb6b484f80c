"""What runs in a folder for as long as a ``with`` block does: started, stopped, a temporary folder removed."""

from __future__ import annotations

import shutil
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self


class WithFolder(ABC):
    """Started on entry, stopped on exit, however that comes.

    Args:
        data_dir: the folder; None: a temporary one, named after ``kind``, that is removed on exit.
    """

    def __init__(self, data_dir: Path | None, kind: str) -> None:
        self._temporary = data_dir is None
        self.folder = (data_dir or Path(tempfile.mkdtemp(prefix=f"coldstart-{kind}-"))).absolute()

    @abstractmethod
    def start(self) -> Self: ...

    @abstractmethod
    def stop(self) -> None: ...

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._clean()
            raise

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            self._clean()

    def _clean(self) -> None:
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)
