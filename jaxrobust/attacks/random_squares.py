"""Square attack."""

from typing import Any

RandomSquares: Any = None
