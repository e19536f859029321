extension Timeline {
    /// The timeline in Chrome's trace format, which Perfetto opens: a process per device with a track per engine, and
    /// one process for the links. Times are microseconds, cut to whole nanoseconds, as which Perfetto keeps them: rounded
    /// any other way, neighbours on a track would overlap.
    public func chromeTrace() -> [UInt8] {
        var text = "{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n"
        var lines: [String] = []
        for process in Set(tracks.map { place($0).process }).sorted() {
            let name = process == Self.linkProcess ? "links" : "device \(process)"
            lines.append(metadata("process_name", process, 0, name))
            lines.append(
                "{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":\(Self.number(process)),\"args\":"
                    + "{\"sort_index\":\(process)}}"
            )
        }
        var seen = Set<Int>()
        for track in tracks {
            let place = place(track)
            guard seen.insert(place.process << 20 | place.thread).inserted else { continue }
            lines.append(metadata("thread_name", place.process, place.thread, place.name))
            lines.append(
                "{\"ph\":\"M\",\"name\":\"thread_sort_index\",\"pid\":\(Self.number(place.process)),\"tid\":"
                    + "\(Self.number(place.process, place.thread)),\"args\":{\"sort_index\":\(place.thread)}}")
        }
        for span in spans {
            let track = tracks[span.track]
            let place = place(track)
            let (start, end) = (span.start / 1000, span.end / 1000)
            lines.append(
                "{\"ph\":\"X\",\"name\":\"\(Self.escaped(title(track)))\",\"pid\":\(Self.number(place.process)),\"tid\":"
                    + "\(Self.number(place.process, place.thread)),\"ts\":\(Self.microseconds(nanoseconds: start)),\"dur\":"
                    + "\(Self.microseconds(nanoseconds: end - start))}")
        }
        text += lines.joined(separator: ",\n")
        text += "\n]}\n"
        return Array(text.utf8)
    }

    static let linkProcess = 1 << 14

    /// Perfetto takes a thread's number for unique among all processes, 0 for the idle one, and the one that equals its
    /// process's for the main one: ours have nothing of these.
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

    private func metadata(_ kind: String, _ process: Int, _ thread: Int, _ name: String) -> String {
        "{\"ph\":\"M\",\"name\":\"\(kind)\",\"pid\":\(Self.number(process)),\"tid\":"
            + "\(Self.number(process, thread)),\"args\":{\"name\":\"\(Self.escaped(name))\"}}"
    }

    private static func microseconds(nanoseconds time: Int64) -> String {
        let fraction = String(time % 1000)
        return "\(time / 1000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
    }

    private static func escaped(_ text: String) -> String {
        String(text.flatMap { $0 == "\"" || $0 == "\\" ? ["\\", $0] : [$0] })
    }
}
