"""Results of a run: printed as they come, then as a table and the closing line that CI reads."""

from dataclasses import dataclass, field


@dataclass
class Result:
    case: str
    outcome: str
    note: str
    seconds: float


@dataclass
class Report:
    results: list[Result] = field(default_factory=list)

    def add(self, case, outcome, note="", seconds=0.0):
        self.results.append(Result(case, outcome, note, seconds))
        print(f"{outcome:7} {case}{': ' if note else ''}{note}", flush=True)

    def count(self, outcome):
        return sum(result.outcome == outcome for result in self.results)

    def close(self):
        """Prints the table and the closing line; true when nothing failed and something passed."""
        width = max((len(result.case) for result in self.results), default=0)
        print()
        print(f"{'case':{width}}  {'result':7}  {'seconds':>7}  note")
        for result in self.results:
            note = result.note.splitlines()[0] if result.note else ""
            print(f"{result.case:{width}}  {result.outcome:7}  {result.seconds:7.1f}  {note}")
        print()
        passed, failed, skipped = (self.count(outcome) for outcome in ("passed", "failed", "skipped"))
        print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
        return failed == 0 and passed > 0
