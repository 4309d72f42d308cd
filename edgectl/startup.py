"""To be imported first by a program: importing makes hundreds of thousands of objects that all stay, and looking through
them for garbage again and again takes a fifth of the time."""

import gc

gc.set_threshold(100_000, 50, 50)
