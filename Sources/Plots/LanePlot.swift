/// Bars on lanes over time: the part that all pictures of timelines share. Time runs to the right.
public struct LanePlot {
    /// Something that took time.
    public struct Bar {
        /// From when to when.
        public var time: Range<Double>
        /// As SVG has it.
        public var colour: String

        /// A bar.
        public init(time: Range<Double>, colour: String) { (self.time, self.colour) = (time, colour) }
    }

    /// Bars that are drawn on one line, later ones over earlier ones where they touch.
    public struct Lane {
        /// Stands to its left.
        public var name: String
        /// What is drawn on it.
        public var bars: [Bar]

        /// A lane.
        public init(name: String, bars: [Bar]) { (self.name, self.bars) = (name, bars) }
    }

    /// The lanes from top to bottom.
    public var lanes: [Lane]
    /// What is shown, in the unit of the bars' times.
    public var time: Range<Double>
    /// Units of the bars' times in a millisecond.
    public var unitsPerMillisecond: Double

    /// A plot of these lanes.
    public init(lanes: [Lane], time: Range<Double>, unitsPerMillisecond: Double) {
        (self.lanes, self.time, self.unitsPerMillisecond) = (lanes, time, unitsPerMillisecond)
    }

    /// Where bars begin and end, and how wide the picture is, in points.
    public static let (left, right, width) = (210.0, 1180.0, 1200.0)
    private static let (laneHeight, laneStep) = (18.0, 26.0)

    /// Points from the first lane to below the axis.
    public var height: Double { Double(lanes.count) * Self.laneStep + 46 }

    private var scale: Double { (Self.right - Self.left) / max(1, time.upperBound - time.lowerBound) }

    /// Draws lanes and axis with the first lane at `top`.
    public func draw(_ drawing: inout SVGDrawing, top: Double) {
        drawAxis(&drawing, top)
        for (row, lane) in lanes.enumerated() { draw(lane, &drawing, at: top + Double(row) * Self.laneStep) }
    }

    /// Points that a legend of so many names takes.
    public static func legendHeight(_ count: Int) -> Double { Double((count + 5) / 6) * 22 }

    /// Names of colours in rows of six.
    public static func drawLegend(_ drawing: inout SVGDrawing, top: Double, _ names: [(name: String, colour: String)]) {
        for (index, entry) in names.enumerated() {
            let (x, y) = (left + Double(index % 6) * 165, top + Double(index / 6) * 22)
            drawing.rectangle(x, y, 13, 13, colour: entry.colour)
            drawing.text(x + 19, y + 11, entry.name, size: 12)
        }
    }

    private func drawAxis(_ drawing: inout SVGDrawing, _ top: Double) {
        let bottom = top + Double(lanes.count) * Self.laneStep
        let milliseconds = (time.upperBound - time.lowerBound) / unitsPerMillisecond
        let step = SVGDrawing.tickStep(milliseconds)
        for index in 0...max(0, Int(milliseconds / step)) {
            let x = Self.left + Double(index) * step * unitsPerMillisecond * scale
            drawing.line(x, top - 6, x, bottom, colour: "#DDDDDD")
            drawing.text(x, bottom + 16, SVGDrawing.tick(Double(index) * step, step), size: 12, anchor: "middle")
        }
        drawing.text((Self.left + Self.right) / 2, bottom + 36, "time (ms)", size: 13, anchor: "middle")
    }

    /// Bars of a colour closer together than half a point are drawn as one.
    private func draw(_ lane: Lane, _ drawing: inout SVGDrawing, at y: Double) {
        drawing.text(Self.left - 10, y + 14, lane.name, size: 12, anchor: "end")
        var pending: (x: Double, end: Double, colour: String)?
        for bar in lane.bars.sorted(by: { $0.time.lowerBound < $1.time.lowerBound }) {
            guard bar.time.upperBound >= time.lowerBound, bar.time.lowerBound <= time.upperBound else { continue }
            let x = Self.left + (max(bar.time.lowerBound, time.lowerBound) - time.lowerBound) * scale
            let end = Self.left + (min(bar.time.upperBound, time.upperBound) - time.lowerBound) * scale
            if let last = pending, last.colour == bar.colour, x - last.end < 0.5 {
                pending = (last.x, max(last.end, end), bar.colour)
                continue
            }
            if let last = pending {
                drawing.rectangle(last.x, y, last.end - last.x, Self.laneHeight, colour: last.colour)
            }
            pending = (x, end, bar.colour)
        }
        if let last = pending { drawing.rectangle(last.x, y, last.end - last.x, Self.laneHeight, colour: last.colour) }
    }
}
