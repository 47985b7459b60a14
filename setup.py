"""What pyproject.toml cannot say: conf/ of the repository is farout/conf of a wheel. All else stands there."""

from setuptools import find_packages, setup

setup(packages=[*find_packages("src"), "farout.conf"], package_dir={"": "src", "farout.conf": "conf"})
