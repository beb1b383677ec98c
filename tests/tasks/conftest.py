import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for what tests share with other processes
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # and with those of training
