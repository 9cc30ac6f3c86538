from setuptools import find_packages, setup  # all else: pyproject.toml

setup(
    packages=[
        *find_packages(include=["mmpt*", "mmpt_cli*"]),
        "mmpt.shipped.projects",
        "mmpt.shipped.scripts.slurm",
    ]
)
