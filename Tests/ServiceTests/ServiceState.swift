import Foundation
import Glibc
import Testing

/// The processes of a running set as /proc shows them.
enum ServiceProcesses {
    struct Entry: Hashable {
        let processID: Int32
        /// Name of the executable.
        let name: String
    }

    /// Living children of a process.
    static func children(of parent: Int32) -> [Entry] {
        let ids = (try? FileManager.default.contentsOfDirectory(atPath: "/proc"))?.compactMap { Int32($0) } ?? []
        return ids.compactMap { id in
            guard let status = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8),
                let end = status.lastIndex(of: ")")
            else { return nil }
            let fields = status[status.index(after: end)...].split(separator: " ")
            guard fields.count > 1, fields[0] != "Z", fields[1] == "\(parent)" else { return nil }
            return Entry(processID: id, name: name(id))
        }
    }

    private static func name(_ id: Int32) -> String {
        let line = (try? Data(contentsOf: URL(fileURLWithPath: "/proc/\(id)/cmdline"))) ?? Data()
        let path = String(decoding: line.prefix { $0 != 0 }, as: UTF8.self)
        return path.split(separator: "/").last.map(String.init) ?? ""
    }

    /// A file of /proc, which has no size and comes in parts.
    static func text(_ path: String) -> String {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { return "" }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(descriptor, &part, part.count)
            guard count > 0 else { return String(decoding: bytes, as: UTF8.self) }
            bytes += part[..<count]
        }
    }

    /// True while the process is there and not a zombie.
    static func isAlive(_ id: Int32) -> Bool {
        guard let status = try? String(contentsOfFile: "/proc/\(id)/stat", encoding: .utf8) else { return false }
        return !status.contains(") Z ")
    }

    static func descriptors(of id: Int32) -> Int {
        (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(id)/fd"))?.count ?? -1
    }

    /// Looks at other processes until `condition` holds; false when it does not within `seconds`. Between two looks the
    /// thread, which all tests share, is free.
    static func wait(
        seconds: Double = 20, looking interval: Duration = .milliseconds(20), until condition: () throws -> Bool
    ) async rethrows -> Bool {
        let end = ContinuousClock.now + .seconds(seconds)
        while ContinuousClock.now < end {
            if try condition() { return true }
            try? await Task.sleep(for: interval)
        }
        return try condition()
    }
}

/// What all services of a set hold: descriptors by process, and what their metrics say is in use.
struct ServiceState: Equatable, CustomStringConvertible {
    /// Metrics that must be as before once nothing is going on.
    private static let names = [
        "slots_in_use", "pages_in_use", "requests_running", "requests_waiting", "requests", "streams", "connections",
        "http_connections", "tasks", "calls", "http_tasks",
    ]

    let descriptors: [String: Int]
    let metrics: [String: Double]

    init(_ set: RunningSet) throws {
        let all = ServiceProcesses.children(of: set.processID)
        descriptors = Dictionary(
            all.map { ("\($0.name) \($0.processID)", ServiceProcesses.descriptors(of: $0.processID)) },
            uniquingKeysWith: { first, _ in first })
        var metrics: [String: Double] = [:]
        for port in [set.httpPort] + set.metricsPorts {
            let socket = try #require(RawSocket(port: port))
            socket.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            let text = socket.receive(until: "refused_total 0")
            for line in text.split(whereSeparator: \.isNewline) where line.hasPrefix("ironling_") {
                let parts = line.split(separator: " ")
                let name = parts[0].prefix { $0 != "{" }
                guard parts.count == 2, !name.contains("_simulated_"),
                    Self.names.contains(where: { name.hasSuffix("_\($0)") })
                else { continue }
                metrics["\(port) \(parts[0])"] = Double(parts[1])
            }
        }
        self.metrics = metrics
    }

    var description: String { "\(descriptors) \(metrics)" }

    /// What differs, for the message of a failing test.
    func difference(from other: ServiceState) -> String {
        let left = metrics.merging(descriptors.mapValues(Double.init)) { first, _ in first }
        let right = other.metrics.merging(other.descriptors.mapValues(Double.init)) { first, _ in first }
        return Set(left.keys).union(right.keys).filter { left[$0] != right[$0] }.sorted()
            .map { "\($0): \(left[$0].map { "\($0)" } ?? "none") was \(right[$0].map { "\($0)" } ?? "none")" }
            .joined(separator: ", ")
    }
}
