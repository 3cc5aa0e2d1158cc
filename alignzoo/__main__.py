"""`python -m alignzoo`, which torchrun needs."""

import sys

from alignzoo.cli import main

sys.exit(main())
