import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for `record`, which is a program, too
