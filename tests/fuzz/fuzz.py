"""Fuzzes one target with atheris, guided by its coverage, from the seeds and the corpus.

    python -m pip install -r requirements-fuzz.txt
    python -m tests.fuzz.fuzz TARGET FOLDER [libFuzzer's options, such as -max_total_time=600]

Inputs that reach something new are kept in FOLDER/inputs. Each kind of finding is told once, with an input of it in
FOLDER/findings; one that takes too much time or memory ends the run. What has been fixed goes, as small as it can be
made, to tests/fuzz/corpus/TARGET, from where the tests replay it.
"""

import hashlib
import pathlib
import sys
import traceback

import atheris

with atheris.instrument_imports(include=["fsq_repro", "zipfile", "pickle", "pickletools", "json", "PIL", "numpy.lib"]):
    from tests.fuzz import targets
    from tests.fuzz.seeds import seeds

LIMITS = ("-timeout=10", "-rss_limit_mb=2000", "-max_len=4096", "-print_final_stats=1")


def main() -> None:
    name, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    inputs, findings = folder / "inputs", folder / "findings"
    for path in (inputs, findings):
        path.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(seeds(folder)[name]):
        (inputs / f"seed_{i}").write_bytes(content)

    def try_once(content: bytes) -> None:
        try:
            targets.run(name, content)
        except Exception as e:
            frames = [f"{frame.filename}:{frame.lineno}" for frame in traceback.extract_tb(e.__traceback__)]
            kind = hashlib.sha256(f"{type(e).__name__} {frames}".encode()).hexdigest()[:12]
            if not (findings / kind).exists():
                (findings / kind).write_bytes(content)
                print(f"finding {kind}, {len(content)} bytes:\n{''.join(traceback.format_exception(e))}", flush=True)

    committed = pathlib.Path(__file__).parent / "corpus" / name
    folders = [str(inputs), *([str(committed)] if committed.is_dir() else [])]
    atheris.Setup([sys.argv[0], *LIMITS, f"-artifact_prefix={findings}/", *sys.argv[3:], *folders], try_once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
