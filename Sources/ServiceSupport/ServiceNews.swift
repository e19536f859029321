import EventLoop
import Foundation
import Glibc

/// What a service tells the process that started it: one line each, a word and what belongs to it.
///
/// | line | meaning |
/// |---|---|
/// | `holds OPTION PORT` | the port of that option is bound; before anything that takes long |
/// | `progress TEXT` | what it is at while it starts; without a text, that it is done |
/// | `ready` | it takes calls |
///
/// Lines with other first words are to be passed over, so that a word can be added.
public enum ServiceNews: Sendable, Equatable {
    /// The port of an option is its own.
    case holds(option: String, port: Int)
    /// What it is at, such as "loading 34 %"; empty when nothing any more.
    case progress(String)
    /// It takes calls.
    case ready

    /// Parses a line; nil when it is none of these.
    public init?(line: String) {
        let parts = line.split(separator: " ", maxSplits: 1).map(String.init)
        switch (parts.first, parts.count) {
        case ("holds", 2):
            let words = parts[1].split(separator: " ")
            guard words.count == 2, let port = Int(words[1]), (1...65535).contains(port) else { return nil }
            self = .holds(option: String(words[0]), port: port)
        case ("progress", 1...2): self = .progress(parts.count == 2 ? parts[1] : "")
        case ("ready", 1): self = .ready
        default: return nil
        }
    }

    /// The line, without its end.
    public var line: String {
        switch self {
        case .holds(let option, let port): "holds \(option) \(port)"
        case .progress(let text): text.isEmpty ? "progress" : "progress \(text.replacing("\n", with: " "))"
        case .ready: "ready"
        }
    }
}

/// Where a service's news go: to the descriptor of `--tell`. Without one, progress goes to a terminal on standard
/// error and the rest nowhere. From any thread.
public struct ServiceReport: Sendable {
    private let descriptor: Int32?

    /// What `--tell` asks for.
    public init(_ values: OptionValues) {
        descriptor = values.text("tell").flatMap(Int32.init).flatMap { $0 > 2 ? $0 : nil }
    }

    /// Writes one line. It never waits: a parent that does not read loses what is beyond the pipe's capacity.
    public func tell(_ news: ServiceNews) {
        guard let descriptor else {
            if case .progress(let text) = news { ServiceProcess.progress(text.isEmpty ? nil : text) }
            return
        }
        let bytes = Array((news.line + "\n").utf8)
        _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
        _ = write(descriptor, bytes, bytes.count)
    }
}
