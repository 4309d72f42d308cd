"""The child process that holds one loaded model: the only place where llama_cpp is imported."""
