import EventLoop
import Foundation
import HTTP
import Observability
import ServiceSupport

/// Asks services on their `--metrics-port`.
final class OperationsClient: Sendable {
    /// Services one command asks at most.
    static let maximumServices = 256
    /// Longest answer: a full ring of spans.
    private static let answerBytes = 64 << 20

    /// Option that names the services.
    static let option = CommandLineOption(
        "services", value: "HOST:PORT[-PORT],…", help: "metrics ports of the services, as ironling up announces them")

    private let loop: UVLoop
    private let clients: [(address: HostPort, client: HTTPClient)]

    init(_ addresses: [HostPort], loop: UVLoop) {
        self.loop = loop
        var limits = HTTPClientLimits()
        limits.bodyBytes = Self.answerBytes
        clients = addresses.map { ($0, HTTPClient(loop: loop, host: $0.host, port: $0.port, limits: limits)) }
    }

    /// The addresses in `HOST:PORT[-PORT],…`.
    static func addresses(_ text: String) throws(UsageError) -> [HostPort] {
        var addresses: [HostPort] = []
        for part in text.split(separator: ",") {
            let ends = part.split(separator: "-", omittingEmptySubsequences: false)
            let dash = part.lastIndex(of: "-")
            let last = dash.flatMap { Int(part[part.index(after: $0)...]) }
            let isRange = ends.count > 1 && last != nil && part[..<(dash ?? part.startIndex)].contains(":")
            let first = HostPort(isRange ? String(part[..<(dash ?? part.endIndex)]) : String(part))
            guard let first, case let end = isRange ? last ?? 0 : first.port, end >= first.port, end < 65536,
                addresses.count + end - first.port < maximumServices
            else {
                throw UsageError(
                    "--services takes HOST:PORT[-PORT],… of \(maximumServices) services at most, not \"\(part)\"")
            }
            addresses += (first.port...end).map { HostPort(host: first.host, port: $0) }
        }
        guard !addresses.isEmpty else { throw UsageError("--services needs at least one HOST:PORT") }
        return addresses
    }

    /// What every service answers to `GET target`, in the order of the addresses, and for how long each was asked.
    func get(
        _ path: String, query: String = "", timeoutMicroseconds: UInt64 = 10_000_000
    ) async throws -> [Answer] {
        try await withThrowingTaskGroup(of: (Int, Answer).self) { group in
            for (index, entry) in clients.enumerated() {
                group.addTask(executorPreference: loop) {
                    (index, try await Self.get(entry, path, query, timeoutMicroseconds))
                }
            }
            var answers: [(Int, Answer)] = []
            for try await answer in group { answers.append(answer) }
            return answers.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    /// An answer; nanoseconds of the monotonic clock.
    struct Answer: Sendable {
        let address: HostPort
        let body: [UInt8]
        let asked: Int64
        let answered: Int64
    }

    private static func get(
        _ entry: (address: HostPort, client: HTTPClient), _ path: String, _ query: String, _ timeout: UInt64
    ) async throws -> Answer {
        let asked = Stopwatch.now
        do {
            let response = try await entry.client.send(
                HTTPRequest(method: "GET", path: path, query: query), timeoutMicroseconds: timeout)
            let body = try await response.body()
            guard response.status == 200 else {
                throw StartError("\(entry.address)\(path): \(ServerProblem.sentence(body))")
            }
            return Answer(address: entry.address, body: body, asked: asked, answered: Stopwatch.now)
        } catch let error as HTTPClientError {
            throw StartError("\(entry.address)\(path): \(error)")
        }
    }

    func close() { for (_, client) in clients { client.close() } }
}
