"""From what a worker says to the bodies of answers, whole and streamed; a module for each endpoint."""
