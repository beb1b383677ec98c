"""A shim that counts the file operations of this process and lets one of them fail."""

import errno
import os
import sys
from pathlib import Path

WRITES = {"os.mkdir", "os.symlink", "fsync", "library"}
PLACES = {
    "open": (0,),
    "os.mkdir": (0,),
    "os.symlink": (1,),
    "os.rename": (0, 1),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.chmod": (0,),
}
KILLED = 137


class Faults:
    """Counts operations, and lets one of them fail."""

    def __init__(self, root: str, fatal: int, kind: str) -> None:
        self.root, self.fatal, self.kind = root, fatal, kind
        self.count, self.over, self.busy = 0, False, False

    def install(self) -> None:
        """Watch everything that this process does from here on."""
        sys.addaudithook(self.hook)
        fsync = os.fsync

        def watched_fsync(number: int) -> None:
            if str(Path(f"/proc/self/fd/{number}").readlink()).startswith(self.root):
                self.operation("fsync")
            fsync(number)

        os.fsync = watched_fsync
        self.watch_libraries()

    def watch_libraries(self) -> None:
        """Watch those writers which open files themselves, as far as they are loaded."""
        safetensors, parquet = (
            sys.modules.get(f"{name}") for name in ("safetensors.torch", "pyarrow.parquet")
        )
        if safetensors is None or parquet is None:
            return
        save, table = safetensors.save_file, parquet.write_table

        def watched_save(tensors, path, metadata=None):  # type: ignore[no-untyped-def]
            save(tensors, path, metadata=metadata)
            try:
                self.operation("library", path)
            except OSError as error:
                text = f"Error while serializing: I/O error: {error} (os error {error.errno})"
                raise sys.modules["safetensors"].SafetensorError(text) from None

        def watched_table(table_, path, **options):  # type: ignore[no-untyped-def]
            table(table_, path, **options)
            self.operation("library", path)

        parquet.write_table = watched_table
        for module in list(sys.modules.values()):
            if getattr(module, "save_file", None) is save:
                module.save_file = watched_save

    def hook(self, event: str, arguments: tuple) -> None:
        """An audit hook: what it raises is raised in place of the operation."""
        if event not in PLACES or self.busy:
            return
        paths = [arguments[place] for place in PLACES[event]]
        if not all(isinstance(path, str | bytes) for path in paths):
            return
        full = [os.path.abspath(os.fsdecode(path)) for path in paths]
        by_folder = event == "os.remove" and arguments[-1] != -1
        if by_folder or any(path.startswith(self.root) for path in full):
            writes = event == "open" and bool(arguments[2] & (os.O_WRONLY | os.O_RDWR))
            self.operation("write" if writes else event, full[0])

    def operation(self, event: str, path: str | None = None) -> None:
        """Count one, and fail if it is the one; what was being written is left as half."""
        self.count += 1
        applies = self.kind != "ENOSPC" or event in WRITES | {"write"}
        full = self.over and self.kind == "ENOSPC"
        if not self.fatal or self.count < self.fatal or not applies or (self.over and not full):
            return
        self.over, self.busy = True, True
        if event in ("write", "library") and path is not None and os.path.isfile(path):
            os.truncate(path, os.path.getsize(path) // 2)
        self.busy = False
        if self.kind == "kill":
            os._exit(KILLED)
        number = getattr(errno, self.kind)
        raise OSError(number, os.strerror(number), path)
