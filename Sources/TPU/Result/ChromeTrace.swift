import Plots

extension Timeline {
    /// The timeline in Chrome's trace format, which Perfetto opens: a process per device with a track per engine, and
    /// one process for the links. Times are microseconds, cut to whole nanoseconds, as which Perfetto keeps them: rounded
    /// any other way, neighbours on a track would overlap.
    public func chromeTrace() -> [UInt8] {
        var writer = ChromeTraceWriter()
        for process in Set(tracks.map { place($0).process }).sorted() {
            writer.process(Self.number(process), name: process == Self.linkProcess ? "links" : "device \(process)")
        }
        var seen = Set<Int>()
        for track in tracks {
            let place = place(track)
            guard seen.insert(place.process << 20 | place.thread).inserted else { continue }
            writer.thread(
                Self.number(place.process), Self.number(place.process, place.thread), name: place.name)
        }
        for span in spans {
            let track = tracks[span.track]
            let place = place(track)
            let (start, end) = (span.start / 1000, span.end / 1000)
            writer.span(
                title(track), Self.number(place.process), Self.number(place.process, place.thread), start: start,
                duration: end - start)
        }
        return writer.json
    }

    static let linkProcess = 1 << 14

    /// No thread has the number of another one, of its process, or 0.
    private static func number(_ process: Int) -> Int { process + 1 }
    private static func number(_ process: Int, _ thread: Int) -> Int { 100_000 * number(process) + thread }

    struct Place {
        let process: Int
        let thread: Int
        let name: String
    }

    func place(_ track: Track) -> Place {
        switch track {
        case .phase(let device, _): Place(process: device, thread: 0, name: "program")
        case .stall(let device, _): Place(process: device, thread: 1, name: "waiting")
        case .unit(let device, let unit): Place(process: device, thread: 2 + unit.rawValue, name: "\(unit.name) unit")
        case .load(let device, let buffer, let slot):
            Place(process: device, thread: 100 + 8 * buffer + slot, name: "HBM → \(names.buffers[buffer]) [\(slot)]")
        case .store(let device, let buffer):
            Place(process: device, thread: 10_000 + buffer, name: "→ HBM \(names.buffers[buffer])")
        case .arrival(let device, let buffer):
            Place(process: device, thread: 20_000 + buffer, name: "from peers: \(names.buffers[buffer])")
        case .link(let link): Place(process: Self.linkProcess, thread: link, name: linkTitle(link))
        }
    }

    func title(_ track: Track) -> String {
        switch track {
        case .phase(_, let phase): names.phases[phase]
        case .stall(_, let semaphore): semaphore < 0 ? "barrier" : names.semaphores[semaphore]
        case .unit(_, let unit): unit.name
        case .load(_, let buffer, _), .store(_, let buffer), .arrival(_, let buffer): names.buffers[buffer]
        case .link(let link): linkTitle(link)
        }
    }

    private func linkTitle(_ link: Int) -> String {
        link < names.topology.linkCount
            ? "ICI \(names.topology.linkName(link))" : "die link of device \(link - names.topology.linkCount)"
    }
}
