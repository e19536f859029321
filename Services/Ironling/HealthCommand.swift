import EventLoop
import Foundation
import HTTP
import ServiceSupport

/// `ironling health`: one question to a service's HTTP port, for health checks of containers and supervisors.
enum HealthCommand {
    static let options = CommandLineOptions(
        program: "ironling health",
        summary: "Asks a service whether it is well: exit status 0 when URL answers with a status of 2xx, else 1.",
        options: [
            CommandLineOption(
                "url", value: "URL", help: "such as http://127.0.0.1:8000/ready, or a service's /metrics",
                fallback: "http://127.0.0.1:8000/ready"),
            CommandLineOption("within", value: "SECONDS", help: "longest wait for the answer", fallback: "2"),
        ])

    static func run(_ values: OptionValues, _ loop: UVLoop) async throws {
        let text = try values.required("url")
        let time = UInt64(try values.number("within", in: 0.01...60) * 1_000_000)
        guard let parts = URLComponents(string: text), parts.scheme == "http", let host = parts.host, !host.isEmpty,
            (1...65535).contains(parts.port ?? 80)
        else { throw UsageError("--url takes http://HOST[:PORT]/PATH, not \"\(text)\"") }
        let client = HTTPClient(loop: loop, host: SocketAddress.withoutBrackets(host), port: parts.port ?? 80)
        defer { client.close() }
        let request = HTTPRequest(
            method: "GET", path: parts.path.isEmpty ? "/" : parts.path, query: parts.query ?? "", headers: [], body: [])
        let status: Int
        do throws(HTTPClientError) {
            let response = try await client.send(request, timeoutMicroseconds: time)
            status = response.status
            response.cancel()
        } catch {
            throw StartError("\(text): \(error)")
        }
        guard (200..<300).contains(status) else { throw StartError("\(text) answers with status \(status)") }
        ServiceProcess.announce("\(text) answers with status \(status)")
    }
}
