"""Packaging of tasklift."""

from pathlib import Path

from setuptools import find_packages, setup

ROOMS = ("harness", "scenes", "mtl_heads", "pretrain", "transfer", "slurm")

setup(
    name="tasklift",
    version="0.1.0",
    description="Self-supervised pretraining that lifts to many vision tasks at once",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    # A plain path, so that a folder of the user's that is called "transfer" does not win.
    package_dir={"": "."},
    packages=find_packages(include=[pattern for room in ROOMS for pattern in (room, f"{room}.*")]),
    package_data={"harness": ["*.j2"]},
    install_requires=[
        "accelerate>=1.15",
        'faiss-cpu>=1.9; extra != "gpu"',  # faiss-gpu provides the same module
        "filelock>=3.12",
        "jinja2>=3.1",
        "jsonargparse[signatures]>=4.53",
        "kornia>=0.9",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "pillow>=10.3",
        "pyyaml>=6",
        "safetensors>=0.4.3",
        "scipy>=1.11",
        "timm>=1.0.25",
        "torch>=2.11",
        "torchjd>=0.18",
        "torchmetrics>=1.9",
        "torchvision>=0.26",
        "tqdm>=4.66",
    ],
    extras_require={
        "gpu": ["faiss-gpu>=1.9"],
        "test": ["pytest>=8", "pytest-timeout>=2.3", "pytest-xdist>=3.6", "ruff>=0.6", "submitit>=1.5.4,<1.6"],
        "gpl": ["torchjd[nash_mtl,quadprog_projector]"],  # its own solvers of three rules; ours do without
        "slurm": ["submitit>=1.5.4,<1.6"],
        "track": ["tensorboard>=2.16"],
        "video": ["av"],
        "onnx": ["onnx", "onnxscript", "onnxruntime"],
        "bench": ["lightly>=1.5"],
        "docs": ["mkdocs>=1.6", "mkdocs-material>=9.5"],
    },
)
