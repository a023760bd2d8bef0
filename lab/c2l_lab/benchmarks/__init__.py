"""The measurements that decide: tasks, metrics, methods, runner, report."""
