"""Deployment files: how the services run on machines other than this one."""
