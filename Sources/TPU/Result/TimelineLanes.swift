extension Timeline {
    /// What one engine did when: a row of a picture.
    public struct Lane: Sendable {
        /// The engine, memory and buffer, or link; as in the trace.
        public let name: String
        /// Pieces of work, none of which overlap.
        public let bars: [Bar]
    }

    /// A piece of work.
    public struct Bar: Sendable {
        /// A phase of the program, a semaphore, a unit or a buffer.
        public let title: String
        /// When it was done.
        public let time: Range<Picoseconds>
    }

    /// The lanes of a device in the order of the trace: program, waiting, units, loads by slot, stores, arrivals.
    public func lanes(device: Int) -> [Lane] { lanes { $0.process == device } }

    /// The lanes of all links that moved anything.
    public func linkLanes() -> [Lane] { lanes { $0.process == Self.linkProcess } }

    private func lanes(where isIncluded: (Place) -> Bool) -> [Lane] {
        let places = tracks.map(place)
        var bars: [Int: [Bar]] = [:]
        var names: [Int: String] = [:]
        for span in spans {
            let place = places[span.track]
            guard isIncluded(place) else { continue }
            names[place.thread] = place.name
            bars[place.thread, default: []].append(Bar(title: title(tracks[span.track]), time: span.start..<span.end))
        }
        return bars.sorted { $0.key < $1.key }.map { thread, bars in
            Lane(name: names[thread] ?? "", bars: bars.sorted { $0.time.lowerBound < $1.time.lowerBound })
        }
    }
}
