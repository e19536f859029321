import Observability
import Testing

@Suite struct MetricsTests {
    @Test func theTextIsWhatPrometheusReads() {
        let registry = MetricsRegistry()
        registry.counter("requests_total", help: "Requests\nserved \\.", labels: ["b": "x\"\\\n", "a": "1"]).increment(
            by: 3)
        registry.counter("requests_total", help: "ignored", labels: ["a": "0"]).increment()
        registry.gauge("pages", help: "Pages in use.").set(2.5)
        let histogram = registry.histogram(
            "step_seconds", help: "Steps.", labels: ["s": "x"], bounds: [1, 0.5, .infinity])
        for value in [0.25, 0.5, 0.75, 7, .nan] { histogram.observe(value) }
        #expect(
            registry.prometheusText() == """
                # HELP pages Pages in use.
                # TYPE pages gauge
                pages 2.5
                # HELP requests_total Requests\\nserved \\\\.
                # TYPE requests_total counter
                requests_total{a="0"} 1
                requests_total{a="1",b="x\\"\\\\\\n"} 3
                # HELP step_seconds Steps.
                # TYPE step_seconds histogram
                step_seconds_bucket{s="x",le="0.5"} 2
                step_seconds_bucket{s="x",le="1"} 3
                step_seconds_bucket{s="x",le="+Inf"} 4
                step_seconds_sum{s="x"} 8.5
                step_seconds_count{s="x"} 4
                # HELP ironling_metrics_refused_total Series that were not registered.
                # TYPE ironling_metrics_refused_total counter
                ironling_metrics_refused_total 0

                """)
    }

    @Test func theSameNameAndLabelsAreTheSameInstrument() {
        let registry = MetricsRegistry()
        registry.counter("c", help: "", labels: ["x": "1", "y": "2"]).increment()
        registry.counter("c", help: "", labels: ["y": "2", "x": "1"]).increment()
        #expect(registry.value("c", labels: ["x": "1", "y": "2"]) == 2)
        #expect(registry.value("c") == nil && registry.value("d") == nil)
        registry.gauge("g", help: "").add(2)
        registry.gauge("g", help: "").add(-3)
        #expect(registry.value("g") == -1)
    }

    @Test func namesAreMadeValid() {
        let registry = MetricsRegistry()
        registry.counter("9 lives-é", help: "", labels: ["a:b": "v"]).increment()
        #expect(registry.prometheusText().contains("_9_lives___{a_b=\"v\"} 1\n"))
    }

    @Test func tooManySeriesAndOtherKindsAreRefusedButWork() {
        let registry = MetricsRegistry(maximumSeries: 2)
        for label in 0..<4 { registry.counter("c", help: "", labels: ["l": "\(label)"]).increment() }
        let gauge = registry.gauge("c", help: "", labels: ["l": "0"])
        gauge.set(5)
        #expect(gauge.value == 5)
        #expect(registry.value("c", labels: ["l": "0"]) == 1 && registry.value("c", labels: ["l": "3"]) == nil)
        #expect(registry.prometheusText().hasSuffix("ironling_metrics_refused_total 3\n"))
    }

    @Test func histogramsCountByBoundsAndStayBounded() {
        let histogram = Histogram(bounds: Histogram.exponentialBounds(start: 1, factor: 2, count: 4))
        for value in [0, 1, 1.5, 8, 8.5, .infinity] { histogram.observe(value) }
        #expect(histogram.snapshot.bounds == [1, 2, 4, 8])
        #expect(histogram.snapshot.counts == [2, 1, 0, 1, 2] && histogram.snapshot.count == 6)
        let many = Histogram(bounds: (0..<1000).map { Double($0) })
        #expect(many.snapshot.bounds.count == Histogram.maximumBuckets)
        #expect(Histogram(bounds: []).snapshot.counts == [0])
    }

    @Test func numbersOfManyTasksAddUp() async {
        let registry = MetricsRegistry()
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<8 {
                group.addTask {
                    let counter = registry.counter("c", help: "")
                    let gauge = registry.gauge("g", help: "")
                    let histogram = registry.histogram("h", help: "", bounds: [1])
                    for _ in 0..<1000 {
                        counter.increment()
                        gauge.add(1)
                        histogram.observe(1)
                    }
                }
            }
        }
        #expect(registry.value("c") == 8000 && registry.value("g") == 8000 && registry.value("h") == 8000)
    }
}
