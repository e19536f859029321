import Foundation
import Plots
import Testing

struct PlotsTests {
    private func events(_ writer: ChromeTraceWriter) throws -> [[String: Any]] {
        let object = try JSONSerialization.jsonObject(with: Data(writer.json)) as? [String: Any]
        return try #require(object?["traceEvents"] as? [[String: Any]])
    }

    @Test func aTraceSaysWhatItWasTold() throws {
        var writer = ChromeTraceWriter(unit: "ms")
        writer.process(3, name: "a \"process\"")
        writer.thread(3, 301, name: "back\\slash\n")
        writer.span("work", 3, 301, start: 1_234_567, duration: 89, ["rows": .number(-5), "of": .text("\u{1}")])
        writer.counter("rows", 3, time: 2_000, ["prefill": 4])
        writer.arrow(7, from: (3, 301, 1000), to: (3, 301, 2000))
        let events = try events(writer)
        #expect(events.map { $0["ph"] as? String } == ["M", "M", "M", "M", "X", "C", "s", "f"])
        let names = events.prefix(4).compactMap { ($0["args"] as? [String: Any])?["name"] as? String }
        #expect(names == ["a \"process\"", "back\\slash\n"])
        #expect(events[4]["ts"] as? Double == 1234.567 && events[4]["dur"] as? Double == 0.089)
        let arguments = try #require(events[4]["args"] as? [String: Any])
        #expect(arguments["rows"] as? Int == -5 && arguments["of"] as? String == "\u{1}")
        #expect((events[5]["args"] as? [String: Int]) == ["prefill": 4])
        #expect(String(decoding: writer.json, as: UTF8.self).hasPrefix("{\"displayTimeUnit\":\"ms\""))
    }

    @Test func anyTextStaysWithinItsElement() {
        #expect(
            SVG.element("text", ["x": "1", "class": "a\"b"], text: "<&>")
                == "<text x=\"1\" class=\"a&quot;b\">&lt;&amp;&gt;</text>")
        #expect(SVG.element("rect", [:]) == "<rect/>")
        var drawing = SVGDrawing(width: 10, height: 5)
        drawing.text(1, 2, "</svg>", size: 12)
        drawing.rectangle(0, 0, 1.25, 2, colour: "#000000")
        #expect(drawing.document().components(separatedBy: "</svg>").count == 2)
        #expect(
            drawing.document().contains("<rect x=\"0.0\" y=\"0.0\" width=\"1.2\" height=\"2.0\" fill=\"#000000\"/>"))
    }

    @Test func aChartHasRoundTicksAndAllItsSeries() {
        let chart = Chart(
            title: "a < b", xLabel: "x", yLabel: "y",
            series: [
                .init(name: "one", color: "red", style: .line, points: [(0, 0), (10, 90)]),
                .init(name: "two", color: "blue", style: .bars, points: [(1, 5)], barWidth: 2),
                .init(name: "three", color: "green", style: .points, points: [(2, 6), (3, 7)]),
            ], marks: [.init(x: 5, name: "half")])
        let svg = chart.svg
        for text in ["a &lt; b", ">100</text>", ">80</text>", "polyline", "half", ">one<", ">two<", ">three<"] {
            #expect(svg.contains(text), "\(text)")
        }
        #expect(svg.components(separatedBy: "<circle").count == 3)
    }
}
