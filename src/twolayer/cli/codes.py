"""The exit codes of all commands, and examples of each."""

from __future__ import annotations

RIGHT = 0
WRONG = 1
FAILED = 2
TOO_LITTLE = 3
INTERRUPTED = 130  # what shells report of a program that Ctrl-C ended

MEANINGS = {
    RIGHT: "done, and nothing was found wrong",
    WRONG: "a variant disagrees with the oracle, a revision is slower, a training diverged",
    FAILED: "the arguments or the machine do not allow it, or something failed",
    TOO_LITTLE: "nothing was verified or timed, or too little to tell",
    INTERRUPTED: "interrupted",
}
# Two of each command, with what they are for.
EXAMPLES = {
    "": {
        "bench --quick": "which variant is the fastest here, and how far from the limit",
        "regress main": "whether a change made one slower",
    },
    "list": {
        "list": "what there is, and what runs here",
        "list --json -": "the same for programs",
    },
    "verify": {
        "verify --variants numba-fused": "one variant, all networks",
        "verify --variant-file mine.py --shape 60000,784,128,10": "your own, on one problem",
    },
    "machine": {
        "machine": "what is seen of this computer",
        "machine --probe --json machine.json": "with what it can do at best",
    },
    "bench": {
        "bench --quick": "a first table in a minute or two",
        "bench --shape 60000,784,128,10 --loss softmax --skip-above 10": "one problem",
    },
    "peers": {
        "peers --quick": "the smaller shapes",
        "peers --shape 1797,64,32,10 --loss softmax --plot peers.svg": "one problem, drawn",
    },
    "updates": {
        "updates --peers": "as the table in docs/training.md",
        "updates --shape 1797,64,32,10 --batches 32 --optimizers adam": "one problem",
    },
    "gpu": {
        "gpu": "three shapes by the device's clock",
        "gpu --tune --shape 60000,784,1024,10": "find the kernels' parameters first",
    },
    "choose": {
        "choose digits --M 64": "the fastest for a problem",
        "choose --shape 60000,784,128,10 --epochs 100": "for few epochs, imports counted",
    },
    "train": {
        "train digits --epochs 200 --step 0.5": "a bundled data set",
        "train data.csv --classes --optimizer adam --batch 32 --save net.npz": "your own",
    },
    "predict": {
        "predict net.npz new.csv --save outputs.csv": "inputs, a row a sample",
        "predict net.npz digits --save outputs.npy": "a bundled data set",
    },
    "regress": {
        "regress main": "the working tree against where it left main",
        "regress HEAD~20 main --bisect": "which commit made it slower",
    },
    "history": {
        "history --variants numba-fused": "a variant over commits and machines",
        "history --shape 1797,65,32,10 --plot history.svg": "one problem, drawn",
    },
    "compare": {
        "compare HEAD~1 HEAD": "two commits, of what was measured at each",
        "compare before.json after.json": "two files of bench --json",
    },
    "machines": {
        "machines": "the machines measured so far",
        "machines --add --page docs/machines.md": "add this one, and write the page",
    },
    "report": {
        "report": "report.html",
        "report mine.html --variants numpy,numba-fused --plots figures": "and its figures",
    },
}


def epilog(command: str) -> str:
    """Examples and exit codes, a paragraph each, for --help."""
    examples = [f"twolayer {line}  # {what}" for line, what in EXAMPLES.get(command, {}).items()]
    told = "; ".join(f"{code} {text}" for code, text in MEANINGS.items())
    return "\n\n".join(["Examples:", *examples, f"Exit codes: {told}."])


def of(wrong: bool, enough: bool, failed: bool = False) -> int:
    """The code of a command that checks variants."""
    return WRONG if wrong else FAILED if failed else RIGHT if enough else TOO_LITTLE
