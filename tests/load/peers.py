"""Speed of llama.cpp, ik_llama.cpp and OneGrid on the same file, side by side.

Each program runs in its own process and measures itself: OneGrid with
//services/inference:bench, the peers with their llama-bench (and, for several
sequences or a prompt at a depth, llama-batched-bench and llama-sweep-bench).
A peer's best settings are found for each case first: flash attention on or off,
f16 or q8_0 keys and values, run-time repacking.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

# On a shared machine one run in two may be slow by a third.
TRIES = 2
KV8 = ["-ctk", "q8_0", "-ctv", "q8_0"]


def log(text):
    print(text, file=sys.stderr, flush=True)


def run(command, errors=False):
    """What the command printed; with `errors` also on its error output."""
    # ik_llama.cpp leaves a log where it runs.
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, text=True, capture_output=True, check=False, cwd=folder)
    if done.returncode != 0:
        raise RuntimeError(
            f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout + (done.stderr if errors else "")


class Case:
    """One line of the comparison.

    kind      "pp": a prompt of `tokens`; "tg": so many generated.
    depth     tokens in the cache before.
    batch     sequences that generate together.
    kv8_only  peers hold keys and values in 8 bits, as OneGrid does.
    top_k     how many of the largest logits OneGrid is asked for: 1 is greedy
              sampling, 0 all. The peers' programs always compute all, and do
              not sample.
    """

    def __init__(self, name, kind, tokens, depth=0, batch=1, kv8_only=False, top_k=0):
        self.name, self.kind, self.tokens = name, kind, tokens
        self.depth, self.batch, self.kv8_only = depth, batch, kv8_only
        self.top_k = top_k


class OneGrid:
    name = "onegrid"

    def __init__(self, bench, model, threads, text=None):
        """text: a file of plain text, which is run instead of random tokens."""
        self.bench, self.model = os.path.abspath(bench), os.path.abspath(model)
        self.threads = threads
        self.text = ["--text=" + os.path.abspath(text)] if text else []

    def settings(self, _):
        return [[]]

    def speed(self, case, settings):
        """Tokens per second, and the row that bench prints."""
        prompt, generate = (case.tokens, 0) if case.kind == "pp" else (0, case.tokens)
        report = json.loads(run([
            self.bench, f"--model={self.model}", f"--threads={self.threads}", "--json",
            "--repetitions=1", f"--prompt={prompt}", f"--generate={generate}",
            f"--depth={case.depth}", f"--batch={case.batch}", f"--top_k={case.top_k}",
            *self.text, *settings]))
        row = report["cases"][0]
        return row["median"], row


class LlamaCpp:
    name = "llama.cpp"

    def __init__(self, folder, model, threads):
        self.folder, self.model = os.path.abspath(folder), os.path.abspath(model)
        self.threads = threads

    def program(self, name):
        return os.path.join(self.folder, name)

    def common(self):
        return ["-m", self.model, "-t", str(self.threads), "-ngl", "0"]

    def settings(self, case):
        """Lists of options to try."""
        flash = [["-fa", "on", *KV8]]
        if not case.kv8_only:
            flash += [["-fa", "on"], ["-fa", "off"]]
        return flash

    def speed(self, case, settings):
        if case.batch > 1:
            return self.batched(case, settings), None
        count = ["-p", str(case.tokens), "-n", "0"] if case.kind == "pp" else [
            "-p", "0", "-n", str(case.tokens)]
        said = run([self.program("llama-bench"), *self.common(), *count,
                    "-d", str(case.depth), "-r", "1", "-o", "json", *settings])
        return json.loads(said)[0]["avg_ts"], None

    def batched(self, case, settings):
        """Generated tokens per second over all sequences."""
        context = case.batch * (case.depth + case.tokens)
        said = run([self.program("llama-batched-bench"), *self.common(),
                    "-c", str(context), "-npp", str(case.depth), "-ntg", str(case.tokens),
                    "-npl", str(case.batch), *settings], errors=True)
        return table_value(said, "S_TG t/s", {"B": case.batch})


class IkLlamaCpp(LlamaCpp):
    name = "ik_llama.cpp"

    def settings(self, case):
        tries = [["-fa", "1", *KV8]]
        if not case.kv8_only:
            tries += [["-fa", "1"], ["-fa", "0"]]
        return [[*options, "-rtr", repack] for options in tries for repack in ("0", "1")]

    def speed(self, case, settings):
        if case.batch > 1:
            return self.batched(case, self.plain(settings)), None
        if case.kind == "pp" and case.depth > 0:
            return self.swept(case, self.plain(settings)), None
        if case.kind == "pp":
            count = ["-p", str(case.tokens), "-n", "0"]
        elif case.depth > 0:
            count = ["-p", "0", "-n", "0", "-gp", f"{case.depth},{case.tokens}"]
        else:
            count = ["-p", "0", "-n", str(case.tokens)]
        said = run([self.program("llama-bench"), *self.common(), *count,
                    "-r", "1", "-o", "json", *settings])
        return json.loads(said)[0]["avg_ts"], None

    def plain(self, settings):
        """As its other programs take them: switches without values."""
        flash, repack = settings[1] == "1", settings[-1] == "1"
        return [*(["-fa", "on"] if flash else ["-fa", "off"]), *(KV8 if "-ctk" in settings else []),
                *(["-rtr"] if repack else [])]

    def swept(self, case, settings):
        """Speed of the prompt chunk of `tokens` that begins at the depth."""
        said = run([self.program("llama-sweep-bench"), *self.common(),
                    "-c", str(case.depth + case.tokens), "-ub", str(case.tokens), *settings],
                   errors=True)
        return table_value(said, "S_PP t/s", {"N_KV": case.depth})


def table_value(said, column, where):
    """A number of the table that a program prints, of the row that has `where`."""
    names = None
    for line in said.splitlines():
        if not line.startswith("|"):
            continue
        cells = [cell.strip() for cell in line.strip("| \n").split("|")]
        if names is None:
            names = cells
        elif not re.match(r"^-+", cells[0]):
            row = dict(zip(names, cells))
            if all(float(row[key]) == value for key, value in where.items()):
                return float(row[column])
    raise RuntimeError(f"no row with {where} in:\n{said[-2000:]}")


def best_settings(program, case):
    """Those of the fastest of TRIES runs each. A program may fail with some of them
    and still be compared with the others; if it fails with all, that is an error."""
    tries = program.settings(case)
    if len(tries) == 1:
        return tries[0]
    speeds, errors = {}, []
    for i, settings in enumerate(tries):
        try:
            speeds[i] = max(program.speed(case, settings)[0] for _ in range(TRIES))
        except RuntimeError as error:
            errors.append(error)
            log(f"{case.name}: {program.name} {' '.join(settings)} failed: {error}")
    if not speeds:
        raise errors[-1]
    return tries[max(speeds, key=speeds.get)]


def compare(programs, case, repetitions):
    """Runs the programs in turn; {name: {"speeds", "settings", "rows"}}."""
    result = {}
    for program in programs:
        settings = best_settings(program, case)
        log(f"{case.name}: {program.name} {' '.join(settings)}")
        result[program.name] = {"settings": settings, "speeds": [], "rows": []}
    for _ in range(repetitions):
        for program in programs:
            one = result[program.name]
            speed, row = program.speed(case, one["settings"])
            one["speeds"].append(speed)
            one["rows"].append(row)
    return result


def ratios(result, ours, other):
    """Of each round, so that a slow minute of the machine counts for both."""
    return [a / b for a, b in zip(result[ours]["speeds"], result[other]["speeds"])]


def median(values):
    return statistics.median(values)
