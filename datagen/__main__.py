"""Entry point of `python -m datagen`: sets the environment, then runs the command."""

import os
import sys

from datagen.environment import settings

os.environ.update(settings())

if __name__ == "__main__":
    from datagen.cli import main

    sys.exit(main())
