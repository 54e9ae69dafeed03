"""Where tasks run: executors, lazy graphs of tasks, clocks, and what fails."""
